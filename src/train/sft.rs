//! Supervised fine-tuning: the scored tokens of every example are made likelier.

use std::path::Path;

use super::batch::{Sequence, shuffled_batches};
use super::learner::{Learner, Under, check_sequences};
use super::objective::nll;
use super::plan::Plan;
use super::run::{Measured, Method, Seen, Trained, Training, dropout_seed};
use super::settings::{Examples, Settings};
use super::{RowName, TrainError, TrainLog, Watch};
use crate::model::Decoder;

/// What SFT needs beyond [`Settings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SftSettings {
    /// So many batches at once are sorted by length, so that rows of a batch are of like length; 1: none.
    pub bucketing: usize,
}

/// Trains `base` on the examples; of a model with adapters the adapters alone.
///
/// Each epoch sees every example once, in an order that the seed decides. The loss of a step is the mean over all its scored
/// tokens, however many batches it has. A checkpoint in `scratch` is gone on from, to the same weights; the folder is made
/// where it is needed.
///
/// # Errors
/// When there is nothing to learn, when a loss or gradient is no finite number, when asked to stop, when the device fails, and
/// when a checkpoint cannot be read or written.
pub fn train(
    base: Decoder,
    examples: Examples<Sequence>,
    settings: &Settings,
    sft: SftSettings,
    scratch: &Path,
    watch: &dyn Watch,
) -> Result<Trained, TrainError> {
    let (train, held_out) = (scored(examples.train), scored(examples.held_out));
    if train.is_empty() {
        return Err(TrainError::NoExamples(" that have a scored token".to_owned()));
    }
    let all: Vec<&Sequence> = train.iter().chain(&held_out).map(|(_, example)| *example).collect();
    check_sequences(base.architecture(), &all)?;
    let plan = Plan::new(train.len(), settings);
    let lengths = train.iter().map(|(_, example)| example.ids.len()).collect();
    let mut method = Sft { examples: train, held_out, lengths, settings, sft, plan, order: (u64::MAX, Vec::new()) };
    Training::new(base, plan, settings, scratch, watch)?.run(&mut method)
}

/// How often each of these examples, all of which must have a scored token, is trained on in so many steps of [`train`].
pub fn times(examples: &[Sequence], settings: &Settings, sft: SftSettings, steps: u64) -> Vec<u64> {
    if examples.is_empty() {
        return Vec::new();
    }
    let (whole, rest) = Plan::new(examples.len(), settings).extent(steps);
    let mut times = vec![whole; examples.len()];
    if !rest.is_empty() {
        let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
        let batches = shuffled_batches(&lengths, settings.batch_size, sft.bucketing, settings.seed, whole);
        batches[rest].iter().flatten().for_each(|&place| times[place] += 1);
    }
    times
}

/// The examples with something to learn, each with its place.
fn scored(examples: &[Sequence]) -> Vec<(usize, &Sequence)> {
    examples.iter().enumerate().filter(|(_, example)| example.scored_tokens() > 0).collect()
}

struct Sft<'a> {
    examples: Vec<(usize, &'a Sequence)>,
    held_out: Vec<(usize, &'a Sequence)>,
    lengths: Vec<usize>,
    settings: &'a Settings,
    sft: SftSettings,
    plan: Plan,
    /// An epoch and its batches.
    order: (u64, Vec<Vec<usize>>),
}

impl Method for Sft<'_> {
    /// The mean is over tokens, so all batches of a step are one.
    fn step(&mut self, learner: &mut dyn Learner, step: u64) -> Result<Seen, TrainError> {
        let Settings { batch_size, seed, .. } = *self.settings;
        let (epoch, batches) = self.plan.batches_of(step);
        if self.order.0 != epoch {
            let batches = shuffled_batches(&self.lengths, batch_size, self.sft.bucketing, seed, epoch);
            self.order = (epoch, batches);
        }
        let batches = &self.order.1[batches];
        let rows = || batches.iter().flatten().map(|&place| self.examples[place]);
        let total: usize = rows().map(|(_, row)| row.scored_tokens()).sum();
        let slope = |_: usize, group: &[f64]| group.iter().map(|&one| nll(one, total).slopes[0]).collect::<Vec<f64>>();
        let mut loss = 0.0;
        for (number, batch) in batches.iter().enumerate() {
            let sequences: Vec<&Sequence> = batch.iter().map(|&place| self.examples[place].1).collect();
            let found = learner.accumulate(&sequences, 1, &slope, dropout_seed(self.settings, step, number))?;
            loss += found.iter().map(|&one| nll(one, total).loss).sum::<f64>();
        }
        let tokens = rows().map(|(_, row)| row.ids.len() as u64).sum();
        Ok(Seen {
            row: TrainLog { loss, tokens, scored_tokens: total as u64, ..TrainLog::default() },
            rows: rows().map(|(place, row)| RowName { dialogue: row.dialogue.clone(), place: place as u64 }).collect(),
        })
    }

    fn evaluate(&self, learner: &mut dyn Learner) -> Result<Option<Measured>, TrainError> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let total = self.held_out.iter().map(|(_, row)| row.scored_tokens()).sum();
        let sequences: Vec<&Sequence> = self.held_out.iter().map(|(_, row)| *row).collect();
        let mut measured = Measured::default();
        for (&(place, row), found) in self.held_out.iter().zip(learner.log_probs(&sequences, Under::Policy)?) {
            measured.look(&[found], place, row);
            measured.loss += nll(found, total).loss;
        }
        Ok(Some(measured))
    }
}
