//! KTO: desirable completions are made likelier, undesirable ones less likely, both against the frozen base (reference,
//! sections 1 and 3).

use std::collections::BTreeSet;
use std::path::Path;

use super::batch::{Part, Sequence, parts, rotation, shuffled};
use super::loss::{kto_loss, rewards};
use super::objective::{KtoConstants, KtoLoss, kl_estimate};
use super::optimise::{Gradients, tracked, untracked};
use super::step::{
    Measured, Plan, Settings, Trained, Training, check_lengths, device, host, limits, log_probs, sequence_log_probs,
};
use super::workers::Workers;
use super::{TrainError, TrainLog, Watch, checkpoint, loss};
use crate::model::Decoder;

/// Sequences that the base runs over between two looks at the wish to stop.
const REFERENCE_CHUNK: usize = 256;

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
    reference: f64,
    /// The row's prompt with another row's completion, and its log-probability under the base; `None` where the loss needs
    /// none.
    mismatched: Option<(Sequence, f64)>,
}

/// Trains `base` on the rows.
///
/// The order of rows is the same in every epoch, since the pairs for the KL estimate are made within a batch of
/// `settings.batch_size` rows, which must be at least 2. The base's log-probabilities are computed once, before the first
/// step. A checkpoint in `scratch` is gone on from, to the same weights.
///
/// # Errors
/// As [`super::sft::train`], and when the base gives a row a log-probability that is no finite number.
pub fn train(
    base: Decoder,
    rows: &[KtoRow],
    settings: &Settings,
    kto: &KtoSettings,
    scratch: &Path,
    watch: &dyn Watch,
) -> Result<Trained, TrainError> {
    let rows = ordered(rows, kto, settings.seed);
    if rows.is_empty() {
        return Err(TrainError::NoExamples(" that have a scored token".to_owned()));
    }
    let plan = Plan::new(rows.len(), settings);
    let mut training = Training::begin(base.clone(), plan, settings, scratch, watch)?;
    let prepared = prepare(base, &rows, kto, &training)?;
    let batches: Vec<&[Prepared]> = prepared.chunks(settings.batch_size).collect();
    while !training.done() {
        let (_, range) = plan.batches_of(training.step);
        training.advance(step(&training.model, &batches[range], kto, &training.workers))?;
    }
    Ok(training.finish())
}

/// How many mismatched pairs are longer than `max_length`, and so lose the end of their completion.
pub fn cut_pairs(rows: &[KtoRow], batch_size: usize, kto: &KtoSettings, seed: u64) -> usize {
    if kto.loss == KtoLoss::ApoZeroUnpaired {
        return 0;
    }
    let rows = ordered(rows, kto, seed);
    let pairs = rotation(rows.len(), batch_size);
    let length = |(row, other): (&&KtoRow, usize)| row.prompt + rows[other].sequence.ids.len() - rows[other].prompt;
    rows.iter().zip(pairs).map(length).filter(|length| *length > kto.max_length).count()
}

/// How often [`train`] trains on each of these rows, all of which must have a scored token.
pub fn times(rows: &[KtoRow], settings: &Settings, kto: &KtoSettings) -> Vec<u64> {
    if rows.is_empty() {
        return Vec::new();
    }
    let (whole, rest) = Plan::new(rows.len(), settings).extent();
    let mut times = vec![whole; rows.len()];
    let order = order(rows, kto, settings.seed);
    let seen = rest.end * settings.batch_size;
    order.into_iter().take(seen).for_each(|place| times[place] += 1);
    times
}

/// The rows that can be learnt from, in the order of training.
fn ordered<'a>(rows: &'a [KtoRow], kto: &KtoSettings, seed: u64) -> Vec<&'a KtoRow> {
    order(rows, kto, seed).into_iter().map(|place| &rows[place]).collect()
}

/// Their places.
fn order(rows: &[KtoRow], kto: &KtoSettings, seed: u64) -> Vec<usize> {
    let places: Vec<usize> = (0..rows.len()).filter(|&place| rows[place].sequence.scored_tokens() > 0).collect();
    if !kto.shuffle {
        return places;
    }
    shuffled(places.len(), seed).into_iter().map(|place| places[place]).collect()
}

/// Rows with what the base says of them and of their mismatched pairs.
fn prepare<'a>(
    base: Decoder,
    rows: &[&'a KtoRow],
    kto: &KtoSettings,
    training: &Training,
) -> Result<Vec<Prepared<'a>>, TrainError> {
    let others = rotation(rows.len(), training.settings.batch_size);
    let pair = |(row, other): (&&KtoRow, usize)| mismatched(row, rows[other], kto.max_length);
    let pairs: Vec<Sequence> = match kto.loss {
        KtoLoss::ApoZeroUnpaired => Vec::new(),
        KtoLoss::Kto => rows.iter().zip(others).map(pair).collect(),
    };
    let sequences: Vec<&Sequence> = rows.iter().map(|row| &row.sequence).chain(&pairs).collect();
    check_lengths(&base, &sequences)?;
    let mut reference = reference(&untracked(base), &sequences, training)?;
    let mut pairs = pairs.into_iter().zip(reference.split_off(rows.len()));
    let prepared = |(row, reference): (&&'a KtoRow, f64)| Prepared { row, reference, mismatched: pairs.next() };
    Ok(rows.iter().zip(reference).map(prepared).collect())
}

