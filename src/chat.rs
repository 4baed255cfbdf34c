//! The messages of a chat: what agents, users, models and training data all speak.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::value;

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The customer, and in ReAct form also what a tool returned.
    User,
    /// The agent.
    Assistant,
    /// What a tool returned, in native function calling.
    Tool,
}

/// One message of a chat, in the form of OpenAI's API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Who wrote it.
    pub role: Role,
    /// What was written.
    pub content: String,
    /// The tools that an assistant's message calls, in native function calling.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "none_is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

/// One call of a tool, as a model writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// By what the answer refers to it.
    pub id: String,
    /// What is called.
    #[serde(rename = "type", default)]
    pub kind: ToolKind,
    /// The call itself.
    pub function: FunctionCall,
}

/// What a tool is: a function, in every API there is so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolKind {
    /// A function.
    #[default]
    Function,
}

/// A function's name and arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// Its arguments as the model wrote them: JSON, where it kept to its form.
    pub arguments: String,
}

/// The argument under which a call keeps arguments that are no JSON object. Servers refuse chats whose calls hold anything but
/// objects, so they could not go back to the model as they are.
const UNREADABLE: &str = "INVALID_JSON";

impl FunctionCall {
    /// The arguments, where they are a JSON object.
    ///
    /// # Errors
    /// What else they are.
    pub fn object(&self) -> Result<Map<String, Value>, String> {
        match serde_json::from_str(&self.arguments) {
            Ok(Value::Object(arguments)) => Ok(arguments),
            Ok(other) => Err(format!("they are {}, expected an object", value::described(&other))),
            Err(error) => Err(format!("they are no JSON: {error}")),
        }
    }

    /// The call with its arguments, which are no JSON object, kept as the text of one.
    #[must_use]
    pub fn wrapped(self) -> Self {
        let arguments = json!({ UNREADABLE: self.arguments }).to_string();
        Self { arguments, ..self }
    }

    /// Whether it was [`wrapped`](Self::wrapped): then no model wrote it in this form.
    pub fn is_wrapped(&self) -> bool {
        self.object().is_ok_and(|arguments| arguments.len() == 1 && arguments.contains_key(UNREADABLE))
    }
}

/// Tables hold null, and JSON nothing, for a message without calls.
fn none_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ToolCall>, D::Error> {
    Ok(Option::<Vec<ToolCall>>::deserialize(deserializer)?.unwrap_or_default())
}

impl Message {
    /// A message of the given role.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }

    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// A user message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// An assistant message.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// A tool's answer to the call of this id.
    pub fn tool(call: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(call.into()), ..Self::new(Role::Tool, content) }
    }
}

impl ToolCall {
    /// A call of a function.
    pub fn new(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        let function = FunctionCall { name: name.into(), arguments: arguments.into() };
        Self { id: id.into(), kind: ToolKind::Function, function }
    }
}

/// A chat that grows at its end. A clone shares all that was said before it, so the branches of a tree of dialogues take only
/// the room of what is new in them.
#[derive(Clone, Default)]
pub struct Chat {
    last: Option<Arc<Link>>,
}

struct Link {
    message: Message,
    before: Chat,
    length: usize,
}

impl Chat {
    /// A chat in which nothing was said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        let before = std::mem::take(self);
        let length = before.len() + 1;
        self.last = Some(Arc::new(Link { message, before, length }));
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.last.as_ref().map_or(0, |link| link.length)
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// The last message.
    pub fn last(&self) -> Option<&Message> {
        self.last.as_deref().map(|link| &link.message)
    }

    /// Whether this chat went on from a clone of another one: shares all that was said there. Equal messages that were said
    /// once more do not count.
    pub fn continues(&self, other: &Self) -> bool {
        let Some(more) = self.len().checked_sub(other.len()) else { return false };
        match (self.backwards().nth(more), other.last()) {
            (Some(mine), Some(last)) => std::ptr::eq(mine, last),
            (mine, last) => mine.is_none() && last.is_none(),
        }
    }

    /// The messages from the last to the first.
    pub fn backwards(&self) -> impl Iterator<Item = &Message> {
        let links = std::iter::successors(self.last.as_deref(), |link| link.before.last.as_deref());
        links.map(|link| &link.message)
    }

