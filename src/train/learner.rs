//! A model under training, as the training loops see it: what differs from device to device stays behind this trait.
//!
//! Every loss that we train with is a function of the sequences' log-probabilities, so a loop never touches a tensor. It asks
//! for log-probabilities, computes losses on the host in `f64`, and says how the loss changes with each log-probability; the
//! learner carries that back to the parameters. What a device keeps between forward and backward pass is its own affair.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::batch::Sequence;
#[cfg(feature = "cuda")]
use super::cuda::CudaLearner;
use super::host::HostLearner;
use super::optimise::AdamWConfig;
use super::plain::PlainLearner;
use super::workers::on_cpu;
use crate::model::Decoder;
use crate::model::architecture::Architecture;
#[cfg(feature = "cuda")]
use crate::model::device::Place;

/// Which weights answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// The model under training.
    Policy,
    /// The model as it was before training: the weights without adapters. Only adapters leave it within reach; without them
    /// it is asked before the first update.
    Reference,
}

/// How a loss changes with the log-probabilities of one group of sequences.
///
/// It gets the place of the group's first sequence and the log-probability of each of its sequences (the sum over scored
/// tokens), and gives the derivative of the loss by each of them.
pub type Slope<'a> = dyn Fn(usize, &[f64]) -> Vec<f64> + Sync + 'a;

/// The slopes of consecutive sequences, asked for group by group. `first` is the place of the first of them.
pub(super) fn slopes(slope: &Slope, first: usize, group: usize, log_probs: &[f64]) -> Vec<f64> {
    let groups = log_probs.chunks(group).enumerate();
    groups.flat_map(|(index, values)| slope(first + index * group, values)).collect()
}

/// A model under training on one device: its parameters, their gradient and the optimiser's moments.
pub trait Learner {
    /// The log-probability of every sequence's scored tokens, in the order of the sequences; no gradient, no dropout.
    ///
    /// # Errors
    /// When a sequence is longer than the model takes, or the device fails.
    fn log_probs(&mut self, sequences: &[&Sequence], under: Under) -> Result<Vec<f64>, TrainError>;

    /// Adds the gradient of a loss over the sequences to the gradient so far, and gives their log-probabilities.
    ///
    /// Sequences belong together in groups of `group` consecutive ones (1, or 2 for pairs), whose slopes are asked for at once.
    /// `seed` decides what dropout drops; without dropout it changes nothing.
    ///
    /// # Errors
    /// As [`Learner::log_probs`].
    fn accumulate(
        &mut self,
        sequences: &[&Sequence],
        group: usize,
        slope: &Slope,
        seed: u64,
    ) -> Result<Vec<f64>, TrainError>;

    /// The global L2 norm of the gradient so far.
    ///
    /// # Errors
    /// When the device fails.
    fn gradient_norm(&mut self) -> Result<f64, TrainError>;

    /// One step of AdamW with the gradient times `factor`; the gradient is zero again.
    ///
    /// # Errors
    /// When the device fails.
    fn update(&mut self, learning_rate: f64, factor: f64) -> Result<(), TrainError>;

    /// The parameters and the optimiser's moments: what a checkpoint keeps.
    ///
    /// # Errors
    /// When the device fails.
    fn state(&mut self) -> Result<LearnerState, TrainError>;

    /// Goes on from a state of the same model.
    ///
    /// # Errors
    /// When the state is another model's, or the device fails.
    fn restore(&mut self, state: LearnerState) -> Result<(), TrainError>;

    /// The trained model, its parameters plain tensors; adapters stay beside their weights.
    ///
    /// # Errors
    /// When the device fails.
    fn finish(self: Box<Self>) -> Result<Decoder, TrainError>;
}

/// The numbers of a training between two steps, in the order in which the decoder's trained parameters are visited.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnerState {
    /// How many updates were made.
    pub step: u64,
    /// The trained parameters; master weights, where the device computes in fewer bits.
    pub parameters: Vec<Vec<f32>>,
    /// The running mean of each parameter's gradient and of its square; `None` where it never had one.
    pub moments: Vec<Option<[Vec<f32>; 2]>>,
}

