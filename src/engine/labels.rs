//! What people write on runs: tags and a note.
//!
//! They lie beside the sealed record, in a sealed file of their own: the record says what happened and never changes. A tag keeps
//! no run from being collected (a pin does); the labels go with the record.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::history::RunRecord;
use super::seal;
use super::store::{Store, StoreError};
use crate::fs;

/// The tags and the note of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The tags. A run can be called by them.
    pub tags: BTreeSet<String>,
    /// The note.
    pub note: Option<String>,
}

/// The file of a run's labels.
pub fn file(store: &Store, run: &str) -> PathBuf {
    store.runs().join(format!("{run}.labels"))
}

/// Writes the labels of a run in place of earlier ones; without any, the file goes.
///
/// # Errors
/// When the store cannot be written.
pub fn write(store: &Store, run: &str, labels: &Labels) -> Result<(), StoreError> {
    let path = file(store, run);
    if *labels == Labels::default() {
        return Ok(fs::remove_file(path)?);
    }
    Ok(fs::write_whole(path, &seal::seal(labels))?)
}

/// Puts their labels on these records, and returns the files of the damaged ones, whose runs have none then.
///
/// # Errors
/// When the store cannot be read.
pub fn put_on(store: &Store, records: &mut [RunRecord]) -> Result<Vec<PathBuf>, StoreError> {
    let there: BTreeSet<PathBuf> = fs::list(store.runs())?.into_iter().collect();
    let mut damaged = Vec::new();
    for record in records {
        let path = file(store, &record.run);
        if !there.contains(&path) {
            continue;
        }
        match fs::read(&path) {
            Ok(bytes) => match seal::open(&bytes) {
                Some(labels) => record.labels = labels,
                None => damaged.push(path),
            },
            // Taken away since it was listed.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(damaged)
}

/// Why a word can be no tag; `None` where it can. A tag must not look like another name of a run, nor like a stage of one.
pub fn objection(tag: &str) -> Option<&'static str> {
    let plain = |one: char| one.is_alphanumeric() || one == '-' || one == '_';
    if tag.is_empty() || !tag.chars().all(plain) {
        Some("a tag is made of letters, digits, `-` and `_`")
    } else if tag.starts_with(|first: char| !first.is_alphabetic()) {
        Some("a tag begins with a letter")
    } else if tag == "latest" {
        Some("`latest` is always the newest run")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_looks_like_no_other_name() {
        for good in ["baseline", "v1-2", "günstig", "a_b"] {
            assert_eq!(objection(good), None, "{good}");
        }
        for bad in ["", "2026", "a.b", "a~1", "a b", "train[lr=1]", "latest", "-x", "a/b"] {
            assert!(objection(bad).is_some(), "{bad}");
        }
    }
}
