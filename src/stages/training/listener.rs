//! A training's voice in its stage.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::engine::stage::Context;
use crate::train::{TrainLog, Watch};

/// Progress with what the last step found, the wish to stop, tokens per second.
pub struct Listener<'a> {
    context: &'a Context,
    last: RefCell<Instant>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    tokens: u64,
    time: Duration,
    /// What the last step said.
    step: Option<(TrainLog, u64)>,
    evaluation: Option<f64>,
}

impl<'a> Listener<'a> {
    /// One that has heard nothing yet.
    pub fn new(context: &'a Context) -> Self {
        Self { context, last: RefCell::new(Instant::now()), seen: RefCell::default() }
    }

    /// Says how quick the steps were, evaluations excepted.
    pub fn report(&self) {
        if let Some(speed) = self.seen.borrow().speed() {
            self.context.figure("tokens_per_second", speed);
        }
    }

    fn tell(&self) {
        let seen = self.seen.borrow();
        if let Some((row, steps)) = &seen.step {
            self.context.progress(row.step, *steps, "steps", detail(row, seen.evaluation, seen.speed()));
        }
    }
}

impl Seen {
    fn speed(&self) -> Option<f64> {
        (!self.time.is_zero()).then(|| self.tokens as f64 / self.time.as_secs_f64())
    }
}

/// A step in a line; what a loss does not have is left out.
fn detail(row: &TrainLog, evaluation: Option<f64>, speed: Option<f64>) -> String {
    let mut detail = format!("loss {:.4}", row.loss);
    let optional =
        [("eval", evaluation), ("KL", row.kl), ("margin", row.rewards_margin), ("right", row.rewards_accuracy)];
    for (name, value) in optional {
        detail.extend(value.map(|value| format!(", {name} {value:.3}")));
    }
    detail.push_str(&format!(", norm {:.2}, rate {:.1e}", row.grad_norm, row.learning_rate));
    detail.extend(speed.map(|speed| format!(", {speed:.0} tokens/s")));
    detail
}

impl Watch for Listener<'_> {
    fn stop(&self) -> bool {
        self.context.check_stop().is_err()
    }

    fn prepared(&self, done: u64, sequences: u64) {
        self.context.progress(done, sequences, "sequences", "log-probabilities of the base model");
        self.last.replace(Instant::now());
    }

    fn begins(&self) {
        self.last.replace(Instant::now());
    }

    fn step(&self, row: &TrainLog, steps: u64) {
        let time = self.last.replace(Instant::now()).elapsed();
        let mut seen = self.seen.borrow_mut();
        (seen.tokens, seen.time) = (seen.tokens + row.tokens, seen.time + time);
        seen.step = Some((row.clone(), steps));
        drop(seen);
        self.tell();
    }

    fn evaluated(&self, _step: u64, loss: f64) {
        self.last.replace(Instant::now());
        self.seen.borrow_mut().evaluation = Some(loss);
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_what_its_loss_has() {
        let row = TrainLog { loss: 0.51234, grad_norm: 1.5, learning_rate: 1e-4, ..TrainLog::default() };
        assert_eq!(detail(&row, None, None), "loss 0.5123, norm 1.50, rate 1.0e-4");
        let row = TrainLog { kl: Some(0.25), rewards_margin: Some(-1.0), ..row };
        assert_eq!(
            detail(&row, Some(2.0), Some(1234.5)),
            "loss 0.5123, eval 2.000, KL 0.250, margin -1.000, norm 1.50, rate 1.0e-4, 1234 tokens/s"
        );
    }
}