impl LearnerState {
    /// Whether this is the state of parameters of these sizes.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self, sizes: impl Iterator<Item = usize>) -> Result<(), TrainError> {
        let sizes: Vec<usize> = sizes.collect();
        if sizes.len() != self.parameters.len() || sizes.len() != self.moments.len() {
            let found = self.parameters.len();
            return Err(TrainError::State(format!("it has {found} parameters instead of {}", sizes.len())));
        }
        for (index, (size, values)) in sizes.iter().zip(&self.parameters).enumerate() {
            let moments = self.moments[index].iter().flatten().map(Vec::len);
            if let Some(found) = moments.chain([values.len()]).find(|found| found != size) {
                return Err(TrainError::State(format!("parameter {index} has {found} numbers instead of {size}")));
            }
        }
        Ok(())
    }
}

/// What a learner needs beside the model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LearnerSettings {
    /// The optimiser's constants.
    pub adam: AdamWConfig,
    /// Whether only the layers' inputs are kept for the backward pass, and the rest is computed again.
    pub checkpointing: bool,
    /// In how many bits the device computes.
    pub precision: Precision,
}

/// In how many bits a device computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits; on CUDA, factors of matrix products are rounded to TF32 (10 bits behind the point).
    #[default]
    F32,
    /// 16 bits with the exponents of 32; the optimiser keeps weights of 32 bits. Not on the processor.
    Bf16,
}

/// A learner for the place that the model is to be trained at: see [`Decoder::place`].
///
/// # Errors
/// When the device cannot train this model, or threads cannot be started.
pub fn open(base: Decoder, settings: LearnerSettings) -> Result<Box<dyn Learner>, TrainError> {
    #[cfg(feature = "cuda")]
    if let Place::Cuda(place) = base.place().clone() {
        return Ok(Box::new(CudaLearner::new(base, settings, &place)?));
    }
    if settings.precision == Precision::Bf16 {
        let place = if on_cpu(&device(&base)) { "the processor" } else { "this device" };
        return Err(TrainError::Unsupported(format!("{place} trains in 32 bits only; set `precision: f32`")));
    }
    if on_cpu(&device(&base)) {
        return Ok(Box::new(HostLearner::new(base, settings)?));
    }
    if settings.checkpointing {
        let message = "this device computes nothing twice; set `gradient_checkpointing: false`";
        return Err(TrainError::Unsupported(message.to_owned()));
    }
    Ok(Box::new(PlainLearner::new(base, settings)?))
}

/// Which of the float parameters are trained, in visiting order: where there are adapters they alone, else all.
pub fn trained(model: &Decoder) -> Vec<bool> {
    struct Mark<'a> {
        adapters: &'a [burn::module::ParamId],
        found: Vec<bool>,
    }
    impl ModuleVisitor for Mark<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(self.adapters.is_empty() || self.adapters.contains(&param.id));
        }
    }
    let linears = model.linears();
    let adapters: Vec<_> = linears
        .iter()
        .filter_map(|(_, map)| map.adapter.as_ref())
        .flat_map(|adapter| [adapter.a.id, adapter.b.id])
        .collect();
    let mut mark = Mark { adapters: &adapters, found: Vec::new() };
    model.visit(&mut mark);
    mark.found
}

/// Refuses sequences that are longer than the model takes, and those with tokens that it does not know.
///
/// # Errors
/// Names the first of them.
pub fn check_sequences(architecture: &Architecture, sequences: &[&Sequence]) -> Result<(), TrainError> {
    let (limit, vocab) = (architecture.context, architecture.vocab);
    for Sequence { dialogue, ids, .. } in sequences {
        if ids.len() > limit {
            return Err(TrainError::TooLong { dialogue: dialogue.clone(), tokens: ids.len(), limit });
        }
        if let Some(&token) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(TrainError::UnknownToken { dialogue: dialogue.clone(), token, vocab });
        }
    }
    Ok(())
}

/// Where a model's parameters lie.
pub(super) fn device(model: &Decoder) -> Device {
    model.embed_tokens.val().device()
}
