//! `josh.harvest`: every dialogue a tree, its rewarded branches kept.

use std::sync::Arc;

use anyhow::bail;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::casting::{self, Agent, POLICY, UserSpec};
use super::in_order::InOrder;
use super::selection::Selection;
use crate::chat::Message;
use crate::dialogue::episode::{Cast, Episode};
use crate::dialogue::react::OUT_OF_RETRIES;
use crate::dialogue::reward::turn_hits;
use crate::dialogue::rules::{Compat, Rules};
use crate::dialogue::task::{Task, WorldItem};
use crate::dialogue::world::World;
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage, Stopped};
use crate::josh::node::{NodeRow, rows};
use crate::josh::search::{Settings, search};
use crate::josh::simulation::{AgentError, AgentTurn, Broken, GoalIndex, Simulation, UserTurn};
use crate::josh::tree::Outcome;
use crate::llm::ModelError;
use crate::llm::drive::drive_here;

const TASKS: Port<Task> = Port::new("tasks");
const WORLD: Port<WorldItem> = Port::new("world");
const TREES: Port<NodeRow> = Port::new("trees");

/// Dialogues at once; each has up to `beam` branches.
const WIDTH: usize = 64;

/// Lets an agent and a simulated user talk as a branching tree about each task, and keeps what earned rewards (JOSH).
///
/// Agent turns branch in two until there are `beam` branches; when a branch reaches a goal, the search goes on from it. Every
/// branch draws from a seed of its own (quirk Q16). The table holds one row a node; a tree in which a model did not answer is
/// `broken` and becomes no label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoshHarvest {
    /// The agent; a temperature of 0 gives siblings that are all alike.
    #[serde(default = "sampled")]
    pub agent: Agent,
    /// The user.
    #[serde(default)]
    pub user: UserSpec,
    /// Which tasks.
    #[serde(default = "Selection::train")]
    pub tasks: Selection,
    /// The most branches at once.
    #[serde(default = "eight")]
    pub beam: usize,
    /// The most agent turns on any path.
    #[serde(default = "fifteen")]
    pub max_steps: usize,
    /// Whose quirks environment and search keep; the same as in `toolwoz.convert`.
    #[serde(default)]
    pub compat: Compat,
    /// Decides all chance.
    #[serde(default)]
    pub seed: u64,
}

fn sampled() -> Agent {
    Agent { temperature: 1.0, ..Agent::default() }
}

fn eight() -> usize {
    8
}

fn fifteen() -> usize {
    15
}

