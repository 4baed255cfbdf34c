//! Which batches make which step.

use std::ops::Range;

use super::settings::Settings;

/// The steps of a training over so many examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    batches: usize,
    accumulation: usize,
    /// All steps, unless the training ends early.
    pub steps: u64,
}

impl Plan {
    /// The plan of these settings for so many examples, at least one.
    pub fn new(examples: usize, settings: &Settings) -> Self {
        let batches = examples.div_ceil(settings.batch_size);
        let per_epoch = batches.div_ceil(settings.accumulation);
        let steps = settings.max_steps.unwrap_or_else(|| (settings.epochs * per_epoch as f64).ceil() as u64);
        Self { batches, accumulation: settings.accumulation, steps }
    }

    /// Steps of an epoch.
    pub fn per_epoch(&self) -> u64 {
        self.batches.div_ceil(self.accumulation) as u64
    }

    /// The epoch of a step (from 0) and its batches within the epoch: the last step of an epoch may have fewer.
    pub fn batches_of(&self, step: u64) -> (u64, Range<usize>) {
        let first = (step % self.per_epoch()) as usize * self.accumulation;
        (step / self.per_epoch(), first..(first + self.accumulation).min(self.batches))
    }

    /// How many epochs are whole after so many steps, and which batches of the one after them were trained on.
    pub fn extent(&self, steps: u64) -> (u64, Range<usize>) {
        let rest = (steps % self.per_epoch()) as usize * self.accumulation;
        (steps / self.per_epoch(), 0..rest.min(self.batches))
    }

    /// How much has been seen after a step (from 0), in epochs.
    pub fn seen(&self, step: u64) -> f64 {
        let (epoch, batches) = self.batches_of(step);
        epoch as f64 + batches.end as f64 / self.batches as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::settings;

    #[test]
    fn steps_cover_an_epoch_and_begin_again() {
        let plan = Plan::new(10, &Settings { epochs: 1.5, batch_size: 2, accumulation: 2, ..settings() });
        assert_eq!((plan.steps, plan.per_epoch()), (5, 3)); // 5 batches
        let batches: Vec<(u64, Range<usize>)> = (0..5).map(|step| plan.batches_of(step)).collect();
        assert_eq!(batches, [(0, 0..2), (0, 2..4), (0, 4..5), (1, 0..2), (1, 2..4)]);
        assert_eq!((plan.seen(1), plan.seen(2), plan.seen(4)), (0.8, 1.0, 1.8));
        assert_eq!((plan.extent(2), plan.extent(3), plan.extent(4)), ((0, 0..4), (1, 0..0), (1, 0..2)));
        assert_eq!(Plan::new(10, &Settings { max_steps: Some(7), ..settings() }).steps, 7);
    }
}
