//! Models as GGUF files, llama.cpp's format: metadata and tensors in one file, the tensors mostly quantised.
//!
//! The layout is that of `gguf.md` in ggml's documentation, versions 2 and 3, little-endian.

mod config;
mod names;
mod quants;
mod read;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::config::{ConfigError, ModelConfig};
use super::weights::{Source, WeightsError};
use crate::fs;
pub use quants::Quant;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Meta {
    /// An integer.
    Integer(i128),
    /// A number with a point.
    Float(f64),
    /// A truth value.
    Flag(bool),
    /// A text.
    Text(String),
    /// Several values.
    List(Vec<Meta>),
}

/// Why a GGUF file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] fs::PathError),
    /// The file is cut off or something else.
    #[error("`{path}` is no GGUF file, or is cut off: {reason}")]
    Format { path: String, reason: String },
    /// A model that we do not compute.
    #[error("`{path}` holds {found}, but {supported}")]
    Unsupported { path: String, found: String, supported: String },
    /// A value that a model needs.
    #[error("`{path}` does not say `{key}`, or not as {kind}")]
    Missing { path: String, key: String, kind: &'static str },
    /// The metadata describes no model.
    #[error("in `{path}`: {source}")]
    Config { path: String, source: ConfigError },
}

/// An opened file: its metadata, and where its tensors lie.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    metadata: BTreeMap<String, Meta>,
    tensors: BTreeMap<String, Place>,
    /// Hugging Face's names of the tensors.
    names: BTreeMap<String, String>,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Place {
    offset: u64,
    bytes: usize,
    quant: Quant,
    /// As Hugging Face counts: rows first.
    shape: Vec<usize>,
}

impl Gguf {
    /// Reads a file's metadata and list of tensors.
    ///
    /// # Errors
    /// When it is no GGUF file, is cut off, or says what cannot be.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let read::Contents { file, metadata, tensors } = read::contents(path)?;
        let mut gguf = Self { path: path.to_owned(), file, metadata, tensors, names: BTreeMap::new() };
        let gemma = gguf.text("general.architecture") == Some("gemma3");
        gguf.names = gguf.tensors.keys().map(|name| (names::usual(name, gemma), name.clone())).collect();
        Ok(gguf)
    }

    /// What the metadata says of the model's shape.
    ///
    /// # Errors
    /// When it is no model that we compute.
    pub fn config(&self) -> Result<ModelConfig, GgufError> {
        config::of(self)
    }

    /// The metadata.
    pub fn metadata(&self) -> &BTreeMap<String, Meta> {
        &self.metadata
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Meta::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A natural number of the metadata.
    pub fn number(&self, key: &str) -> Option<usize> {
        match self.metadata.get(key)? {
            Meta::Integer(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A number of the metadata, with a point or without.
    pub fn float(&self, key: &str) -> Option<f64> {
        self.metadata.get(key)?.float()
    }

    /// A truth value of the metadata.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key)? {
            Meta::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A list of the metadata.
    pub fn list(&self, key: &str) -> Option<&[Meta]> {
        match self.metadata.get(key)? {
            Meta::List(list) => Some(list),
            _ => None,
        }
    }

    /// A list of texts of the metadata; `None` where one is something else.
    pub fn texts(&self, key: &str) -> Option<Vec<&str>> {
        let texts = self.list(key)?.iter().map(|meta| match meta {
            Meta::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// A list of numbers of the metadata; `None` where one is something else.
    pub fn floats(&self, key: &str) -> Option<Vec<f64>> {
        self.list(key)?.iter().map(Meta::float).collect()
    }

    /// Each number format and how many numbers are in it, the most frequent first.
    pub fn formats(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for place in self.tensors.values() {
            let count = counts.entry(place.quant.name()).or_default();
            *count = count.saturating_add(place.shape.iter().product());
        }
        let mut counts: Vec<_> = counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// The numbers of a tensor under its own name, as the file orders them.
    fn numbers(&self, own: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        let Some(place) = self.tensors.get(own) else { return Ok(None) };
        let mut bytes = vec![0; place.bytes];
        self.file.read_exact_at(&mut bytes, place.offset).map_err(|source| fs::PathError {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        match place.quant.dequantise(&bytes) {
            Some(values) => Ok(Some(values)),
            None => Err(WeightsError::Quantised {
                path: self.path(),
                name: own.to_owned(),
                found: place.quant.name().to_owned(),
                read: Quant::readable().join(", "),
            }),
        }
    }
}

impl Meta {
    /// A number, with a point or without.
    pub fn float(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }
}

impl Source for Gguf {
    fn path(&self) -> String {
        self.path.display().to_string()
    }

    fn names(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.tensors.get(self.names.get(name)?)?.shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let missing = || WeightsError::Missing { path: self.path(), name: name.to_owned() };
        let own = self.names.get(name).ok_or_else(missing)?;
        let mut values = self.numbers(own)?.ok_or_else(missing)?;
        match self.text("general.architecture") {
            Some("gemma3") if name.ends_with("norm.weight") => values.iter_mut().for_each(|value| *value -= 1.0),
            Some("llama") => {
                let key = if own.contains("attn_q.") {
                    "llama.attention.head_count"
                } else {
                    "llama.attention.head_count_kv"
                };
                if own.contains("attn_q.") || own.contains("attn_k.") {
                    let heads = self.number(key).or_else(|| self.number("llama.attention.head_count"));
                    let rows = self.tensors[own].shape[0];
                    values = names::unpair(&values, rows, heads.unwrap_or(1));
                }
            }
            _ => {}
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests;
