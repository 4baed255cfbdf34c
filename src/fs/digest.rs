//! Digests of files, each computed once: while the file is written, or the first time it is read.
//!
//! What was hashed is remembered for the process's lifetime under the file's identity: device, inode, size, and the times of
//! its last modification and change. A file that was touched in any way since is read again.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{PathError, Result, at};

/// Two writes closer than this may leave the same times behind: the kernel's clock for files ticks every few milliseconds.
const TICK: Duration = Duration::from_millis(50);

/// Bytes read at a time.
const BUFFER: usize = 1 << 18;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// BLAKE3 of its bytes, in hexadecimal.
    pub hex: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A file as it was when it was hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

type Known = HashMap<(u64, u64), (Identity, blake3::Hash)>;

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a later change would show in the times.
    fn settled(self) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1)) else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK)
    }
}

fn remember(metadata: &Metadata, hash: blake3::Hash) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert((metadata.dev(), metadata.ino()), (Identity::of(metadata), hash));
}

fn remembered(metadata: &Metadata) -> Option<blake3::Hash> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let (identity, hash) = known.get(&(metadata.dev(), metadata.ino()))?;
    (*identity == Identity::of(metadata)).then_some(*hash)
}

/// Remembers a file of this process under the new name that it just got.
pub(super) fn renamed(path: &Path, digest: &Digest) -> Result<()> {
    if let Ok(hash) = blake3::Hash::from_hex(&digest.hex) {
        remember(&at("read", path, std::fs::metadata(path))?, hash);
    }
    Ok(())
}

/// The digest of a file: remembered where this process wrote or read it and nobody touched it since, else read.
pub fn digest(path: impl AsRef<Path>) -> Result<Digest> {
    let path = path.as_ref();
    let metadata = at("read", path, std::fs::metadata(path))?;
    if let Some(hash) = remembered(&metadata) {
        return Ok(Digest { hex: hash.to_hex().to_string(), bytes: metadata.len() });
    }
    let mut file = super::open(path)?;
    let (hash, bytes) = at("read", path, hash(&mut file))?;
    let after = at("read", path, file.metadata())?;
    let identity = Identity::of(&after);
    if identity == Identity::of(&metadata) && bytes == identity.size && identity.settled() {
        remember(&after, hash);
    }
    Ok(Digest { hex: hash.to_hex().to_string(), bytes })
}

fn hash(file: &mut File) -> io::Result<(blake3::Hash, u64)> {
    let mut hash = blake3::Hasher::new();
    // A small file must not pay for a large buffer.
    let mut buffer = vec![0; BUFFER.min(file.metadata()?.len() as usize + 1)];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hash.finalize(), bytes));
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// A file that is hashed while it is written, so that nobody needs to read it for its digest.
pub struct Hashed {
    path: PathBuf,
    file: BufWriter<File>,
    hash: blake3::Hasher,
    bytes: u64,
}

impl Hashed {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> Result<Self> {
        let file = BufWriter::with_capacity(BUFFER, super::create(path)?);
        Ok(Self { path: path.to_owned(), file, hash: blake3::Hasher::new(), bytes: 0 })
    }

    /// Syncs what was written and says what it is.
    pub fn finish(mut self) -> Result<Digest> {
        let file = match self.file.flush() {
            Ok(()) => self.file.get_ref(),
            Err(source) => return Err(PathError { action: "write", path: self.path, source }),
        };
        at("sync", &self.path, file.sync_all())?;
        let hash = self.hash.finalize();
        remember(&at("read", &self.path, file.metadata())?, hash);
        Ok(Digest { hex: hash.to_hex().to_string(), bytes: self.bytes })
    }
}

impl Write for Hashed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(path: &Path) -> String {
        blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
    }

    #[test]
    fn a_written_file_is_known_and_a_changed_one_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = Hashed::create(&path).unwrap();
        for part in 0..1000_u32 {
            file.write_all(&part.to_le_bytes()).unwrap();
        }
        let written = file.finish().unwrap();
        assert_eq!(written, Digest { hex: plain(&path), bytes: 4000 });
        assert!(remembered(&path.metadata().unwrap()).is_some());
        super::super::write_whole(&path, &std::fs::read(&path).unwrap()).unwrap();
        assert!(remembered(&path.metadata().unwrap()).is_some());
        let moved = folder.path().join("b");
        std::fs::rename(&path, &moved).unwrap();
        assert_eq!(digest(&moved).unwrap(), written);
        std::thread::sleep(TICK);
        std::fs::write(&moved, vec![7; 4000]).unwrap();
        let changed = digest(&moved).unwrap();
        assert_eq!(changed, Digest { hex: plain(&moved), bytes: 4000 });
        assert_ne!(changed, written);
    }

    #[test]
    fn a_file_is_remembered_only_when_a_later_change_would_show() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "fresh").unwrap();
        digest(&path).unwrap();
        assert!(remembered(&path.metadata().unwrap()).is_none());
        std::thread::sleep(TICK * 2);
        digest(&path).unwrap();
        assert!(remembered(&path.metadata().unwrap()).is_some());
    }
}
