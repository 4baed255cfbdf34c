//! Weights as `model.safetensors`, under Hugging Face's names and in its layout: a projection lies [out, in] in the file and
//! [in, out] in memory.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::config::{ConfigError, ModelConfig};
use super::decoder::Decoder;
use crate::fs;

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
    /// A tensor that the configuration asks for is not there.
    #[error("`{path}` has no tensor `{name}`")]
    Missing { path: String, name: String },
    /// A tensor of another shape than the configuration asks for.
    #[error("tensor `{name}` in `{path}` has shape {found:?}, the configuration asks for {expected:?}")]
    Shape { path: String, name: String, found: Vec<usize>, expected: Vec<usize> },
    /// A tensor of numbers that we do not read.
    #[error("tensor `{name}` in `{path}` holds {found}; only F32 is read")]
    Dtype { path: String, name: String, found: String },
    /// Adapters have no place among the weights.
    #[error("the model has adapters; merge them into the weights before writing, or write them as an adapter")]
    Adapted,
    /// The tensors could not be taken from the device.
    #[error("tensor `{name}` could not be read from the device: {reason}")]
    Device { name: String, reason: String },
}

/// Writes a decoder's weights: the same weights always give the same bytes.
pub fn save(decoder: &Decoder, path: &Path) -> Result<(), WeightsError> {
    if decoder.lora().is_some() {
        return Err(WeightsError::Adapted);
    }
    let tensors = collect(decoder)?;
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("four bytes for every number of the shape");
        (name.as_str(), view)
    });
    // Hugging Face's loaders ask for the format.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| WeightsError::Format { path: path.display().to_string(), reason: error.to_string() })?;
    Ok(fs::write_whole(path, &bytes)?)
}

/// Reads a decoder's weights; tensors that the configuration does not ask for are passed over.
pub fn load(config: &ModelConfig, path: &Path, device: &Device) -> Result<Decoder, WeightsError> {
    config.check()?;
    let bytes = fs::read(path)?;
    let path = path.display().to_string();
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| WeightsError::Format { path: path.clone(), reason: error.to_string() })?;
    let reader = Reader { file, path };
    Decoder::build(
        config,
        |name, shape| {
            // The embedding is no projection: it lies [vocab, hidden] here and there.
            let turned = !name.ends_with("embed_tokens.weight");
            let expected = if turned { [shape[1], shape[0]] } else { shape };
            let values = reader.values(name, &expected)?;
            let values = if turned { transpose(&values, expected) } else { values };
            Ok(Tensor::from_data(TensorData::new(values, shape), device))
        },
        |name, size| Ok(Tensor::from_data(TensorData::new(reader.values(name, &[size])?, [size]), device)),
    )
}

struct Reader<'a> {
    file: SafeTensors<'a>,
    path: String,
}

impl Reader<'_> {
    fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let (path, name_) = (self.path.clone(), name.to_owned());
        let Ok(tensor) = self.file.tensor(name) else {
            return Err(WeightsError::Missing { path, name: name_ });
        };
        if tensor.dtype() != Dtype::F32 {
            return Err(WeightsError::Dtype { path, name: name_, found: format!("{:?}", tensor.dtype()) });
        }
        if tensor.shape() != expected {
            let found = tensor.shape().to_vec();
            return Err(WeightsError::Shape { path, name: name_, found, expected: expected.to_vec() });
        }
        let numbers = tensor.data().chunks_exact(4);
        Ok(numbers.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
    }
}

type Named = (String, Vec<usize>, Vec<u8>);

fn collect(decoder: &Decoder) -> Result<Vec<Named>, WeightsError> {
    let mut named = Vec::new();
    for (name, param) in decoder.matrices() {
        let [rows, columns] = param.val().dims();
        let values = host(&name, param.val())?;
        if name.ends_with("embed_tokens.weight") {
            named.push((name, vec![rows, columns], bytes(&values)));
        } else {
            named.push((name, vec![columns, rows], bytes(&transpose(&values, [rows, columns]))));
        }
    }
    for (name, param) in decoder.vectors() {
        let values = host(&name, param.val())?;
        named.push((name, vec![values.len()], bytes(&values)));
    }
    Ok(named)
}

fn host<const D: usize>(name: &str, tensor: Tensor<D>) -> Result<Vec<f32>, WeightsError> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|error| WeightsError::Device { name: name.to_owned(), reason: format!("{error:?}") })
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// [rows, columns] to [columns, rows].
fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::tests::tiny;
    use burn::tensor::Int;

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
        let bytes = fs::read(&path).unwrap();
        fs::write_whole(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(error(&tiny()).starts_with("`FILE` is no safetensors file, or is cut off: "));
        fs::write_whole(&path, b"no").unwrap();
        assert!(error(&tiny()).starts_with("`FILE` is no safetensors file, or is cut off: "));
    }
}
