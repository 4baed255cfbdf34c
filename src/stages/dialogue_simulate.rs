//! `dialogue.simulate`: agent and user talk, and the environment judges.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::by_task::{FromTask, by_task};
use super::casting::{self, Agent, POLICY, SOURCES, UserSpec};
use super::compat::{self, Compatible};
use super::selection::{Selection, TASKS};
use super::served::CALLS;
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::dialogue::episode::{Episode, EpisodeRow, MESSAGE_LIMIT, Outcome};
use crate::dialogue::rules::{ENVIRONMENT, USERS};
use crate::dialogue::task::{Task, WorldItem};
use crate::dialogue::world::World;
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::llm::ModelError;

const WORLD: Port<WorldItem> = Port::new("world");
const EPISODES: Port<EpisodeRow> = Port::new("episodes");

/// Dialogues at once where no server says how many: enough to fill a local model's batches.
const WIDTH: usize = 256;

/// Lets an agent and a simulated user talk about each task, one dialogue a task.
///
/// An episode ends as `success` (all goals reached), `failure` (not all) or `broken`: a model that did not answer says
/// nothing about the agent. A policy whose context is full has failed. Episodes come in the order of the dialogues' names.
///
/// With served models there is an output `calls`: every call and what was answered. On the input `calls` of another run it
/// answers the same requests, without a server where the players say `replay: only`. With the same parameters calls that were
/// finished are never made twice, also when the run was killed or a dialogue is broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DialogueSimulate {
    /// The agent.
    #[serde(default)]
    pub agent: Agent,
    /// The user.
    #[serde(default)]
    pub user: UserSpec,
    /// Which tasks.
    #[serde(default = "Selection::test")]
    pub tasks: Selection,
    /// Whose quirks the environment keeps; the same as in `toolwoz.convert`.
    #[serde(default)]
    pub compat: Compat,
    /// Single quirks that another mode decides: `{Q5: fixed, Q12: repo-head}`; `docs/src/reference/compat.md` lists them.
    #[serde(default)]
    pub quirks: Quirks,
    /// Visible messages after which the user says no more.
    #[serde(default = "message_limit")]
    pub max_messages: usize,
    /// Decides all chance.
    #[serde(default)]
    pub seed: u64,
}

fn message_limit() -> usize {
    MESSAGE_LIMIT
}

impl Compatible for DialogueSimulate {
    const QUIRKS: &'static [&'static [Quirk]] = &[ENVIRONMENT, USERS];
}

impl Stage for DialogueSimulate {
    const KIND: &'static str = "dialogue.simulate";
    const VERSION: u32 = 7;
    const EXAMPLE: &'static str = "\
evaluate:
  kind: dialogue.simulate
  in: {tasks: toolwoz.tasks, world: toolwoz.world, policy: kto.model}
  with: {agent: {kind: policy, max_tokens: 96}, tasks: {split: test, limit: 450}, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![TASKS.one(), WORLD.one(), POLICY.optional(), SOURCES.optional(), CALLS.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        let calls = casting::calls_are_made(&self.agent, &self.user).then(|| CALLS.one());
        [EPISODES.one()].into_iter().chain(calls).collect()
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = compat::check::<Self>(&self.quirks);
        problems.extend(self.agent.check());
        problems.extend(self.user.check());
        problems.extend(self.tasks.check());
        if self.max_messages == 0 {
            problems.push(Problem::new("max_messages", "must be at least 1"));
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
        self.simulate(context, WIDTH)
    }
}

impl DialogueSimulate {
    /// The stage's work with at most `width` dialogues at once, which changes nothing but the time that it takes.
    pub(super) fn simulate(&self, context: &Context, width: usize) -> anyhow::Result<()> {
        let world = Arc::new(World::from_items(context.read(&WORLD)?)?);
        let rules = Rules::new(self.compat, &self.quirks);
        let tasks = self.tasks.choose(context, &world, rules)?;
        let casting = casting::casting(context, &self.agent, &self.user, &world)?;
        let cast = &casting.cast;
        let play = |task: Task| {
            let world = world.clone();
            async move {
                let mut episode = Episode::begin(cast, world, Arc::new(task), rules)?;
                let played = episode.play(cast, self.max_messages, self.seed).await;
                anyhow::Ok(finished(&episode, played))
            }
        };
        by_task(context, &EPISODES, casting.width(width), &casting, tasks, play)?;
        Ok(())
    }
}

impl FromTask for EpisodeRow {
    type Row = Self;

    const NAMES: [&'static str; 2] = ["dialogue", "dialogues"];

    fn broken(&self) -> Option<&str> {
        (self.outcome == Outcome::Broken).then(|| self.reason.as_deref().unwrap_or_default())
    }

    fn score(&self) -> f64 {
        self.reward
    }

    fn so_far(score: f64, count: u64) -> String {
        format!("reward {:.3}", score / count.max(1) as f64)
    }

    fn rows(self) -> impl IntoIterator<Item = Self> {
        [self]
    }
}

/// A policy that cannot take in the dialogue any more has failed at it; a model that does not answer has not.
fn finished(episode: &Episode, played: Result<(), ModelError>) -> EpisodeRow {
    match played {
        Ok(()) => episode.row(None),
        Err(full) if full.is_full() => EpisodeRow { reason: Some(full.to_string()), ..episode.row(None) },
        Err(error) => episode.row(Some(&error)),
    }
}
