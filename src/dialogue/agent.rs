//! The agent: a chat model, and the way in which it calls tools and speaks (reference, section 2.7).

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::server::Session;
use super::{agent_tools, react};
use crate::chat::{Chat, Message, Role};
use crate::llm::{ChatModel, ChatRequest, ModelError, Sampling};

/// What a customer reads of a turn in which the agent never spoke (reference, section 2.7).
pub const OUT_OF_RETRIES: &str = "Error: Agent ran out of retries.";

/// Tokens of model calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read.
    pub prompt: u64,
    /// Tokens written.
    pub completion: u64,
}

impl Usage {
    /// Adds the tokens of another count.
    pub fn add(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.completion += other.completion;
    }
}

/// How an agent calls tools and speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum Style {
    /// By commands in its text: `PLAN`, `APICALL`, `SPEAK`.
    React,
    /// By such commands, and its chat keeps its replies as they were generated.
    Raw,
    /// By native function calls; its text is what the customer reads. Holds the definitions of the tools.
    Tools(Arc<[Value]>),
}

/// An agent. It holds no dialogue: one agent serves many.
#[derive(Clone)]
pub struct ChatAgent {
    /// Who writes.
    pub model: Rc<dyn ChatModel>,
    /// The system message, where there is one.
    pub system: Option<Arc<Message>>,
    /// How replies are drawn.
    pub sampling: Sampling,
    /// The seed of every reply, as the reference has it (quirk Q16); `None` gives each reply that of its place.
    pub seed: Option<u64>,
    /// Replies that one turn may take; the reference allows 3.
    pub tries: usize,
    /// How it calls tools and speaks.
    pub style: Style,
}

/// What one reply of an agent came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The agent spoke, which ends its turn: what the customer reads.
    Spoke(String),
    /// It called tools, or wrote nothing that counts: its turn goes on.
    Unfinished,
}

impl ChatAgent {
    /// Asks for one reply and does what it says: the calls in their order, each answered in `chat`, up to what is spoken.
    /// `session` remembers the calls.
    ///
    /// # Errors
    /// When the model gives no reply: then nothing was done. [`ModelError::is_full`] tells the errors that are the agent's own
    /// doing: a chat that grew too long for it. One that is too long before the agent has said a word is not.
    pub async fn reply(&self, chat: &mut Chat, session: &mut Session, seed: u64) -> Result<(Turn, Usage), ModelError> {
        let request = ChatRequest {
            system: self.system.clone(),
            chat: chat.clone(),
            tools: match &self.style {
                Style::React | Style::Raw => None,
                Style::Tools(tools) => Some(tools.clone()),
            },
            sampling: self.sampling.clone(),
            seed: self.seed.unwrap_or(seed),
        };
        let reply = self.model.complete(request).await.map_err(|error| blamed(error, chat))?;
        let usage = Usage { prompt: reply.prompt_tokens, completion: reply.completion_tokens };
        let spoken = match &self.style {
            Style::React => react::perform(&reply.text, chat, session),
            Style::Raw => react::perform_raw(&reply.text, chat, session),
            Style::Tools(_) => agent_tools::perform(reply, chat, session),
        };
        Ok((spoken.map_or(Turn::Unfinished, Turn::Spoke), usage))
    }

    /// Ends a turn in which the agent never spoke: `chat` tells it, too, so that no two messages of the customer follow each
    /// other (quirk Q24). The customer reads [`OUT_OF_RETRIES`].
    pub fn give_up(&self, chat: &mut Chat) {
        chat.push(match self.style {
            Style::React | Style::Raw => react::spoken(OUT_OF_RETRIES),
            Style::Tools(_) => Message::assistant(OUT_OF_RETRIES),
        });
    }
}

/// A chat that does not fit before the agent has said anything is a matter of settings, and says nothing about the agent.
fn blamed(error: ModelError, chat: &Chat) -> ModelError {
    if error.is_full() && chat.backwards().all(|message| message.role != Role::Assistant) {
        return ModelError::Failed(format!("it cannot take in the first message: {error}"));
    }
    error
}
