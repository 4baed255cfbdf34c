//! What the two training stages share: how they listen to a training, and what they check, read and write.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use crate::engine::port::{Folder, Port};
use crate::engine::stage::{Context, Problem, Stopped};
use crate::model::{Bundle, device};
use crate::train::encode::Encoded;
use crate::train::{Settings, TrainError, TrainLog, Trained, Watch};

/// The model that training begins with.
pub(super) const BASE: Folder = Folder::new("base", "model.bundle/v1");

/// The trained model.
pub(super) const MODEL: Folder = Folder::new("model", "model.bundle/v1");

/// One row for each step.
pub(super) const LOG: Port<TrainLog> = Port::new("log");

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

/// Warns of examples that are left out.
pub(super) fn warn_left_out<T>(context: &Context, encoded: &Encoded<T>, max_length: usize) {
    let all = encoded.rows.len() + encoded.too_long + encoded.nothing_scored;
    if encoded.too_long > 0 {
        let count = encoded.too_long;
        context.warn(format!("{count} of {all} examples are left out: longer than `max_length`, {max_length} tokens"));
    }
    if encoded.nothing_scored > 0 {
        context.warn(format!("{} of {all} examples are left out: nothing in them to learn", encoded.nothing_scored));
    }
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

/// The first examples, where a limit is set.
pub(super) fn limited<T>(mut examples: Vec<T>, limit: Option<usize>) -> Vec<T> {
    examples.truncate(limit.unwrap_or(usize::MAX));
    examples
}
