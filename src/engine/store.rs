//! The content-addressed store: every result a folder named by its fingerprint, whole or absent.
//!
//! `results/FF/FINGERPRINT/` holds `manifest.json` and the artifacts, `work/` what is being computed
//! (the kernel's locks on its folders say by whom: nothing there needs deleting by hand), `rows/` the journals of finished rows,
//! `runs/` the records of runs, `pins/` the names of those that are never collected.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fields;
use super::port::{Holds, PortSpec};
use super::seal;
use crate::fs::{self, Digest, PathError};
use crate::table;

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A stage ended without one of its outputs.
    #[error("the stage ended without its output `{port}`")]
    NoOutput { port: String },
    /// A stage wrote rows of another type than it declared.
    #[error("the output `{port}` holds `{found}`, declared is `{declared}`")]
    WrongType { port: String, found: String, declared: String },
    /// An output table cannot be read back.
    #[error("the output `{port}` is no table: {source}")]
    NoTable { port: String, source: table::TableError },
}

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its path inside the result's folder.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub digest: String,
}

/// One output of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The row type or the folder's format.
    pub holds: String,
    /// The Parquet file or the folder, inside the result's folder.
    pub path: PathBuf,
    /// The content's digest: the file's, or over all files of a folder.
    pub digest: String,
    /// The files.
    pub files: Vec<Stored>,
}

impl Artifact {
    /// The artifact's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// What a result is and what it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The fingerprint of `fields`.
    pub fingerprint: String,
    /// What the result depends on.
    pub fields: Fields,
    /// The outputs by port.
    pub outputs: BTreeMap<String, Artifact>,
    /// The run that computed it.
    pub run: String,
    /// How many of its rows are broken: `--retry-broken` computes those again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub broken: u64,
    /// The journals of finished rows that it was made with, by their names in `rows`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub journals: Vec<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The store of one project.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// The right to compute a result, which one process at a time has: the kernel's lock on the folder in which it is computed.
/// Given back when this is dropped or the process ends.
pub struct Lock {
    folder: PathBuf,
    open: Arc<File>,
}

impl Lock {
    /// The locked folder: as long as anyone has it open, also another process, the lock holds.
    pub fn held(&self) -> Arc<File> {
        self.open.clone()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked, and only where nothing is left in it to go on from. Who waits for the lock sees that the
        // folder is gone, and makes a new one.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// The folders in which a result is computed.
pub struct Workspace {
    /// Receives the outputs; empty at the start.
    pub out: PathBuf,
    /// Outlives an interrupted run; created by who needs it.
    pub scratch: PathBuf,
    /// The right to compute here.
    pub lock: Lock,
}

/// What a look into the store found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The whole result.
    Whole(Box<Manifest>),
    /// A result whose files are not what its manifest says.
    Damaged(String),
    /// Nothing.
    Absent,
}

impl Store {
    /// Opens a store, and creates it where there is none.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        for folder in ["results", "work", "runs", "rows", "pins"] {
            fs::create_dir_all(store.root.join(folder))?;
        }
        Ok(store)
    }

    /// The store's own folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the records of runs.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// The folder of the journals of finished rows.
    pub fn rows(&self) -> PathBuf {
        self.root.join("rows")
    }

    /// The folder of pins: an empty file for each run that is never collected.
    pub fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    /// Says that results of this store are being used: as long as the file lives, nothing is collected. A store that cannot be
    /// written needs no such word.
    pub fn used(&self) -> Option<File> {
        let file = fs::create(self.root.join("lock")).ok()?;
        file.lock_shared().ok().map(|()| file)
    }

    /// The store for oneself alone; `None` while results are being used.
    pub fn alone(&self) -> Result<Option<File>, StoreError> {
        let path = self.root.join("lock");
        let file = fs::create(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(PathError { action: "lock", path, source }.into()),
        }
    }

    /// The folder of a result, whether it is there or not.
    pub fn folder(&self, fingerprint: &str) -> PathBuf {
        self.root.join("results").join(fingerprint.get(..2).unwrap_or_default()).join(fingerprint)
    }

    /// Where an artifact lies.
    pub fn path(&self, fingerprint: &str, artifact: &Artifact) -> PathBuf {
        self.folder(fingerprint).join(&artifact.path)
    }

