//! What a training writes down about each step, and how it speaks to its stage while it runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::table::Row;

/// One optimiser step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// The loss over the examples that are held out, after the update, where it was measured.
    pub eval_loss: Option<f64>,
    /// KTO: the KL estimate, averaged over the step's batches.
    pub kl: Option<f64>,
    /// The mean reward of desirable or chosen completions; `None` where the step has none, as in SFT.
    pub rewards_chosen: Option<f64>,
    /// The mean reward of undesirable or rejected completions.
    pub rewards_rejected: Option<f64>,
    /// The difference of the two.
    pub rewards_margin: Option<f64>,
    /// Pairs: the share of those whose chosen side has the higher reward.
    pub rewards_accuracy: Option<f64>,
    /// The mean log-probability of desirable or chosen completions.
    pub logps_chosen: Option<f64>,
    /// The mean log-probability of undesirable or rejected completions.
    pub logps_rejected: Option<f64>,
}

impl Row for TrainLog {
    const TYPE: &'static str = "train.log/v2";
}

/// Who listens to a training.
pub trait Watch {
    /// Whether the training shall stop: asked once a step. It then writes a checkpoint and ends with
    /// [`super::TrainError::Stopped`].
    fn stop(&self) -> bool;

    /// Before the first step, where a loss looks at the base model: it has seen so many sequences.
    fn prepared(&self, done: u64, sequences: u64);

    /// The first step begins: everything is prepared, a checkpoint gone on from.
    fn begins(&self) {}

    /// A step is done, of so many; it is not yet evaluated.
    fn step(&self, row: &TrainLog, steps: u64);

    /// After some steps: the loss over the examples that are held out.
    fn evaluated(&self, step: u64, loss: f64);
}
