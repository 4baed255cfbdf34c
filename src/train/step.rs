//! What one worker does with one part, and how a training moves from step to step.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;

use super::batch::{Limits, Part, PartTensors, Sequence, parts};
use super::checkpoint::{self, State};
use super::optimise::{AdamW, AdamWConfig, Gradients, clip_factor, untracked};
use super::schedule::{Schedule, warmup_steps};
use super::workers::{Workers, part_budget};
use super::{TrainError, TrainLog, Watch, loss};
use crate::model::Decoder;

/// What SFT and KTO have in common.
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
    /// The share of all steps in which it rises.
    pub warmup_ratio: f64,
    /// The optimiser's constants.
    pub adam: AdamWConfig,
    /// The greatest norm of the gradient; a greater one is scaled down. 0: any.
    pub max_grad_norm: f64,
    /// Decides the order of the rows.
    pub seed: u64,
    /// Steps from one checkpoint to the next; 0: only when asked to stop.
    pub checkpoint_every: u64,
}

/// A trained model and what was written down.
#[derive(Debug)]
pub struct Trained {
    /// The model, its parameters plain tensors.
    pub model: Decoder,
    /// One row for each step.
    pub log: Vec<TrainLog>,
}

/// Which batches make which step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    batches: usize,
    accumulation: usize,
    pub(super) steps: u64,
}

impl Plan {
    pub(super) fn new(examples: usize, settings: &Settings) -> Self {
        let batches = examples.div_ceil(settings.batch_size);
        let per_epoch = batches.div_ceil(settings.accumulation);
        let steps = settings.max_steps.unwrap_or_else(|| (settings.epochs * per_epoch as f64).ceil() as u64);
        Self { batches, accumulation: settings.accumulation, steps }
    }

    /// The epoch of a step (from 0) and its batches within the epoch: the last step of an epoch may have fewer.
    pub(super) fn batches_of(&self, step: u64) -> (u64, Range<usize>) {
        let per_epoch = self.batches.div_ceil(self.accumulation) as u64;
        let first = (step % per_epoch) as usize * self.accumulation;
        (step / per_epoch, first..(first + self.accumulation).min(self.batches))
    }

    /// How many epochs are whole, and which batches of the one after them are still trained on.
    pub(super) fn extent(&self) -> (u64, Range<usize>) {
        let per_epoch = self.batches.div_ceil(self.accumulation) as u64;
        let rest = (self.steps % per_epoch) as usize * self.accumulation;
        (self.steps / per_epoch, 0..rest.min(self.batches))
    }

    /// How much has been seen after a step (from 0), in epochs.
    fn seen(&self, step: u64) -> f64 {
        let (epoch, batches) = self.batches_of(step);
        epoch as f64 + batches.end as f64 / self.batches as f64
    }
}

/// Log-probabilities of a part's scored tokens, [n]; the head is computed at these places alone.
pub(super) fn log_probs(model: &Decoder, part: &PartTensors) -> Tensor<1> {
    let hidden = model.hidden(part.tokens.clone()); // [rows, width, hidden]
    let [rows, width, size] = hidden.dims();
    let scored = hidden.reshape([rows * width, size]).select(0, part.places.clone()); // [n, hidden]
    loss::token_log_probs(model.logits(scored), part.targets.clone())
}

/// Log-probabilities of whole sequences without gradients, in their order.
pub(super) fn sequence_log_probs(model: &Decoder, sequences: &[&Sequence], workers: &Workers) -> Vec<f64> {
    let jobs: Vec<(Decoder, Part)> =
        parts(sequences, 1, limits(model)).into_iter().map(|part| (model.clone(), part)).collect();
    let results = workers.map(jobs, |(model, part)| {
        let tensors = part.tensors(&device(&model));
        let tokens = log_probs(&model, &tensors);
        (part.rows, host(loss::sequence_log_probs(tokens, tensors.membership)))
    });
    let mut all = vec![0.0; sequences.len()];
    for (row, value) in results.into_iter().flat_map(|(rows, values)| rows.into_iter().zip(values)) {
        all[row] = value;
    }
    all
}

/// How large the parts for a model may be.
pub(super) fn limits(model: &Decoder) -> Limits {
    Limits { tokens: part_budget(&device(model)), width: model.config().max_position_embeddings }
}

/// Refuses sequences that are longer than the model takes.
pub(super) fn check_lengths(model: &Decoder, sequences: &[&Sequence]) -> Result<(), TrainError> {
    let limit = model.config().max_position_embeddings;
    match sequences.iter().find(|sequence| sequence.ids.len() > limit) {
        None => Ok(()),
        Some(Sequence { dialogue, ids, .. }) => {
            Err(TrainError::TooLong { dialogue: dialogue.clone(), tokens: ids.len(), limit })
        }
    }
}

