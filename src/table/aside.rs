//! Rows put aside on the disk until they are needed: in any order, without a place in memory.

use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fs::{PathError, Result};

/// Bytes that are held before they are written; what stays below needs no file.
const HELD: usize = 1 << 20;

/// Where a row lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    start: u64,
    length: u32,
}

/// Rows as JSON in a file that has no name, and is gone with the process. Memory is that of one mebibyte, however many there are.
pub struct Aside<T> {
    folder: PathBuf,
    file: Option<File>,
    /// Bytes in the file.
    written: u64,
    /// What follows them.
    held: Vec<u8>,
    row: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Aside<T> {
    /// No rows yet. The file, once there is one, takes its room from the disk of `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None, written: 0, held: Vec::new(), row: PhantomData }
    }

    /// Puts a row aside.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, row: &T) -> Result<Place> {
        let before = self.held.len();
        let start = self.written + before as u64;
        serde_json::to_writer(&mut self.held, row).map_err(|error| self.wrong("write", error.into()))?;
        let length = u32::try_from(self.held.len() - before)
            .map_err(|_| self.wrong("write", io::Error::other("a row of more than 4 GiB")))?;
        if self.held.len() >= HELD {
            self.flush().map_err(|error| self.wrong("write", error))?;
        }
        Ok(Place { start, length })
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.folder)?),
        };
        file.write_all(&self.held)?;
        self.written += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }

    /// The JSON of a row.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn json(&self, place: Place) -> Result<Vec<u8>> {
        let Place { start, length } = place;
        if let Some(start) = start.checked_sub(self.written) {
            let range = start as usize..start as usize + length as usize;
            let held = self.held.get(range).map(<[u8]>::to_vec);
            return held.ok_or_else(|| self.wrong("read", io::ErrorKind::UnexpectedEof.into()));
        }
        let mut bytes = vec![0; length as usize];
        let file = self.file.as_ref().ok_or_else(|| self.wrong("read", io::ErrorKind::NotFound.into()))?;
        file.read_exact_at(&mut bytes, start).map_err(|error| self.wrong("read", error))?;
        Ok(bytes)
    }

    /// Reads a row.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, place: Place) -> Result<T> {
        serde_json::from_slice(&self.json(place)?).map_err(|error| self.wrong("read", error.into()))
    }

    fn wrong(&self, action: &'static str, source: io::Error) -> PathError {
        PathError { action, path: self.folder.join("a file without a name"), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_any_order_from_memory_and_from_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut aside = Aside::<(usize, String)>::new(folder.path());
        let row = |number: usize| (number, "ü\n".repeat(number % 700));
        let places: Vec<Place> = (0..5000).map(|number| aside.push(&row(number)).unwrap()).collect();
        assert!(aside.file.is_some() && !aside.held.is_empty() && aside.held.capacity() < 2 * HELD + 4096);
        for number in (0..5000).rev().chain([17, 4999]) {
            assert_eq!(aside.read(places[number]).unwrap(), row(number));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn few_rows_need_no_disk() {
        let mut aside = Aside::<String>::new(Path::new("/proc/nowhere"));
        let place = aside.push(&"a".to_owned()).unwrap();
        assert_eq!(aside.read(place).unwrap(), "a");
        let long = "b".repeat(HELD);
        let message = aside.push(&long).unwrap_err().to_string();
        assert!(message.starts_with("cannot write `/proc/nowhere/a file without a name`: "), "{message}");
    }
}
