//! The ReAct agent: a chat model that plans, calls tools and speaks in text commands (reference, section 2.7).

use std::rc::Rc;
use std::sync::Arc;

use minijinja::{Environment, context};
use serde_json::Value;

use super::command::{API_RETURN, COMMAND_END, Command, parse};
use super::server::Session;
use super::world::World;
use crate::chat::{Chat, Message, Role};
use crate::llm::{ChatModel, ChatRequest, ModelError, Sampling};

/// What a customer sees of a turn without a `SPEAK` (reference, section 2.7).
pub const OUT_OF_RETRIES: &str = "Error: Agent ran out of retries.";

/// The observation of a call that is none (reference, section 2.7).
pub const NO_CALL: &str = "FAILURE INCORRECTLY FORMATTED APICALL";

/// The observation of a reply that neither calls nor speaks.
pub const NO_COMMAND: &str = "ERROR: NO COMMAND FOUND";

/// The system prompts that come with the program.
pub const REACT_PROMPT: &str = include_str!("prompts/react.j2");
/// One line, for small models that were trained on the format.
pub const BRIEF_PROMPT: &str = include_str!("prompts/brief.j2");

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

/// A ReAct agent. It holds no dialogue: one agent serves many.
#[derive(Clone)]
pub struct ReactAgent {
    /// Who writes the commands.
    pub model: Rc<dyn ChatModel>,
    /// The system message, where there is one.
    pub system: Option<Arc<Message>>,
    /// How replies are drawn.
    pub sampling: Sampling,
    /// Replies that one turn may take; the reference allows 3.
    pub tries: usize,
}

/// What a turn gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentTurn {
    /// What the customer reads.
    pub said: String,
    /// Whether the agent spoke; otherwise `said` is [`OUT_OF_RETRIES`].
    pub spoke: bool,
    /// What it cost.
    pub usage: Usage,
}

/// Renders a system prompt: `{{ tools }}` becomes the tools' schemas, indented by two.
///
/// # Errors
/// When the template is none, or names something else than `tools`.
pub fn system_prompt(template: &str, world: &World) -> Result<String, minijinja::Error> {
    let schemas: Vec<&Value> = world.tools().iter().map(|tool| &tool.schema).collect();
    let tools = serde_json::to_string_pretty(&schemas).expect("JSON values are JSON");
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.render_str(template, context! { tools }).map(|text| text.trim().to_owned())
}

impl ReactAgent {
    /// Takes the agent's turn: replies are asked for, and their commands done, until one speaks.
    ///
    /// `chat` receives the commands, one message for what stands before and in each call, and the observations as
    /// `APIRETURN …` of the user. A turn that never speaks ends with [`OUT_OF_RETRIES`] in `chat` too (quirk Q24).
    ///
    /// # Errors
    /// When the model gives no reply: then `chat` and `session` hold what was done before it.
    pub async fn turn(&self, chat: &mut Chat, session: &mut Session, seed: u64) -> Result<AgentTurn, ModelError> {
        let mut usage = Usage::default();
        for attempt in 0..self.tries {
            let request = ChatRequest {
                system: self.system.clone(),
                chat: chat.clone(),
                tools: None,
                sampling: self.sampling.clone(),
                seed: super::seed::derive(seed, &["reply", &attempt.to_string()]),
            };
            let reply = self.model.complete(request).await?;
            usage.add(Usage { prompt: reply.prompt_tokens, completion: reply.completion_tokens });
            if let Some(said) = perform(&reply.text, chat, session) {
                return Ok(AgentTurn { said, spoke: true, usage });
            }
        }
        chat.push(Message::assistant(Command::Speak(OUT_OF_RETRIES.to_owned()).text()));
        Ok(AgentTurn { said: OUT_OF_RETRIES.to_owned(), spoke: false, usage })
    }
}

/// Does the commands of a reply; returns what was spoken, which ends the turn.
fn perform(reply: &str, chat: &mut Chat, session: &mut Session) -> Option<String> {
    let mut written = Vec::new();
    let mut acted = false;
    for command in parse(reply) {
        written.push(command.text());
        let observation = match command {
            Command::Plan(_) => continue,
            Command::Speak(said) => {
                chat.push(Message::assistant(written.join(" ")));
                return Some(said);
            }
            Command::Call { api, arguments } => session.call(&api, &arguments).text,
            Command::Malformed(_) => NO_CALL.to_owned(),
        };
        acted = true;
        chat.push(Message::assistant(std::mem::take(&mut written).join(" ")));
        chat.push(observed(&observation));
    }
    if !acted {
        // A plan without a deed, or no command at all: the model sees what it wrote and what is wrong with it, so that the
        // next try is not the same request again (quirk Q26).
        let text =
            if written.is_empty() { reply.replace(COMMAND_END, "").trim().to_owned() } else { written.join(" ") };
        chat.push(Message::assistant(text));
        chat.push(observed(NO_COMMAND));
    }
    None
}

/// The message by which an agent sees what a call returned.
pub fn observed(observation: &str) -> Message {
    Message::user(format!("{API_RETURN} {observation}"))
}

/// What a call returned, where a message tells that.
pub fn observation(message: &Message) -> Option<&str> {
    if message.role == Role::Assistant { None } else { message.content.strip_prefix(API_RETURN).map(str::trim) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompts_take_the_tools() {
        let items = super::super::tools::TOOLS.iter().map(super::super::tools::Tool::item);
        let world = World::from_items(items).unwrap();
        let prompt = system_prompt(REACT_PROMPT, &world).unwrap();
        assert!(prompt.contains("\"search_hotel\"") && prompt.contains(COMMAND_END));
        let brief = system_prompt(BRIEF_PROMPT, &world).unwrap();
        assert!(!brief.contains('\n') && brief.len() < 200);
        assert!(system_prompt("{{ tolls }}", &world).is_err());
    }
}
