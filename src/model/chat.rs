//! Chats as tokens: what a model is asked, and what of a chat it is to learn.
//!
//! The model's own template writes the chat, and what it takes in can never become a mark (see [`super::tokenizer::marks`]).

use std::borrow::Borrow;
use std::ops::Range;

use serde_json::{Map, Value, json};

use super::template::{ChatTemplate, Filling, TemplateError};
use super::tokenizer::marks::{Author, Filled};
use super::tokenizer::{Tokenizer, TokenizerError};
use crate::chat::{Message, Role, ToolCall};

/// A chat as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedChat {
    /// The tokens.
    pub ids: Vec<u32>,
    /// For every token whether the assistant writes it: its text, its calls and what ends them. The loss mask.
    pub learnt: Vec<bool>,
}

/// A prompt with its continuation as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The tokens of both.
    pub ids: Vec<u32>,
    /// How many of them are the prompt's.
    pub prompt: usize,
}

/// The tokens of a chat, and which of them the assistant writes.
///
/// Where the template marks that (`{% generation %}`), its marks count. Otherwise each of the assistant's messages is what the
/// chat has more with it than without it: from where the prompt for it ends to the token that ends a reply, as far as there
/// is one.
///
/// # Errors
/// When the template refuses the chat, or writes what was said differently once there is more
/// ([`TemplateError::Rewrites`]): then nothing could be told apart.
pub fn encode<M: Borrow<Message>>(
    tokenizer: &Tokenizer,
    messages: &[M],
    tools: &[Value],
) -> Result<EncodedChat, TokenizerError> {
    let chat = Written::new(tokenizer, messages, tools)?;
    let whole = chat.filled(chat.messages.len(), false)?;
    let marked = chat.template.marks_generation(!tools.is_empty());
    let said = if marked { whole.assistant.clone() } else { chat.said(&whole)? };
    let placed = tokenizer.place_filled(&whole)?;
    let mut learnt = vec![false; placed.len()];
    for part in said {
        let mut inside = tokens_in(&placed, &part);
        if !marked {
            // What a template writes behind the end, such as a line break, no model ever does.
            let end = placed[inside.clone()].iter().rposition(|(id, _)| tokenizer.is_end(*id));
            inside.end = end.map_or(inside.end, |end| inside.start + end + 1);
        }
        learnt[inside].fill(true);
    }
    Ok(EncodedChat { ids: placed.into_iter().map(|(id, _)| id).collect(), learnt })
}

/// The tokens of a chat that the assistant is to continue.
///
/// # Errors
/// When the template refuses the chat.
pub fn encode_prompt<M: Borrow<Message>>(
    tokenizer: &Tokenizer,
    messages: &[M],
    tools: &[Value],
) -> Result<Vec<u32>, TokenizerError> {
    let chat = Written::new(tokenizer, messages, tools)?;
    tokenizer.encode_filled(&chat.filled(chat.messages.len(), true)?)
}

/// The tokens of a prompt and a continuation, and where the continuation begins: behind what the prompt, encoded as one that the
/// assistant is to continue, has in common with the whole (TRL 1.16, `kto_trainer.py`).
///
/// # Errors
/// When the template refuses the chat.
pub fn encode_completion<M: Borrow<Message>>(
    tokenizer: &Tokenizer,
    prompt: &[M],
    completion: &[M],
    tools: &[Value],
) -> Result<Completion, TokenizerError> {
    let messages: Vec<&Message> = prompt.iter().chain(completion).map(Borrow::borrow).collect();
    let chat = Written::new(tokenizer, &messages, tools)?;
    let ids = tokenizer.encode_filled(&chat.filled(messages.len(), false)?)?;
    let start = tokenizer.encode_filled(&chat.filled(prompt.len(), true)?)?;
    let prompt = ids.iter().zip(&start).take_while(|(left, right)| left == right).count();
    Ok(Completion { ids, prompt })
}

/// A chat as its template takes it in.
struct Written<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    messages: Vec<Value>,
    tools: Vec<Value>,
}

impl<'a> Written<'a> {
    fn new<M: Borrow<Message>>(
        tokenizer: &'a Tokenizer,
        messages: &[M],
        tools: &[Value],
    ) -> Result<Self, TemplateError> {
        let marks = tokenizer.marks();
        let mut written: Vec<Value> = Vec::with_capacity(messages.len());
        let mut calls: Vec<&ToolCall> = Vec::new();
        for message in messages.iter().map(Borrow::borrow) {
            calls.extend(&message.tool_calls);
            let called = calls.iter().rev().find(|call| Some(&call.id) == message.tool_call_id.as_ref());
            let author = match message.role {
                Role::User | Role::Tool => Author::Outside,
                Role::System | Role::Assistant => Author::Inside,
            };
            written.push(marks.guard_value(&spelt(message, called.copied()), author));
        }
        let tools = tools.iter().map(|tool| marks.guard_value(tool, Author::Inside)).collect();
        Ok(Self { tokenizer, template: tokenizer.template()?, messages: written, tools })
    }

    /// The first messages as the template writes them.
    fn filled(&self, count: usize, prompt: bool) -> Result<Filled, TemplateError> {
        let filling = Filling { messages: &self.messages[..count], tools: &self.tools, prompt };
        Ok(self.tokenizer.marks().filled(&self.template.fill(filling)?))
    }

    /// The bytes of the whole chat that each of the assistant's messages adds to it.
    fn said(&self, whole: &Filled) -> Result<Vec<Range<usize>>, TemplateError> {
        let mut said: Vec<Range<usize>> = Vec::new();
        for (at, message) in self.messages.iter().enumerate() {
            if message["role"] != "assistant" {
                continue;
            }
            let before = self.filled(at, true)?.text;
            let after = self.filled(at + 1, false)?.text;
            if !(whole.text.starts_with(&after) && after.starts_with(&before)) {
                return Err(TemplateError::Rewrites { message: at + 1 });
            }
            said.push(before.len()..after.len());
        }
        Ok(said)
    }
}

/// A message as templates know it: calls with their arguments as objects, a tool's answer with the tool's name.
fn spelt(message: &Message, called: Option<&ToolCall>) -> Value {
    let mut spelt = Map::new();
    spelt.insert("role".to_owned(), json!(message.role));
    spelt.insert("content".to_owned(), message.content.clone().into());
    if !message.tool_calls.is_empty() {
        let call = |call: &ToolCall| {
            // Arguments that are no object were wrapped where they entered the chat.
            let arguments =
                call.function.object().map_or_else(|_| call.function.arguments.clone().into(), Value::Object);
            json!({"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}})
        };
        spelt.insert("tool_calls".to_owned(), message.tool_calls.iter().map(call).collect());
    }
    if let Some(id) = &message.tool_call_id {
        spelt.insert("tool_call_id".to_owned(), id.clone().into());
        if let Some(call) = called {
            spelt.insert("name".to_owned(), call.function.name.clone().into());
        }
    }
    Value::Object(spelt)
}

/// The tokens that hold a part of these bytes.
fn tokens_in(placed: &[(u32, (usize, usize))], part: &Range<usize>) -> Range<usize> {
    let start = placed.partition_point(|(_, (_, end))| *end <= part.start);
    let end = start + placed[start..].partition_point(|(_, (begin, _))| *begin < part.end);
    start..end
}

#[cfg(test)]
mod tests;
