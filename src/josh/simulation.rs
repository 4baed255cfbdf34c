//! What the search needs of a dialogue: a state that can be copied, a user's turn and an agent's turn.

use std::future::Future;

use crate::chat::Chat;

/// A goal by its place in the task's list of goals.
pub type GoalIndex = usize;

/// What a user's turn does to its dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserTurn {
    /// The dialogue goes on.
    GoesOn,
    /// The user ends the dialogue with a message that asks for an answer; the agent may answer it (quirk Q23).
    EndsAfterAnswer,
    /// The dialogue is over.
    Over,
}

/// What an agent's turn came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentTurn {
    /// Whether the turn is over. An unfinished turn is stepped again, as often as there are tries.
    pub finished: bool,
    /// The goals, among those passed as left, that this step's own actions reached, in the order of the actions. A goal that
    /// two actions reached may stand twice.
    pub hits: Vec<GoalIndex>,
}

/// Why a dialogue cannot be judged: a model that did not answer, a tool that crashed. It says nothing about the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

/// Why an agent's step has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The agent's own doing, such as arguments that its harness cannot take. The branch dies, the tree lives.
    #[error("the agent raised: {reason}")]
    Raised {
        /// What went wrong.
        reason: String,
        /// Goals that the step's actions had reached before it raised; only the reference's rules credit them (quirk Q20).
        hits: Vec<GoalIndex>,
    },
    /// Not the agent's doing: the whole tree is broken and becomes no label.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// A dialogue that can be branched.
///
/// A step gets a state of its own and may suspend; the steps of sibling branches run concurrently on one thread, so that a
/// model may answer them as one batch. The result of a step may depend on its state, the goals left and the seed, and on
/// nothing else: the search is then the same whatever order the steps finish in.
pub trait Simulation {
    /// A dialogue: its messages and whatever the agent, the user and the environment remember.
    type State: Clone;

    /// Appends the user's next message.
    fn user_step(&self, state: &mut Self::State, seed: u64) -> impl Future<Output = Result<UserTurn, Broken>>;

    /// Appends what the agent does next.
    ///
    /// On an error the state keeps what the step appended before it.
    fn agent_step(
        &self,
        state: &mut Self::State,
        left: &[GoalIndex],
        seed: u64,
    ) -> impl Future<Output = Result<AgentTurn, AgentError>>;

    /// Notes in the dialogue that the agent's turn ended without an answer because its tries ran out.
    fn out_of_tries(&self, state: &mut Self::State);

    /// The dialogue as the agent sees it, without the system message. Steps only ever append to it.
    fn chat<'s>(&self, state: &'s Self::State) -> &'s Chat;
}
