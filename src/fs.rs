//! `std::fs` with the path in every error, and writes that are whole or absent.

mod digest;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::libc;

pub use digest::{Digest, Hashed, digest};

/// An I/O error that says what was being done to which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}", short(path).display())]
pub struct PathError {
    /// What was being done, as a verb: `read`, `create`, `rename`.
    pub action: &'static str,
    /// The path it was done to.
    pub path: PathBuf,
    /// What the system answered.
    #[source]
    pub source: io::Error,
}

/// A result whose error names its path.
pub type Result<T> = std::result::Result<T, PathError>;

fn at<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| PathError { action, path: path.to_owned(), source })
}

/// A path as messages show it: from the current folder, where that is shorter.
pub fn short(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    let Ok(here) = std::env::current_dir() else { return path.to_owned() };
    from(&here, path).unwrap_or_else(|| path.to_owned())
}

/// How one gets to a path from a folder; nothing where both are not absolute, share no folder, or the path itself is shorter.
fn from(folder: &Path, path: &Path) -> Option<PathBuf> {
    let common = folder.components().zip(path.components()).take_while(|(left, right)| left == right).count();
    if !folder.is_absolute() || common < 2 {
        return None;
    }
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(path.components().skip(common)).collect();
    let relative = if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative };
    (relative.as_os_str().len() < path.as_os_str().len()).then_some(relative)
}

/// Reads a whole file.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    at("read", path.as_ref(), fs::read(path.as_ref()))
}

/// Reads a whole file as UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> Result<String> {
    at("read", path.as_ref(), fs::read_to_string(path.as_ref()))
}

/// Opens a file for reading.
pub fn open(path: impl AsRef<Path>) -> Result<File> {
    at("open", path.as_ref(), File::open(path.as_ref()))
}

/// Creates a file, or empties it where it exists.
pub fn create(path: impl AsRef<Path>) -> Result<File> {
    at("create", path.as_ref(), File::create(path.as_ref()))
}

/// Creates a folder and its parents.
pub fn create_dir_all(path: impl AsRef<Path>) -> Result<()> {
    at("create", path.as_ref(), fs::create_dir_all(path.as_ref()))
}

/// Removes a folder and what is in it; an absent one is no error.
pub fn remove_dir_all(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A program may have made folders that nobody may write to, such as caches of packages.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && make_writable(path).is_ok() => {
            at("remove", path, fs::remove_dir_all(path))
        }
        other => at("remove", path, other),
    }
}

/// Lets the owner write to a folder and to all folders below it.
fn make_writable(folder: &Path) -> io::Result<()> {
    let mut permissions = fs::symlink_metadata(folder)?.permissions();
    permissions.set_mode(permissions.mode() | 0o700);
    fs::set_permissions(folder, permissions)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file; an absent one is no error.
pub fn remove_file(path: impl AsRef<Path>) -> Result<()> {
    match fs::remove_file(path.as_ref()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => at("remove", path.as_ref(), other),
    }
}

/// Renames a file or folder.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    at("rename", from.as_ref(), fs::rename(from.as_ref(), to.as_ref()))
}

/// Copies a file's bytes.
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<u64> {
    at("copy", from.as_ref(), fs::copy(from.as_ref(), to.as_ref()))
}

/// The names in a folder, sorted, so that nothing depends on the file system's order.
pub fn list(path: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let path = path.as_ref();
    let entries = at("list", path, fs::read_dir(path))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(at("list", path, entry)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Writes a whole file beside its place, syncs it, and renames it there: a reader sees the old bytes or the new.
pub fn write_whole(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_in_parts(path, |write| write(bytes))
}

/// As [`write_whole`], for bytes that come in parts: `parts` hands them to the function that it gets. Where it fails, the place is as it was.
pub fn write_in_parts<E: From<PathError>>(
    path: impl AsRef<Path>,
    parts: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let path = path.as_ref();
    let aside = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = Hashed::create(&aside)?;
    let written = parts(&mut |bytes| at("write", &aside, file.write_all(bytes)));
    let digest = match written.and_then(|()| Ok(file.finish()?)) {
        Ok(digest) => digest,
        Err(error) => {
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
    };
    rename(&aside, path)?;
    // The new name counts as a change of the file.
    Ok(digest::renamed(path, &digest)?)
}

/// How many bytes a disk has left; nothing where the system does not say.
pub fn room(path: impl AsRef<Path>) -> Option<u64> {
    let path = CString::new(path.as_ref().as_os_str().as_bytes()).ok()?;
    let mut disk = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a text that ends with null, and a buffer that lives on this stack and is read only when it was written.
    let disk = unsafe { (libc::statvfs(path.as_ptr(), disk.as_mut_ptr()) == 0).then(|| disk.assume_init()) }?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// Asks the system to make a file's bytes durable.
pub fn sync_file(path: impl AsRef<Path>) -> Result<()> {
    let file = open(path.as_ref())?;
    at("sync", path.as_ref(), file.sync_all())
}

/// Asks the system to make a folder's entries durable.
pub fn sync_dir(path: impl AsRef<Path>) -> Result<()> {
    let folder = open(path.as_ref())?;
    at("sync", path.as_ref(), folder.sync_all())
}
