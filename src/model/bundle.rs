//! A model as a folder: `config.json`, `model.safetensors`, and the files that concern text, byte for byte as they came
//! ([`super::tokenizer::TextFiles`]). The files are those that Hugging Face's libraries read.

use std::path::Path;

use burn::tensor::Device;

use super::config::{ConfigError, ModelConfig};
use super::decoder::Decoder;
use super::tokenizer::{Tokenizer, TokenizerError};
use super::weights::{self, WeightsError};
use crate::fs;

/// The format of the folder, as ports name it.
pub const FORMAT: &str = "model.bundle/v1";

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
    /// `config.json` is wrong.
    #[error("in `{folder}`: {source}")]
    Config { folder: String, source: ConfigError },
    /// `model.safetensors` is wrong.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// `tokenizer.json` is wrong.
    #[error("in `{folder}`: {source}")]
    Tokenizer { folder: String, source: TokenizerError },
    /// The tokenizer has tokens that the model does not know.
    #[error("in `{folder}`: the tokenizer has {tokens} tokens, the model knows {vocab_size}")]
    Vocabulary { folder: String, tokens: usize, vocab_size: usize },
}

impl Bundle {
    /// Reads a folder, the weights onto the device.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, BundleError> {
        let name = || folder.display().to_string();
        let config = ModelConfig::parse(&fs::read_to_string(folder.join("config.json"))?)
            .map_err(|source| BundleError::Config { folder: name(), source })?;
        let tokenizer = Tokenizer::load(folder).map_err(|source| BundleError::Tokenizer { folder: name(), source })?;
        let (tokens, vocab_size) = (tokenizer.text_size(), config.vocab_size);
        if tokens > vocab_size {
            return Err(BundleError::Vocabulary { folder: name(), tokens, vocab_size });
        }
        let decoder = weights::load(&config, &folder.join("model.safetensors"), device)?;
        Ok(Self { decoder, tokenizer })
    }

    /// Writes the folder's files; the same bundle always gives the same bytes.
    pub fn save(&self, folder: &Path) -> Result<(), BundleError> {
        fs::create_dir_all(folder)?;
        self.tokenizer.save(folder)?;
        fs::write_whole(folder.join("config.json"), self.decoder.config().to_json().as_bytes())?;
        weights::save(&self.decoder, &folder.join("model.safetensors"))?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
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
        assert!(error.starts_with("cannot read `") && error.contains("config.json"), "{error}");
    }
}
