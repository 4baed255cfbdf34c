//! The TOML file that describes a data set.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::fs;

/// A data set: what it is, where it may come from, which files it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The data set's short name.
    pub name: String,
    /// Under what terms it may be used.
    pub licence: String,
    /// Who made it, and where it is described.
    pub origin: String,
    /// What it holds.
    pub description: String,
    /// Where it may come from, to be tried in this order; at least one.
    pub sources: Vec<Source>,
    /// The files that it has; at least one.
    pub files: Vec<Listed>,
}

/// Where a data set may come from: an archive or a folder that holds the listed files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A zip archive, a folder or a single file on this machine, relative to the project.
    Path(PathBuf),
    /// A zip archive or a single file on a server.
    Url(String),
    /// A wheel from the user's package index for Python.
    Pypi { package: String, version: String },
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(formatter, "path `{}`", path.display()),
            Self::Url(url) => write!(formatter, "url `{url}`"),
            Self::Pypi { package, version } => write!(formatter, "pypi package `{package}` {version}"),
        }
    }
}

/// A file of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its path inside the archive or folder, with `/`; for a source that is a single file, that file's name.
    pub path: String,
    /// Its path in the result, with `/`.
    pub to: String,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It could not be read.
    #[error(transparent)]
    Path(#[from] fs::PathError),
    /// It is no TOML, or lacks fields, or has unknown ones.
    #[error("manifest `{}`: {reason}", path.display())]
    Toml { path: PathBuf, reason: String },
    /// Its values make no sense; all that is wrong.
    #[error("manifest `{}`:{}", path.display(), problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Values { path: PathBuf, problems: Vec<String> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    licence: String,
    origin: String,
    description: String,
    source: Vec<RawSource>,
    file: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    path: Option<PathBuf>,
    url: Option<String>,
    pypi: Option<String>,
    version: Option<String>,
}

impl Manifest {
    /// Reads a manifest and checks it.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        Self::parse(path, &fs::read_to_string(path)?)
    }

    /// Reads a manifest's text; `path` stands in errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ManifestError> {
        let raw: Raw = toml::from_str(text)
            .map_err(|error| ManifestError::Toml { path: path.to_owned(), reason: error.to_string() })?;
        let mut problems = Vec::new();
        let sources = raw.source.into_iter().enumerate().filter_map(|(place, source)| {
            source.checked().map_err(|problem| problems.push(format!("source {}: {problem}", place + 1))).ok()
        });
        let sources = sources.collect();
        problems.extend(file_problems(&raw.file));
        if !problems.is_empty() {
            return Err(ManifestError::Values { path: path.to_owned(), problems });
        }
        Ok(Self {
            name: raw.name,
            licence: raw.licence,
            origin: raw.origin,
            description: raw.description,
            sources,
            files: raw.file,
        })
    }
}

impl RawSource {
    fn checked(self) -> Result<Source, String> {
        match self {
            Self { path: Some(path), url: None, pypi: None, version: None } => Ok(Source::Path(path)),
            Self { path: None, url: Some(url), pypi: None, version: None } => match reqwest::Url::parse(&url) {
                Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => Ok(Source::Url(url)),
                _ => Err(format!("`{url}` is no address that starts with http:// or https://")),
            },
            Self { path: None, url: None, pypi: Some(package), version: Some(version) } => {
                let word = |text: &str| {
                    text.starts_with(|first: char| first.is_ascii_alphanumeric())
                        && text.chars().all(|one| one.is_ascii_alphanumeric() || ".-_+!".contains(one))
                };
                for text in [&package, &version] {
                    if !word(text) {
                        return Err(format!("`{text}` is no name or version of a package"));
                    }
                }
                Ok(Source::Pypi { package, version })
            }
            _ => Err("give either `path`, or `url`, or `pypi` with `version`".to_owned()),
        }
    }
}

fn file_problems(files: &[Listed]) -> Vec<String> {
    let mut problems = Vec::new();
    if files.is_empty() {
        problems.push("it lists no `[[file]]`".to_owned());
    }
    let mut seen = BTreeSet::new();
    for Listed { path, to, sha256, .. } in files {
        for (field, value) in [("path", path), ("to", to)] {
            if !is_plain(value) {
                problems.push(format!("file `{path}`: `{field}` is `{value}`, which is no plain relative path"));
            }
        }
        if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            problems.push(format!("file `{path}`: `sha256` is not 64 lower-case hexadecimal digits"));
        }
        if !seen.insert(to.as_str()) {
            problems.push(format!("file `{path}`: `to` is `{to}`, as it is for another file"));
        }
    }
    for to in &seen {
        if let Some(inner) = seen.iter().find(|other| other.strip_prefix(to).is_some_and(|rest| rest.starts_with('/')))
        {
            problems.push(format!("`{to}` cannot be a file and hold `{inner}`"));
        }
    }
    problems
}

/// Whether a path stays inside the folder that it is joined to, whatever that folder is: relative, no `..`, no `.`, and one
/// spelling only.
pub fn is_plain(path: &str) -> bool {
    let components = Path::new(path).components().map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let joined = components.collect::<Option<Vec<_>>>().map(|names| names.join("/"));
    joined.is_some_and(|joined| joined == path && !path.is_empty()) && !path.contains(['\\', '\0'])
}
