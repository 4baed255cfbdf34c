//! One dialogue between a user and an agent, step by step, and what it came to (reference, section 2.5).

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::agent::{ChatAgent, OUT_OF_RETRIES, Turn, Usage};
use super::observation::Call;
use super::reward;
use super::seed::derive;
use super::server::{Session, TaskError};
use super::task::Task;
use super::user::{User, UserError, UserState};
use super::user_agenda::UserTurn;
use super::world::World;
use crate::chat::{Chat, Message};
use crate::compat::Rules;
use crate::llm::ModelError;
use crate::table::Row;

/// Visible messages after which no user speaks any more (reference, section 2.5).
pub const MESSAGE_LIMIT: usize = 15;

/// Who plays: the same for many dialogues.
#[derive(Clone)]
pub struct Cast {
    /// The customer.
    pub user: User,
    /// The agent.
    pub agent: ChatAgent,
}

/// What an agent's turn came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentTurn {
    /// What the customer read.
    pub said: String,
    /// Whether the agent spoke; otherwise `said` is [`OUT_OF_RETRIES`].
    pub spoke: bool,
}

/// Why a task cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum EpisodeError {
    /// The environment cannot serve it.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Nobody can be its customer.
    #[error(transparent)]
    User(#[from] UserError),
}

/// A dialogue in progress. Cloning it forks it: the world, the task and what was said so far are shared.
#[derive(Clone, Debug)]
pub struct Episode {
    /// What the customer sees.
    pub visible: Chat,
    /// What the agent sees, without the system message: the customer's texts, its own texts and calls, what those returned.
    pub internal: Chat,
    /// The server with its calls.
    pub session: Session,
    /// Whether the customer ended the dialogue.
    pub ended: bool,
    /// What the agent's replies cost.
    pub agent_usage: Usage,
    /// What the user's replies cost.
    pub user_usage: Usage,
    user: UserState,
}

impl Episode {
    /// A dialogue before its first word.
    ///
    /// # Errors
    /// When the task is none of this environment, or there is not what its customer needs.
    pub fn begin(cast: &Cast, world: Arc<World>, task: Arc<Task>, rules: Rules) -> Result<Self, EpisodeError> {
        Ok(Self {
            visible: Chat::new(),
            internal: Chat::new(),
            user: cast.user.begin(&task)?,
            session: Session::new(world, task, rules)?,
            ended: false,
            agent_usage: Usage::default(),
            user_usage: Usage::default(),
        })
    }

    /// The customer's turn.
    ///
    /// # Errors
    /// When its model gives no reply: nothing is appended.
    pub async fn user_step(&mut self, cast: &Cast, seed: u64) -> Result<UserTurn, ModelError> {
        let (turn, usage) = cast.user.speak(&mut self.user, &self.visible, self.session.rules(), seed).await?;
        self.user_usage.add(usage);
        self.ended = turn.ended;
        self.visible.push(Message::user(turn.text.clone()));
        self.internal.push(Message::user(turn.text.clone()));
        Ok(turn)
    }

    /// The agent's turn: replies are asked for, and what they say is done, until one speaks. The seed of a reply is derived
    /// from `seed` and its number.
    ///
    /// # Errors
    /// When its model gives no reply: what it did before stands in `internal` and `session`.
    pub async fn agent_step(&mut self, cast: &Cast, seed: u64) -> Result<AgentTurn, ModelError> {
        for attempt in 0..cast.agent.tries {
            let reply = self.agent_reply(cast, derive(seed, &["reply", &attempt.to_string()]));
            if let Turn::Spoke(said) = reply.await? {
                return Ok(AgentTurn { said, spoke: true });
            }
        }
        self.agent_gives_up(cast);
        Ok(AgentTurn { said: OUT_OF_RETRIES.to_owned(), spoke: false })
    }

    /// One reply of the agent, for who counts its tries himself.
    ///
    /// # Errors
    /// When its model gives no reply: nothing was done.
    pub async fn agent_reply(&mut self, cast: &Cast, seed: u64) -> Result<Turn, ModelError> {
        let (turn, usage) = cast.agent.reply(&mut self.internal, &mut self.session, seed).await?;
        self.agent_usage.add(usage);
        if let Turn::Spoke(said) = &turn {
            self.visible.push(Message::assistant(said.clone()));
        }
        Ok(turn)
    }

    /// Notes, for the customer and the agent, that the agent's tries ran out before it spoke.
    pub fn agent_gives_up(&mut self, cast: &Cast) {
        cast.agent.give_up(&mut self.internal);
        self.visible.push(Message::assistant(OUT_OF_RETRIES));
    }

