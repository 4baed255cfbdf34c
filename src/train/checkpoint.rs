//! Checkpoints: a folder `step-NNNNNNNN` in the scratch folder, with parameters and moments in `state.safetensors` and the
//! rows of the log so far in `log.parquet`.
//!
//! A folder is filled under another name and then renamed, so a checkpoint is whole or absent. Numbers are kept as `f32`,
//! which holds every precision that we train in, so that going on gives the same bits.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::optimise::{AdamW, AdamWConfig, Moments, parameters, with_parameters};
use super::{TrainError, TrainLog};
use crate::model::Decoder;
use crate::{fs, table};

const STATE: &str = "state.safetensors";
const LOG: &str = "log.parquet";

/// A training as it stood after the log's last step.
#[derive(Debug)]
pub struct State {
    /// The model.
    pub model: Decoder,
    /// The optimiser with its moments.
    pub adam: AdamW,
    /// One row for each step made.
    pub log: Vec<TrainLog>,
}

/// Writes a checkpoint and removes the older ones.
///
/// # Errors
/// When a file or folder cannot be written.
pub fn save(scratch: &Path, model: &Decoder, adam: &AdamW, log: &[TrainLog]) -> Result<(), TrainError> {
    let name = format!("step-{:08}", log.len());
    let (aside, place) = (scratch.join(format!("{name}.tmp")), scratch.join(&name));
    fs::remove_dir_all(&aside)?;
    fs::create_dir_all(&aside)?;
    fs::write_whole(aside.join(STATE), &state_bytes(model, adam))?;
    table::write(&aside.join(LOG), log.iter().cloned()).map_err(TrainError::Log)?;
    fs::remove_dir_all(&place)?;
    fs::rename(&aside, &place)?;
    fs::sync_dir(scratch)?;
    for old in checkpoints(scratch)?.into_iter().filter(|path| *path != place) {
        fs::remove_dir_all(old)?;
    }
    Ok(())
}

/// The last whole checkpoint, its numbers put into `model`; `None` where there is none.
///
/// # Errors
/// When a file cannot be read, or holds something else than this model's parameters.
pub fn load(scratch: &Path, model: Decoder, config: AdamWConfig) -> Result<Option<State>, TrainError> {
    if !scratch.is_dir() {
        return Ok(None);
    }
    let Some(folder) = checkpoints(scratch)?.pop() else { return Ok(None) };
    let log: Vec<TrainLog> = table::read(&folder.join(LOG)).map_err(|error| TrainError::Log(error.into()))?;
    let bytes = fs::read(folder.join(STATE))?;
    let wrong = |reason: String| TrainError::Checkpoint { path: folder.display().to_string(), reason };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
    let old = parameters(&model);
    let mut values = Vec::with_capacity(old.len());
    let mut moments = Vec::with_capacity(old.len());
    for (index, old) in old.iter().enumerate() {
        let read = |kind: &str| read(&file, &name(kind, index), old).map_err(&wrong);
        let missing = || wrong(format!("`{}` is missing", name("parameter", index)));
        values.push(read("parameter")?.ok_or_else(missing)?);
        moments.push(read("first")?.zip(read("second")?).map(|(first, second)| Moments { first, second }));
    }
    let model = with_parameters(model, values);
    Ok(Some(State { model, adam: AdamW::resumed(config, log.len() as u64, moments), log }))
}

/// The folders of whole checkpoints, oldest first.
fn checkpoints(scratch: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let is_whole = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-")) && path.extension().is_none()
    };
    Ok(fs::list(scratch)?.into_iter().filter(is_whole).collect())
}

fn name(kind: &str, index: usize) -> String {
    format!("{kind}.{index:05}")
}

fn state_bytes(model: &Decoder, adam: &AdamW) -> Vec<u8> {
    let mut tensors: Vec<(String, TensorData)> = Vec::new();
    let mut add = |kind: &str, index: usize, tensor: &Tensor<1>| {
        tensors.push((name(kind, index), tensor.to_data().convert::<f32>()));
    };
    for (index, parameter) in parameters(model).iter().enumerate() {
        add("parameter", index, parameter);
    }
    for (index, moments) in adam.moments().iter().enumerate() {
        if let Some(Moments { first, second }) = moments {
            add("first", index, first);
            add("second", index, second);
        }
    }
    let views = tensors.iter().map(|(name, data)| {
        let bytes = data.as_bytes();
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).expect("four bytes for every number");
        (name.as_str(), view)
    });
    safetensors::serialize(views, None).expect("names are distinct and views are whole")
}

/// A tensor of the file as one like `old`; `None` where the file has none of this name.
fn read(file: &SafeTensors, name: &str, old: &Tensor<1>) -> Result<Option<Tensor<1>>, String> {
    let Ok(view) = file.tensor(name) else { return Ok(None) };
    let count = old.dims()[0];
    if view.dtype() != Dtype::F32 || view.shape() != [count] {
        return Err(format!("`{name}` is {:?} {:?}, but the model has {count} numbers", view.dtype(), view.shape()));
    }
    let values: Vec<f32> =
        view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    let place: (&Device, DType) = (&old.device(), old.dtype());
    Ok(Some(Tensor::from_data(TensorData::new(values, [count]), place)))
}
