//! Native function calling: the model names the tools and their arguments beside its text, and its text alone is what the
//! customer reads (reference, section 2.7).
//!
//! The reference does the first of several calls only, drops the text beside it, and raises on arguments that are no JSON
//! (quirk Q27). Here every call is done and answered, and what is wrong with one is what the model sees of it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::server::Session;
use super::world::World;
use crate::chat::{Chat, Message, ToolCall};
use crate::llm::Reply;

/// The definitions of a world's tools, as requests carry them.
pub fn schemas(world: &World) -> Arc<[Value]> {
    world.tools().iter().map(|tool| tool.schema.clone()).collect()
}

/// Does the calls of a reply in their order; returns what was spoken, which ends the turn. An empty reply leaves the chat as
/// it is.
pub(super) fn perform(reply: Reply, chat: &mut Chat, session: &mut Session) -> Option<String> {
    let Reply { text, tool_calls, .. } = reply;
    if tool_calls.is_empty() {
        let said = text.trim().to_owned();
        if said.is_empty() {
            return None;
        }
        chat.push(Message::assistant(said.clone()));
        return Some(said);
    }
    let before = calls_in(chat);
    let calls = tool_calls.into_iter().zip(before + 1..).map(|(call, number)| Asked::read(call, number));
    let calls: Vec<Asked> = calls.collect();
    let tool_calls = calls.iter().map(|asked| asked.call.clone()).collect();
    chat.push(Message { tool_calls, ..Message::assistant(text.trim()) });
    for Asked { call, arguments } in calls {
        let seen = match arguments {
            Ok(arguments) => session.call(&call.function.name, &Value::Object(arguments)).text,
            Err(reason) => format!("ERROR: INVALID ARGUMENTS: {reason}"),
        };
        chat.push(Message::tool(call.id, seen));
    }
    None
}

fn calls_in(chat: &Chat) -> usize {
    chat.backwards().map(|message| message.tool_calls.len()).sum()
}

/// A call as the chat keeps it, and its arguments or what is wrong with them.
struct Asked {
    call: ToolCall,
    arguments: Result<Map<String, Value>, String>,
}

impl Asked {
    /// Reads the call that has this number in its chat.
    ///
    /// Servers draw ids by chance, leave them out or repeat them. They only tie an answer to its call, so they are made
    /// of the number: the same words then give the same chat, and branches that said the same are equal. Some chat templates
    /// want just nine letters and digits.
    fn read(call: ToolCall, number: usize) -> Self {
        let ToolCall { kind, function, .. } = call;
        let arguments = function.object();
        let function = if arguments.is_ok() { function } else { function.wrapped() };
        Self { call: ToolCall { id: format!("call{number:05}"), kind, function }, arguments }
    }
}