impl Stage for JoshHarvest {
    const KIND: &'static str = "josh.harvest";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
harvest:
  kind: josh.harvest
  in: {tasks: toolwoz.tasks, world: toolwoz.world, policy: base.model}
  with: {agent: {kind: policy, temperature: 1.0, max_tokens: 96}, tasks: {split: train, limit: 400}, beam: 8, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![TASKS.one(), WORLD.one(), POLICY.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![TREES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.agent.check();
        problems.extend(self.user.check());
        problems.extend(self.tasks.check());
        for (field, value) in [("beam", self.beam), ("max_steps", self.max_steps)] {
            if value == 0 {
                problems.push(Problem::new(field, "must be at least 1"));
            }
        }
        problems
    }

    fn also_depends_on(&self, project: &std::path::Path) -> anyhow::Result<Vec<(String, String)>> {
        casting::templates(&self.agent, &self.user, project)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let world = Arc::new(World::from_items(context.read(&WORLD)?)?);
        let tasks = self.tasks.choose(context.rows(&TASKS)?)?;
        let casting = casting::casting(context, &self.agent, &self.user, &world)?;
        let total = tasks.len() as u64;
        let settings = self.settings();
        let mut writer = context.writer(&TREES)?;
        let mut order = InOrder::new();
        let mut written = Ok(());
        let mut counts = Counts::default();
        let players = Players { cast: &casting.cast };
        let (players, settings, rules) = (&players, &settings, Rules::of(self.compat));
        let jobs = tasks.into_iter().map(|task| {
            let world = world.clone();
            async move {
                let (dialogue, goals) = (task.dialogue.clone(), task.goals.len());
                let episode = Episode::begin(players.cast, world, Arc::new(task), rules)?;
                let tree = search(players, &dialogue, episode, goals, settings).await;
                anyhow::Ok((tree.outcome(), rows(&dialogue, &tree)))
            }
        });
        let on_done = |place, tree: anyhow::Result<(Outcome, Vec<NodeRow>)>| {
            if let Ok((outcome, rows)) = &tree {
                counts.add(*outcome, rows.first().and_then(|row| row.reason.as_ref()));
            }
            context.progress(counts.done, total, "trees", format!("{} complete", counts.complete));
            order.push(place, tree, |tree| {
                if written.is_ok() {
                    written = tree.and_then(|(_, rows)| rows.into_iter().try_for_each(|row| writer.push(row)));
                }
            });
        };
        drive_here(&casting.driven(), WIDTH, jobs, on_done, &context.stop).map_err(|_| Stopped)?;
        written?;
        casting.record(context);
        context.figure("complete", counts.complete as f64);
        if counts.broken == total {
            bail!("every tree is broken: {}", counts.why.unwrap_or_default());
        }
        if counts.broken > 0 {
            context.warn(format!("{} of {total} trees are broken: a model did not answer", counts.broken));
        }
        writer.finish()?;
        Ok(())
    }
}

impl JoshHarvest {
    fn settings(&self) -> Settings {
        use crate::josh::rules::Rules as Search;
        let rules = match self.compat {
            Compat::Fixed => Search::Fixed,
            Compat::Pypi014 => Search::Pypi014,
            Compat::RepoHead | Compat::Paper => Search::RepoHead,
        };
        Settings { beam: self.beam, max_steps: self.max_steps, seed: self.seed, rules, ..Settings::default() }
    }
}

#[derive(Default)]
struct Counts {
    done: u64,
    complete: u64,
    broken: u64,
    /// Why the first broken one is.
    why: Option<String>,
}

impl Counts {
    fn add(&mut self, outcome: Outcome, reason: Option<&String>) {
        if outcome == Outcome::Broken && self.why.is_none() {
            self.why = reason.cloned();
        }
        self.done += 1;
        self.complete += u64::from(outcome == Outcome::Complete);
        self.broken += u64::from(outcome == Outcome::Broken);
    }
}

/// A ToolWOZ dialogue as something that can be branched.
struct Players<'c> {
    cast: &'c Cast,
}

impl Simulation for Players<'_> {
    type State = Episode;

    async fn user_step(&self, episode: &mut Episode, seed: u64) -> Result<UserTurn, Broken> {
        let turn = episode.user_step(self.cast, seed).await.map_err(|error| Broken(error.to_string()))?;
        Ok(if turn.ended { UserTurn::Over } else { UserTurn::GoesOn })
    }

    async fn agent_step(&self, episode: &mut Episode, left: &[GoalIndex], seed: u64) -> Result<AgentTurn, AgentError> {
        let before = episode.session.calls().len();
        let turn = episode.agent_step(self.cast, seed).await;
        let (task, rules) = (episode.session.task(), episode.session.rules());
        let hits = turn_hits(task, left, &episode.session.calls()[before..], rules);
        match turn {
            Ok(_) => Ok(AgentTurn { finished: true, hits }),
            // A full context is the policy's own doing: the branch dies, the tree lives.
            Err(full @ ModelError::TooLong { .. }) => Err(AgentError::Raised { reason: full.to_string(), hits }),
            Err(error) => Err(Broken(error.to_string()).into()),
        }
    }

    /// The agent's turn always ends by itself: it notes in the dialogue when its replies ran out.
    fn out_of_tries(&self, episode: &mut Episode) {
        episode.visible.push(Message::assistant(OUT_OF_RETRIES));
    }

    fn messages<'s>(&self, episode: &'s Episode) -> &'s [Message] {
        &episode.internal
    }
}
