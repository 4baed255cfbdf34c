//! `eval.compare`: several agents over the same dialogues.

use anyhow::ensure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::eval_toolwoz::{check, confidence, samples};
use crate::engine::graph::pairs;
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::eval::score::Resampling;
use crate::eval::{ComparisonRow, ScoreRow, Settings, Test, compare};
use crate::table;

const ARMS: Port<ScoreRow> = Port::new("arms");
const COMPARISON: Port<ComparisonRow> = Port::new("comparison");

/// Compares agents with a baseline, dialogue by dialogue: differences of mean reward and of the share of solved tasks with
/// confidence intervals, p values by three tests and effect sizes, and how many tasks were gained and lost.
///
/// Each input is an arm under the name that the pipeline gives it. Dialogues are matched by name; those that only one of two
/// arms has, or that broke in one of them, are counted as unmatched and left out of the differences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalCompare {
    /// The arm that the others are compared with.
    pub baseline: String,
    /// Whose p values are shown: `permutation` and `bootstrap` are paired and two-sided; `reference` is what the paper's
    /// authors used, unpaired and one-sided. The table holds all three.
    #[serde(default)]
    pub test: Test,
    /// Resamples that intervals and p values are made of.
    #[serde(default = "samples")]
    pub samples: usize,
    /// The share of intervals that hold the true value.
    #[serde(default = "confidence")]
    pub confidence: f64,
    /// Decides the resamples; the paper's authors took 42.
    #[serde(default)]
    pub seed: u64,
}

impl EvalCompare {
    fn resampling(&self) -> Resampling {
        Resampling { samples: self.samples, confidence: self.confidence, seed: self.seed }
    }
}

impl Stage for EvalCompare {
    const KIND: &'static str = "eval.compare";
    const VERSION: u32 = 3;
    const EXAMPLE: &'static str = "\
comparison:
  kind: eval.compare
  in: {base: base_scores.scores, sft: sft_scores.scores, kto: kto_scores.scores}
  with: {baseline: base}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![ARMS.many()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![COMPARISON.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = check(self.resampling());
        if self.test == Test::Reference && u32::try_from(self.seed).is_err() {
            problems.push(Problem::new("seed", format!("must be at most {} where `test` is `reference`", u32::MAX)));
        }
        problems
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        if connected.is_empty() || connected.contains(&self.baseline.as_str()) {
            return Vec::new();
        }
        let mut known = connected.iter().take(8).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if connected.len() > 8 {
            known.push_str(", ...");
        }
        let mut message = format!("is `{}`, which is no arm; the arms are {known}", self.baseline);
        // A matrix has made several arms of the one that is named.
        let values =
            |name: &&str| name.strip_prefix(&self.baseline)?.strip_prefix('[')?.strip_suffix(']').map(str::to_owned);
        if let Some(values) = connected.iter().find_map(values) {
            let axes: Vec<&str> = pairs(&values).into_iter().filter_map(|pair| pair.split('=').next()).collect();
            message.push_str(&format!("; `each: [{}]` beside `with` compares within each", axes.join(", ")));
        }
        vec![Problem::new("baseline", message)]
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        ensure!(context.inputs.len() > 1, "there is nothing to compare: connect two arms at least");
        let arms = context.inputs.iter().map(|input| Ok((input.name.clone(), table::read(&input.path)?)));
        let arms = arms.collect::<anyhow::Result<Vec<(String, Vec<ScoreRow>)>>>()?;
        context.check_stop()?;
        let rows = compare(&arms, &self.baseline, Settings { resampling: self.resampling(), test: self.test })?;
        for row in rows.iter().filter(|row| row.matched == Some(0)) {
            context.warn(format!("`{}` and `{}` have no dialogue in common", row.arm, row.baseline));
        }
        context.write(&COMPARISON, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::{Compat, Quirks};
    use crate::eval::{EpisodeOutcome, EpisodeView, SummaryRow};
    use crate::stages::bench::Bench;
    use crate::stages::eval_toolwoz::EvalToolwoz;

    fn episodes(bench: &Bench, name: &str, rewards: &[Option<f64>]) -> std::path::PathBuf {
        let episode = |(at, reward): (usize, &Option<f64>)| EpisodeView {
            dialogue: format!("d{at}"),
            reward: reward.unwrap_or(0.0),
            success: *reward == Some(1.0),
            outcome: match reward {
                None => EpisodeOutcome::Broken,
                Some(1.0) => EpisodeOutcome::Success,
                Some(_) => EpisodeOutcome::Failure,
            },
            reason: reward.is_none().then(|| "no model".to_owned()),
        };
        let path = bench.write(name, "");
        table::write(&path, rewards.iter().enumerate().map(episode)).unwrap();
        path
    }

    fn scored(bench: &Bench, name: &str, rewards: &[Option<f64>]) -> (std::path::PathBuf, SummaryRow) {
        let episodes = episodes(bench, &format!("{name}.episodes.parquet"), rewards);
        let stage = EvalToolwoz {
            compat: Compat::default(),
            quirks: Quirks::default(),
            samples: 100,
            confidence: 0.9,
            seed: 1,
        };
        bench.run(&stage, &[("episodes", &episodes)]).unwrap();
        let scores = std::fs::read(bench.out("scores.parquet")).unwrap();
        let summary = table::read::<SummaryRow>(&bench.out("summary.parquet")).unwrap().remove(0);
        (bench.write(&format!("{name}.parquet"), scores), summary)
    }

    fn stage(baseline: &str) -> EvalCompare {
        serde_json::from_value(serde_json::json!({"baseline": baseline, "samples": 200})).unwrap()
    }

    #[test]
    fn episodes_are_scored_and_their_scores_compared() {
        let bench = Bench::new();
        let (base, summary) = scored(&bench, "base", &[Some(0.0), Some(0.5), Some(1.0), None]);
        assert_eq!((summary.dialogues, summary.broken, summary.reward), (4, 1, Some(0.5)));
        let (new, _) = scored(&bench, "new", &[Some(1.0), Some(1.0), Some(1.0), Some(1.0)]);
        bench.run(&stage("base"), &[("new", &new), ("base", &base)]).unwrap();
        let rows: Vec<ComparisonRow> = table::read(&bench.out("comparison.parquet")).unwrap();
        let seen: Vec<_> = rows.iter().map(|row| (row.arm.as_str(), row.matched, row.unmatched, row.gained)).collect();
        assert_eq!(seen, [("new", Some(3), Some(1), Some(2)), ("base", None, None, None)]);
        assert_eq!(rows[0].reward_difference, Some(0.5));
    }

    #[test]
    fn what_cannot_be_compared_is_named() {
        let bench = Bench::new();
        let (base, _) = scored(&bench, "base", &[Some(0.0)]);
        let error = bench.run(&stage("base"), &[("base", &base)]).unwrap_err().to_string();
        assert_eq!(error, "there is nothing to compare: connect two arms at least");
        let error = bench.run(&stage("bass"), &[("base", &base), ("new", &base)]).unwrap_err().to_string();
        assert_eq!(error, "`baseline` is `bass`, which is no arm; the arms are `base`, `new`");
        let wrong = EvalCompare { samples: 0, confidence: 1.0, seed: u64::MAX, test: Test::Reference, ..stage("base") };
        assert_eq!(
            wrong.check().iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(),
            ["samples", "confidence", "seed"]
        );
    }
}
