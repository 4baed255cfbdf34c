//! Training examples: what data stages write and training stages read.

use serde::{Deserialize, Serialize};

use crate::chat::Message;
use crate::table::Row;

/// A chat whose assistant messages are to be learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SftExample {
    /// The dialogue that it comes from.
    pub dialogue: String,
    /// The chat, the system message first where there is one.
    pub messages: Vec<Message>,
}

impl Row for SftExample {
    const TYPE: &'static str = "data.sft/v2";
}

/// A continuation of a chat that is to become likelier or less likely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KtoExample {
    /// The dialogue that it comes from.
    pub dialogue: String,
    /// The chat up to the continuation.
    pub prompt: Vec<Message>,
    /// The continuation: one assistant message.
    pub completion: Vec<Message>,
    /// Whether the continuation is desirable.
    pub label: bool,
}

impl Row for KtoExample {
    const TYPE: &'static str = "data.kto/v2";
}
