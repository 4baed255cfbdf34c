//! The simulated users behind one face: rules, a model or a script, they speak for a task's customer.

use std::rc::Rc;
use std::sync::Arc;

use super::agent::Usage;
use super::lexicon::Lexicon;
use super::source::{Source, Sources};
use super::task::Task;
use super::user_agenda::{AgendaUser, END, UserTurn};
use super::user_goal::GoalUser;
use super::user_guide::{Guide, GuideUser};
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
    /// A model that is told the goal and the dialogue that the task was made of.
    Guide(Rc<GuideUser>, Sources),
    /// Says what the customer of that dialogue said, whatever it hears.
    Script(Sources),
}

/// A user in mid-dialogue. Cloning it forks the dialogue.
#[derive(Clone, Debug)]
pub enum UserState {
    /// An agenda.
    Agenda(Box<AgendaUser>),
    /// A goal in words; the dialogue is all that the model needs besides.
    Goal(Arc<str>),
    /// A goal in words and the dialogue to follow.
    Guide(Arc<Guide>),
    /// What there is to say, and how much of it was said.
    Script {
        /// The utterances.
        lines: Arc<[String]>,
        /// How many were said.
        said: usize,
    },
}

/// Why a task has no user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The dialogue that the task was made of is not there.
    #[error(
        "dialogue `{dialogue}` is not in input `sources`; it should be that of the corpus from which the tasks come"
    )]
    NoSource { dialogue: String },
    /// The customer of that dialogue has no words.
    #[error("dialogue `{dialogue}` of input `sources`: its customer says nothing that a script could repeat")]
    NoWords { dialogue: String },
}

impl User {
    /// The user of a task, before the first word.
    ///
    /// # Errors
    /// When the dialogue that the task was made of is needed and not there.
    pub fn begin(&self, task: &Task) -> Result<UserState, UserError> {
        Ok(match self {
            Self::Agenda { lexicon, patience } => {
                UserState::Agenda(Box::new(AgendaUser::new(task, lexicon.clone(), *patience)))
            }
            Self::Goal(_) => UserState::Goal(without_tags(&task.message).into()),
            Self::Guide(_, sources) => {
                let source = source(sources, task)?.transcript();
                UserState::Guide(Arc::new(Guide { goal: without_tags(&task.message), source }))
            }
            Self::Script(sources) => {
                let lines: Arc<[String]> = source(sources, task)?.customer().map(str::to_owned).collect();
                if lines.is_empty() {
                    return Err(UserError::NoWords { dialogue: task.dialogue.clone() });
                }
                UserState::Script { lines, said: 0 }
            }
        })
    }

    /// The next utterance. `visible` is the dialogue as the customer sees it, the agent's messages as those of the assistant.
    ///
    /// # Errors
    /// When a model gives no reply, or an empty one.
    pub async fn speak(
        &self,
        state: &mut UserState,
        visible: &Chat,
        seed: u64,
    ) -> Result<(UserTurn, Usage), ModelError> {
        match (self, state) {
            (Self::Goal(user), UserState::Goal(goal)) => user.speak(goal, visible, seed).await,
            (Self::Guide(user, _), UserState::Guide(guide)) => user.speak(guide, visible, seed).await,
            (_, UserState::Script { lines, said }) => Ok((next_line(lines, said), Usage::default())),
            (_, UserState::Agenda(user)) => {
                let last = visible.last().filter(|message| message.role == Role::Assistant);
                Ok((user.speak(last.map(|message| message.content.as_str()), seed), Usage::default()))
            }
            _ => Err(ModelError::Failed("the user's state is that of another kind of user".to_owned())),
        }
    }
}

fn source<'s>(sources: &'s Sources, task: &Task) -> Result<&'s Source, UserError> {
    let missing = || UserError::NoSource { dialogue: task.dialogue.clone() };
    sources.get(&task.dialogue).map(AsRef::as_ref).ok_or_else(missing)
}

/// The last utterance is answered like all others; then the dialogue ends.
fn next_line(lines: &[String], said: &mut usize) -> UserTurn {
    let line = lines.get(*said);
    *said += usize::from(line.is_some());
    line.map_or(UserTurn { text: END.to_owned(), ended: true }, |line| UserTurn { text: line.clone(), ended: false })
}

/// The turn that a model's text makes. It ends the dialogue when it says so and asks for nothing besides: an end mark in a
/// message that still wants something is taken out of it, so that the agent answers (quirk Q23).
///
/// # Errors
/// When the text is empty: a customer without a word says nothing about the agent.
pub(super) fn turn(text: &str) -> Result<UserTurn, ModelError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ModelError::Failed("as the customer it said nothing".to_owned()));
    }
    if !text.contains(END) {
        return Ok(UserTurn { text: text.to_owned(), ended: false });
    }
    let rest = text.replace(END, " ");
    let rest = rest.trim();
    if rest.contains('?') {
        return Ok(UserTurn { text: rest.to_owned(), ended: false });
    }
    Ok(UserTurn { text: format!("{rest} {END}").trim().to_owned(), ended: true })
}

/// A customer's model whose context is full is no matter of the agent's: the dialogue is broken.
pub(super) fn unanswered(error: ModelError) -> ModelError {
    if error.is_full() { ModelError::Failed(format!("as the customer: {error}")) } else { error }
}

/// The goal without its emphasis tags: customers do not speak them.
fn without_tags(goal: &str) -> String {
    let mut out = String::with_capacity(goal.len());
    let mut rest = goal;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        match after.split_once('>') {
            Some((_, after)) => rest = after,
            None => {
                out.push('<');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_and_the_end_is_heard() {
        assert_eq!(without_tags("a <span class='emphasis'>cheap</span> hotel < 5"), "a cheap hotel < 5");
        assert!(turn("Thanks, bye. END_CONVERSATION").unwrap().ended);
        let asks = turn("What is the phone number? END_CONVERSATION").unwrap();
        assert!(!asks.ended && !asks.text.contains(END));
        assert_eq!(turn(" END_CONVERSATION").unwrap().text, END);
        assert!(turn(" \n").is_err());
    }

    #[test]
    fn a_script_ends_after_its_last_line_was_answered() {
        let lines = ["one".to_owned(), "two".to_owned()];
        let mut said = 0;
        let heard: Vec<UserTurn> = (0..4).map(|_| next_line(&lines, &mut said)).collect();
        assert_eq!(heard.iter().map(|turn| turn.text.as_str()).collect::<Vec<_>>(), ["one", "two", END, END]);
        assert_eq!(heard.iter().map(|turn| turn.ended).collect::<Vec<_>>(), [false, false, true, true]);
    }
}
