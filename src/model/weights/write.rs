//! Weights out as safetensors, tensor by tensor.

use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use super::shards::{INDEX, SINGLE};
use super::{WeightsError, turned};
use crate::fs;
use crate::model::decoder::Decoder;
use crate::model::numbers::{Format, transpose};
use burn::tensor::Tensor;

/// The most bytes of tensors in one file, as in Hugging Face's own folders.
pub const SHARD: u64 = 5_000_000_000;

/// A tensor to be written: its name, its shape in the file, and where its numbers come from.
pub(in crate::model) struct Entry<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Box<dyn Fn() -> Result<Vec<f32>, WeightsError> + 'a>,
}

/// Writes a decoder's weights as one file of `f32`: the same weights always give the same bytes.
///
/// # Errors
/// When the model has adapters, the device fails, or the file cannot be written.
pub fn save(decoder: &Decoder, path: &Path) -> Result<(), WeightsError> {
    write(&entries(decoder)?, path, Format::F32)
}

/// Writes a decoder's weights into a folder: as one file, or where there are more than `most` bytes of them as several with an index.
///
/// # Errors
/// As [`save`], and when a number is too large for the format.
pub fn save_folder(decoder: &Decoder, folder: &Path, format: Format, most: u64) -> Result<(), WeightsError> {
    let mut entries = entries(decoder)?;
    let total: u64 = entries.iter().map(|entry| entry.bytes(format)).sum();
    if total <= most {
        return write(&entries, &folder.join(SINGLE), format);
    }
    let mut shards: Vec<Vec<Entry>> = Vec::new();
    let mut room = 0;
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    for entry in entries {
        let bytes = entry.bytes(format);
        if bytes > room {
            shards.push(Vec::new());
            room = most;
        }
        room = room.saturating_sub(bytes);
        shards.last_mut().expect("there is no room before the first").push(entry);
    }
    let mut map = serde_json::Map::new();
    let count = shards.len();
    for (number, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        write(shard, &folder.join(&file), format)?;
        map.extend(shard.iter().map(|entry| (entry.name.clone(), json!(file))));
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    Ok(fs::write_whole(folder.join(INDEX), format!("{index:#}\n").as_bytes())?)
}

impl Entry<'_> {
    fn bytes(&self, format: Format) -> u64 {
        (self.shape.iter().product::<usize>() * format.size()) as u64
    }
}

/// Writes tensors as one file, in the order of their names.
pub(in crate::model) fn write(entries: &[Entry], path: &Path, format: Format) -> Result<(), WeightsError> {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    let mut end = 0;
    let infos = entries.iter().map(|entry| {
        let begin = end;
        end += entry.bytes(format) as usize;
        let info = TensorInfo { dtype: format.dtype(), shape: entry.shape.clone(), data_offsets: (begin, end) };
        (entry.name.clone(), info)
    });
    // Hugging Face's loaders ask for the format.
    let metadata = Metadata::new(Some([("format".to_owned(), "pt".to_owned())].into()), infos.collect());
    let wrong = |reason: String| WeightsError::Format { path: path.display().to_string(), reason };
    let mut header = serde_json::to_string(&metadata.map_err(|e| wrong(e.to_string()))?)
        .map_err(|e| wrong(e.to_string()))?
        .into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    fs::write_in_parts(path, |write| {
        write(&(header.len() as u64).to_le_bytes())?;
        write(&header)?;
        for entry in entries {
            let encoded = format.encode(&(entry.values)()?);
            write(&encoded.map_err(|source| WeightsError::Overflow { name: entry.name.clone(), source })?)?;
        }
        Ok(())
    })
}

/// The tensors of a decoder as files hold them: projections lie [out, in] there.
fn entries(decoder: &Decoder) -> Result<Vec<Entry<'_>>, WeightsError> {
    if decoder.lora().is_some() {
        return Err(WeightsError::Adapted);
    }
    let mut entries = Vec::new();
    for (name, param) in decoder.matrices() {
        let [rows, columns] = param.val().dims();
        entries.push(if turned(&name) {
            turned_entry(name, param.val())
        } else {
            let label = name.clone();
            Entry { name, shape: vec![rows, columns], values: Box::new(move || host(&label, param.val())) }
        });
    }
    for (name, param) in decoder.vectors() {
        let (label, shape) = (name.clone(), param.val().dims().to_vec());
        entries.push(Entry { name, shape, values: Box::new(move || host(&label, param.val())) });
    }
    Ok(entries)
}

/// A matrix that lies [in, out] in memory and [out, in] in the file.
pub(in crate::model) fn turned_entry<'a>(name: String, matrix: Tensor<2>) -> Entry<'a> {
    let [rows, columns] = matrix.dims();
    let label = name.clone();
    let values = move || Ok(transpose(&host(&label, matrix.clone())?, [rows, columns]));
    Entry { name, shape: vec![columns, rows], values: Box::new(values) }
}

fn host<const D: usize>(name: &str, tensor: Tensor<D>) -> Result<Vec<f32>, WeightsError> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|error| WeightsError::Device { name: name.to_owned(), reason: format!("{error:?}") })
}
