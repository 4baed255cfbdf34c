//! A folder with a MultiWOZ corpus: where its files are, however they are packed.

use std::fmt::Display;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use zip::ZipArchive;
use zip::result::ZipError;

use super::convert::Splits;
use super::multiwoz::{CorpusError, for_each};
use super::tools::DOMAINS;
use super::world::Record;
use crate::fs::{self, PathError};

/// Folders within folders that are looked into.
const DEPTH: usize = 6;

/// Why a folder is no corpus.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file is missing.
    #[error("`{}` holds no {what}, neither itself nor in its folders", folder.display())]
    Missing { folder: PathBuf, what: &'static str },
    /// A file is there more than once.
    #[error("two files are called `{name}`: `{}` and `{}`", one.display(), other.display())]
    Ambiguous { name: String, one: PathBuf, other: PathBuf },
    /// A file cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// An archive cannot be read.
    #[error("cannot read the archive `{}`: {source}", path.display())]
    Archive { path: PathBuf, source: ZipError },
    /// A file holds something else.
    #[error("`{}`: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
    /// The dialogues cannot be read.
    #[error("`{}`: {source}", path.display())]
    Dialogues { path: PathBuf, source: CorpusError },
}

/// The files of a corpus: `data.json`, or `dataset.zip` that holds it; `DOMAIN_db.json`; `valListFile.json` and
/// `testListFile.json`. They are looked for by name in a folder and its subfolders.
#[derive(Clone, Debug)]
pub struct Corpus {
    folder: PathBuf,
    files: Vec<PathBuf>,
}

impl Corpus {
    /// Looks what a folder holds. What is missing is said by what needs it.
    ///
    /// # Errors
    /// When the folder or one in it cannot be listed.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let folder = folder.into();
        let mut files = Vec::new();
        collect(&folder, DEPTH, &mut files)?;
        Ok(Self { folder, files })
    }

    /// Hands on each dialogue in the file's order, as [`for_each`] does.
    ///
    /// # Errors
    /// When there is no `data.json`, packed or not, and when it cannot be read to its end.
    pub fn for_each_dialogue<D: DeserializeOwned, E: Display>(
        &self,
        each: impl FnMut(String, D) -> Result<(), E>,
    ) -> Result<(), FolderError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Dialogues { path, source }
        };
        if let Some(path) = self.find("data.json")? {
            return for_each(fs::open(path)?, each).map_err(at(path));
        }
        let path = self.find("dataset.zip")?.ok_or_else(|| self.missing("`data.json` and no `dataset.zip`"))?;
        let archive = |source| FolderError::Archive { path: path.to_owned(), source };
        let mut zip = ZipArchive::new(BufReader::new(fs::open(path)?)).map_err(archive)?;
        let inside =
            zip.file_names_raw().position(|name| name.rsplit(|byte| *byte == b'/').next() == Some(b"data.json"));
        let content =
            || FolderError::Content { path: path.to_owned(), reason: "the archive has no `data.json`".to_owned() };
        let file = zip.by_index(inside.ok_or_else(content)?).map_err(archive)?;
        for_each(file, each).map_err(at(path))
    }

    /// The records of the domains that have tools, in the order of [`DOMAINS`], each list in its file's order.
    ///
    /// # Errors
    /// When one of the four files is missing or is no list of objects.
    pub fn databases(&self) -> Result<Vec<(String, Vec<Record>)>, FolderError> {
        let database = |domain: &str| {
            let name = format!("{domain}_db.json");
            let missing =
                || self.missing("`restaurant_db.json`, `hotel_db.json`, `attraction_db.json` and `train_db.json`");
            let path = self.find(&name)?.ok_or_else(missing)?;
            let records = serde_json::from_slice(&fs::read(path)?);
            let wrong = |error: serde_json::Error| FolderError::Content {
                path: path.to_owned(),
                reason: format!("no list of records: {error}"),
            };
            Ok((domain.to_owned(), records.map_err(wrong)?))
        };
        DOMAINS.into_iter().map(database).collect()
    }

    /// Which dialogues are set apart.
    ///
    /// # Errors
    /// When one of the two lists is missing.
    pub fn splits(&self) -> Result<Splits, FolderError> {
        let list = |name: &str| {
            let path = self.find(name)?.ok_or_else(|| self.missing("`valListFile.json` and `testListFile.json`"))?;
            Ok::<_, FolderError>(fs::read_to_string(path)?)
        };
        Ok(Splits::from_lists(&list("valListFile.json")?, &list("testListFile.json")?))
    }

    fn find(&self, name: &str) -> Result<Option<&Path>, FolderError> {
        let mut found = self.files.iter().filter(|path| path.file_name().is_some_and(|file| file == name));
        match (found.next(), found.next()) {
            (Some(one), Some(other)) => {
                Err(FolderError::Ambiguous { name: name.to_owned(), one: one.clone(), other: other.clone() })
            }
            (one, _) => Ok(one.map(PathBuf::as_path)),
        }
    }

    fn missing(&self, what: &'static str) -> FolderError {
        FolderError::Missing { folder: self.folder.clone(), what }
    }
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), FolderError> {
    for path in fs::list(folder)? {
        if !path.is_dir() {
            files.push(path);
        } else if depth > 0 {
            collect(&path, depth - 1, files)?;
        }
    }
    Ok(())
}
