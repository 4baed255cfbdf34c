//! The ReAct form: the model plans, calls tools and speaks in text commands (reference, section 2.7).

use super::command::{API_RETURN, COMMAND_END, Command, parse};
use super::server::Session;
use crate::chat::{Chat, Message, Role};

/// The observation of a call that is none (reference, section 2.7).
pub const NO_CALL: &str = "FAILURE INCORRECTLY FORMATTED APICALL";

/// The observation of a reply that neither calls nor speaks.
pub const NO_COMMAND: &str = "ERROR: NO COMMAND FOUND";

/// Does the commands of a reply; returns what was spoken, which ends the turn.
///
/// `chat` receives the commands, one message for what stands before and in each call, and the observations as
/// `APIRETURN …` of the user.
pub(super) fn perform(reply: &str, chat: &mut Chat, session: &mut Session) -> Option<String> {
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

/// As [`perform`], in the way of the paper's era: `chat` receives the reply as it was generated, then what its calls returned,
/// and nothing where it neither calls nor speaks (reference, section 2.10).
pub(super) fn perform_raw(reply: &str, chat: &mut Chat, session: &mut Session) -> Option<String> {
    chat.push(Message::assistant(reply));
    for command in parse(reply) {
        match command {
            Command::Plan(_) => {}
            Command::Speak(said) => return Some(said),
            Command::Call { api, arguments } => chat.push(observed(&session.call(&api, &arguments).text)),
            Command::Malformed(_) => chat.push(observed(NO_CALL)),
        }
    }
    None
}

/// The message by which an agent speaks.
pub fn spoken(text: &str) -> Message {
    Message::assistant(Command::Speak(text.to_owned()).text())
}

/// The message by which an agent sees what a call returned.
pub fn observed(observation: &str) -> Message {
    Message::user(format!("{API_RETURN} {observation}"))
}

/// What a call returned, where a message tells that.
pub fn observation(message: &Message) -> Option<&str> {
    if message.role == Role::Assistant { None } else { message.content.strip_prefix(API_RETURN).map(str::trim) }
}
