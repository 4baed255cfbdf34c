//! How a training moves from step to step, whatever its loss and its device.

use std::path::Path;

use super::batch::Sequence;
use super::checkpoint::{self, Saved};
use super::evaluate::best;
use super::learner::{Learner, LearnerState, open};
use super::optimise::clip_factor;
use super::plan::Plan;
use super::settings::Settings;
use super::{RowName, TrainError, TrainLog, Watch};
use crate::model::Decoder;
use crate::seed;

/// A trained model and what was written down.
#[derive(Debug)]
pub struct Trained {
    /// The model, its parameters plain tensors; adapters stay beside their weights.
    pub model: Decoder,
    /// One row for each step made.
    pub log: Vec<TrainLog>,
    /// The step after which the model's weights were as they are now: the best one where patience was asked for, else the last.
    pub kept: u64,
}

/// What differs from loss to loss.
pub(super) trait Method {
    /// Leaves the gradient of a step's loss (steps from 0) with the learner, and says what it saw.
    fn step(&mut self, learner: &mut dyn Learner, step: u64) -> Result<Seen, TrainError>;

    /// The loss over the examples that are held out; `None` where there are none.
    fn evaluate(&self, learner: &mut dyn Learner) -> Result<Option<Measured>, TrainError>;
}

/// What an evaluation found.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// The loss.
    pub loss: f64,
    /// The rows whose log-probability is no finite number.
    pub broken: Vec<RowName>,
}

impl Measured {
    /// Writes the row down unless its numbers are all finite.
    pub(super) fn look(&mut self, numbers: &[f64], place: usize, sequence: &Sequence) {
        if numbers.iter().any(|number| !number.is_finite()) {
            self.broken.push(RowName { dialogue: sequence.dialogue.clone(), place: place as u64 });
        }
    }
}

/// What a step saw before its update.
pub(super) struct Seen {
    /// The step's log row; the training fills in step, epoch, learning rate, gradient norm and the evaluation.
    pub row: TrainLog,
    /// The rows of its batches.
    pub rows: Vec<RowName>,
}

/// A training between two steps.
pub(super) struct Training<'a> {
    pub learner: Box<dyn Learner>,
    pub settings: &'a Settings,
    pub scratch: &'a Path,
    pub watch: &'a dyn Watch,
    plan: Plan,
    log: Vec<TrainLog>,
    /// The rows of the last step.
    rows: Vec<RowName>,
    /// Where patience is asked for, the weights of the best evaluation so far.
    best: Option<LearnerState>,
}

impl<'a> Training<'a> {
    /// A training of the base model that has not stepped yet.
    pub(super) fn new(
        base: Decoder,
        plan: Plan,
        settings: &'a Settings,
        scratch: &'a Path,
        watch: &'a dyn Watch,
    ) -> Result<Self, TrainError> {
        let learner = open(base, settings.learner)?;
        Ok(Self { learner, settings, scratch, watch, plan, log: Vec::new(), rows: Vec::new(), best: None })
    }

    /// Goes on from the last checkpoint, where there is one, to the end.
    pub(super) fn run(mut self, method: &mut dyn Method) -> Result<Trained, TrainError> {
        self.restore()?;
        self.watch.begins();
        while !self.is_done() {
            let step = self.steps();
            let seen = method.step(&mut *self.learner, step)?;
            self.update(seen)?;
            self.evaluate(method)?;
            self.keep()?;
        }
        self.finish()
    }

    fn steps(&self) -> u64 {
        self.log.len() as u64
    }

    fn is_done(&self) -> bool {
        self.steps() >= self.plan.steps || self.settings.evaluation.is_over(&self.log)
    }

    fn restore(&mut self) -> Result<(), TrainError> {
        let Some(Saved { state, best, log, path }) = checkpoint::load(self.scratch)? else { return Ok(()) };
        let is_best = self.settings.evaluation.patience.is_some() && super::evaluate::best(&log) == Some(state.step);
        self.best = if is_best { Some(weights(&state)) } else { best };
        self.learner.restore(state).map_err(|error| match error {
            TrainError::State(reason) => TrainError::Checkpoint { path, reason },
            other => other,
        })?;
        self.log = log;
        Ok(())
    }

