//! KTO: desirable completions are made likelier, undesirable ones less likely, both against the frozen base (reference,
//! sections 1 and 3).

use std::path::Path;

use super::batch::{Sequence, rotation, shuffled};
use super::figures::Figures;
use super::learner::{Learner, Under, check_sequences};
use super::objective::{self, KtoConstants, KtoLoss, kl_estimate};
use super::plan::Plan;
use super::run::{Measured, Method, Seen, Trained, Training, dropout_seed};
use super::settings::{Examples, Settings};
use super::{RowName, TrainError, TrainLog, Watch};
use crate::model::Decoder;

/// A continuation of a prompt, desirable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KtoRow {
    /// Prompt and completion; the completion's tokens are scored.
    pub sequence: Sequence,
    /// How many of the tokens are the prompt.
    pub prompt: usize,
    /// Whether the completion is desirable.
    pub desirable: bool,
}

/// What KTO needs beyond [`Settings`].
#[derive(Clone, Debug)]
pub struct KtoSettings {
    /// Which loss.
    pub loss: KtoLoss,
    /// Its constants.
    pub constants: KtoConstants,
    /// The longest sequence in tokens: a mismatched pair is cut there, as in the reference.
    pub max_length: usize,
    /// Whether the seed decides the order of the rows, once; else they keep theirs.
    pub shuffle: bool,
}

/// What the frozen base says of a row, and the mismatched pair that it makes for the KL estimate.
struct Prepared<'a> {
    row: &'a KtoRow,
    place: usize,
    reference: f64,
    /// The row's prompt with another row's completion, and its log-probability under the base; `None` where the loss needs
    /// none.
    mismatched: Option<(Sequence, f64)>,
}

/// Trains `base` on the rows; of a model with adapters the adapters alone, against the model without them.
///
/// The order of rows is the same in every epoch, since the pairs for the KL estimate are made within a batch of
/// `settings.batch_size` rows, which must be at least 2. The base's log-probabilities are computed once, before the first
/// step. A checkpoint in `scratch` is gone on from, to the same weights.
///
/// # Errors
/// As [`super::sft::train`], and when the base gives a row a log-probability that is no finite number.
pub fn train(
    base: Decoder,
    rows: Examples<KtoRow>,
    settings: &Settings,
    kto: &KtoSettings,
    scratch: &Path,
    watch: &dyn Watch,
) -> Result<Trained, TrainError> {
    let whole = KtoSettings { shuffle: false, ..kto.clone() };
    let (ordered, held_out) = (ordered(rows.train, kto, settings.seed), ordered(rows.held_out, &whole, settings.seed));
    if ordered.is_empty() {
        return Err(TrainError::NoExamples(" that have a scored token".to_owned()));
    }
    let plan = Plan::new(ordered.len(), settings);
    let pairs = [pairs(&ordered, settings, kto), pairs(&held_out, settings, kto)];
    let all = ordered.iter().chain(&held_out).map(|(_, row)| &row.sequence).chain(pairs.iter().flatten());
    let all: Vec<&Sequence> = all.collect();
    check_sequences(base.architecture(), &all)?;
    let mut training = Training::new(base, plan, settings, scratch, watch)?;
    let reference = training.reference(&all)?;
    let count = ordered.len() + held_out.len();
    let (of_rows, of_pairs) = (&reference[..count], &reference[count..]);
    let [of_train, of_held_out] = pairs;
    let split = of_train.len().min(of_pairs.len());
    let mut method = Kto {
        rows: prepared(&ordered, &of_rows[..ordered.len()], of_train, &of_pairs[..split]),
        held_out: prepared(&held_out, &of_rows[ordered.len()..], of_held_out, &of_pairs[split..]),
        settings,
        kto,
        plan,
    };
    training.run(&mut method)
}

/// How many mismatched pairs are longer than `max_length`, and so lose the end of their completion.
pub fn cut_pairs(rows: &[KtoRow], batch_size: usize, kto: &KtoSettings, seed: u64) -> usize {
    if kto.loss == KtoLoss::ApoZeroUnpaired {
        return 0;
    }
    let rows = ordered(rows, kto, seed);
    let pairs = rotation(rows.len(), batch_size);
    let length = |((_, row), other): (&(usize, &KtoRow), usize)| {
        let other = rows[other].1;
        row.prompt + other.sequence.ids.len() - other.prompt
    };
    rows.iter().zip(pairs).map(length).filter(|length| *length > kto.max_length).count()
}

/// How often each of these rows, all of which must have a scored token, is trained on in so many steps of [`train`].
pub fn times(rows: &[KtoRow], settings: &Settings, kto: &KtoSettings, steps: u64) -> Vec<u64> {
    if rows.is_empty() {
        return Vec::new();
    }
    let (whole, rest) = Plan::new(rows.len(), settings).extent(steps);
    let mut times = vec![whole; rows.len()];
    let seen = rest.end * settings.batch_size;
    ordered(rows, kto, settings.seed).into_iter().take(seen).for_each(|(place, _)| times[place] += 1);
    times
}

/// The rows that can be learnt from, in the order of training, each with its place.
fn ordered<'a>(rows: &'a [KtoRow], kto: &KtoSettings, seed: u64) -> Vec<(usize, &'a KtoRow)> {
    let rows: Vec<_> = rows.iter().enumerate().filter(|(_, row)| row.sequence.scored_tokens() > 0).collect();
    if !kto.shuffle {
        return rows;
    }
    shuffled(rows.len(), seed, 0).into_iter().map(|place| rows[place]).collect()
}

