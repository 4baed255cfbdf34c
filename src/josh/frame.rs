//! What stands around every example: the system message before it, and the functions that it may call.

use super::extraction::calls_functions;
use crate::chat::Message;

/// What stands around every example.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The first message, where there is one.
    pub system: Option<Message>,
    /// The schemas of the functions, as a JSON list, where they are known.
    pub tools: Option<String>,
}

impl Frame {
    /// A chat after the system message.
    pub fn chat<'m>(&self, messages: impl Iterator<Item = &'m Message>) -> Vec<Message> {
        self.system.iter().cloned().chain(messages.cloned()).collect()
    }

    /// The functions of an example of a dialogue that consists of these messages: of one that calls none natively there are
    /// none.
    pub fn tools_of<'m>(&self, mut messages: impl Iterator<Item = &'m Message>) -> Option<String> {
        self.tools.clone().filter(|_| messages.any(calls_functions))
    }

    /// The functions of an example of a tree, given whether its agent calls functions natively: then every prompt had them,
    /// also those before the first call.
    pub fn tools_where(&self, calling: bool) -> Option<String> {
        self.tools.clone().filter(|_| calling)
    }
}
