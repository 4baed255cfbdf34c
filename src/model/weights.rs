//! Weights in and out of files, under Hugging Face's names and in its layout: a projection lies [out, in] in the file and
//! [in, out] in memory.

pub mod shards;
pub mod write;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::config::{ConfigError, ModelConfig};
use super::decoder::Decoder;
use super::numbers::{Overflow, transpose};
use crate::fs;
pub use shards::Shards;
pub use write::{SHARD, save, save_folder};

/// Why weights could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] fs::PathError),
    /// The configuration describes no model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file is cut off or something else.
    #[error("`{path}` is no safetensors file, or is cut off: {reason}")]
    Format { path: String, reason: String },
    /// The list of files is wrong.
    #[error("`{path}` is no index of weights: {reason}")]
    Index { path: String, reason: String },
    /// Weights only in a format that can run code.
    #[error("`{0}` has its weights as `pytorch_model.bin` only; convert them to safetensors with transformers first")]
    Pickled(String),
    /// A tensor that the configuration asks for is not there.
    #[error("`{path}` has no tensor `{name}`")]
    Missing { path: String, name: String },
    /// A tensor of a layer that the configuration does not ask for, and that would be missed.
    #[error("`{path}` has a tensor `{name}`, but its configuration asks for none")]
    Unused { path: String, name: String },
    /// A tensor of another shape than the configuration asks for.
    #[error("tensor `{name}` in `{path}` has shape {found:?}, the configuration asks for {expected:?}")]
    Shape { path: String, name: String, found: Vec<usize>, expected: Vec<usize> },
    /// A tensor of numbers that we do not read.
    #[error("tensor `{name}` in `{path}` holds {found}; F32, F16, BF16 and F64 are read")]
    Dtype { path: String, name: String, found: String },
    /// A tensor quantised in a way that we do not read.
    #[error("tensor `{name}` in `{path}` is quantised as {found}; read are {read}")]
    Quantised { path: String, name: String, found: String, read: String },
    /// A number that the format cannot hold.
    #[error("tensor `{name}`: {source}")]
    Overflow { name: String, source: Overflow },
    /// Adapters have no place among the weights.
    #[error("the model has adapters; merge them into the weights before writing, or write them as an adapter")]
    Adapted,
    /// The tensors could not be taken from the device.
    #[error("tensor `{name}` could not be read from the device: {reason}")]
    Device { name: String, reason: String },
}

/// Named tensors of a model, under the names that Hugging Face's files have, read one at a time.
pub trait Source {
    /// What is read, for messages.
    fn path(&self) -> String;

    /// Every tensor.
    fn names(&self) -> Vec<&str>;

    /// The shape of a tensor as files hold it, where it is there.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// The numbers of a tensor, as many as its shape says.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or holds what we do not read.
    fn read(&self, name: &str) -> Result<Vec<f32>, WeightsError>;
}

/// Reads a decoder's weights from a safetensors file or a folder with some; see [`load_from`].
///
/// # Errors
/// When the configuration is wrong, or the files do not hold what it asks for.
pub fn load(config: &ModelConfig, path: &Path, device: &Device) -> Result<Decoder, WeightsError> {
    config.check()?;
    load_from(config, &Shards::open(path)?, device)
}

/// Reads a decoder's weights, a tensor at a time: beside the model, memory holds one tensor twice. Tensors outside the decoder (a vision
/// tower) are passed over.
///
/// # Errors
/// When the configuration is wrong, the source does not hold what it asks for, or holds tensors of layers that it does not ask for.
pub fn load_from(config: &ModelConfig, source: &dyn Source, device: &Device) -> Result<Decoder, WeightsError> {
    config.check()?;
    let used: RefCell<BTreeSet<String>> = RefCell::default();
    let values = |name: &str, expected: &[usize]| {
        let (path, name) = (source.path(), name.to_owned());
        let Some(found) = source.shape(&name) else { return Err(WeightsError::Missing { path, name }) };
        if found != expected {
            return Err(WeightsError::Shape { path, name, found, expected: expected.to_vec() });
        }
        let values = source.read(&name)?;
        used.borrow_mut().insert(name);
        Ok(values)
    };
    let decoder = Decoder::build::<WeightsError>(
        config,
        |name, shape| {
            let values = if turned(name) {
                let expected = [shape[1], shape[0]];
                transpose(&values(name, &expected)?, expected)
            } else {
                values(name, &shape)?
            };
            Ok(Tensor::from_data(TensorData::new(values, shape), device))
        },
        |name, size| Ok(Tensor::from_data(TensorData::new(values(name, &[size])?, [size]), device)),
    )?;
    let used = used.into_inner();
    let unused = |name: &&str| {
        // Older files carry the frequencies of the rotary embedding along.
        name.starts_with("model.layers.") && !name.ends_with("rotary_emb.inv_freq") && !used.contains(*name)
    };
    match source.names().into_iter().find(unused) {
        Some(name) => Err(WeightsError::Unused { path: source.path(), name: name.to_owned() }),
        None => Ok(decoder),
    }
}