/// Every row's prompt with another's completion; none where the loss needs none.
fn pairs(rows: &[(usize, &KtoRow)], settings: &Settings, kto: &KtoSettings) -> Vec<Sequence> {
    if kto.loss == KtoLoss::ApoZeroUnpaired {
        return Vec::new();
    }
    let others = rotation(rows.len(), settings.batch_size);
    rows.iter().zip(others).map(|((_, row), other)| mismatched(row, rows[other].1, kto.max_length)).collect()
}

/// One row's prompt with another's completion, cut at `max_length`.
fn mismatched(row: &KtoRow, other: &KtoRow, max_length: usize) -> Sequence {
    let join = |prompt: &[u32], completion: &[u32]| -> Vec<u32> { [prompt, completion].concat() };
    let mut ids = join(&row.sequence.ids[..row.prompt], &other.sequence.ids[other.prompt..]);
    let mut scored = [&row.sequence.scored[..row.prompt], &other.sequence.scored[other.prompt..]].concat();
    ids.truncate(max_length);
    scored.truncate(max_length);
    Sequence { dialogue: row.sequence.dialogue.clone(), ids, scored }
}

/// Rows with what the base says of them and of their mismatched pairs.
fn prepared<'a>(
    rows: &[(usize, &'a KtoRow)],
    of_rows: &[f64],
    pairs: Vec<Sequence>,
    of_pairs: &[f64],
) -> Vec<Prepared<'a>> {
    let mut pairs = pairs.into_iter().zip(of_pairs.iter().copied());
    let one = |(&(place, row), &reference): (&(usize, &'a KtoRow), &f64)| Prepared {
        row,
        place,
        reference,
        mismatched: pairs.next(),
    };
    rows.iter().zip(of_rows).map(one).collect()
}

struct Kto<'a> {
    rows: Vec<Prepared<'a>>,
    held_out: Vec<Prepared<'a>>,
    settings: &'a Settings,
    kto: &'a KtoSettings,
    plan: Plan,
}

impl Method for Kto<'_> {
    /// The mean over the step's batches, each with its own KL estimate.
    fn step(&mut self, learner: &mut dyn Learner, step: u64) -> Result<Seen, TrainError> {
        let (_, range) = self.plan.batches_of(step);
        let batches: Vec<&[Prepared]> = self.rows.chunks(self.settings.batch_size).collect();
        let (batches, constants) = (&batches[range], &self.kto.constants);
        let (mut loss, mut kls, mut figures) = (0.0, 0.0, Figures::default());
        for (number, batch) in batches.iter().enumerate() {
            let kl = batch_kl(learner, batch)?;
            kls += kl;
            let share = 1.0 / (batch.len() * batches.len()) as f64;
            let term = |row: &Prepared, policy: f64| {
                objective::kto(policy, row.reference, row.row.desirable, kl, constants).scaled(share)
            };
            let slope = |first: usize, group: &[f64]| {
                group
                    .iter()
                    .zip(&batch[first..])
                    .map(|(&policy, row)| term(row, policy).slopes[0])
                    .collect::<Vec<f64>>()
            };
            let sequences: Vec<&Sequence> = batch.iter().map(|row| &row.row.sequence).collect();
            let found = learner.accumulate(&sequences, 1, &slope, dropout_seed(self.settings, step, number))?;
            for (row, policy) in batch.iter().zip(found) {
                loss += term(row, policy).loss;
                figures.add(row.row.desirable, policy, row.reference, constants.beta);
            }
        }
        let rows = || batches.iter().copied().flatten();
        let kl = (self.kto.loss == KtoLoss::Kto).then(|| kls / batches.len() as f64);
        let tokens = rows().map(|row| row.row.sequence.ids.len() as u64).sum();
        let scored_tokens = rows().map(|row| row.row.sequence.scored_tokens() as u64).sum();
        let name = |row: &Prepared| RowName { dialogue: row.row.sequence.dialogue.clone(), place: row.place as u64 };
        Ok(Seen {
            row: figures.row(TrainLog { loss, tokens, scored_tokens, kl, ..TrainLog::default() }),
            rows: rows().map(name).collect(),
        })
    }

    /// The mean over all rows, each with the KL estimate of its batch.
    fn evaluate(&self, learner: &mut dyn Learner) -> Result<Option<Measured>, TrainError> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let mut measured = Measured::default();
        for batch in self.held_out.chunks(self.settings.batch_size) {
            let kl = batch_kl(learner, batch)?;
            let sequences: Vec<&Sequence> = batch.iter().map(|row| &row.row.sequence).collect();
            for (row, policy) in batch.iter().zip(learner.log_probs(&sequences, Under::Policy)?) {
                measured.look(&[policy, kl], row.place, &row.row.sequence);
                measured.loss += objective::kto(policy, row.reference, row.row.desirable, kl, &self.kto.constants).loss;
            }
        }
        measured.loss /= self.held_out.len() as f64;
        Ok(Some(measured))
    }
}

/// The KL estimate of a batch under the model of now; 0 where no pairs were made.
fn batch_kl(learner: &mut dyn Learner, batch: &[Prepared]) -> Result<f64, TrainError> {
    let pairs: Vec<&(Sequence, f64)> = batch.iter().filter_map(|row| row.mismatched.as_ref()).collect();
    if pairs.is_empty() {
        return Ok(0.0);
    }
    let sequences: Vec<&Sequence> = pairs.iter().map(|(sequence, _)| sequence).collect();
    let reference: Vec<f64> = pairs.iter().map(|(_, reference)| *reference).collect();
    Ok(kl_estimate(&learner.log_probs(&sequences, Under::Policy)?, &reference))
}
