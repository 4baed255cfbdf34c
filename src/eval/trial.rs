//! Scores of whole experiments as one tidy table: what is committed beside the text that tells of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::score::{EpisodeOutcome, ScoreRow};
use crate::table::Row;

/// The score of one dialogue in one repetition of one arm of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrialRow {
    /// The arm, as the comparison calls it.
    pub arm: String,
    /// The seed, or the seeds, by which a repetition differs from others; `None` of an arm that was not repeated.
    pub seed: Option<String>,
    /// The dialogue.
    pub dialogue: String,
    /// The share of its goals that were reached; `None` of a broken episode.
    pub reward: Option<f64>,
    /// Whether all were; `None` of a broken episode.
    pub success: Option<bool>,
    /// How it ended.
    pub outcome: EpisodeOutcome,
    /// The highest reward that any agent can reach in this dialogue, where that was measured.
    pub reachable: Option<f64>,
}

impl Row for TrialRow {
    const TYPE: &'static str = "eval.trial/v1";
}

impl TrialRow {
    /// A score in the place that it has in an experiment.
    pub fn new(arm: &str, seed: Option<&str>, score: ScoreRow) -> Self {
        let ScoreRow { dialogue, reward, success, outcome, reachable } = score;
        let (arm, seed) = (arm.to_owned(), seed.map(str::to_owned));
        Self { arm, seed, dialogue, reward, success, outcome, reachable }
    }

    /// The score alone.
    pub fn score(self) -> ScoreRow {
        let Self { dialogue, reward, success, outcome, reachable, .. } = self;
        ScoreRow { dialogue, reward, success, outcome, reachable }
    }

    /// What cannot be in a row that scoring made: a file that others wrote may have it.
    pub fn mistake(&self) -> Option<&'static str> {
        let broken = self.outcome == EpisodeOutcome::Broken;
        let share = |value: Option<f64>| value.is_none_or(|value| (0.0..=1.0).contains(&value));
        if broken != self.reward.is_none() || broken != self.success.is_none() {
            Some("reward and success are null where the outcome is `broken`, and nowhere else")
        } else if self.success.is_some_and(|success| success != (self.outcome == EpisodeOutcome::Success)) {
            Some("success is true where the outcome is `success`, and nowhere else")
        } else if !share(self.reward) || !share(self.reachable) {
            Some("reward and reachable lie between 0 and 1")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(reward: Option<f64>, success: Option<bool>, outcome: EpisodeOutcome) -> TrialRow {
        let score = ScoreRow { dialogue: "d".to_owned(), reward, success, outcome, reachable: Some(1.0) };
        TrialRow::new("base", Some("1"), score)
    }

    #[test]
    fn a_score_comes_back() {
        let score = ScoreRow {
            dialogue: "d".to_owned(),
            reward: Some(0.5),
            success: Some(false),
            outcome: EpisodeOutcome::Failure,
            reachable: None,
        };
        let trial = TrialRow::new("base", None, score.clone());
        assert_eq!((trial.arm.as_str(), trial.seed.as_deref()), ("base", None));
        assert_eq!(trial.score(), score);
    }

    #[test]
    fn what_scoring_never_makes_is_a_mistake() {
        use EpisodeOutcome::{Broken, Failure, Success};
        for row in
            [trial(None, None, Broken), trial(Some(0.0), Some(false), Failure), trial(Some(1.0), Some(true), Success)]
        {
            assert_eq!(row.mistake(), None, "{row:?}");
        }
        for row in [
            trial(Some(0.0), Some(false), Broken),
            trial(None, Some(false), Failure),
            trial(Some(1.0), None, Success),
            trial(Some(1.0), Some(true), Failure),
            trial(Some(f64::NAN), Some(true), Success),
            trial(Some(1.5), Some(true), Success),
            TrialRow { reachable: Some(-0.1), ..trial(Some(1.0), Some(true), Success) },
        ] {
            assert!(row.mistake().is_some(), "{row:?}");
        }
    }
}
