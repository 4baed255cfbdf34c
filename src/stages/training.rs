//! What the two training stages share: how they listen to a training, and what they check, read and write.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use crate::engine::port::{Folder, Port};
use crate::engine::stage::{Context, Problem, Stopped};
use crate::model::{Bundle, device};
use crate::train::encode::Encoded;
use crate::train::rows::{Fate, TrainRow, reached};
use crate::train::{Settings, TrainError, TrainLog, Trained, Watch};

/// The model that training begins with.
pub(super) const BASE: Folder = Folder::new("base", "model.bundle/v1");

/// The trained model.
pub(super) const MODEL: Folder = Folder::new("model", "model.bundle/v1");

/// One row for each step.
pub(super) const LOG: Port<TrainLog> = Port::new("log");

/// One row for each example.
pub(super) const ROWS: Port<TrainRow> = Port::new("rows");

/// The base model on the profile's device.
pub(super) fn load_base(context: &Context) -> anyhow::Result<Bundle> {
    let device = device::device(context.profile.device())?;
    Ok(Bundle::load(context.input(BASE.name)?, &device)?)
}

/// The longest sequence: what is asked for, or all that the model takes.
pub(super) fn max_length(asked: Option<usize>, base: &Bundle) -> anyhow::Result<usize> {
    let most = base.decoder.config().max_position_embeddings;
    let length = asked.unwrap_or(most);
    ensure!(length <= most, "`max_length` is {length}, but the base model takes sequences of at most {most} tokens");
    Ok(length)
}

/// Writes what becomes of every example, says it in figures, and warns of what is left out. `times` says how often each row
/// that can be trained on is, `beyond` holds the examples that are not read.
pub(super) fn tell_rows<T>(
    context: &Context,
    encoded: &mut Encoded<T>,
    times: &[u64],
    beyond: impl Iterator<Item = (String, Option<bool>)>,
    max_length: usize,
) -> anyhow::Result<()> {
    let rows = &mut encoded.examples;
    let all = rows.len();
    reached(rows, times);
    rows.extend(beyond.enumerate().map(|(at, (dialogue, label))| TrainRow::beyond_limit(all + at, dialogue, label)));
    let count = |fate: Fate| rows.iter().filter(|row| row.fate == fate).count();
    for fate in [Fate::Trained, Fate::NotReached, Fate::TooLong, Fate::NothingToLearn, Fate::BeyondLimit] {
        if fate == Fate::Trained || count(fate) > 0 {
            context.figure(format!("examples.{}", fate.name()), count(fate) as f64);
        }
    }
    let trained = || rows.iter().filter(|row| row.fate == Fate::Trained);
    context.figure("tokens", trained().filter_map(|row| row.tokens).sum::<u64>() as f64);
    context.figure("tokens.trained", trained().map(|row| row.trained_tokens).sum::<u64>() as f64);
    if let long @ 1.. = count(Fate::TooLong) {
        context.warn(format!("{long} of {all} examples are left out: longer than `max_length`, {max_length} tokens"));
    }
    if let empty @ 1.. = count(Fate::NothingToLearn) {
        context.warn(format!("{empty} of {all} examples are left out: nothing in them to learn"));
    }
    context.write(&ROWS, std::mem::take(rows))
}

/// Writes the trained model and the log; a training that was stopped becomes the engine's own error.
pub(super) fn finish(
    context: &Context,
    base: Bundle,
    trained: Result<Trained, TrainError>,
    listener: &Listener,
) -> anyhow::Result<()> {
    let trained = match trained {
        Err(TrainError::Stopped(_)) => return Err(anyhow!(Stopped)),
        other => other?,
    };
    listener.report();
    let folder = context.folder(&MODEL)?;
    Bundle { decoder: trained.model, ..base }.save(&folder).context("cannot save the trained model")?;
    context.write(&LOG, trained.log)
}

/// A training's voice in its stage: progress with the loss, the wish to stop, tokens per second.
pub(super) struct Listener<'a> {
    context: &'a Context,
    last: RefCell<Instant>,
    seen: RefCell<(u64, Duration)>,
}

impl<'a> Listener<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        Self { context, last: RefCell::new(Instant::now()), seen: RefCell::default() }
    }

    fn report(&self) {
        let (tokens, time) = *self.seen.borrow();
        if !time.is_zero() {
            self.context.figure("tokens_per_second", tokens as f64 / time.as_secs_f64());
        }
    }
}

impl Watch for Listener<'_> {
    fn stop(&self) -> bool {
        self.context.check_stop().is_err()
    }

    fn prepared(&self, done: u64, sequences: u64) {
        self.context.progress(done, sequences, "sequences", "log-probabilities of the base model");
        self.last.replace(Instant::now());
    }

    fn step(&self, row: &TrainLog, steps: u64) {
        let time = self.last.replace(Instant::now()).elapsed();
        let mut seen = self.seen.borrow_mut();
        *seen = (seen.0 + row.tokens, seen.1 + time);
        let mut detail = format!("loss {:.4}", row.loss);
        if let Some(margin) = row.rewards_margin {
            detail.push_str(&format!(", margin {margin:.3}"));
        }
        self.context.progress(row.step, steps, "steps", detail);
    }
}

/// What is wrong with the settings that both stages have.
pub(super) fn check(settings: &Settings, max_length: Option<usize>, limit: Option<usize>) -> Vec<Problem> {
    let counts = [
        ("max_steps", settings.max_steps != Some(0), 1),
        ("batch_size", settings.batch_size > 0, 1),
        ("accumulation", settings.accumulation > 0, 1),
        ("max_length", max_length.is_none_or(|length| length > 1), 2),
        ("limit", limit != Some(0), 1),
    ];
    let mut problems: Vec<Problem> = counts
        .into_iter()
        .filter(|(_, right, _)| !right)
        .map(|(name, _, least)| Problem::new(name, format!("must be at least {least}")))
        .collect();
    problems.extend(positive("epochs", settings.epochs));
    problems.extend(positive("learning_rate", settings.learning_rate));
    problems.extend(not_negative("weight_decay", settings.adam.weight_decay));
    problems.extend(not_negative("max_grad_norm", settings.max_grad_norm));
    if !(0.0..=1.0).contains(&settings.warmup_ratio) {
        problems.push(Problem::new("warmup_ratio", "must lie between 0 and 1"));
    }
    problems
}

/// A problem unless the value is a finite number above 0.
pub(super) fn positive(name: &str, value: f64) -> Option<Problem> {
    (!(value.is_finite() && value > 0.0)).then(|| Problem::new(name, "must be a number above 0"))
}

/// A problem unless the value is a finite number, 0 or above.
pub(super) fn not_negative(name: &str, value: f64) -> Option<Problem> {
    (!(value.is_finite() && value >= 0.0)).then(|| Problem::new(name, "must be 0 or above"))
}

/// Takes the examples beyond the limit away, where one is set, and returns them.
pub(super) fn beyond<T>(examples: &mut Vec<T>, limit: Option<usize>) -> Vec<T> {
    examples.split_off(limit.unwrap_or(usize::MAX).min(examples.len()))
}
