//! Checkpoints: a folder `step-NNNNNNNN` in the scratch folder, with parameters and moments in `state.safetensors` and the
//! rows of the log so far in `log.parquet`; where the best weights are older ones, these are in `best.safetensors`. Beside the
//! folders `reference.parquet`, what the base model says of the rows.
//!
//! A folder is filled under another name and then renamed, so a checkpoint is whole or absent. Numbers are kept as `f32`,
//! which holds every precision that we train in, so that going on gives the same bits.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::learner::LearnerState;
use super::{TrainError, TrainLog};
use crate::fs;
use crate::table::{self, Row};

const STATE: &str = "state.safetensors";
const BEST: &str = "best.safetensors";
const LOG: &str = "log.parquet";
const REFERENCE: &str = "reference.parquet";

/// A training as it stood after the log's last step.
#[derive(Debug)]
pub struct Saved {
    /// What the learner holds.
    pub state: LearnerState,
    /// The best weights, where they are kept and older.
    pub best: Option<LearnerState>,
    /// One row for each step made.
    pub log: Vec<TrainLog>,
    /// The checkpoint's folder, for messages.
    pub path: String,
}

/// Writes a checkpoint and removes the older ones.
///
/// # Errors
/// When a file or folder cannot be written.
pub fn save(
    scratch: &Path,
    state: &LearnerState,
    best: Option<&LearnerState>,
    log: &[TrainLog],
) -> Result<(), TrainError> {
    let name = format!("step-{:08}", log.len());
    let (aside, place) = (scratch.join(format!("{name}.tmp")), scratch.join(&name));
    fs::remove_dir_all(&aside)?;
    fs::create_dir_all(&aside)?;
    fs::write_whole(aside.join(STATE), &state_bytes(state))?;
    if let Some(best) = best {
        fs::write_whole(aside.join(BEST), &state_bytes(best))?;
    }
    table::write(&aside.join(LOG), log.iter().cloned()).map_err(TrainError::Log)?;
    fs::remove_dir_all(&place)?;
    fs::rename(&aside, &place)?;
    fs::sync_dir(scratch)?;
    for old in checkpoints(scratch)?.into_iter().filter(|path| *path != place) {
        fs::remove_dir_all(old)?;
    }
    Ok(())
}

/// The last whole checkpoint; `None` where there is none.
///
/// # Errors
/// When a file cannot be read, or is none of ours. Whose model's numbers they are is for the learner to say.
pub fn load(scratch: &Path) -> Result<Option<Saved>, TrainError> {
    if !scratch.is_dir() {
        return Ok(None);
    }
    let Some(folder) = checkpoints(scratch)?.pop() else { return Ok(None) };
    let log: Vec<TrainLog> = table::read(&folder.join(LOG)).map_err(|error| TrainError::Log(error.into()))?;
    let path = folder.display().to_string();
    let wrong = |reason: String| TrainError::Checkpoint { path: path.clone(), reason };
    let state = state(&fs::read(folder.join(STATE))?).map_err(&wrong)?;
    if state.step != log.len() as u64 {
        return Err(wrong(format!("it is of step {}, its log has {} steps", state.step, log.len())));
    }
    let best = match folder.join(BEST) {
        path if path.is_file() => Some(self::state(&fs::read(path)?).map_err(&wrong)?),
        _ => None,
    };
    Ok(Some(Saved { state, best, log, path }))
}

/// What the base model says of one sequence.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ReferenceRow {
    log_prob: f64,
}

impl Row for ReferenceRow {
    const TYPE: &'static str = "train.reference/v1";
}

/// Keeps the base model's log-probabilities of a training against it, of all sequences or the first of them.
///
/// # Errors
/// When a file or folder cannot be written.
pub fn save_reference(scratch: &Path, values: &[f64]) -> Result<(), TrainError> {
    fs::create_dir_all(scratch)?;
    let aside = scratch.join(format!("{REFERENCE}.tmp"));
    let rows = values.iter().map(|log_prob| ReferenceRow { log_prob: *log_prob });
    table::write(&aside, rows).map_err(TrainError::Log)?;
    Ok(fs::rename(&aside, scratch.join(REFERENCE))?)
}

/// The log-probabilities that were kept; none where nothing was.
///
/// # Errors
/// When the file cannot be read, or holds more than `sequences` numbers.
pub fn load_reference(scratch: &Path, sequences: usize) -> Result<Vec<f64>, TrainError> {
    let path = scratch.join(REFERENCE);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let rows: Vec<ReferenceRow> = table::read(&path).map_err(|error| TrainError::Log(error.into()))?;
    if rows.len() > sequences {
        let reason = format!("it holds {} numbers for {sequences} sequences", rows.len());
        return Err(TrainError::Checkpoint { path: path.display().to_string(), reason });
    }
    Ok(rows.into_iter().map(|row| row.log_prob).collect())
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

const STEP: &str = "step";

fn state_bytes(state: &LearnerState) -> Vec<u8> {
    let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |kind: &str, index: usize, values: &[f32]| {
        tensors.push((name(kind, index), values.iter().flat_map(|value| value.to_le_bytes()).collect()));
    };
    for (index, parameter) in state.parameters.iter().enumerate() {
        add("parameter", index, parameter);
    }
    for (index, moments) in state.moments.iter().enumerate() {
        if let Some([first, second]) = moments {
            add("first", index, first);
            add("second", index, second);
        }
    }
    let views = tensors.iter().map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).expect("four bytes for every number");
        (name.as_str(), view)
    });
    let metadata = HashMap::from([(STEP.to_owned(), state.step.to_string())]);
    safetensors::serialize(views, Some(metadata)).expect("names are distinct and views are whole")
}

fn state(bytes: &[u8]) -> Result<LearnerState, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let step = header.metadata().as_ref().and_then(|metadata| metadata.get(STEP));
    let step = step.and_then(|step| step.parse().ok()).ok_or("it does not say its step")?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let (mut parameters, mut moments) = (Vec::new(), Vec::new());
    while let Some(parameter) = values(&file, &name("parameter", parameters.len()))? {
        let index = parameters.len();
        moments.push(match (values(&file, &name("first", index))?, values(&file, &name("second", index))?) {
            (Some(first), Some(second)) => Some([first, second]),
            _ => None,
        });
        parameters.push(parameter);
    }
    Ok(LearnerState { step, parameters, moments })
}

/// The numbers of a tensor of the file; `None` where the file has none of this name.
fn values(file: &SafeTensors, name: &str) -> Result<Option<Vec<f32>>, String> {
    let Ok(view) = file.tensor(name) else { return Ok(None) };
    if view.dtype() != Dtype::F32 {
        return Err(format!("`{name}` holds {:?} instead of F32", view.dtype()));
    }
    let numbers = view.data().chunks_exact(4);
    Ok(Some(numbers.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect()))
}
