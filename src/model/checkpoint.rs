//! A model as others wrote it: a folder as Hugging Face's libraries write them, or a GGUF file.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::config::{ConfigError, ModelConfig};
use super::decoder::Decoder;
use super::gguf::{Gguf, GgufError};
use super::peft::ADAPTER_CONFIG;
use super::weights::{self, Shards, WeightsError};
use crate::fs;

/// The file of a folder that says what the model is.
pub const CONFIG: &str = "config.json";

/// An opened model: its shape is known, its weights are not yet read.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: ModelConfig,
    weights: Weights,
}

#[derive(Debug)]
enum Weights {
    Shards(Shards),
    Gguf(Box<Gguf>),
}

/// Why a model could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fs::PathError),
    /// `config.json` is wrong.
    #[error("in `{folder}`: {source}")]
    Config { folder: String, source: ConfigError },
    /// The weights are wrong.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The GGUF file is wrong.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// There is nothing that a model is made of.
    #[error("`{0}` is no model: expected a folder with `config.json`, or a GGUF file")]
    NoModel(String),
    /// A part of a model.
    #[error("`{0}` holds an adapter only; open the model that it belongs to")]
    Adapter(String),
    /// Tokens that the model cannot take.
    #[error("{0}")]
    Tokens(String),
}

impl Checkpoint {
    /// Opens a model.
    ///
    /// # Errors
    /// When there is none, when it is damaged, and when we would compute it wrongly.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let name = || path.display().to_string();
        if path.is_file() {
            let mut magic = [0; 4];
            let read = std::io::Read::read_exact(&mut fs::open(path)?, &mut magic);
            if read.is_err() || &magic != b"GGUF" {
                return Err(CheckpointError::NoModel(name()));
            }
            let gguf = Gguf::open(path)?;
            return Ok(Self { path: path.to_owned(), config: gguf.config()?, weights: Weights::Gguf(Box::new(gguf)) });
        }
        if !path.join(CONFIG).is_file() {
            let adapter = path.join(ADAPTER_CONFIG).is_file();
            return Err(if adapter { CheckpointError::Adapter(name()) } else { CheckpointError::NoModel(name()) });
        }
        let config = ModelConfig::parse(&fs::read_to_string(path.join(CONFIG))?)
            .map_err(|source| CheckpointError::Config { folder: name(), source })?;
        Ok(Self { path: path.to_owned(), config, weights: Weights::Shards(Shards::open(path)?) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The GGUF file, if it is one: its metadata holds the vocabulary.
    pub fn gguf(&self) -> Option<&Gguf> {
        match &self.weights {
            Weights::Gguf(gguf) => Some(gguf),
            Weights::Shards(_) => None,
        }
    }

    /// Each number format of the weights and how many numbers are in it, the most frequent first.
    pub fn formats(&self) -> Vec<(String, usize)> {
        match &self.weights {
            Weights::Gguf(gguf) => gguf.formats(),
            Weights::Shards(shards) => shards.formats(),
        }
    }

    /// Reads the weights onto a device, as `f32`.
    ///
    /// # Errors
    /// When they do not fit the configuration, or cannot be read.
    pub fn decoder(&self, device: &Device) -> Result<Decoder, WeightsError> {
        match &self.weights {
            Weights::Gguf(gguf) => weights::load_from(&self.config, gguf.as_ref(), device),
            Weights::Shards(shards) => weights::load_from(&self.config, shards, device),
        }
    }
}

/// The logits of the token that follows: as many as the vocabulary has tokens.
///
/// # Errors
/// When there are no tokens or more than the context holds, or one is not in the vocabulary.
pub fn next_logits(decoder: &Decoder, tokens: &[u32]) -> Result<Vec<f32>, CheckpointError> {
    let (vocab, context) = (decoder.architecture().vocab, decoder.architecture().context);
    let wrong = |reason: String| Err(CheckpointError::Tokens(reason));
    if tokens.is_empty() || tokens.len() > context {
        return wrong(format!("expected 1 to {context} tokens, found {}", tokens.len()));
    }
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
        return wrong(format!("there is no token {token}: the vocabulary has {vocab}"));
    }
    let device = decoder.embed_tokens.val().device();
    let ids: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, tokens.len()]), &device);
    let last = decoder.hidden(ids).narrow(1, tokens.len() - 1, 1); // [1, 1, hidden]
    let logits = decoder.logits(last).try_into_vec_as::<f32>();
    logits.map_err(|error| WeightsError::Device { name: "logits".to_owned(), reason: format!("{error:?}") }.into())
}
