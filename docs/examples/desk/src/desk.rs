//! A visit to the desk as something that JOSH can branch.

use thresh::chat::{Chat, Message};
use thresh::josh::{AgentError, AgentTurn, Broken, GoalIndex, Simulation, UserTurn};
use thresh::llm::{ChatModel, ChatRequest, Sampling};

use crate::library::{Book, Command, shelf, title};

/// The desk, with the model that works there.
pub struct Desk<'m> {
    pub clerk: &'m dyn ChatModel,
    pub sampling: Sampling,
}

/// A visit. A clone goes on by itself.
#[derive(Clone, Default)]
pub struct Visit {
    chat: Chat,
    wishes: Vec<Book>,
    /// How many wishes the reader has told.
    told: usize,
}

impl Visit {
    /// A visit in which nothing was said yet. Its goals are the wishes, in their order.
    pub fn new(wishes: Vec<Book>) -> Self {
        Self { wishes, ..Self::default() }
    }
}

impl Simulation for Desk<'_> {
    type State = Visit;

    /// The reader tells the next wish, or leaves.
    async fn user_step(&self, visit: &mut Visit, _: u64) -> Result<UserTurn, Broken> {
        let Some(&book) = visit.wishes.get(visit.told) else { return Ok(UserTurn::Over) };
        visit.told += 1;
        visit.chat.push(Message::user(format!("Please keep {} for me.", title(book))));
        Ok(UserTurn::GoesOn)
    }

    /// One reply of the clerk: a command with its answer, or words, which end the turn.
    async fn agent_step(&self, visit: &mut Visit, left: &[GoalIndex], seed: u64) -> Result<AgentTurn, AgentError> {
        let request =
            ChatRequest { system: None, chat: visit.chat.clone(), tools: None, sampling: self.sampling.clone(), seed };
        let reply = match self.clerk.complete(request).await {
            Ok(reply) => reply.text,
            // Words without end are the clerk's own doing: the branch dies. Anything else says nothing about the clerk.
            Err(error) if error.is_full() => {
                return Err(AgentError::Raised { reason: error.to_string(), hits: Vec::new() });
            }
            Err(error) => return Err(Broken(error.to_string()).into()),
        };
        visit.chat.push(Message::assistant(reply.clone()));
        let Some(command) = Command::read(&reply) else {
            return Ok(AgentTurn { finished: true, hits: Vec::new() });
        };
        visit.chat.push(Message::user(command.answer()));
        let wanted = visit.told - 1;
        let hit = matches!(&command, Command::Hold(found) if found == shelf(visit.wishes[wanted]));
        let hits = if hit && left.contains(&wanted) { vec![wanted] } else { Vec::new() };
        Ok(AgentTurn { finished: false, hits })
    }

    fn out_of_tries(&self, visit: &mut Visit) {
        visit.chat.push(Message::assistant("ERROR: the clerk never answered"));
    }

    fn chat<'s>(&self, visit: &'s Visit) -> &'s Chat {
        &visit.chat
    }
}
