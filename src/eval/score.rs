//! Episodes to scores and their summary.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, percentile_interval};
use super::mean;
pub use crate::dialogue::episode::Outcome as EpisodeOutcome;
use crate::seed::derive;
use crate::table::Row;

/// What scoring reads of an episode: a part of its columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpisodeView {
    /// The dialogue.
    pub dialogue: String,
    /// The share of its goals that were reached.
    pub reward: f64,
    /// Whether all were.
    pub success: bool,
    /// How it ended.
    pub outcome: EpisodeOutcome,
    /// Why it is broken.
    pub reason: Option<String>,
}

impl Row for EpisodeView {
    const TYPE: &'static str = "dialogue.episode/v2";
}

/// The score of one episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScoreRow {
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

impl Row for ScoreRow {
    const TYPE: &'static str = "eval.score/v1";
}

impl ScoreRow {
    /// Scores an episode. A broken one has no score.
    pub fn new(episode: EpisodeView, reachable: Option<f64>) -> Self {
        let known = episode.outcome != EpisodeOutcome::Broken;
        Self {
            dialogue: episode.dialogue,
            reward: known.then_some(episode.reward),
            success: known.then_some(episode.success),
            outcome: episode.outcome,
            reachable,
        }
    }

    /// 1 of a success, 0 of a failure.
    pub fn success_value(&self) -> Option<f64> {
        self.success.map(|success| if success { 1.0 } else { 0.0 })
    }
}

/// What a table of scores comes to. Broken episodes are counted and in no average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SummaryRow {
    /// How many episodes there are, broken ones among them.
    pub dialogues: u64,
    /// How many of them are broken.
    pub broken: u64,
    /// The mean reward; like all that follows `None` where no episode has a score.
    pub reward: Option<f64>,
    /// The lower end of its confidence interval.
    pub reward_low: Option<f64>,
    /// The upper end.
    pub reward_high: Option<f64>,
    /// The variance of the rewards, of the population as the reference reports it.
    pub reward_variance: Option<f64>,
    /// The share of successes.
    pub success: Option<f64>,
    /// The lower end of its confidence interval.
    pub success_low: Option<f64>,
    /// The upper end.
    pub success_high: Option<f64>,
    /// The mean reward over the mean of what is reachable, where that is known of every scored dialogue.
    pub of_ceiling: Option<f64>,
    /// The mean of what is reachable, where that is known of every dialogue, broken ones among them.
    pub ceiling_reward: Option<f64>,
    /// The share of dialogues in which everything is reachable, where that is known of all.
    pub ceiling_success: Option<f64>,
}

impl Row for SummaryRow {
    const TYPE: &'static str = "eval.summary/v2";
}

/// How intervals are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resampling {
    /// How many resamples.
    pub samples: usize,
    /// The share of intervals that hold the true value.
    pub confidence: f64,
    /// Decides the resamples.
    pub seed: u64,
}

/// Sums up a table of scores; the order of the rows does not matter.
pub fn summarise(scores: &[ScoreRow], resampling: Resampling) -> SummaryRow {
    let mut scores: Vec<&ScoreRow> = scores.iter().collect();
    scores.sort_by(|a, b| a.dialogue.cmp(&b.dialogue));
    let rewards: Vec<f64> = scores.iter().filter_map(|score| score.reward).collect();
    let successes: Vec<f64> = scores.iter().filter_map(|score| score.success_value()).collect();
    let interval = |values: &[f64], name: &str| {
        percentile_interval(values, resampling.samples, resampling.confidence, derive(resampling.seed, &["eval", name]))
    };
    let (reward_ends, success_ends) = (interval(&rewards, "reward"), interval(&successes, "success"));
    let reward = mean(&rewards);
    let squares = |mean: f64| rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>();
    let reachable: Option<Vec<f64>> = scores.iter().map(|score| score.reachable).collect();
    let solvable = |reachable: &Vec<f64>| reachable.iter().map(|share| f64::from(u8::from(*share >= 1.0))).collect();
    let solvable: Option<Vec<f64>> = reachable.as_ref().map(solvable);
    SummaryRow {
        dialogues: scores.len() as u64,
        broken: (scores.len() - rewards.len()) as u64,
        reward,
        reward_low: reward_ends.map(|Interval { low, .. }| low),
        reward_high: reward_ends.map(|Interval { high, .. }| high),
        reward_variance: reward.map(|mean| squares(mean) / rewards.len() as f64),
        success: mean(&successes),
        success_low: success_ends.map(|Interval { low, .. }| low),
        success_high: success_ends.map(|Interval { high, .. }| high),
        of_ceiling: of_ceiling(&scores),
        ceiling_reward: reachable.as_deref().and_then(mean),
        ceiling_success: solvable.as_deref().and_then(mean),
    }
}

