//! Language models behind one trait: an endpoint, a model of our own, a script, a recording.

pub mod account;
pub mod completion;
pub mod drive;
pub mod http;
pub mod local;
pub mod record;
pub mod replay;
pub mod scripted;
mod wire;

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::{Chat, Message, ToolCall};
use crate::model::grammar::calls::CallFormat;
use crate::net::gate::OverBudget;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the k likeliest tokens; `None` keeps all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Only tokens at least this share as likely as the likeliest one; 0 keeps all.
    pub min_p: f32,
    /// What makes tokens that were said before less likely; 1 changes nothing.
    pub repetition_penalty: f32,
    /// The most tokens that one reply may have.
    pub max_tokens: usize,
    /// Texts that end a reply; they are not part of it.
    pub stop: Vec<String>,
    /// What a model of our own must keep to where it calls tools; a served one is not told.
    pub calls: Option<Arc<CallFormat>>,
}

impl Default for Sampling {
    /// The likeliest tokens, 256 at most.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_tokens: 256,
            stop: Vec::new(),
            calls: None,
        }
    }
}

/// Seeds have 31 bits where models draw: some servers take no more, and JSON readers lose digits beyond 53.
const SEED_BITS: u64 = (1 << 31) - 1;

/// The seed that a model is given, here or behind a server: so that a policy says the same in both places.
fn drawn_seed(seed: u64) -> u64 {
    (seed ^ (seed >> 32)) & SEED_BITS
}

/// One request for a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The system message, where there is one: shared by all requests of an agent.
    pub system: Option<Arc<Message>>,
    /// The chat so far, after the system message.
    pub chat: Chat,
    /// The definitions of the tools that the reply may call natively (OpenAI function schemas); `None` of a model that
    /// writes its calls as text.
    pub tools: Option<Arc<[Value]>>,
    /// How the reply is drawn.
    pub sampling: Sampling,
    /// The same request with the same seed gives the same reply, as far as the model's server honours seeds.
    pub seed: u64,
}

impl ChatRequest {
    /// All messages in order, the system message first.
    pub fn messages(&self) -> Vec<&Message> {
        self.system.as_deref().into_iter().chain(self.chat.messages()).collect()
    }
}

/// One reply and what it cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The reply's text, without the text that ended it.
    pub text: String,
    /// The tools that the reply calls natively, in order.
    pub tool_calls: Vec<ToolCall>,
    /// Tokens of the request, as the server or our tokenizer counts them.
    pub prompt_tokens: u64,
    /// Tokens of the reply.
    pub completion_tokens: u64,
    /// Whether `max_tokens` cut the reply off.
    pub cut_off: bool,
}

/// Why no reply came. But for a chat that grew too long ([`ModelError::is_full`]) none of these says anything about the agent's
/// skill: an episode that meets one is broken, not lost.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelError {
    /// The endpoint could not be reached, or went away in mid-answer.
    #[error("endpoint `{endpoint}` did not answer: {reason}")]
    Unreachable { endpoint: String, reason: String },
    /// The endpoint answered with an error status after all retries.
    #[error("endpoint `{endpoint}` answered {status}: {body}")]
    Status { endpoint: String, status: u16, body: String },
    /// The endpoint answered with something that is not a chat completion.
    #[error("endpoint `{endpoint}` sent no chat completion: {reason}")]
    Malformed { endpoint: String, reason: String },
    /// What might be spent is spent: the call was not made.
    #[error("endpoint `{endpoint}`: {reason}")]
    Budget { endpoint: String, reason: OverBudget },
    /// Answers come from a recording alone, and it has none to this request.
    #[error(
        "the recording has no reply of `{endpoint}` to this request: other parameters, or a call that was not finished then"
    )]
    NotRecorded { endpoint: String },
    /// The request does not fit the model's context.
    #[error("the chat has {tokens} tokens, the model's context {context}")]
    TooLong { tokens: usize, context: usize },
    /// A served model's context does not take in the request; its server says so.
    #[error("endpoint `{endpoint}`: the chat does not fit the model's context: {reason}")]
    ContextFull { endpoint: String, reason: String },
    /// The model itself failed.
    #[error("the model failed: {0}")]
    Failed(String),
}

impl ModelError {
    /// Whether the chat is too long for the model. Of an agent whose dialogue has grown that long this is its own doing.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::ContextFull { .. })
    }
}

/// Something that continues chats.
///
/// Many dialogues call `complete` at once from one thread. A model that computes here (rather than on a server) queues the
/// requests, and answers the whole queue as one batch when the driver, seeing that every dialogue waits, calls
/// [`ChatModel::answer_waiting`]: so what is batched with what depends on the dialogues alone, never on timing.
pub trait ChatModel {
    /// Continues a chat by one assistant message.
    fn complete(&self, request: ChatRequest) -> LocalBoxFuture<'_, Result<Reply, ModelError>>;

    /// Answers every queued request; returns how many there were. A model on a server has none.
    fn answer_waiting(&self) -> usize {
        0
    }
}
