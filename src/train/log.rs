//! What a training writes down about each step, and how it speaks to its stage while it runs.

use serde::{Deserialize, Serialize};

use crate::table::Row;

/// One optimiser step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainLog {
    /// The step, from 1.
    pub step: u64,
    /// How much of the examples has been seen, in epochs, after this step.
    pub epoch: f64,
    /// The loss before the update.
    pub loss: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// The global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens of the step's sequences, without padding.
    pub tokens: u64,
    /// Tokens that carried a loss.
    pub scored_tokens: u64,
    /// KTO: the KL estimate, averaged over the step's batches.
    pub kl: Option<f64>,
    /// KTO: the mean reward of desirable rows; `None` where the step has none.
    pub rewards_chosen: Option<f64>,
    /// KTO: the mean reward of undesirable rows.
    pub rewards_rejected: Option<f64>,
    /// KTO: the difference of the two.
    pub rewards_margin: Option<f64>,
    /// KTO: the mean log-probability of desirable completions.
    pub logps_chosen: Option<f64>,
    /// KTO: the mean log-probability of undesirable completions.
    pub logps_rejected: Option<f64>,
}

impl Row for TrainLog {
    const TYPE: &'static str = "train.log/v1";
}

/// Who listens to a training.
pub trait Watch {
    /// Whether the training shall stop: asked once a step. It then writes a checkpoint and ends with
    /// [`super::TrainError::Stopped`].
    fn stop(&self) -> bool;

    /// A step is done, of so many.
    fn step(&self, row: &TrainLog, steps: u64);
}
