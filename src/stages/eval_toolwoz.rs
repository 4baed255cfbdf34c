//! `eval.toolwoz`: episodes become scores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dialogue::oracle::reachable;
use crate::dialogue::rules::{Compat, Rules};
use crate::dialogue::task::{Task, WorldItem};
use crate::dialogue::world::World;
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::eval::score::{Resampling, summarise};
use crate::eval::{EpisodeOutcome, EpisodeView, ScoreRow, SummaryRow};

const EPISODES: Port<EpisodeView> = Port::new("episodes");
const TASKS: Port<Task> = Port::new("tasks");
const WORLD: Port<WorldItem> = Port::new("world");
const SCORES: Port<ScoreRow> = Port::new("scores");
const SUMMARY: Port<SummaryRow> = Port::new("summary");

/// Scores episodes: the mean reward and the share of tasks that were solved, with bootstrap confidence intervals.
///
/// Episodes that broke are counted, and are in no average: they say nothing about the agent. With the inputs `tasks` and
/// `world`, each score also says what is reachable at all: some goals of MultiWOZ contradict its databases, and an oracle
/// that makes every sensible call finds what is left (reference, section 1.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalToolwoz {
    /// Whose quirks the environment keeps; the same as in `toolwoz.convert`.
    #[serde(default)]
    pub compat: Compat,
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
  in: {episodes: played.episodes, tasks: toolwoz.tasks, world: toolwoz.world}
  with: {samples: 10000, confidence: 0.95}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EPISODES.one(), TASKS.optional(), WORLD.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![SCORES.one(), SUMMARY.one()]
    }

    fn check(&self) -> Vec<Problem> {
        check(self.resampling())
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let episodes = context.rows(&EPISODES)?.collect::<Result<Vec<EpisodeView>, _>>()?;
        let ceiling = self.ceiling(context, &episodes)?;
        let (mut scores, mut reasons) = (Vec::new(), BTreeMap::<String, u64>::new());
        for episode in episodes {
            if let (Some(reason), EpisodeOutcome::Broken) = (&episode.reason, episode.outcome) {
                *reasons.entry(reason.clone()).or_default() += 1;
            }
            let reachable = ceiling.get(&episode.dialogue).copied();
            scores.push(ScoreRow::new(episode, reachable));
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

impl EvalToolwoz {
    /// The highest reward of each dialogue that was played; nothing where tasks and world are not connected.
    fn ceiling(&self, context: &Context, episodes: &[EpisodeView]) -> anyhow::Result<BTreeMap<String, f64>> {
        let (Some(_), Some(_)) = (context.optional_input(TASKS.name), context.optional_input(WORLD.name)) else {
            return Ok(BTreeMap::new());
        };
        let world = Arc::new(World::from_items(context.read(&WORLD)?)?);
        let played: BTreeSet<&str> = episodes.iter().map(|episode| episode.dialogue.as_str()).collect();
        let mut ceiling = BTreeMap::new();
        for task in context.rows(&TASKS)? {
            let task = task?;
            if !played.contains(task.dialogue.as_str()) || task.goals.is_empty() {
                continue;
            }
            context.check_stop()?;
            let (dialogue, goals) = (task.dialogue.clone(), task.goals.len());
            let reached = reachable(&world, &Arc::new(task), Rules::of(self.compat))?;
            ceiling.insert(dialogue, reached.len() as f64 / goals as f64);
            context.progress(ceiling.len() as u64, played.len() as u64, "tasks", "");
        }
        Ok(ceiling)
    }
}