/// The base's log-probabilities. What is known is kept in the scratch folder when asked to stop and at the end, so that an
/// interrupted training need not compute it again.
fn reference(base: &Decoder, sequences: &[&Sequence], training: &Training) -> Result<Vec<f64>, TrainError> {
    let Training { settings, scratch, watch, .. } = training;
    let mut known = checkpoint::load_reference(scratch, sequences.len())?;
    while known.len() < sequences.len() {
        let rest = &sequences[known.len()..];
        let chunk = &rest[..rest.len().min(REFERENCE_CHUNK)];
        let values = sequence_log_probs(base, chunk, &training.workers);
        if let Some((sequence, value)) = chunk.iter().zip(&values).find(|(_, value)| !value.is_finite()) {
            return Err(TrainError::Reference { dialogue: sequence.dialogue.clone(), value: *value });
        }
        known.extend(values);
        watch.prepared(known.len() as u64, sequences.len() as u64);
        let stop = watch.stop();
        if stop || (settings.checkpoint_every > 0 && known.len() == sequences.len()) {
            checkpoint::save_reference(scratch, &known)?;
        }
        if stop {
            return Err(TrainError::Stopped(training.step));
        }
    }
    Ok(known)
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

/// Loss and gradient of one step: the mean over its batches, each with its own KL estimate.
fn step(model: &Decoder, batches: &[&[Prepared]], kto: &KtoSettings, workers: &Workers) -> Measured {
    let kls: Vec<f64> = batches.iter().map(|batch| batch_kl(model, batch, workers)).collect();
    let mut jobs = Vec::new();
    for (batch, kl) in batches.iter().zip(&kls) {
        let sequences: Vec<&Sequence> = batch.iter().map(|row| &row.row.sequence).collect();
        for part in parts(&sequences, 1, limits(model)) {
            jobs.push((model.clone(), *batch, *kl, part));
        }
    }
    let work = |(model, batch, kl, part)| part_step(model, batch, kl, part, kto, batches.len());
    let (mut loss, mut gradients, mut figures) = (0.0, Gradients::default(), Figures::default());
    workers.in_order(jobs, work, |result| {
        loss += result.loss;
        gradients.add(result.gradients);
        figures.add(&result.policy, &result.rows, kto.constants.beta);
    });
    let rows = || batches.iter().copied().flatten().map(|row| row.row);
    let kl = (kto.loss == KtoLoss::Kto).then(|| kls.iter().sum::<f64>() / kls.len() as f64);
    Measured {
        gradients,
        row: figures.row(TrainLog {
            loss,
            tokens: rows().map(|row| row.sequence.ids.len() as u64).sum(),
            scored_tokens: rows().map(|row| row.sequence.scored_tokens() as u64).sum(),
            kl,
            ..TrainLog::default()
        }),
        dialogues: rows().map(|row| row.sequence.dialogue.clone()).collect::<BTreeSet<_>>(),
    }
}

/// The KL estimate of a batch under the model of now; 0 where no pairs were made.
fn batch_kl(model: &Decoder, batch: &[Prepared], workers: &Workers) -> f64 {
    let pairs: Vec<&(Sequence, f64)> = batch.iter().filter_map(|row| row.mismatched.as_ref()).collect();
    let sequences: Vec<&Sequence> = pairs.iter().map(|(sequence, _)| sequence).collect();
    let reference: Vec<f64> = pairs.iter().map(|(_, reference)| *reference).collect();
    kl_estimate(&sequence_log_probs(model, &sequences, workers), &reference)
}

struct PartResult<'a> {
    loss: f64,
    gradients: Gradients,
    policy: Vec<f64>,
    rows: Vec<&'a Prepared<'a>>,
}

/// Forward and backward over one part of a batch, its loss a share of the mean over `count` batches.
fn part_step<'a>(
    model: Decoder,
    batch: &'a [Prepared<'a>],
    kl: f64,
    part: Part,
    kto: &KtoSettings,
    count: usize,
) -> PartResult<'a> {
    let model = tracked(model, &[]);
    let tensors = part.tensors(&device(&model));
    let rows: Vec<&Prepared> = part.rows.iter().map(|row| &batch[*row]).collect();
    let reference: Vec<f64> = rows.iter().map(|row| row.reference).collect();
    let desirable: Vec<bool> = rows.iter().map(|row| row.row.desirable).collect();
    let policy = loss::sequence_log_probs(log_probs(&model, &tensors), tensors.membership);
    let loss = kto_loss(policy.clone(), &reference, &desirable, kl, &kto.constants, batch.len());
    let loss = loss.div_scalar(count as f64);
    let gradients = Gradients::backward(&model, &loss);
    PartResult { loss: host(loss)[0], gradients, policy: host(policy), rows }
}

/// Sums over the desirable and the undesirable rows of a step.
#[derive(Default)]
struct Figures {
    chosen: Side,
    rejected: Side,
}

#[derive(Default)]
struct Side {
    rows: usize,
    reward: f64,
    logps: f64,
}

impl Side {
    fn mean(&self, sum: f64) -> Option<f64> {
        (self.rows > 0).then(|| sum / self.rows as f64)
    }
}

impl Figures {
    fn add(&mut self, policy: &[f64], rows: &[&Prepared], beta: f64) {
        let reference: Vec<f64> = rows.iter().map(|row| row.reference).collect();
        for ((row, reward), logps) in rows.iter().zip(rewards(policy, &reference, beta)).zip(policy) {
            let side = if row.row.desirable { &mut self.chosen } else { &mut self.rejected };
            side.rows += 1;
            side.reward += reward;
            side.logps += logps;
        }
    }

    fn row(&self, row: TrainLog) -> TrainLog {
        let (chosen, rejected) = (self.chosen.mean(self.chosen.reward), self.rejected.mean(self.rejected.reward));
        TrainLog {
            rewards_chosen: chosen,
            rewards_rejected: rejected,
            rewards_margin: chosen.zip(rejected).map(|(chosen, rejected)| chosen - rejected),
            logps_chosen: self.chosen.mean(self.chosen.logps),
            logps_rejected: self.rejected.mean(self.rejected.logps),
            ..row
        }
    }
}
