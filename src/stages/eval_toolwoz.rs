//! `eval.toolwoz`: episodes become scores.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::eval::score::{Resampling, summarise};
use crate::eval::{EpisodeView, ScoreRow, SummaryRow};

const EPISODES: Port<EpisodeView> = Port::new("episodes");
const SCORES: Port<ScoreRow> = Port::new("scores");
const SUMMARY: Port<SummaryRow> = Port::new("summary");

/// Scores episodes: the mean reward and the share of tasks that were solved, with bootstrap confidence intervals.
///
/// Episodes that broke are counted, and are in no average: they say nothing about the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalToolwoz {
    /// Resamples that the intervals are made of.
    #[serde(default = "samples")]
    pub samples: usize,
    /// The share of intervals that hold the true value.
    #[serde(default = "confidence")]
    pub confidence: f64,
    /// Decides the resamples.
    #[serde(default)]
    pub seed: u64,
}

pub(super) fn samples() -> usize {
    10_000
}

pub(super) fn confidence() -> f64 {
    0.95
}

/// What is wrong with the parameters of resampling.
pub(super) fn check(resampling: Resampling) -> Vec<Problem> {
    let mut problems = Vec::new();
    if resampling.samples == 0 || u32::try_from(resampling.samples).is_err() {
        problems.push(Problem::new("samples", format!("must be between 1 and {}", u32::MAX)));
    }
    if !(resampling.confidence > 0.0 && resampling.confidence < 1.0) {
        problems.push(Problem::new("confidence", "must be more than 0 and less than 1"));
    }
    problems
}

impl EvalToolwoz {
    fn resampling(&self) -> Resampling {
        Resampling { samples: self.samples, confidence: self.confidence, seed: self.seed }
    }
}

impl Stage for EvalToolwoz {
    const KIND: &'static str = "eval.toolwoz";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
scores:
  kind: eval.toolwoz
  in: {episodes: played.episodes}
  with: {samples: 10000, confidence: 0.95}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EPISODES.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![SCORES.one(), SUMMARY.one()]
    }

    fn check(&self) -> Vec<Problem> {
        check(self.resampling())
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let (mut scores, mut reasons) = (Vec::new(), BTreeMap::<String, u64>::new());
        for episode in context.rows(&EPISODES)? {
            let episode = episode?;
            if let Some(reason) = &episode.reason {
                *reasons.entry(reason.clone()).or_default() += 1;
            }
            scores.push(ScoreRow::new(episode, None));
        }
        let summary = summarise(&scores, self.resampling());
        if let Some((reason, count)) = reasons.iter().max_by_key(|(_, count)| **count) {
            let (broken, all) = (summary.broken, summary.dialogues);
            context.warn(format!("{broken} of {all} episodes are broken and in no average; {count} of them: {reason}"));
        }
        context.write(&SCORES, scores)?;
        context.write(&SUMMARY, [summary])
    }
}
