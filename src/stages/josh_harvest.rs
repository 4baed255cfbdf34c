//! `josh.harvest`: every dialogue a tree, its rewarded branches kept.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::by_task::{FromTask, by_task};
use super::casting::{self, Agent, AgentKind, POLICY, SOURCES, UserSpec};
use super::compat::{self, Compatible};
use super::selection::{Selection, TASKS};
use super::served::CALLS;
use crate::chat::{Chat, Message};
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::dialogue::agent::{OUT_OF_RETRIES, Style, Turn};
use crate::dialogue::episode::{Cast, Episode};
use crate::dialogue::reward::turn_hits;
use crate::dialogue::rules::{ENVIRONMENT, TURNS};
use crate::dialogue::task::{Task, WorldItem};
use crate::dialogue::world::World;
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::josh::diversity::Siblings;
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
    /// The most agent turns on any path; where absent 15, and 10 with `compat: paper`.
    #[serde(default)]
    pub max_steps: Option<usize>,
    /// Whose quirks environment and search keep; the same as in `toolwoz.convert`.
    #[serde(default)]
    pub compat: Compat,
    /// Single quirks that another mode decides: `{Q5: fixed, Q12: repo-head}`; `docs/src/reference/compat.md` lists them.
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

impl Compatible for JoshHarvest {
    const QUIRKS: &'static [&'static [Quirk]] = &[ENVIRONMENT, TURNS, SEARCH];
}

impl Stage for JoshHarvest {
    const KIND: &'static str = "josh.harvest";
    const VERSION: u32 = 8;
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
        for (field, value) in [("beam", Some(self.beam)), ("max_steps", self.max_steps)] {
            if value == Some(0) {
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
        let mut cast = casting.cast.clone();
        if rules.one_reply_a_round() && cast.agent.style == Style::React {
            cast.agent.style = Style::Raw;
        }
        let players = Players { cast: &cast };
        let (players, settings) = (&players, &self.settings());
        let play = |task: Task| {
            let world = world.clone();
            async move {
                let (dialogue, goals) = (task.dialogue.clone(), task.goals.len());
                let episode = Episode::begin(players.cast, world, Arc::new(task), rules)?;
                let tree = search(players, &dialogue, episode, goals, settings).await;
                let Siblings { further: siblings, identical } = Siblings::of(&tree);
                anyhow::Ok(Harvested { outcome: tree.outcome(), siblings, identical, rows: rows(&dialogue, &tree) })
            }
        };
        let sums = by_task(context, &TREES, casting.width(WIDTH), &casting, tasks, play)?;
        context.figure("complete", sums.score);
        let count = |name| sums.counts.get(name).copied().unwrap_or_default();
        self.tell_siblings(context, Siblings { further: count(FURTHER), identical: count(IDENTICAL) });
        Ok(())
    }
}

/// Rounds of a step where a round is the agent's whole turn.
const TREE_TRIES: usize = 20;

/// Names of figures.
const FURTHER: &str = "siblings";
const IDENTICAL: &str = "siblings.identical";

/// From so many identical siblings on, and where they are more than half of all, branching was in vain.
const MANY: u64 = 4;

/// A tree as it is journalled.
#[derive(Serialize, Deserialize)]
struct Harvested {
    outcome: Outcome,
    siblings: u64,
    identical: u64,
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

    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![(FURTHER, self.siblings), (IDENTICAL, self.identical)]
    }

    fn rows(self) -> impl IntoIterator<Item = NodeRow> {
        self.rows
    }
}

impl JoshHarvest {
    fn rules(&self) -> Rules {
        Rules::new(self.compat, &self.quirks)
    }

    fn settings(&self) -> Settings {
        let rules = self.rules();
        let max_steps = self.max_steps.unwrap_or(rules.outer_limit());
        // Later the agent counts its tries itself, and the search's own are never used up (reference, section 1.5).
        let tries = if rules.one_reply_a_round() { self.agent.tries } else { TREE_TRIES };
        Settings { beam: self.beam, tries, max_steps, seed: self.seed, rules, ..Settings::default() }
    }

    /// Says how much branching brought, and warns where it brought little.
    fn tell_siblings(&self, context: &Context, siblings: Siblings) {
        let Some(share) = siblings.share() else { return };
        let Siblings { further, identical } = siblings;
        context.figure(FURTHER, further as f64);
        context.figure(IDENTICAL, identical as f64);
        context.figure("siblings.identical_share", share);
        if identical >= MANY && 2 * identical > further {
            let (percent, cause) = ((100.0 * share).round(), self.likeness());
            context.warn(format!(
                "{identical} of {further} siblings ({percent} %) say word for word what another one says, so that branching \
                 brings little: {cause}"
            ));
        }
    }

    /// Why siblings are likely to be alike.
    fn likeness(&self) -> String {
        let Agent { kind, noise, temperature, seed, .. } = &self.agent;
        match kind {
            AgentKind::Rule if *noise == 0.0 => {
                "the rule agent has no `noise`, and so its branches differ in their words at most".to_owned()
            }
            AgentKind::Policy | AgentKind::Served if *temperature == 0.0 => {
                "`temperature` is 0, and so the likeliest reply is always taken".to_owned()
            }
            _ if seed.is_some() => {
                "`agent.seed` asks for every reply with one seed; without it each has its own".to_owned()
            }
            _ if !self.rules().mends(Quirk::Q16) => {
                let mode = self.rules().mode(Quirk::Q16).name();
                format!(
                    "in `{mode}` all branches have one seed (quirk Q16); `quirks: {{Q16: fixed}}` gives each its own"
                )
            }
            AgentKind::Rule => format!("the rule agent's `noise` is {noise}; more of it makes branches differ"),
            AgentKind::Served => format!(
                "at `temperature` {temperature} the server should draw replies that differ; it seems to ignore `temperature` \
                 or `seed`, or to answer equal requests from a cache"
            ),
            AgentKind::Policy => format!(
                "at `temperature` {temperature} the policy is nearly sure of its words; a higher one makes branches differ"
            ),
        }
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
        let (before, rules) = (episode.session.calls().len(), *episode.session.rules());
        let finished = if rules.one_reply_a_round() {
            let turn = record::turn(episode.agent_reply(self.cast, seed)).await;
            turn.map(|turn| matches!(turn, Turn::Spoke(_)))
        } else {
            record::turn(episode.agent_step(self.cast, seed)).await.map(|_| true)
        };
        let silent = matches!(finished, Ok(false));
        let earns = !rules.one_reply_a_round() || silent;
        let new = if earns { &episode.session.calls()[before..] } else { &[] };
        let hits = turn_hits(episode.session.task(), left, new, &rules);
        match finished {
            Ok(finished) => Ok(AgentTurn { finished, hits }),
            // A full context is the policy's own doing: the branch dies, the tree lives.
            Err(full) if full.is_full() => Err(AgentError::Raised { reason: full.to_string(), hits }),
            Err(error) => Err(Broken(error.to_string()).into()),
        }
    }

    /// In the paper's era the search counts an agent's replies and notes in both lists when they ran out. Later the agent
    /// does so itself, and only the customer's list gets the search's note.
    fn out_of_tries(&self, episode: &mut Episode) {
        if episode.session.rules().one_reply_a_round() {
            episode.visible.push(Message::system(OUT_OF_RETRIES));
            episode.internal.push(Message::system(OUT_OF_RETRIES));
        } else {
            episode.visible.push(Message::assistant(OUT_OF_RETRIES));
        }
    }

    fn chat<'s>(&self, episode: &'s Episode) -> &'s Chat {
        &episode.internal
    }
}
