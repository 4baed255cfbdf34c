//! Data sets from outside: a manifest says where they may come from and which files, byte for byte, are wanted.
//!
//! Nothing that a source sends is trusted. Only listed files are written, to listed places, and only with the listed size and
//! SHA-256; so whichever source answers, the result is the same.

mod download;
pub mod manifest;
mod source;
mod unpack;

use std::path::Path;

pub use manifest::{Listed, Manifest, ManifestError, Source, is_plain};
pub use source::SourceError;
pub use unpack::{Limits, UnpackError};

/// Follows a fetch, and may end it.
pub trait Watch {
    /// Bytes of `what` that are here, of how many where that is known.
    fn bytes(&self, what: &str, done: u64, total: Option<u64>);

    /// Whether the fetch should end.
    fn stopped(&self) -> bool;
}

/// Why a data set could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No source gave the listed files; each with its reason, in the order tried.
    #[error("no source of data set `{name}` worked:{}", list(tries))]
    Sources { name: String, tries: Vec<(Source, SourceError)> },
    /// The watch ended it.
    #[error("stopped before data set `{name}` was there")]
    Stopped { name: String },
}

/// Puts every listed file of a data set into `out`, from the first source that has them all, and says which that was.
///
/// Relative paths of sources start at `project`. `scratch` keeps unfinished downloads; the next call goes on with them.
///
/// # Errors
/// [`FetchError::Sources`] when no source worked; `out` then holds none of the files.
pub fn fetch(
    manifest: &Manifest,
    project: &Path,
    scratch: &Path,
    out: &Path,
    watch: &dyn Watch,
) -> Result<Source, FetchError> {
    let mut tries = Vec::new();
    let place = source::Place { project, scratch, python: "python3".as_ref() };
    for source in &manifest.sources {
        match source::try_source(source, &manifest.files, &place, out, watch) {
            Ok(()) => return Ok(source.clone()),
            Err(SourceError::Stopped) => return Err(FetchError::Stopped { name: manifest.name.clone() }),
            Err(error) => tries.push((source.clone(), error)),
        }
    }
    Err(FetchError::Sources { name: manifest.name.clone(), tries })
}

fn list(tries: &[(Source, SourceError)]) -> String {
    tries.iter().map(|(source, error)| format!("\n  {source}: {error}")).collect()
}

#[cfg(test)]
mod tests;
