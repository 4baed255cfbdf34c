//! A model under training, as the training loops see it: what differs from device to device stays behind this trait.
//!
//! Every loss that we train with is a function of the sequences' log-probabilities, so a loop never touches a tensor. It asks
//! for log-probabilities, computes losses on the host in `f64`, and says how the loss changes with each log-probability; the
//! learner carries that back to the parameters. What a device keeps between forward and backward pass is its own affair.

use super::TrainError;
use super::batch::Sequence;
use crate::model::Decoder;

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