fn of_ceiling(scores: &[&ScoreRow]) -> Option<f64> {
    let scored = scores.iter().filter_map(|score| Some((score.reward?, score.reachable)));
    let pairs = scored.map(|(reward, reachable)| Some((reward, reachable?))).collect::<Option<Vec<_>>>()?;
    let ceiling: f64 = pairs.iter().map(|(_, reachable)| reachable).sum();
    (ceiling > 0.0).then(|| pairs.iter().map(|(reward, _)| reward).sum::<f64>() / ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::dialogue::episode::EpisodeRow;

    fn score(dialogue: &str, reward: f64, outcome: EpisodeOutcome, reachable: Option<f64>) -> ScoreRow {
        let (dialogue, success) = (dialogue.to_owned(), outcome == EpisodeOutcome::Success);
        ScoreRow::new(EpisodeView { dialogue, reward, success, outcome, reason: None }, reachable)
    }

    const RESAMPLING: Resampling = Resampling { samples: 200, confidence: 0.95, seed: 1 };

    #[test]
    fn broken_episodes_are_counted_and_in_no_average() {
        let scores = [
            score("a", 1.0, EpisodeOutcome::Success, Some(1.0)),
            score("b", 0.5, EpisodeOutcome::Failure, Some(0.5)),
            score("c", 0.25, EpisodeOutcome::Broken, Some(0.75)),
        ];
        assert_eq!((scores[2].reward, scores[2].success), (None, None));
        let summary = summarise(&scores, RESAMPLING);
        assert_eq!((summary.dialogues, summary.broken), (3, 1));
        assert_eq!((summary.reward, summary.success), (Some(0.75), Some(0.5)));
        assert_eq!((summary.reward_variance, summary.of_ceiling), (Some(0.0625), Some(1.0)));
        assert_eq!((summary.reward_low, summary.reward_high), (Some(0.5), Some(1.0)));
        assert_eq!((summary.ceiling_reward, summary.ceiling_success), (Some(0.75), Some(1.0 / 3.0)));
    }

    #[test]
    fn without_scores_there_are_no_figures() {
        for scores in [vec![], vec![score("c", 0.0, EpisodeOutcome::Broken, None)]] {
            let summary = summarise(&scores, RESAMPLING);
            assert_eq!(
                (summary.reward, summary.reward_low, summary.success, summary.of_ceiling),
                (None, None, None, None)
            );
        }
    }

    #[test]
    fn a_ceiling_known_of_some_dialogues_only_is_none() {
        let known = score("a", 1.0, EpisodeOutcome::Success, Some(1.0));
        let unknown = score("b", 1.0, EpisodeOutcome::Success, None);
        let summary = summarise(&[known, unknown], RESAMPLING);
        assert_eq!((summary.of_ceiling, summary.ceiling_reward, summary.ceiling_success), (None, None, None));
    }

    #[test]
    fn the_order_of_rows_does_not_show() {
        let mut scores: Vec<ScoreRow> =
            (0..20).map(|n| score(&format!("d{n}"), f64::from(n) / 20.0, EpisodeOutcome::Failure, None)).collect();
        let before = summarise(&scores, RESAMPLING);
        scores.reverse();
        assert_eq!(summarise(&scores, RESAMPLING), before);
    }

    #[test]
    fn a_part_of_an_episodes_columns_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("episodes.parquet");
        let whole = EpisodeRow {
            dialogue: "MUL0003.json".to_owned(),
            split: "test".to_owned(),
            reward: 0.5,
            success: false,
            outcome: EpisodeOutcome::Failure,
            reason: None,
            ended: true,
            messages: vec![Message::user("hello")],
            internal: vec![Message::user("hello")],
            calls: Vec::new(),
            goals: vec!["search_hotel".to_owned(), "book_hotel".to_owned()],
            goals_hit: vec![0],
            agent_prompt_tokens: 1,
            agent_completion_tokens: 2,
            user_prompt_tokens: 3,
            user_completion_tokens: 4,
        };
        crate::table::write(&path, [whole]).unwrap();
        let (outcome, dialogue) = (EpisodeOutcome::Failure, "MUL0003.json".to_owned());
        let view = EpisodeView { dialogue, reward: 0.5, success: false, outcome, reason: None };
        assert_eq!(crate::table::read::<EpisodeView>(&path).unwrap(), [view]);
    }
}
