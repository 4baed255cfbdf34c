//! The learning rate over the steps of a training.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// In a straight line to 0 at the end.
    #[default]
    Linear,
    /// Along half a cosine to 0 at the end.
    Cosine,
}

impl Schedule {
    /// The factor on the learning rate for optimiser step `step` (from 0) of `total`, with `warmup` steps at the start that
    /// rise in a straight line from 0. As in the reference the first step of a warm-up has factor 0.
    pub fn factor(self, step: u64, total: u64, warmup: u64) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => (1.0 - progress).max(0.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()),
        }
    }
}

/// For how long the learning rate rises before it falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// A share of all steps, rounded up.
    Ratio(f64),
    /// So many steps.
    Steps(u64),
}

impl Warmup {
    /// The number of steps, of so many in all.
    pub fn steps(self, total: u64) -> u64 {
        match self {
            Self::Ratio(ratio) => (total as f64 * ratio).ceil() as u64,
            Self::Steps(steps) => steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn linear_warms_up_and_falls_to_nothing() {
        let factors: Vec<f64> = (0..=10).map(|step| Schedule::Linear.factor(step, 10, 2)).collect();
        assert_eq!(factors, [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]);
    }

    #[test]
    fn cosine_is_halfway_in_the_middle() {
        assert!((Schedule::Cosine.factor(6, 10, 2) - 0.5).abs() < 1e-12);
        assert_eq!(Schedule::Cosine.factor(2, 10, 2), 1.0);
    }

    #[test]
    fn warmup_rounds_up() {
        assert_eq!(
            (Warmup::Ratio(0.1).steps(101), Warmup::Ratio(0.0).steps(100), Warmup::Steps(7).steps(3)),
            (11, 0, 7)
        );
    }

    proptest! {
        #[test]
        fn every_factor_lies_between_0_and_1(step in 0_u64..500, total in 1_u64..400, warmup in 0_u64..500) {
            for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
                let factor = schedule.factor(step, total, warmup);
                prop_assert!((0.0..=1.0).contains(&factor));
            }
        }
    }
}
