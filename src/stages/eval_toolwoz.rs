//! `eval.toolwoz`: episodes become scores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compat::{self, Compatible};
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::dialogue::oracle::reachable;
use crate::dialogue::reward::share;
use crate::dialogue::rules::ENVIRONMENT;
use crate::dialogue::task::{Task, WorldItem};
use crate::dialogue::world::World;
use crate::engine::port::{Port, PortSpec};
use crate::engine::rows::{Key, Tally};
use crate::engine::stage::{Context, Problem, Stage};
use crate::eval::score::{Resampling, summarise};
use crate::eval::{EpisodeOutcome, EpisodeView, ScoreRow, SummaryRow};
use crate::table::{Aside, Place};

const EPISODES: Port<EpisodeView> = Port::new("episodes");
const TASKS: Port<Task> = Port::new("tasks");
const WORLD: Port<WorldItem> = Port::new("world");
const SCORES: Port<ScoreRow> = Port::new("scores");
const SUMMARY: Port<SummaryRow> = Port::new("summary");

/// Scores episodes: the mean reward and the share of tasks that were solved, with bootstrap confidence intervals.
///
/// Episodes that broke are counted, and are in no average: they say nothing about the agent. With the inputs `tasks` and
/// `world`, each score also says what is reachable at all: some goals of MultiWOZ contradict its databases, and an oracle
/// that makes every sensible call finds what is left (reference, section 1.3). The summary and comparisons then tell the ceiling
/// of the dialogues beside the scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalToolwoz {
    /// Whose quirks the environment keeps; the same as in `toolwoz.convert`.
    #[serde(default)]
    pub compat: Compat,
    /// Single quirks that another mode decides: `{Q5: fixed, Q12: repo-head}`; `docs/src/reference/compat.md` lists them.
    #[serde(default)]
    pub quirks: Quirks,
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

impl Compatible for EvalToolwoz {
    const QUIRKS: &'static [&'static [Quirk]] = &[ENVIRONMENT];
}

impl Stage for EvalToolwoz {
    const KIND: &'static str = "eval.toolwoz";
    const VERSION: u32 = 3;
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
        let mut problems = compat::check::<Self>(&self.quirks);
        problems.extend(check(self.resampling()));
        problems
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let episodes = context.rows(&EPISODES)?.collect::<Result<Vec<EpisodeView>, _>>()?;
        let mut reasons = BTreeMap::<&str, u64>::new();
        for episode in episodes.iter().filter(|episode| episode.outcome == EpisodeOutcome::Broken) {
            if let Some(reason) = &episode.reason {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let most =
            reasons.iter().max_by_key(|(_, count)| **count).map(|(reason, count)| format!("{count} of them: {reason}"));
        let scores = self.scores(context, episodes)?;
        let summary = summarise(&scores, self.resampling());
        if let Some(most) = most {
            let (broken, all) = (summary.broken, summary.dialogues);
            context.warn(format!("{broken} of {all} episodes are broken and in no average; {most}"));
        }
        let figures = [
            ("reward", summary.reward),
            ("success", summary.success),
            ("ceiling_reward", summary.ceiling_reward),
            ("ceiling_success", summary.ceiling_success),
            ("of_ceiling", summary.of_ceiling),
        ];
        for (name, value) in figures {
            value.into_iter().for_each(|value| context.figure(name, value));
        }
        context.write(&SCORES, scores)?;
        context.write(&SUMMARY, [summary])
    }
}

/// The fields of the fingerprint that no single score depends on.
const BESIDE: &[&str] = &["with.samples", "with.confidence", "with.seed", "in.episodes", "in.tasks"];

impl EvalToolwoz {
    /// The scores of all episodes, as far as they are not journalled computed.
    fn scores(&self, context: &Context, episodes: Vec<EpisodeView>) -> anyhow::Result<Vec<ScoreRow>> {
        let ceiling = Ceiling::new(context, Rules::new(self.compat, &self.quirks), &episodes)?;
        let mut journal = context.journal(BESIDE);
        let mut tally = Tally { rows: episodes.len() as u64, ..Tally::default() };
        let mut scores = Vec::new();
        for episode in episodes {
            context.check_stop()?;
            let task = ceiling.as_ref().map_or(Ok(None), |ceiling| ceiling.task(&episode.dialogue))?;
            let key = Key::of(&(&episode, task.as_deref()))?;
            let score = match journal.read(&key) {
                Some(score) => score,
                None => {
                    let reachable = ceiling.as_ref().map_or(Ok(None), |ceiling| ceiling.of(task.as_ref()))?;
                    let score = ScoreRow::new(episode, reachable);
                    tally.computed += 1;
                    journal.keep(key, &score);
                    context.progress(scores.len() as u64 + 1, tally.rows, "episodes", "");
                    score
                }
            };
            scores.push(score);
        }
        tally.record(context);
        Ok(scores)
    }
}

/// What can be reached at all.
struct Ceiling {
    world: Arc<World>,
    rules: Rules,
    /// The tasks that were played.
    tasks: Aside<Task>,
    /// Where they are, by dialogue.
    places: BTreeMap<String, Place>,
}

impl Ceiling {
    /// Reads tasks and world; `None` where they are not connected.
    fn new(context: &Context, rules: Rules, episodes: &[EpisodeView]) -> anyhow::Result<Option<Self>> {
        let (Some(_), Some(_)) = (context.optional_input(TASKS.name), context.optional_input(WORLD.name)) else {
            return Ok(None);
        };
        let world = Arc::new(World::from_items(context.read(&WORLD)?)?);
        let played: BTreeSet<&str> = episodes.iter().map(|episode| episode.dialogue.as_str()).collect();
        let (mut tasks, mut places) = (Aside::new(context.scratch()?), BTreeMap::new());
        for task in context.rows(&TASKS)? {
            let task = task?;
            if played.contains(task.dialogue.as_str()) {
                let place = tasks.push(&task)?;
                places.insert(task.dialogue, place);
            }
        }
        Ok(Some(Self { world, rules, tasks, places }))
    }

    /// The task of a dialogue; `None` of one that is unknown.
    fn task(&self, dialogue: &str) -> anyhow::Result<Option<Arc<Task>>> {
        let place = self.places.get(dialogue);
        Ok(place.map(|place| self.tasks.read(*place)).transpose()?.map(Arc::new))
    }

    /// The highest reward of a task; `None` of one that is unknown or has no goals.
    fn of(&self, task: Option<&Arc<Task>>) -> anyhow::Result<Option<f64>> {
        let Some(task) = task.filter(|task| !task.goals.is_empty()) else { return Ok(None) };
        let reached = reachable(&self.world, task, self.rules)?;
        Ok(Some(share(reached.len(), task)))
    }
}