    /// Looks a result up. Files are checked by their sizes here; by their content when a stage reads them.
    pub fn find(&self, fingerprint: &str) -> Result<Found, StoreError> {
        if !is_fingerprint(fingerprint) {
            return Ok(Found::Absent);
        }
        let folder = self.folder(fingerprint);
        let path = folder.join("manifest.json");
        let bytes = match read_small(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
            Err(source) => return Err(PathError { action: "read", path, source }.into()),
        };
        // One that was sealed for another result lies in the wrong folder.
        let Some(manifest) = seal::open::<Manifest>(&bytes).filter(|found| found.fingerprint == fingerprint) else {
            return Ok(Found::Damaged(format!("`{}` is damaged", fs::short(&path).display())));
        };
        for file in manifest.outputs.values().flat_map(|artifact| &artifact.files) {
            let path = folder.join(&file.path);
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.len() == file.bytes => {}
                Ok(metadata) => {
                    let (found, expected) = (metadata.len(), file.bytes);
                    let path = fs::short(&path);
                    let path = path.display();
                    return Ok(Found::Damaged(format!("`{path}` has {found} bytes, {expected} were written")));
                }
                Err(error) => return Ok(Found::Damaged(format!("`{}`: {error}", fs::short(&path).display()))),
            }
        }
        Ok(Found::Whole(Box::new(manifest)))
    }

    /// Reads an artifact whole and says what is wrong with its bytes, if anything is.
    ///
    /// # Errors
    /// When they cannot be read for another reason than that they are gone: that says nothing about them.
    pub fn damage(&self, fingerprint: &str, artifact: &Artifact) -> Result<Option<String>, StoreError> {
        let folder = self.folder(fingerprint);
        for file in &artifact.files {
            let path = folder.join(&file.path);
            match fs::digest(&path) {
                Ok(found) if found.hex == file.digest => {}
                Ok(_) => return Ok(Some(format!("`{}` is not what was written", fs::short(&path).display()))),
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                    return Ok(Some(format!("`{}` is gone", fs::short(&path).display())));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Throws a result away that was found damaged, unless it is just being computed again, or was meanwhile.
    pub fn discard_damaged(&self, fingerprint: &str) -> Result<(), StoreError> {
        // Who has the right to compute it is about to put a new one in its place.
        let Some(_lock) = self.lock(fingerprint)? else { return Ok(()) };
        if let Found::Whole(manifest) = self.find(fingerprint)? {
            let mut outputs = manifest.outputs.values();
            if !outputs
                .try_fold(false, |found, one| Ok::<_, StoreError>(found || self.damage(fingerprint, one)?.is_some()))?
            {
                return Ok(());
            }
        }
        self.discard(fingerprint)
    }

    /// Removes what a process left that was killed when it had just put its result into place. What is left of a computation
    /// that did not come so far stays, to go on from.
    pub fn sweep(&self) -> Result<(), StoreError> {
        for folder in fs::list(self.root.join("work"))? {
            let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
            let done = |folder: &Path| !folder.join("out").exists() && self.folder(name).join("manifest.json").exists();
            if is_fingerprint(name)
                && done(&folder)
                && let Some(_lock) = self.lock(name)?
                && done(&folder)
            {
                fs::remove_dir_all(folder.join("scratch"))?;
            }
        }
        Ok(())
    }

    /// Takes the right to compute a result; `None` while another process, or another stage of this one, has it.
    pub fn lock(&self, fingerprint: &str) -> Result<Option<Lock>, StoreError> {
        let folder = self.root.join("work").join(fingerprint);
        loop {
            fs::create_dir_all(&folder)?;
            let open = match File::open(&folder) {
                // Who had it before has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|source| PathError { action: "open", path: folder.clone(), source })?,
            };
            match open.try_lock() {
                Ok(()) if is_at(&open, &folder) => return Ok(Some(Lock { folder, open: Arc::new(open) })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => {
                    return Err(PathError { action: "lock", path: folder, source }.into());
                }
            }
        }
    }

    /// Prepares the folders in which a result is computed.
    pub fn begin(&self, lock: Lock) -> Result<Workspace, StoreError> {
        let (out, scratch) = (lock.folder.join("out"), lock.folder.join("scratch"));
        for left in [&out, &lock.folder.join("old")] {
            fs::remove_dir_all(left)?;
        }
        fs::create_dir_all(&out)?;
        Ok(Workspace { out, scratch, lock })
    }

    /// Makes the content of a workspace the result: checks and hashes every output, writes the manifest, renames. `facts` is
    /// the manifest as yet without outputs.
    pub fn commit(&self, workspace: &Workspace, facts: Manifest, ports: &[PortSpec]) -> Result<Manifest, StoreError> {
        let mut manifest = facts;
        for port in ports {
            manifest.outputs.insert(port.name.clone(), artifact(&workspace.out, port)?);
        }
        let text = seal::seal(&manifest);
        // Not through a name of its own: the whole folder gets its name when all of it is on the disk.
        let path = workspace.out.join("manifest.json");
        let mut file = fs::create(&path)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|source| PathError {
            action: "write",
            path,
            source,
        })?;
        fs::sync_dir(&workspace.out)?;
        let folder = self.folder(&manifest.fingerprint);
        let parent = folder.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent)?;
        // An earlier result makes room whole, so that no reader sees half of it.
        let old = workspace.out.with_file_name("old");
        if folder.exists() {
            fs::rename(&folder, &old)?;
        }
        // The name itself need not survive a power cut: without it the result is absent, and computed again.
        fs::rename(&workspace.out, &folder)?;
        fs::remove_dir_all(&old)?;
        fs::remove_dir_all(&workspace.scratch)?;
        Ok(manifest)
    }

    /// Removes a result.
    pub fn discard(&self, fingerprint: &str) -> Result<(), StoreError> {
        // The manifest first: a half-removed result must look absent, not damaged.
        fs::remove_file(self.folder(fingerprint).join("manifest.json"))?;
        Ok(fs::remove_dir_all(self.folder(fingerprint))?)
    }
}

/// Whether a name can be that of a result: names come from files and folders that may be damaged.
fn is_fingerprint(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads a file that is likely to fit one read: two system calls less than usual, for thousands of manifests.
fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        let room = bytes.len() - length;
        let count = file.read(&mut bytes[length..])?;
        length += count;
        // A regular file gives less than was asked for only at its end.
        if count < room {
            bytes.truncate(length);
            return Ok(bytes);
        }
        bytes.resize(bytes.len() * 4, 0);
    }
}