/// A tensor's numbers on the host.
pub(super) fn host(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().iter::<f64>().collect()
}

/// Where a model's parameters lie.
pub(super) fn device(model: &Decoder) -> burn::tensor::Device {
    model.embed_tokens.val().device()
}

/// What a step found before its update.
pub(super) struct Measured {
    pub gradients: Gradients,
    /// The step's log row; the training fills in step, epoch, learning rate and gradient norm.
    pub row: TrainLog,
    pub dialogues: BTreeSet<String>,
}

/// A training between two steps.
pub(super) struct Training<'a> {
    pub model: Decoder,
    pub step: u64,
    pub plan: Plan,
    pub workers: Workers,
    pub settings: &'a Settings,
    pub scratch: &'a Path,
    pub watch: &'a dyn Watch,
    adam: AdamW,
    log: Vec<TrainLog>,
}

impl<'a> Training<'a> {
    /// Begins with the base model, or goes on from the last checkpoint.
    pub(super) fn begin(
        base: Decoder,
        plan: Plan,
        settings: &'a Settings,
        scratch: &'a Path,
        watch: &'a dyn Watch,
    ) -> Result<Self, TrainError> {
        let base = untracked(base);
        let workers = Workers::new(&device(&base))?;
        let (model, adam, step, log) = match checkpoint::load(scratch, base.clone(), settings.adam)? {
            Some(State { model, adam, log }) => (model, adam, log.len() as u64, log),
            None => (base, AdamW::new(settings.adam), 0, Vec::new()),
        };
        Ok(Self { model, step, plan, workers, settings, scratch, watch, adam, log })
    }

    /// Clips, updates the model, writes down, keeps a checkpoint where one is due.
    pub(super) fn advance(&mut self, measured: Measured) -> Result<(), TrainError> {
        let Measured { gradients, mut row, dialogues } = measured;
        let settings = self.settings;
        let norm = gradients.norm();
        for (what, value) in [("loss", row.loss), ("KL estimate", row.kl.unwrap_or(0.0)), ("gradient norm", norm)] {
            if !value.is_finite() {
                let dialogues = dialogues.into_iter().collect();
                return Err(TrainError::NotFinite { step: self.step + 1, what, value, dialogues });
            }
        }
        let steps = self.plan.steps;
        let warmup = warmup_steps(steps, settings.warmup_ratio);
        let rate = settings.learning_rate * settings.schedule.factor(self.step, steps, warmup);
        let factor = clip_factor(norm, settings.max_grad_norm);
        let gradients = if factor < 1.0 { gradients.scaled(factor) } else { gradients };
        self.model = self.adam.update(self.model.clone(), gradients, rate);
        row.epoch = self.plan.seen(self.step);
        self.step += 1;
        (row.step, row.learning_rate, row.grad_norm) = (self.step, rate, norm);
        self.watch.step(&row, steps);
        self.log.push(row);
        self.keep()
    }

    fn keep(&self) -> Result<(), TrainError> {
        let every = self.settings.checkpoint_every;
        let stop = self.watch.stop() && self.step < self.plan.steps;
        if stop || (every > 0 && self.step.is_multiple_of(every)) {
            checkpoint::save(self.scratch, &self.model, &self.adam, &self.log)?;
        }
        if stop { Err(TrainError::Stopped(self.step)) } else { Ok(()) }
    }

    pub(super) fn done(&self) -> bool {
        self.step >= self.plan.steps
    }

    pub(super) fn finish(self) -> Trained {
        Trained { model: self.model.no_grad(), log: self.log }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::settings;

    #[test]
    fn steps_cover_an_epoch_and_begin_again() {
        let plan = Plan::new(10, &Settings { epochs: 1.5, batch_size: 2, accumulation: 2, ..settings() });
        assert_eq!(plan.steps, 5); // 5 batches, 3 steps an epoch
        let batches: Vec<(u64, Range<usize>)> = (0..5).map(|step| plan.batches_of(step)).collect();
        assert_eq!(batches, [(0, 0..2), (0, 2..4), (0, 4..5), (1, 0..2), (1, 2..4)]);
        assert_eq!((plan.seen(1), plan.seen(2), plan.seen(4)), (0.8, 1.0, 1.8));
        assert_eq!(Plan::new(10, &Settings { max_steps: Some(7), ..settings() }).steps, 7);
    }
}