    /// Plays to the end: the customer ends it, with or without a last answer of the agent, or `limit` messages were exchanged
    /// before the customer's turn. The seed of a step is derived from `seed`, the dialogue's name and the step (quirk Q16).
    ///
    /// # Errors
    /// When a model gives no reply: the dialogue is broken, not lost.
    pub async fn play(&mut self, cast: &Cast, limit: usize, seed: u64) -> Result<(), ModelError> {
        let dialogue = self.session.task().dialogue.clone();
        while self.visible.len() < limit && !self.ended {
            let step = self.visible.len().to_string();
            let turn = self.user_step(cast, derive(seed, &[&dialogue, "user", &step])).await?;
            if !self.ended {
                self.agent_step(cast, derive(seed, &[&dialogue, "agent", &step])).await?;
                self.ended = turn.closing;
            }
        }
        Ok(())
    }

    /// The dialogue as a row; `broken` says why it could not be played to its end.
    pub fn row(&self, broken: Option<&ModelError>) -> EpisodeRow {
        let task = self.session.task();
        let calls = self.calls();
        // A goal is reached when one call reaches it by itself.
        let hit: BTreeSet<u32> = calls.iter().flat_map(|call| &call.goals_hit).copied().collect();
        let success = broken.is_none() && hit.len() == task.goals.len() && !hit.is_empty();
        EpisodeRow {
            dialogue: task.dialogue.clone(),
            split: task.split.clone(),
            reward: reward::share(hit.len(), task),
            success,
            outcome: match (broken, success) {
                (Some(_), _) => Outcome::Broken,
                (None, true) => Outcome::Success,
                (None, false) => Outcome::Failure,
            },
            reason: broken.map(ToString::to_string),
            ended: self.ended,
            messages: self.visible.to_vec(),
            internal: self.internal.to_vec(),
            calls,
            goals: task.goals.iter().map(|goal| goal.api.clone()).collect(),
            goals_hit: hit.into_iter().collect(),
            agent_prompt_tokens: self.agent_usage.prompt,
            agent_completion_tokens: self.agent_usage.completion,
            user_prompt_tokens: self.user_usage.prompt,
            user_completion_tokens: self.user_usage.completion,
        }
    }

    /// The calls that were made, with what the agent saw of them.
    fn calls(&self) -> Vec<EpisodeCall> {
        let (task, rules) = (self.session.task(), self.session.rules());
        let made = self.session.calls().iter().zip(self.session.observations());
        let call = |(call, seen): (&Arc<Call>, &Arc<str>)| EpisodeCall {
            api: call.api.clone(),
            arguments: super::python_json::dumps(&call.arguments),
            observation: seen.to_string(),
            goals_hit: reward::hits(task, &[call.as_ref()], rules).into_iter().map(|goal| goal as u32).collect(),
        };
        made.map(call).collect()
    }
}

/// How a dialogue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All goals were reached.
    Success,
    /// Not all.
    Failure,
    /// A model gave no reply: nothing can be said about the agent.
    Broken,
}

/// A call of an agent and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EpisodeCall {
    /// The tool's name as given.
    pub api: String,
    /// The arguments as JSON text.
    pub arguments: String,
    /// What the agent saw.
    pub observation: String,
    /// The goals that this call reaches by itself, as positions in `goals`.
    pub goals_hit: Vec<u32>,
}

/// A finished dialogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EpisodeRow {
    /// The task's dialogue.
    pub dialogue: String,
    /// The task's split.
    pub split: String,
    /// Goals reached over goals, 0 to 1. Of a broken dialogue: what was reached before it broke, which is no score.
    pub reward: f64,
    /// Whether all goals were reached.
    pub success: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it is broken.
    pub reason: Option<String>,
    /// Whether the customer ended it; otherwise the limit of messages did.
    pub ended: bool,
    /// What the customer saw.
    pub messages: Vec<Message>,
    /// What the agent saw, without the system message.
    pub internal: Vec<Message>,
    /// The agent's calls that the server took, in order; what was no call is not among them.
    pub calls: Vec<EpisodeCall>,
    /// The tools that the goals ask for, in the task's order.
    pub goals: Vec<String>,
    /// The goals that were reached, as positions in `goals`.
    pub goals_hit: Vec<u32>,
    /// Tokens that the agent's model read.
    pub agent_prompt_tokens: u64,
    /// Tokens that it wrote.
    pub agent_completion_tokens: u64,
    /// Tokens that the user's model read.
    pub user_prompt_tokens: u64,
    /// Tokens that it wrote.
    pub user_completion_tokens: u64,
}

impl Row for EpisodeRow {
    const TYPE: &'static str = "dialogue.episode/v2";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_a_table() {
        let schema = crate::table::schema::<EpisodeRow>();
        assert!(schema.field_with_name("outcome").is_ok() && schema.fields().len() == 16);
    }
}
