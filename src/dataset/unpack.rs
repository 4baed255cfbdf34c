//! The listed files out of an archive or folder, checked while they are written.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;
use zip::result::ZipError;

use super::Watch;
use super::manifest::{Listed, is_plain};
use crate::fs;

/// How large things may get before they count as an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of an archive.
    pub entries: usize,
    /// Bytes of all listed files together.
    pub total: u64,
    /// Bytes of an entry for each byte that it takes in the archive.
    pub ratio: u64,
}

impl Default for Limits {
    /// 100,000 entries, 64 GiB, 1 to 200: MultiWOZ's JSON packs 1 to 23.
    fn default() -> Self {
        Self { entries: 100_000, total: 64 << 30, ratio: 200 }
    }
}

/// Entries below this size may pack as well as they like: a thousand spaces harm nobody.
const SMALL: u64 = 1 << 20;

/// Which check a source failed.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A file of this machine could not be read or written.
    #[error(transparent)]
    Path(#[from] fs::PathError),
    /// The bytes are not a whole zip archive.
    #[error("damaged archive: {0}")]
    Archive(String),
    /// It is a file of its own, and not the one that is listed.
    #[error("`{name}` is neither a folder nor a zip archive")]
    Neither { name: String },
    /// A listed file is not there.
    #[error("`{path}` is missing")]
    Missing { path: String },
    /// An entry's name leads out of the folder.
    #[error("the archive holds `{name}`, a path that leads elsewhere")]
    Traversal { name: String },
    /// Two entries bear the same name.
    #[error("the archive holds two entries of the same name")]
    Twice,
    /// A listed file is a link, a folder, or locked with a password.
    #[error("`{path}` is {what}, expected a plain file")]
    NotPlain { path: String, what: &'static str },
    /// The archive has too many entries.
    #[error("the archive holds {found} entries, the limit is {limit}")]
    Entries { found: usize, limit: usize },
    /// The listed files are too large together.
    #[error("the listed files have {found} bytes together, the limit is {limit}")]
    Total { found: u64, limit: u64 },
    /// An entry packs too well.
    #[error("`{path}` unpacks {packed} bytes to {bytes}, more than 1 to {limit}")]
    Ratio { path: String, packed: u64, bytes: u64, limit: u64 },
    /// A file's size is not the listed one.
    #[error("`{path}` has {found} bytes, expected {expected}")]
    Size { path: String, found: Found, expected: u64 },
    /// A file's bytes are not the listed ones.
    #[error("`{path}` has sha256 {found}, expected {expected}")]
    Hash { path: String, found: String, expected: String },
    /// The watch ended it.
    #[error("stopped")]
    Stopped,
}

/// A size as far as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This many bytes.
    Exactly(u64),
    /// More than this many; the rest was not read.
    MoreThan(u64),
}

impl std::fmt::Display for Found {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(bytes) => write!(formatter, "{bytes}"),
            Self::MoreThan(bytes) => write!(formatter, "more than {bytes}"),
        }
    }
}

/// Writes every listed file of `source` (a zip archive, a folder, or a single file) into `out`.
pub(super) fn unpack(
    source: &Path,
    files: &[Listed],
    out: &Path,
    limits: &Limits,
    watch: &dyn Watch,
) -> Result<(), UnpackError> {
    let total = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
    if total > limits.total {
        return Err(UnpackError::Total { found: total, limit: limits.total });
    }
    let mut sink = Sink { out, watch, done: 0, total };
    if source.is_dir() {
        return files.iter().try_for_each(|file| sink.write(file, open_inside(source, &file.path)?));
    }
    if is_zip(source)? {
        return from_zip(source, files, limits, &mut sink);
    }
    let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match files {
        [file] if file.path == name => sink.write(file, fs::open(source)?),
        _ => Err(UnpackError::Neither { name }),
    }
}

fn is_zip(path: &Path) -> Result<bool, UnpackError> {
    let mut magic = Vec::new();
    let read = fs::open(path)?.take(4).read_to_end(&mut magic);
    read.map_err(|source| fs::PathError { action: "read", path: path.to_owned(), source })?;
    Ok(magic == b"PK\x03\x04" || magic == b"PK\x05\x06")
}