/// Whether a matrix lies in memory the other way round than in files: all projections do, the embedding does not.
fn turned(name: &str) -> bool {
    !name.ends_with("embed_tokens.weight")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::tests::tiny;
    use crate::model::numbers::Format;
    use burn::tensor::Int;
    use proptest::prelude::*;
    use safetensors::tensor::{Dtype, SafeTensors, TensorView};

    fn logits(model: &Decoder) -> Vec<f32> {
        let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &Device::flex());
        model.forward(tokens).try_into_vec_as().unwrap()
    }

    #[test]
    fn weights_survive_the_file_and_the_file_its_reader() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
        for tied in [true, false] {
            let config = ModelConfig { tie_word_embeddings: tied, ..tiny() };
            let model = Decoder::init(&config, 5, &Device::flex()).unwrap();
            save(&model, &first).unwrap();
            let loaded = load(&config, &first, &Device::flex()).unwrap();
            assert_eq!(logits(&loaded), logits(&model));
            save(&loaded, &second).unwrap();
            assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
        }
    }

    #[test]
    fn adapters_are_not_lost_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let adapted = crate::model::lora::tests::adapted(&Device::flex());
        assert!(matches!(save(&adapted, &path), Err(WeightsError::Adapted)) && !path.exists());
        save(&adapted.merged(), &path).unwrap();
        let loaded = load(&tiny(), &path, &Device::flex()).unwrap();
        assert_eq!(logits(&loaded), logits(&adapted.merged()));
    }

    #[test]
    fn names_and_shapes_are_those_of_hugging_face() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save(&Decoder::init(&tiny(), 5, &Device::flex()).unwrap(), &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let shape = |name: &str| file.tensor(name).unwrap().shape().to_vec();
        assert_eq!(shape("model.embed_tokens.weight"), [20, 16]);
        assert_eq!(shape("model.layers.1.self_attn.k_proj.weight"), [8, 16]);
        assert_eq!(shape("model.layers.0.mlp.down_proj.weight"), [16, 24]);
        assert_eq!(shape("model.layers.0.post_attention_layernorm.weight"), [16]);
        assert_eq!(shape("model.norm.weight"), [16]);
        assert!(file.tensor("lm_head.weight").is_err());
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save(&Decoder::init(&tiny(), 5, &Device::flex()).unwrap(), &path).unwrap();
        let error = |config: &ModelConfig| {
            let text = load(config, &path, &Device::flex()).unwrap_err().to_string();
            text.replace(&path.display().to_string(), "FILE")
        };
        assert_eq!(
            error(&ModelConfig { num_hidden_layers: 3, ..tiny() }),
            "`FILE` has no tensor `model.layers.2.self_attn.q_proj.weight`"
        );
        assert_eq!(
            error(&ModelConfig { intermediate_size: 32, ..tiny() }),
            "tensor `model.layers.0.mlp.gate_proj.weight` in `FILE` has shape [24, 16], the configuration asks for [32, 16]"
        );
        assert_eq!(
            error(&ModelConfig { num_hidden_layers: 1, ..tiny() }),
            "`FILE` has a tensor `model.layers.1.input_layernorm.weight`, but its configuration asks for none"
        );
        let bytes = fs::read(&path).unwrap();
        fs::write_whole(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(error(&tiny()).starts_with("`FILE` is no safetensors file, or is cut off: "));
        fs::write_whole(&path, b"no").unwrap();
        assert!(error(&tiny()).starts_with("`FILE` is no safetensors file, or is cut off: "));
    }

    #[test]
    fn one_file_is_what_the_safetensors_crate_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save(&Decoder::init(&tiny(), 5, &Device::flex()).unwrap(), &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        assert_eq!(safetensors::serialize(file.tensors(), Some(metadata)).unwrap(), bytes);
    }

    /// Weights that bf16 and f16 hold exactly.
    fn coarse(config: &ModelConfig) -> Decoder {
        use burn::module::{Module, ModuleMapper, Param};
        struct Coarse;
        impl ModuleMapper for Coarse {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|values| (values * 64.0).round() / 64.0)
            }
        }
        Decoder::init(config, 5, &Device::flex()).unwrap().map(&mut Coarse)
    }

    #[test]
    fn folders_come_back_from_every_format_and_from_shards() {
        let config = ModelConfig { tie_word_embeddings: false, ..tiny() };
        let model = coarse(&config);
        for format in [Format::F32, Format::Bf16, Format::F16] {
            let folder = tempfile::tempdir().unwrap();
            save_folder(&model, folder.path(), format, 1_000).unwrap();
            let files = fs::list(folder.path()).unwrap();
            let last = format!("model-{0:05}-of-{0:05}.safetensors", files.len() - 1);
            assert!(files.len() > 5 && files.iter().any(|file| file.ends_with(&last)));
            assert_eq!(logits(&load(&config, folder.path(), &Device::flex()).unwrap()), logits(&model));
            let whole = tempfile::tempdir().unwrap();
            save_folder(&model, whole.path(), format, SHARD).unwrap();
            let shards = Shards::open(whole.path()).unwrap();
            assert_eq!(shards.formats(), [(format.name().to_owned(), model.parameters())]);
            assert_eq!(logits(&load_from(&config, &shards, &Device::flex()).unwrap()), logits(&model));
        }
    }

    #[test]
    fn an_index_that_lies_is_no_index() {
        let model = Decoder::init(&tiny(), 5, &Device::flex()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        save_folder(&model, folder.path(), Format::F32, 4_000).unwrap();
        let path = folder.path().join(shards::INDEX);
        let whole = fs::read_to_string(&path).unwrap();
        let error = |text: &str| {
            fs::write_whole(&path, text.as_bytes()).unwrap();
            load(&tiny(), folder.path(), &Device::flex()).unwrap_err().to_string()
        };
        assert!(error(&whole.replace("model-00001", "../model-00001")).contains("is no file's name"));
        assert!(error(&whole.replace("model-00001", "model-00009")).starts_with("cannot open `"));
        assert!(
            error(&whole.replace("norm.weight\": \"model-00001", "norm.weight\": \"model-00002"))
                .contains("has no tensor")
        );
        assert!(error("{}").contains("missing field `weight_map`"));
        fs::remove_file(&path).unwrap();
        fs::write_whole(folder.path().join("pytorch_model.bin"), b"").unwrap();
        let error = load(&tiny(), folder.path(), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("convert them to safetensors"), "{error}");
    }

    #[test]
    fn a_decoder_below_another_name_is_found() {
        let model = Decoder::init(&tiny(), 5, &Device::flex()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        save(&model, &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        for prefix in ["language_model.model.", "model.language_model.", ""] {
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let mut tensors: Vec<_> =
                file.tensors().into_iter().map(|(name, view)| (name.replace("model.", prefix), view)).collect();
            let eye = [0; 4];
            tensors
                .push(("vision_tower.layers.0.weight".to_owned(), TensorView::new(Dtype::F32, vec![1], &eye).unwrap()));
            fs::write_whole(&path, &safetensors::serialize(tensors, None).unwrap()).unwrap();
            assert_eq!(logits(&load(&tiny(), &path, &Device::flex()).unwrap()), logits(&model));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn damaged_files_are_errors_or_other_numbers_never_panics(
            place in 0_usize..4_000, value in 0_u8..=255, cut in prop::option::of(0_usize..12_000),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model.safetensors");
            save(&Decoder::init(&tiny(), 5, &Device::flex()).unwrap(), &path).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes[place] = value;
            bytes.truncate(cut.unwrap_or(usize::MAX));
            fs::write_whole(&path, &bytes).unwrap();
            let loaded = load(&tiny(), &path, &Device::flex());
            prop_assert!(cut.is_none() || loaded.is_err());
        }
    }
}