/// Whether an open file is the one that a path names.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn artifact(out: &Path, port: &PortSpec) -> Result<Artifact, StoreError> {
    let table = PathBuf::from(format!("{}.parquet", port.name));
    let (path, holds) = match &port.holds {
        Holds::Table(declared) => {
            if !out.join(&table).is_file() {
                return Err(StoreError::NoOutput { port: port.name.clone() });
            }
            let found = table::read_type(&out.join(&table))
                .map_err(|source| StoreError::NoTable { port: port.name.clone(), source })?;
            if let Some(found) = found.filter(|found| found != declared) {
                return Err(StoreError::WrongType { port: port.name.clone(), found, declared: declared.clone() });
            }
            (table, declared.clone())
        }
        Holds::Folder(format) => (PathBuf::from(&port.name), format.clone()),
        Holds::Anything if out.join(&table).is_file() => {
            let found = table::read_type(&out.join(&table)).ok().flatten();
            (table, found.unwrap_or_else(|| "anything".to_owned()))
        }
        Holds::Anything => (PathBuf::from(&port.name), "anything".to_owned()),
    };
    if !out.join(&path).exists() {
        return Err(StoreError::NoOutput { port: port.name.clone() });
    }
    let mut files = Vec::new();
    collect(out, &path, &mut files)?;
    let digest = match files.as_slice() {
        [file] if file.path == path => file.digest.clone(),
        files => {
            let mut hash = blake3::Hasher::new();
            for file in files {
                hash.update(format!("{} {}\n", file.digest, file.path.display()).as_bytes());
            }
            hash.finalize().to_hex().to_string()
        }
    };
    Ok(Artifact { holds, path, digest, files })
}

/// The files under a path, in the order of their names, each synced and hashed.
fn collect(out: &Path, path: &Path, files: &mut Vec<Stored>) -> Result<(), StoreError> {
    let full = out.join(path);
    if full.is_dir() {
        for entry in fs::list(&full)? {
            let name = entry.file_name().unwrap_or_default();
            collect(out, &path.join(name), files)?;
        }
        fs::sync_dir(&full)?;
        return Ok(());
    }
    fs::sync_file(&full)?;
    let Digest { hex, bytes } = fs::digest(&full)?;
    files.push(Stored { path: path.to_owned(), bytes, digest: hex });
    Ok(())
}