/// Opens a file below a folder, without following links on the way.
fn open_inside(folder: &Path, path: &str) -> Result<File, UnpackError> {
    let mut place = folder.to_owned();
    for name in path.split('/') {
        place.push(name);
        match place.symlink_metadata() {
            Ok(meta) if meta.is_symlink() => {
                return Err(UnpackError::NotPlain { path: path.to_owned(), what: "a link or behind one" });
            }
            Ok(_) => {}
            Err(_) => return Err(UnpackError::Missing { path: path.to_owned() }),
        }
    }
    if !place.is_file() {
        return Err(UnpackError::NotPlain { path: path.to_owned(), what: "a folder or a device" });
    }
    Ok(fs::open(place)?)
}

fn from_zip(source: &Path, files: &[Listed], limits: &Limits, sink: &mut Sink) -> Result<(), UnpackError> {
    let damaged = |error: ZipError| UnpackError::Archive(error.to_string());
    let mut archive = ZipArchive::new(BufReader::new(fs::open(source)?)).map_err(damaged)?;
    if archive.len() > limits.entries {
        return Err(UnpackError::Entries { found: archive.len(), limit: limits.entries });
    }
    if archive.has_duplicate_names() {
        return Err(UnpackError::Twice);
    }
    for name in archive.file_names() {
        let name = name.map_err(damaged)?;
        // A folder's entry ends in `/`.
        if !is_plain(name.strip_suffix('/').unwrap_or(&name)) {
            return Err(UnpackError::Traversal { name: name.into_owned() });
        }
    }
    for file in files {
        let path = || file.path.clone();
        let Some(index) = archive.index_for_name(&file.path) else {
            return Err(UnpackError::Missing { path: path() });
        };
        let entry = archive.by_index_data(index).map_err(damaged)?;
        if entry.encrypted() {
            return Err(UnpackError::NotPlain { path: path(), what: "locked with a password" });
        }
        if entry.is_symlink() || entry.is_dir() {
            return Err(UnpackError::NotPlain { path: path(), what: "a link or a folder" });
        }
        let (bytes, packed) = (entry.size(), entry.compressed_size());
        if bytes != file.bytes {
            return Err(UnpackError::Size { path: path(), found: Found::Exactly(bytes), expected: file.bytes });
        }
        if bytes > SMALL && bytes / limits.ratio > packed {
            return Err(UnpackError::Ratio { path: path(), packed, bytes, limit: limits.ratio });
        }
        sink.write(file, archive.by_index(index).map_err(damaged)?)?;
    }
    Ok(())
}

/// The folder that receives the files.
struct Sink<'a> {
    out: &'a Path,
    watch: &'a dyn Watch,
    done: u64,
    total: u64,
}

impl Sink<'_> {
    /// Writes a file, and fails when its bytes are not the listed ones. Never writes more than the listed size.
    fn write(&mut self, file: &Listed, mut from: impl Read) -> Result<(), UnpackError> {
        let place = self.out.join(&file.to);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut to = fs::Hashed::create(&place)?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(UnpackError::Archive(format!("`{}`: {error}", file.path))),
            };
            bytes += count as u64;
            if bytes > file.bytes {
                let found = Found::MoreThan(file.bytes);
                return Err(UnpackError::Size { path: file.path.clone(), found, expected: file.bytes });
            }
            if self.watch.stopped() {
                return Err(UnpackError::Stopped);
            }
            hash.update(&buffer[..count]);
            to.write_all(&buffer[..count]).map_err(|source| write_error(&place, source))?;
            self.done += count as u64;
            self.watch.bytes(&file.path, self.done, Some(self.total));
        }
        if bytes != file.bytes {
            let found = Found::Exactly(bytes);
            return Err(UnpackError::Size { path: file.path.clone(), found, expected: file.bytes });
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != file.sha256 {
            return Err(UnpackError::Hash { path: file.path.clone(), found, expected: file.sha256.clone() });
        }
        to.finish()?;
        Ok(())
    }
}

fn write_error(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Path(fs::PathError { action: "write", path: PathBuf::from(path), source })
}
