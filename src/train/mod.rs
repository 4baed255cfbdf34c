//! Training: supervised fine-tuning, KTO and losses of pairs on our own decoders, of all weights or of adapters.
//!
//! [`sft`], [`kto`] and [`dpo`] each read top to bottom as the training of their kind: which rows come when, and what the loss
//! asks for. [`run`] is what they share from step to step: [`plan`] and [`schedule`] (which batches, which learning rate),
//! [`evaluate`] (held-out examples and the early end), [`checkpoint`] (going on after a kill), [`log`] and [`rows`] (what is
//! written down of steps and of examples). [`objective`] holds the losses, functions of sequences' log-probabilities on the host;
//! [`learner`] is the border to the devices behind it: [`host`] computes on processors, [`plain`] on any device that burn knows.
//!
//! On the processor the same examples, parameters and base model give the same weights bit for bit, whatever the number of
//! cores and wherever the training was interrupted. Nothing touches burn's global random numbers, so that several models
//! can be trained at once in one process.

pub mod batch;
pub mod checkpoint;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dpo;
pub mod encode;
mod evaluate;
mod figures;
pub mod host;
pub mod kto;
pub mod learner;
pub mod log;
pub mod loss;
pub mod objective;
pub mod optimise;
pub mod plain;
pub mod plan;
mod reference;
pub mod rows;
mod run;
pub mod schedule;
pub mod settings;
pub mod sft;
pub mod weights;
pub mod workers;

pub use log::{TrainLog, Watch};
pub use run::Trained;
pub use settings::{Evaluation, Examples, Settings};

/// A row of a batch, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowName {
    /// The dialogue that it comes from.
    pub dialogue: String,
    /// Its place among the rows that the training was given, from 0.
    pub place: u64,
}

/// Why a training ended without a model.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// There is nothing to train on.
    #[error("there are no examples to train on{0}")]
    NoExamples(String),
    /// A sequence is longer than the model takes.
    #[error("dialogue `{dialogue}` has {tokens} tokens, but the model takes sequences of at most {limit}")]
    TooLong {
        /// The sequence's dialogue.
        dialogue: String,
        /// Its tokens.
        tokens: usize,
        /// The most that the model takes.
        limit: usize,
    },
    /// Loss or gradient is no number any more.
    #[error("the {what} of step {step} is {value}{}", names(rows))]
    NotFinite {
        /// The step, from 1.
        step: u64,
        /// What it is: the loss, the norm of the gradient, the weights.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The step's rows.
        rows: Vec<RowName>,
    },
    /// The loss over what is held out is no number any more.
    #[error("the loss over the held-out examples after step {step} is {value}{}", names(rows))]
    HeldOut {
        /// The step, from 1.
        step: u64,
        /// NaN or an infinity.
        value: f64,
        /// The held-out rows that the model gives no finite log-probability.
        rows: Vec<RowName>,
    },
    /// A log-probability under the base model is no number.
    #[error("the base model gives dialogue `{dialogue}` the log-probability {value}")]
    Reference {
        /// The row's dialogue.
        dialogue: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// A checkpoint does not belong to this training.
    #[error("the checkpoint `{path}` does not fit this training: {reason}")]
    Checkpoint {
        /// The checkpoint's folder.
        path: String,
        /// What does not fit.
        reason: String,
    },
    /// The training was asked to stop; a checkpoint is written.
    #[error("stopped after step {0}")]
    Stopped(u64),
    /// The device cannot train this, or failed.
    #[error("the device cannot go on training: {0}")]
    Device(String),
    /// A sequence has a token that the model does not know.
    #[error("dialogue `{dialogue}` has the token {token}, but the model's vocabulary has {vocab}")]
    UnknownToken {
        /// The sequence's dialogue.
        dialogue: String,
        /// The token's id.
        token: u32,
        /// The size of the model's vocabulary.
        vocab: usize,
    },
    /// The device's learner does not train such a model.
    #[error("{0}")]
    Unsupported(String),
    /// The learner's numbers belong to another model.
    #[error("the state of the training does not fit the model: {0}")]
    State(String),
    /// Threads could not be started.
    #[error("cannot start worker threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A file could not be read or written.
    #[error(transparent)]
    Path(#[from] crate::fs::PathError),
    /// The log of a checkpoint could not be read or written.
    #[error("the log of a checkpoint: {0}")]
    Log(anyhow::Error),
}

/// Rows, so many of them as one can read.
fn names(rows: &[RowName]) -> String {
    const MOST: usize = 40;
    if rows.is_empty() {
        return String::new();
    }
    let named = rows.iter().take(MOST).map(|row| format!("{} (dialogue `{}`)", row.place, row.dialogue));
    let beyond = rows.len().saturating_sub(MOST);
    let rest = if beyond > 0 { format!(" and {beyond} more") } else { String::new() };
    format!("; its rows are {}{rest}", named.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod parity_tests;
#[cfg(test)]
mod tests;
