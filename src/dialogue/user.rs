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
use super::words::{has_any, words};
use crate::chat::{Chat, Role};
use crate::compat::Rules;
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
    /// `rules` decide when a last word is answered (quirk Q23).
    ///
    /// # Errors
    /// When a model gives no reply, or an empty one.
    pub async fn speak(
        &self,
        state: &mut UserState,
        visible: &Chat,
        rules: &Rules,
        seed: u64,
    ) -> Result<(UserTurn, Usage), ModelError> {
        match (self, state) {
            (Self::Goal(user), UserState::Goal(goal)) => user.speak(goal, visible, rules, seed).await,
            (Self::Guide(user, _), UserState::Guide(guide)) => user.speak(guide, visible, rules, seed).await,
            (_, UserState::Script { lines, said }) => Ok((next_line(lines, said), Usage::default())),
            (_, UserState::Agenda(user)) => {
                // Whatever is not its own words it hears, what the system notes of the agent too.
                let last = visible.last().filter(|message| message.role != Role::User);
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
    line.map_or_else(|| UserTurn::ends(END), UserTurn::goes_on)
}

/// The turn that a model's text makes. A text with [`END`] ends the dialogue. Where it wants something besides, our rules take
/// the mark out of it and let the agent answer first; the reference leaves it unanswered (quirk Q23).
///
/// # Errors
/// When the text is empty: a customer without a word says nothing about the agent.
pub(super) fn turn(text: &str, rules: &Rules) -> Result<UserTurn, ModelError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ModelError::Failed("as the customer it said nothing".to_owned()));
    }
    if !text.contains(END) {
        return Ok(UserTurn::goes_on(text));
    }
    if !rules.answers_last_message() {
        return Ok(UserTurn::ends(text));
    }
    let rest = text.replace(END, " ");
    let rest = rest.trim();
    Ok(if is_farewell(rest) { UserTurn::ends(format!("{rest} {END}").trim()) } else { UserTurn::closes(rest) })
}

/// Whether a customer's last words ask for no answer.
fn is_farewell(text: &str) -> bool {
    let said = words(text);
    let thanks = ["bye", "goodbye", "thank you", "thanks", "thats all", "that is all", "have a good day", "great day"];
    let wishes = ["please", "book", "need", "want", "find", "search", "looking", "like", "can you", "could you"];
    text.is_empty() || !text.contains('?') && has_any(&said, &thanks) && !has_any(&said, &wishes)
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
    use crate::compat::Compat;

    #[test]
    fn tags_go() {
        assert_eq!(without_tags("a <span class='emphasis'>cheap</span> hotel < 5"), "a cheap hotel < 5");
    }

    #[test]
    fn a_last_word_that_wants_something_is_answered_first() {
        let fixed = Rules::default();
        for farewell in ["Thanks, bye. END_CONVERSATION", "END_CONVERSATION", "That's all. END_CONVERSATION"] {
            assert_eq!(turn(farewell, &fixed).unwrap(), UserTurn::ends(farewell));
        }
        for wish in ["What is the phone number?", "Thanks, please book it.", "the cheap one", "Thanks, I need a train."]
        {
            let said = format!(" END_CONVERSATION {wish}");
            assert_eq!(turn(&said, &fixed).unwrap(), UserTurn::closes(wish));
            let reference = turn(&said, &Rules::of(Compat::RepoHead)).unwrap();
            assert_eq!(reference, UserTurn::ends(said.trim()));
        }
        assert_eq!(turn("hi", &fixed).unwrap(), UserTurn::goes_on("hi"));
        assert!(turn(" \n", &fixed).is_err());
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
