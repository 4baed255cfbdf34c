//! The simulated users behind one face: rules or a model, they speak from a task's goal.

use std::rc::Rc;
use std::sync::Arc;

use super::lexicon::Lexicon;
use super::react::Usage;
use super::task::Task;
use super::user_agenda::{AgendaUser, UserTurn};
use super::user_model::GoalUser;
use crate::chat::{Chat, Role};
use crate::llm::ModelError;

/// A kind of user. It holds no dialogue: one user serves many, each with a state of its own.
#[derive(Clone)]
pub enum User {
    /// Speaks through templates; needs no model.
    Agenda {
        /// The words of the world.
        lexicon: Arc<Lexicon>,
        /// Misunderstandings that it bears before it gives up.
        patience: u32,
    },
    /// A model that is told the goal in words.
    Goal(Rc<GoalUser>),
}

/// A user in mid-dialogue. Cloning it forks the dialogue.
#[derive(Clone, Debug)]
pub enum UserState {
    /// An agenda.
    Agenda(Box<AgendaUser>),
    /// A goal in words; the dialogue is all that the model needs besides.
    Goal(Arc<str>),
}

impl User {
    /// The user of a task, before the first word.
    pub fn begin(&self, task: &Task) -> UserState {
        match self {
            Self::Agenda { lexicon, patience } => {
                UserState::Agenda(Box::new(AgendaUser::new(task, lexicon.clone(), *patience)))
            }
            Self::Goal(_) => UserState::Goal(task.message.as_str().into()),
        }
    }

    /// The next utterance. `visible` is the dialogue as the customer sees it, the agent's messages as those of the assistant.
    ///
    /// # Errors
    /// When a model gives no reply.
    pub async fn speak(
        &self,
        state: &mut UserState,
        visible: &Chat,
        seed: u64,
    ) -> Result<(UserTurn, Usage), ModelError> {
        match (self, state) {
            (Self::Goal(user), UserState::Goal(goal)) => user.speak(goal, visible, seed).await,
            (_, UserState::Agenda(user)) => {
                let last = visible.last().filter(|message| message.role == Role::Assistant);
                Ok((user.speak(last.map(|message| message.content.as_str()), seed), Usage::default()))
            }
            (Self::Agenda { .. }, UserState::Goal(_)) => {
                Err(ModelError::Failed("the user's state is that of a goal user, the user an agenda user".to_owned()))
            }
        }
    }
}
