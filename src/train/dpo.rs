//! Training on pairs: of two completions of a prompt the chosen one is made likelier than the rejected one, more than the
//! frozen base has it.

use std::path::Path;

use super::batch::{Sequence, shuffled};
use super::figures::Figures;
use super::learner::{Learner, Under, check_sequences};
use super::objective::{PairConstants, PairLoss, pair};
use super::plan::Plan;
use super::run::{Measured, Method, Seen, Trained, Training, dropout_seed};
use super::settings::{Examples, Settings};
use super::{RowName, TrainError, TrainLog, Watch};
use crate::model::Decoder;

/// Two continuations of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairRow {
    /// The prompt with the better continuation, whose tokens are scored, and with the worse one.
    pub sides: [Sequence; 2],
}

impl PairRow {
    /// Whether both sides have a scored token.
    pub fn is_scored(&self) -> bool {
        self.sides.iter().all(|side| side.scored_tokens() > 0)
    }
}

/// What training on pairs needs beyond [`Settings`].
#[derive(Clone, Copy, Debug)]
pub struct PairSettings {
    /// Which loss.
    pub loss: PairLoss,
    /// Its constants.
    pub constants: PairConstants,
}

/// What the frozen base says of a pair.
struct Prepared<'a> {
    row: &'a PairRow,
    place: usize,
    reference: [f64; 2],
}

/// Trains `base` on the pairs; of a model with adapters the adapters alone, against the model without them.
///
/// Each epoch sees every pair once, in an order that the seed decides. The loss of a batch is the mean over its pairs, that of a
/// step the mean over its batches. The base's log-probabilities are computed once, before the first step. A checkpoint in
/// `scratch` is gone on from, to the same weights.
///
/// # Errors
/// As [`super::kto::train`].
pub fn train(
    base: Decoder,
    rows: Examples<PairRow>,
    settings: &Settings,
    pairs: PairSettings,
    scratch: &Path,
    watch: &dyn Watch,
) -> Result<Trained, TrainError> {
    let (train, held_out) = (scored(rows.train), scored(rows.held_out));
    if train.is_empty() {
        return Err(TrainError::NoExamples(" whose sides both have a scored token".to_owned()));
    }
    let sequences: Vec<&Sequence> = train.iter().chain(&held_out).flat_map(|(_, row)| &row.sides).collect();
    check_sequences(base.architecture(), &sequences)?;
    let plan = Plan::new(train.len(), settings);
    let mut training = Training::new(base, plan, settings, scratch, watch)?;
    let reference = training.reference(&sequences)?;
    let mut prepared = train
        .iter()
        .chain(&held_out)
        .zip(reference.chunks_exact(2))
        .map(|(&(place, row), of)| Prepared { row, place, reference: [of[0], of[1]] });
    let rows = prepared.by_ref().take(train.len()).collect();
    let held_out = prepared.collect();
    training.run(&mut Pairs { rows, held_out, settings, pairs, plan, order: (u64::MAX, Vec::new()) })
}

/// How often each of these pairs, both sides of which must have a scored token, is trained on in so many steps of [`train`].
pub fn times(rows: &[PairRow], settings: &Settings, steps: u64) -> Vec<u64> {
    if rows.is_empty() {
        return Vec::new();
    }
    let (whole, rest) = Plan::new(rows.len(), settings).extent(steps);
    let mut times = vec![whole; rows.len()];
    let seen = rest.end * settings.batch_size;
    shuffled(rows.len(), settings.seed, whole).into_iter().take(seen).for_each(|place| times[place] += 1);
    times
}

/// The pairs with something to learn, each with its place.
fn scored(rows: &[PairRow]) -> Vec<(usize, &PairRow)> {
    rows.iter().enumerate().filter(|(_, row)| row.is_scored()).collect()
}

struct Pairs<'a> {
    rows: Vec<Prepared<'a>>,
    held_out: Vec<Prepared<'a>>,
    settings: &'a Settings,
    pairs: PairSettings,
    plan: Plan,
    /// An epoch and the order of its pairs.
    order: (u64, Vec<usize>),
}

impl Method for Pairs<'_> {
    fn step(&mut self, learner: &mut dyn Learner, step: u64) -> Result<Seen, TrainError> {
        let (epoch, range) = self.plan.batches_of(step);
        if self.order.0 != epoch {
            self.order = (epoch, shuffled(self.rows.len(), self.settings.seed, epoch));
        }
        let batches: Vec<Vec<&Prepared>> = self.order.1.chunks(self.settings.batch_size).collect::<Vec<_>>()[range]
            .iter()
            .map(|batch| batch.iter().map(|&place| &self.rows[place]).collect())
            .collect();
        let PairSettings { loss: kind, constants } = self.pairs;
        let (mut loss, mut figures) = (0.0, Figures::default());
        for (number, batch) in batches.iter().enumerate() {
            let share = 1.0 / (batch.len() * batches.len()) as f64;
            let term = |row: &Prepared, policy| pair(kind, policy, row.reference, &constants).scaled(share);
            let slope = |first: usize, group: &[f64]| term(batch[first / 2], [group[0], group[1]]).slopes.to_vec();
            let sequences: Vec<&Sequence> = batch.iter().flat_map(|row| &row.row.sides).collect();
            let found = learner.accumulate(&sequences, 2, &slope, dropout_seed(self.settings, step, number))?;
            for (row, policy) in batch.iter().zip(found.chunks_exact(2)) {
                let policy = [policy[0], policy[1]];
                loss += term(row, policy).loss;
                figures.add_pair(policy, row.reference, constants.beta);
            }
        }
        let rows = || batches.iter().flatten();
        let sides = || rows().flat_map(|row| &row.row.sides);
        let tokens = sides().map(|side| side.ids.len() as u64).sum();
        let scored_tokens = sides().map(|side| side.scored_tokens() as u64).sum();
        let name = |row: &&Prepared| RowName { dialogue: row.row.sides[0].dialogue.clone(), place: row.place as u64 };
        Ok(Seen {
            row: figures.row(TrainLog { loss, tokens, scored_tokens, ..TrainLog::default() }),
            rows: rows().map(name).collect(),
        })
    }

    fn evaluate(&self, learner: &mut dyn Learner) -> Result<Option<Measured>, TrainError> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let PairSettings { loss: kind, constants } = self.pairs;
        let sequences: Vec<&Sequence> = self.held_out.iter().flat_map(|row| &row.row.sides).collect();
        let found = learner.log_probs(&sequences, Under::Policy)?;
        let mut measured = Measured::default();
        for (row, policy) in self.held_out.iter().zip(found.chunks_exact(2)) {
            let policy = [policy[0], policy[1]];
            measured.look(&policy, row.place, &row.row.sides[0]);
            measured.loss += pair(kind, policy, row.reference, &constants).loss;
        }
        measured.loss /= self.held_out.len() as f64;
        Ok(Some(measured))
    }
}
