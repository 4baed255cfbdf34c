//! What a step's log says of rewards.

use super::TrainLog;
use super::objective::reward;

/// Sums over the desirable or chosen and the undesirable or rejected completions of a step.
#[derive(Default)]
pub(super) struct Figures {
    chosen: Side,
    rejected: Side,
    pairs: usize,
    right: usize,
}

#[derive(Default)]
struct Side {
    rows: usize,
    reward: f64,
    logps: f64,
}

impl Side {
    fn add(&mut self, policy: f64, reward: f64) {
        self.rows += 1;
        self.reward += reward;
        self.logps += policy;
    }

    fn mean(&self, sum: f64) -> Option<f64> {
        (self.rows > 0).then(|| sum / self.rows as f64)
    }
}

impl Figures {
    /// A completion's log-probabilities under the policy and the reference.
    pub(super) fn add(&mut self, desirable: bool, policy: f64, reference: f64, beta: f64) {
        let side = if desirable { &mut self.chosen } else { &mut self.rejected };
        side.add(policy, reward(policy, reference, beta));
    }

    /// Those of a pair, the chosen side first.
    pub(super) fn add_pair(&mut self, policy: [f64; 2], reference: [f64; 2], beta: f64) {
        self.add(true, policy[0], reference[0], beta);
        self.add(false, policy[1], reference[1], beta);
        self.pairs += 1;
        self.right += usize::from(policy[0] - reference[0] > policy[1] - reference[1]);
    }

    /// The row with what is known of rewards.
    pub(super) fn row(&self, row: TrainLog) -> TrainLog {
        let (chosen, rejected) = (self.chosen.mean(self.chosen.reward), self.rejected.mean(self.rejected.reward));
        TrainLog {
            rewards_chosen: chosen,
            rewards_rejected: rejected,
            rewards_margin: chosen.zip(rejected).map(|(chosen, rejected)| chosen - rejected),
            rewards_accuracy: (self.pairs > 0).then(|| self.right as f64 / self.pairs as f64),
            logps_chosen: self.chosen.mean(self.chosen.logps),
            logps_rejected: self.rejected.mean(self.rejected.logps),
            ..row
        }
    }
}
