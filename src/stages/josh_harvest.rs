//! `josh.harvest`: every dialogue a tree, its rewarded branches kept.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::by_task::{FromTask, by_task};
use super::casting::{self, Agent, POLICY, SOURCES, UserSpec};
use super::compat::{self, Compatible};
use super::selection::{Selection, TASKS};
use super::served::CALLS;
use crate::chat::{Chat, Message};
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::dialogue::agent::OUT_OF_RETRIES;
use crate::dialogue::episode::{Cast, Episode};
use crate::dialogue::reward::turn_hits;
use crate::dialogue::rules::{ENVIRONMENT, TURNS};
use crate::dialogue::task::{Task, WorldItem};
use crate::dialogue::world::World;
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::josh::node::{NodeRow, rows};
use crate::josh::rules::SEARCH;
use crate::josh::search::{Settings, search};
use crate::josh::simulation::{AgentError, AgentTurn, Broken, GoalIndex, Simulation, UserTurn};
use crate::josh::tree::Outcome;
use crate::llm::record;

const WORLD: Port<WorldItem> = Port::new("world");
const TREES: Port<NodeRow> = Port::new("trees");

/// Dialogues at once where no server says how many; each has up to `beam` branches.
const WIDTH: usize = 64;

/// Lets an agent and a simulated user talk as a branching tree about each task, and keeps what earned rewards (JOSH).
///
/// Agent turns branch in two until there are `beam` branches; when a branch reaches a goal, the search goes on from it. Every
/// branch draws from a seed of its own (quirk Q16). The table holds one row a node; a tree in which a model did not answer is
/// `broken` and becomes no label. With served models there is an output `calls`, as in `dialogue.simulate`.
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
    /// Single quirks that another mode decides: `{Q5: fixed, Q12: repo-head}`; `docs/compat.md` lists them.
    #[serde(default)]
    pub quirks: Quirks,
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

impl Compatible for JoshHarvest {
    const QUIRKS: &'static [&'static [Quirk]] = &[ENVIRONMENT, TURNS, SEARCH];
}

impl Stage for JoshHarvest {
    const KIND: &'static str = "josh.harvest";
    const VERSION: u32 = 4;
    const EXAMPLE: &'static str = "\
harvest:
  kind: josh.harvest
  in: {tasks: toolwoz.tasks, world: toolwoz.world, policy: base.model}
  with: {agent: {kind: policy, temperature: 1.0, max_tokens: 96}, tasks: {split: train, limit: 400}, beam: 8, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![TASKS.one(), WORLD.one(), POLICY.optional(), SOURCES.optional(), CALLS.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        let calls = casting::calls_are_made(&self.agent, &self.user).then(|| CALLS.one());
        [TREES.one()].into_iter().chain(calls).collect()
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = compat::check::<Self>(&self.quirks);
        problems.extend(self.agent.check());
        problems.extend(self.user.check());
        problems.extend(self.tasks.check());
        for (field, value) in [("beam", self.beam), ("max_steps", self.max_steps)] {
            if value == 0 {
                problems.push(Problem::new(field, "must be at least 1"));
            }
        }
        problems
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        casting::check_inputs(&self.agent, &self.user, connected)
    }

    fn also_depends_on(&self, project: &std::path::Path) -> anyhow::Result<Vec<(String, String)>> {
        casting::templates(&self.agent, &self.user, project)
    }

    fn pool(&self, profile: &dyn Profile) -> &'static str {
        casting::pool(&self.agent, &self.user, profile)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let world = Arc::new(World::from_items(context.read(&WORLD)?)?);
        let rules = Rules::new(self.compat, &self.quirks);
        let tasks = self.tasks.choose(context, &world, rules)?;
        let casting = casting::casting(context, &self.agent, &self.user, &world)?;
        let players = Players { cast: &casting.cast };
        let (players, settings) = (&players, &self.settings());
        let play = |task: Task| {
            let world = world.clone();
            async move {
                let (dialogue, goals) = (task.dialogue.clone(), task.goals.len());
                let episode = Episode::begin(players.cast, world, Arc::new(task), rules)?;
                let tree = search(players, &dialogue, episode, goals, settings).await;
                anyhow::Ok(Harvested { outcome: tree.outcome(), rows: rows(&dialogue, &tree) })
            }
        };
        let complete = by_task(context, &TREES, casting.width(WIDTH), &casting, tasks, play)?;
        context.figure("complete", complete);
        Ok(())
    }
}

/// A tree as it is journalled.
#[derive(Serialize, Deserialize)]
struct Harvested {
    outcome: Outcome,
    rows: Vec<NodeRow>,
}

impl FromTask for Harvested {
    type Row = NodeRow;

    const NAMES: [&'static str; 2] = ["tree", "trees"];

    fn broken(&self) -> Option<&str> {
        let reason = || self.rows.first().and_then(|row| row.reason.as_deref());
        (self.outcome == Outcome::Broken).then(|| reason().unwrap_or_default())
    }

    fn score(&self) -> f64 {
        f64::from(u8::from(self.outcome == Outcome::Complete))
    }

    fn so_far(score: f64, _: u64) -> String {
        format!("{score} complete")
    }

    fn rows(self) -> impl IntoIterator<Item = NodeRow> {
        self.rows
    }
}

impl JoshHarvest {
    fn settings(&self) -> Settings {
        let rules = Rules::new(self.compat, &self.quirks);
        Settings { beam: self.beam, max_steps: self.max_steps, seed: self.seed, rules, ..Settings::default() }
    }
}

/// A ToolWOZ dialogue as something that can be branched.
struct Players<'c> {
    cast: &'c Cast,
}

impl Simulation for Players<'_> {
    type State = Episode;

    async fn user_step(&self, episode: &mut Episode, seed: u64) -> Result<UserTurn, Broken> {
        let turn = record::turn(episode.user_step(self.cast, seed)).await.map_err(|error| Broken(error.to_string()))?;
        Ok(match (turn.ended, turn.closing) {
            (true, _) => UserTurn::Over,
            (false, true) => UserTurn::EndsAfterAnswer,
            (false, false) => UserTurn::GoesOn,
        })
    }

    async fn agent_step(&self, episode: &mut Episode, left: &[GoalIndex], seed: u64) -> Result<AgentTurn, AgentError> {
        let before = episode.session.calls().len();
        let turn = record::turn(episode.agent_step(self.cast, seed)).await;
        let (task, rules) = (episode.session.task(), episode.session.rules());
        let hits = turn_hits(task, left, &episode.session.calls()[before..], rules);
        match turn {
            Ok(_) => Ok(AgentTurn { finished: true, hits }),
            // A full context is the policy's own doing: the branch dies, the tree lives.
            Err(full) if full.is_full() => Err(AgentError::Raised { reason: full.to_string(), hits }),
            Err(error) => Err(Broken(error.to_string()).into()),
        }
    }

    /// The agent's turn always ends by itself: it notes in the dialogue when its replies ran out.
    fn out_of_tries(&self, episode: &mut Episode) {
        episode.visible.push(Message::assistant(OUT_OF_RETRIES));
    }

    fn chat<'s>(&self, episode: &'s Episode) -> &'s Chat {
        &episode.internal
    }
}