    /// Clips, updates the model, writes down.
    fn update(&mut self, Seen { mut row, rows }: Seen) -> Result<(), TrainError> {
        let (settings, step, steps) = (self.settings, self.steps(), self.plan.steps);
        let finite = |what: &'static str, value: f64, rows: Vec<RowName>| match value.is_finite() {
            true => Ok(rows),
            false => Err(TrainError::NotFinite { step: step + 1, what, value, rows }),
        };
        let rows = finite("loss", row.loss, rows)?;
        let rows = finite("KL estimate", row.kl.unwrap_or(0.0), rows)?;
        let norm = self.learner.gradient_norm()?;
        self.rows = finite("gradient norm", norm, rows)?;
        let rate = settings.learning_rate * settings.schedule.factor(step, steps, settings.warmup.steps(steps));
        self.learner.update(rate, clip_factor(norm, settings.max_grad_norm))?;
        row.epoch = self.plan.seen(step);
        (row.step, row.learning_rate, row.grad_norm) = (step + 1, rate, norm);
        self.watch.step(&row, steps);
        self.log.push(row);
        Ok(())
    }

    /// Measures the loss over what is held out where that is due, and keeps the weights that are the best so far.
    fn evaluate(&mut self, method: &dyn Method) -> Result<(), TrainError> {
        let (steps, evaluation) = (self.steps(), self.settings.evaluation);
        if !evaluation.is_due(steps, &self.plan) {
            return Ok(());
        }
        let Some(Measured { loss, broken }) = method.evaluate(&mut *self.learner)? else { return Ok(()) };
        if !loss.is_finite() {
            return Err(TrainError::HeldOut { step: steps, value: loss, rows: broken });
        }
        self.watch.evaluated(steps, loss);
        if let Some(last) = self.log.last_mut() {
            last.eval_loss = Some(loss);
        }
        if evaluation.patience.is_some() && best(&self.log) == Some(steps) {
            self.best = Some(weights(&self.learner.state()?));
        }
        Ok(())
    }

    /// Writes a checkpoint where one is due.
    fn keep(&mut self) -> Result<(), TrainError> {
        let (steps, every) = (self.steps(), self.settings.checkpoint_every);
        let stop = self.watch.stop() && !self.is_done();
        if stop || (every > 0 && steps.is_multiple_of(every)) {
            let older = best(&self.log).is_some_and(|best| best < steps);
            let best = self.best.as_ref().filter(|_| older);
            let state = self.learner.state()?;
            self.check(&state)?;
            checkpoint::save(self.scratch, &state, best, &self.log)?;
        }
        if stop { Err(TrainError::Stopped(steps)) } else { Ok(()) }
    }

    /// Refuses weights that are no numbers: a gradient that is fine can make such with too high a learning rate.
    fn check(&self, state: &LearnerState) -> Result<(), TrainError> {
        match state.parameters.iter().flatten().find(|value| !value.is_finite()) {
            None => Ok(()),
            Some(&value) => Err(TrainError::NotFinite {
                step: self.steps(),
                what: "weights after the update",
                value: f64::from(value),
                rows: self.rows.clone(),
            }),
        }
    }

    fn finish(mut self) -> Result<Trained, TrainError> {
        let mut kept = self.steps();
        if let (Some(state), Some(step)) = (self.best.take(), best(&self.log))
            && step < kept
        {
            self.learner.restore(state)?;
            kept = step;
        } else {
            let state = self.learner.state()?;
            self.check(&state)?;
        }
        Ok(Trained { model: self.learner.finish()?, log: self.log, kept })
    }
}

/// A state's parameters without the optimiser's moments.
fn weights(state: &LearnerState) -> LearnerState {
    let LearnerState { step, parameters, moments } = state;
    LearnerState { step: *step, parameters: parameters.clone(), moments: vec![None; moments.len()] }
}

/// The seed of what dropout drops in a batch of a step.
pub(super) fn dropout_seed(settings: &Settings, step: u64, batch: usize) -> u64 {
    seed::derive(settings.seed, &["dropout", &step.to_string(), &batch.to_string()])
}