    /// The messages after the first `known`, in order.
    pub fn since(&self, known: usize) -> Vec<&Message> {
        let mut messages: Vec<&Message> = self.backwards().take(self.len().saturating_sub(known)).collect();
        messages.reverse();
        messages
    }

    /// All messages, in order.
    pub fn messages(&self) -> Vec<&Message> {
        self.since(0)
    }

    /// A copy of all messages, in order.
    pub fn to_vec(&self) -> Vec<Message> {
        self.messages().into_iter().cloned().collect()
    }
}

/// Link by link: a long chat must not take the stack with it.
impl Drop for Chat {
    fn drop(&mut self) {
        let mut last = self.last.take();
        while let Some(mut link) = last.and_then(Arc::into_inner) {
            last = link.before.last.take();
        }
    }
}

impl Extend<Message> for Chat {
    fn extend<I: IntoIterator<Item = Message>>(&mut self, messages: I) {
        messages.into_iter().for_each(|message| self.push(message));
    }
}

impl FromIterator<Message> for Chat {
    fn from_iter<I: IntoIterator<Item = Message>>(messages: I) -> Self {
        let mut chat = Self::new();
        chat.extend(messages);
        chat
    }
}

impl PartialEq for Chat {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.backwards().eq(other.backwards())
    }
}

impl std::fmt::Debug for Chat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.messages()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shares_what_was_said_before() {
        let mut chat: Chat = [Message::user("hi"), Message::assistant("hello")].into_iter().collect();
        let mut other = chat.clone();
        chat.push(Message::user("a"));
        other.push(Message::user("b"));
        let texts = |chat: &Chat| chat.messages().iter().map(|message| message.content.clone()).collect::<Vec<_>>();
        assert_eq!(
            (texts(&chat), texts(&other)),
            (vec!["hi".into(), "hello".into(), "a".into()], vec!["hi".into(), "hello".into(), "b".into()])
        );
        assert!(std::ptr::eq(chat.messages()[0], other.messages()[0]));
        assert_eq!((chat.len(), chat.last(), chat.since(2)), (3, Some(&Message::user("a")), vec![&Message::user("a")]));
        assert!(chat != other && chat.since(9).is_empty() && Chat::new().is_empty());
        assert!(chat.continues(&chat) && chat.continues(&Chat::new()) && !chat.continues(&other));
        let mut longer = chat.clone();
        longer.push(Message::user("b"));
        let same: Chat = chat.to_vec().into_iter().collect();
        assert!(longer.continues(&chat) && !chat.continues(&longer) && same == chat && !same.continues(&chat));
    }

    #[test]
    fn a_chat_of_a_million_messages_goes_away_without_a_deep_stack() {
        let chat: Chat = (0..1_000_000).map(|_| Message::user("")).collect();
        let shared = chat.clone();
        drop(chat);
        assert_eq!(shared.len(), 1_000_000);
    }

    #[test]
    fn a_message_without_calls_is_spelt_as_ever_and_one_with_calls_as_openai_does() {
        assert_eq!(serde_json::to_string(&Message::user("hi")).unwrap(), r#"{"role":"user","content":"hi"}"#);
        let call = ToolCall::new("c1", "search_hotel", "{}");
        let message = Message { tool_calls: vec![call], ..Message::assistant("") };
        let text = r#"{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"search_hotel","arguments":"{}"}}]}"#;
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!(serde_json::from_str::<Message>(text).unwrap(), message);
        assert!(!message.tool_calls[0].function.is_wrapped());
        let answer = Message::tool("c1", "[]");
        assert_eq!(serde_json::from_str::<Message>(&serde_json::to_string(&answer).unwrap()).unwrap(), answer);
    }

    #[test]
    fn arguments_that_are_no_object_are_kept_in_one() {
        for (text, reason) in [
            ("[1]", "they are a list, expected an object"),
            ("{\"a\": ", "they are no JSON: EOF while parsing a value at line 1 column 6"),
            ("", "they are no JSON: EOF while parsing a value at line 1 column 0"),
        ] {
            let call = FunctionCall { name: "search_hotel".to_owned(), arguments: text.to_owned() };
            assert_eq!(call.object().unwrap_err(), reason);
            let wrapped = call.wrapped();
            assert_eq!(wrapped.object().unwrap()[UNREADABLE], text);
            assert!(wrapped.is_wrapped());
        }
    }
}
