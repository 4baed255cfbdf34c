//! A model out as a folder that transformers, vLLM and llama.cpp's converter load as it is.

use std::path::Path;

use serde_json::Value;

use super::checkpoint::{CONFIG, Checkpoint};
use super::decoder::Decoder;
use super::numbers::Format;
use super::tokenizer::TokenizerError;
use super::tokenizer::files::TextFiles;
use super::tokenizer::gguf::Vocabulary;
use super::weights::{self, SHARD, WeightsError};
use crate::fs;

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fs::PathError),
    /// The weights could not be written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The vocabulary of a GGUF file is wrong.
    #[error("in `{path}`: {source}")]
    Vocabulary { path: String, source: TokenizerError },
    /// Nothing is overwritten.
    #[error("`{0}` is there already; name a folder that is not")]
    Taken(String),
}

/// The files of a model that concern text: those of its folder, or made of a GGUF file's vocabulary, where it has one.
///
/// # Errors
/// When one cannot be read, or the vocabulary is none that we know.
pub fn texts(checkpoint: &Checkpoint) -> Result<TextFiles, ExportError> {
    match checkpoint.gguf() {
        None => Ok(TextFiles::load(checkpoint.path())?),
        Some(gguf) if gguf.text("tokenizer.ggml.model").is_none() => Ok(TextFiles::default()),
        Some(gguf) => Vocabulary::of(gguf).files().map_err(|source| {
            let path = checkpoint.path().display().to_string();
            ExportError::Vocabulary { path, source }
        }),
    }
}

/// The format that a model's weights are best written in again: its own, or `f32` where that is none that we write.
pub fn natural_format(checkpoint: &Checkpoint) -> Format {
    let main = checkpoint.formats().into_iter().next().map(|(name, _)| name);
    let known = [Format::F32, Format::Bf16, Format::F16];
    known.into_iter().find(|format| Some(format.name()) == main.as_deref()).unwrap_or(Format::F32)
}

/// Writes a model's folder, whole or not at all; adapters are merged into the weights.
///
/// # Errors
/// When the folder is there already, a number is too large for the format, or a file cannot be written.
pub fn export(decoder: &Decoder, texts: &TextFiles, folder: &Path, format: Format) -> Result<(), ExportError> {
    if folder.exists() {
        return Err(ExportError::Taken(folder.display().to_string()));
    }
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let aside = folder.with_file_name(name);
    let written = write(decoder, texts, &aside, format).and_then(|()| Ok(fs::rename(&aside, folder)?));
    if written.is_err() {
        let _ = fs::remove_dir_all(&aside);
    }
    written
}

fn write(decoder: &Decoder, texts: &TextFiles, folder: &Path, format: Format) -> Result<(), ExportError> {
    fs::create_dir_all(folder)?;
    texts.save(folder)?;
    let merged = decoder.merged();
    let mut config = merged.config().clone();
    // One of the two names is enough: all releases of transformers read the older one.
    config.extra.remove("dtype");
    config.extra.insert("torch_dtype".to_owned(), Value::from(format.torch()));
    fs::write_whole(folder.join(CONFIG), config.to_json().as_bytes())?;
    Ok(weights::save_folder(&merged, folder, format, SHARD)?)
}
