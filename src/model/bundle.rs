//! A model with everything that it needs to chat, and the folder that it lies in: `config.json`, `model.safetensors`, the files
//! that concern text, byte for byte as they came ([`super::tokenizer::TextFiles`]), and an adapter in `adapter/` where one was kept
//! apart. The files are those that Hugging Face's libraries read.

use std::path::Path;

use burn::tensor::Device;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::decoder::Decoder;
use super::peft::{self, ADAPTER_CONFIG, PeftAdapter, PeftError};
use super::tokenizer::gguf::Vocabulary;
use super::tokenizer::{Tokenizer, TokenizerError};
use super::weights::{self, WeightsError};
use crate::fs;

/// The format of the folder, as ports name it.
pub const FORMAT: &str = "model.bundle/v1";

/// The folder of an adapter beside its base: transformers reads the base, PEFT the adapter.
pub const ADAPTER: &str = "adapter";

/// A model with everything that it needs to chat.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The weights and the shape.
    pub decoder: Decoder,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
}

/// Why a bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fs::PathError),
    /// `config.json` or the weights are wrong, or there is no model.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The weights are wrong.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The adapter is wrong.
    #[error(transparent)]
    Adapter(#[from] PeftError),
    /// The tokenizer is wrong.
    #[error("in `{folder}`: {source}")]
    Tokenizer { folder: String, source: TokenizerError },
    /// The tokenizer has tokens that the model does not know.
    #[error("in `{folder}`: the tokenizer has {tokens} tokens, the model knows {vocab_size}")]
    Vocabulary { folder: String, tokens: usize, vocab_size: usize },
}

impl Bundle {
    /// Reads a model, the weights onto the device: a bundle, a folder as Hugging Face's libraries write them, or a GGUF file.
    ///
    /// # Errors
    /// When there is no model, it is damaged, it lacks a tokenizer, or we would compute it wrongly.
    pub fn load(path: &Path, device: &Device) -> Result<Self, BundleError> {
        let checkpoint = Checkpoint::open(path)?;
        let tokenizer = Self::tokenizer(&checkpoint)?;
        let decoder = checkpoint.decoder(device)?;
        let adapter = path.join(ADAPTER);
        let decoder = if adapter.join(ADAPTER_CONFIG).is_file() {
            PeftAdapter::open(&adapter)?.attach(&decoder)?
        } else {
            decoder
        };
        Ok(Self { decoder, tokenizer })
    }

    /// The tokenizer of an opened model.
    ///
    /// # Errors
    /// When it is missing or wrong, or does not belong to the model.
    pub fn tokenizer(checkpoint: &Checkpoint) -> Result<Tokenizer, BundleError> {
        let folder = || checkpoint.path().display().to_string();
        let read = match checkpoint.gguf() {
            Some(gguf) => Vocabulary::of(gguf).files().and_then(|files| Tokenizer::new(files, &[])),
            None => Tokenizer::load(checkpoint.path()),
        };
        let tokenizer = read.map_err(|source| BundleError::Tokenizer { folder: folder(), source })?;
        let (tokens, vocab_size) = (tokenizer.text_size(), checkpoint.config().vocab_size);
        if tokens > vocab_size {
            return Err(BundleError::Vocabulary { folder: folder(), tokens, vocab_size });
        }
        Ok(tokenizer)
    }

    /// Writes the folder's files; the same bundle always gives the same bytes. Adapters stay apart.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), BundleError> {
        fs::create_dir_all(folder)?;
        self.tokenizer.save(folder)?;
        fs::write_whole(folder.join("config.json"), self.decoder.config().to_json().as_bytes())?;
        let weights = folder.join("model.safetensors");
        // One of an earlier model would be taken for this one's.
        fs::remove_dir_all(folder.join(ADAPTER))?;
        if self.decoder.lora().is_none() {
            return Ok(weights::save(&self.decoder, &weights)?);
        }
        weights::save(&self.decoder.without_adapters(), &weights)?;
        Ok(peft::save(&self.decoder, &folder.join(ADAPTER), None)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::ModelConfig;
    use crate::model::config::tests::tiny;
    use crate::model::tokenizer::tests::small;

    /// A bundle small enough for tests, its weights as they are drawn.
    pub(crate) fn untrained() -> Bundle {
        let tokenizer = small();
        let config = ModelConfig { vocab_size: tokenizer.vocab_size(), ..tiny() };
        Bundle { decoder: Decoder::init(&config, 3, &Device::flex()).unwrap(), tokenizer }
    }

    #[test]
    fn a_bundle_survives_its_folder_to_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        untrained().save(&first).unwrap();
        Bundle::load(&first, &Device::flex()).unwrap().save(&second).unwrap();
        let names = |path: &Path| -> Vec<_> {
            fs::list(path).unwrap().iter().map(|file| file.file_name().unwrap().to_owned()).collect()
        };
        assert_eq!(
            names(&first),
            ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        );
        assert_eq!(names(&first), names(&second));
        for name in names(&first) {
            assert_eq!(fs::read(first.join(&name)).unwrap(), fs::read(second.join(&name)).unwrap(), "{name:?}");
        }
    }

    #[test]
    fn says_when_model_and_tokenizer_do_not_belong_together() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = untrained();
        bundle.save(folder.path()).unwrap();
        fs::write_whole(folder.path().join("config.json"), tiny().to_json().as_bytes()).unwrap();
        let error = Bundle::load(folder.path(), &Device::flex()).unwrap_err().to_string();
        let tokens = bundle.tokenizer.vocab_size();
        assert!(error.ends_with(&format!("the tokenizer has {tokens} tokens, the model knows 20")), "{error}");
        fs::remove_file(folder.path().join("config.json")).unwrap();
        let error = Bundle::load(folder.path(), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("is no model: expected a folder with `config.json`"), "{error}");
    }

    #[test]
    fn an_adapter_is_kept_beside_its_base() {
        let folder = tempfile::tempdir().unwrap();
        let plain = untrained();
        let lora = crate::model::lora::LoraConfig {
            rank: 2,
            alpha: 4.0,
            rank_stabilised: false,
            dropout: 0.0,
            targets: vec!["q_proj".to_owned()],
        };
        let bundle = Bundle { decoder: plain.decoder.adapt(&lora, 7).unwrap(), ..plain.clone() };
        bundle.save(folder.path()).unwrap();
        let again = Bundle::load(folder.path(), &Device::flex()).unwrap();
        assert_eq!(again.decoder.lora().unwrap().rank, 2);
        let second = tempfile::tempdir().unwrap();
        plain.save(second.path()).unwrap();
        let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        assert_eq!(weights(folder.path()), weights(second.path()));
        assert!(fs::read(folder.path().join("adapter/adapter_model.safetensors")).is_ok());
    }
}
