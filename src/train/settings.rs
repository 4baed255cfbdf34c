//! What every training is told, whatever its loss.

use super::learner::LearnerSettings;
use super::schedule::{Schedule, Warmup};

/// What all trainings have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passes over the examples; a part of one is fine.
    pub epochs: f64,
    /// Optimiser steps, instead of `epochs`.
    pub max_steps: Option<u64>,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Batches of an optimiser step.
    pub accumulation: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// How it rises before.
    pub warmup: Warmup,
    /// The greatest norm of the gradient; a greater one is scaled down. 0: any.
    pub max_grad_norm: f64,
    /// Decides the order of the rows and what dropout drops.
    pub seed: u64,
    /// Steps from one checkpoint to the next; 0: only when asked to stop.
    pub checkpoint_every: u64,
    /// When the loss over the examples that are held out is measured, and what follows from it.
    pub evaluation: Evaluation,
    /// The optimiser's constants, and how the device works.
    pub learner: LearnerSettings,
}

/// When the loss over held-out examples is measured: after every so many steps, and after the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// Steps from one evaluation to the next; once an epoch, where absent.
    pub every: Option<u64>,
    /// The training ends after so many evaluations in a row that were no better than the best, and whenever it ends, the
    /// weights are those of the best. Without it they are those of the last step.
    pub patience: Option<u64>,
}

/// The examples of a training.
#[derive(Debug)]
pub struct Examples<'a, T> {
    /// What is trained on.
    pub train: &'a [T],
    /// What the evaluations measure; none are made where it is empty.
    pub held_out: &'a [T],
}

impl<T> Clone for Examples<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Examples<'_, T> {}

impl<'a, T> Examples<'a, T> {
    /// Examples that are all trained on.
    pub fn all(train: &'a [T]) -> Self {
        Self { train, held_out: &[] }
    }
}
