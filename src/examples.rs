//! Training examples: what data stages write and training stages read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chat::Message;
use crate::table::Row;

/// A chat whose assistant messages are to be learnt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SftExample {
    /// The dialogue that it comes from.
    pub dialogue: String,
    /// The chat, the system message first where there is one.
    pub messages: Vec<Message>,
    /// The schemas of the functions that may be called, as a JSON list; absent where the chat calls none natively.
    pub tools: Option<String>,
}

impl Row for SftExample {
    const TYPE: &'static str = "data.sft/v3";
}

/// A continuation of a chat that is to become likelier or less likely.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KtoExample {
    /// The dialogue that it comes from.
    pub dialogue: String,
    /// The chat up to the continuation.
    pub prompt: Vec<Message>,
    /// The continuation: one assistant message.
    pub completion: Vec<Message>,
    /// Whether the continuation is desirable.
    pub label: bool,
    /// As in [`SftExample`].
    pub tools: Option<String>,
}

impl Row for KtoExample {
    const TYPE: &'static str = "data.kto/v3";
}

/// Two continuations of a chat, of which one is better.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairExample {
    /// The dialogue that it comes from.
    pub dialogue: String,
    /// The chat up to the continuations.
    pub prompt: Vec<Message>,
    /// The better continuation: one assistant message.
    pub chosen: Vec<Message>,
    /// The worse one: one other assistant message.
    pub rejected: Vec<Message>,
    /// As in [`SftExample`].
    pub tools: Option<String>,
}

impl Row for PairExample {
    const TYPE: &'static str = "data.pair/v1";
}
