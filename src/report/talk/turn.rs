//! Messages into turns: who had the word, and what was planned, called, seen and said before it went on.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::Value;

use crate::chat::{Message, Role, ToolCall};
use crate::dialogue::command::{Command, parse};
use crate::dialogue::react;

/// Everything that one side did while it had the word.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Turn {
    /// Its place in the dialogue, from 1.
    pub number: u32,
    /// Who had the word: `user`, `assistant`, or `system` for what the environment noted.
    pub role: Role,
    /// What it did, in order.
    pub steps: Vec<Step>,
    /// The goals that were first reached here, as positions in the dialogue's goals.
    pub goals: Vec<u32>,
}

/// One thing that was done within a turn.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// Said to the other side; in JSON `{"step": "said", "text": …}`.
    Said {
        /// The words.
        text: String,
    },
    /// A thought that only the agent sees.
    Plan {
        /// The thought.
        text: String,
    },
    /// A call of a tool.
    Call(Call),
    /// What the agent was told without having called anything: that a reply held no command.
    Seen {
        /// The text.
        text: String,
    },
    /// A reply that neither calls nor speaks, as it was written.
    Unread {
        /// The reply.
        text: String,
    },
}

/// A call of a tool, with what it returned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// The tool's name as given; empty of a call that is none.
    pub api: String,
    /// The arguments as given; null of a call that is none.
    pub arguments: Value,
    /// What was written, of a call that is none: no JSON, or not of the form of a call.
    pub malformed: Option<String>,
    /// What the agent saw of it: JSON text, or an error's. Absent where the dialogue broke off before.
    pub observation: Option<String>,
    /// Whether the environment refused it as wrong. A search that finds nothing and a booking that is full are no errors.
    pub error: bool,
    /// The goals that it reaches by itself, as positions in the dialogue's goals; known of episodes, not of trees.
    pub goals: Vec<u32>,
    #[serde(skip)]
    id: Option<String>,
}

impl Turn {
    /// What was said, as one text; empty where nothing was.
    pub fn said(&self) -> String {
        let said = self.steps.iter().filter_map(|step| match step {
            Step::Said { text } => Some(text.as_str()),
            _ => None,
        });
        said.collect::<Vec<_>>().join("\n")
    }

    /// Whether a text stands in anything that was said, planned, called or seen, whatever its case. `text` is in lower case.
    pub fn holds(&self, text: &str) -> bool {
        let found = |part: &str| part.to_lowercase().contains(text);
        self.steps.iter().any(|step| match step {
            Step::Said { text } | Step::Plan { text } | Step::Seen { text } | Step::Unread { text } => found(text),
            Step::Call(call) => {
                let written = call.malformed.as_deref().unwrap_or_default();
                found(&call.api)
                    || found(written)
                    || found(&call.arguments.to_string())
                    || found(call.observation.as_deref().unwrap_or_default())
            }
        })
    }

    /// The calls.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.steps.iter().filter_map(|step| match step {
            Step::Call(call) => Some(call),
            _ => None,
        })
    }

    /// The calls, to note goals at.
    pub(super) fn calls_mut(&mut self) -> impl Iterator<Item = &mut Call> {
        self.steps.iter_mut().filter_map(|step| match step {
            Step::Call(call) => Some(call),
            _ => None,
        })
    }
}

/// The turns of a chat as the agent saw it, without a system message at its head. `before` is how many turns came before it.
pub fn turns(messages: &[Message], before: u32) -> Vec<Turn> {
    let mut reading = Reading { turns: Vec::new(), before, waiting: VecDeque::new() };
    for (place, message) in messages.iter().enumerate() {
        reading.message(message, messages.get(place + 1));
    }
    reading.turns
}

struct Reading {
    turns: Vec<Turn>,
    before: u32,
    /// The places of the last reply's calls within the last turn that have no observation yet.
    waiting: VecDeque<usize>,
}

impl Reading {
    fn message(&mut self, message: &Message, next: Option<&Message>) {
        match message.role {
            Role::Assistant => self.reply(message, next),
            Role::Tool => self.observed(message.content.trim(), message.tool_call_id.as_deref()),
            Role::User => match react::observation(message) {
                Some(text) => self.observed(text, None),
                None => self.said(Role::User, &message.content),
            },
            Role::System => self.said(Role::System, &message.content),
        }
    }

    fn said(&mut self, role: Role, text: &str) {
        self.waiting.clear();
        let step = Step::Said { text: text.trim().to_owned() };
        self.turns.push(Turn { number: 0, role, steps: vec![step], goals: Vec::new() });
        self.number();
    }

    /// The steps of the agent's present turn; a new one where the other side spoke last.
    fn agent(&mut self) -> &mut Vec<Step> {
        if self.turns.last().is_none_or(|turn| turn.role != Role::Assistant) {
            self.turns.push(Turn { number: 0, role: Role::Assistant, steps: Vec::new(), goals: Vec::new() });
            self.number();
        }
        let last = self.turns.len() - 1;
        &mut self.turns[last].steps
    }

    fn number(&mut self) {
        let number = self.before + self.turns.len() as u32;
        if let Some(turn) = self.turns.last_mut() {
            turn.number = number;
        }
    }

    fn reply(&mut self, message: &Message, next: Option<&Message>) {
        self.waiting.clear();
        let steps = if message.tool_calls.is_empty() { written(message, next) } else { called(message) };
        for step in steps {
            let waits = matches!(step, Step::Call(_));
            let all = self.agent();
            all.push(step);
            let place = all.len() - 1;
            if waits {
                self.waiting.push_back(place);
            }
        }
    }

    fn observed(&mut self, text: &str, id: Option<&str>) {
        let waiting = std::mem::take(&mut self.waiting);
        let steps = self.agent();
        let of_id = |&place: &usize| matches!(&steps[place], Step::Call(call) if call.id.as_deref() == id);
        let at = waiting.iter().position(of_id).or((!waiting.is_empty()).then_some(0));
        let place = at.map(|at| waiting[at]);
        match place.map(|place| &mut steps[place]) {
            Some(Step::Call(call)) => {
                call.error = is_error(text);
                call.observation = Some(text.to_owned());
            }
            _ => steps.push(Step::Seen { text: text.to_owned() }),
        }
        self.waiting = waiting.into_iter().filter(|&waits| Some(waits) != place).collect();
    }
}

/// Whether an observation says that the call was wrong.
fn is_error(observation: &str) -> bool {
    let text = observation.trim_start_matches('"');
    text.starts_with("ERROR") || text.starts_with("FAILURE")
}

/// The commands of a reply in text. One without commands is speech, unless what follows shows that nobody heard it.
fn written(message: &Message, next: Option<&Message>) -> Vec<Step> {
    let commands = parse(&message.content);
    let text = message.content.trim();
    if commands.is_empty() && text.is_empty() {
        return Vec::new();
    }
    if commands.is_empty() {
        let heard = next.is_none_or(|next| next.role == Role::User && react::observation(next).is_none());
        let text = text.to_owned();
        return vec![if heard { Step::Said { text } } else { Step::Unread { text } }];
    }
    let step = |command| match command {
        Command::Plan(text) => Step::Plan { text },
        Command::Speak(text) => Step::Said { text },
        Command::Call { api, arguments } => Step::Call(Call { api, arguments, ..Call::blank() }),
        Command::Malformed(text) => Step::Call(Call { malformed: Some(text), ..Call::blank() }),
    };
    commands.into_iter().map(step).collect()
}

/// The thought and the calls of a reply that calls functions natively.
fn called(message: &Message) -> Vec<Step> {
    let text = message.content.trim();
    let thought = (!text.is_empty()).then(|| Step::Plan { text: text.to_owned() });
    thought.into_iter().chain(message.tool_calls.iter().map(|call| Step::Call(Call::native(call)))).collect()
}

impl Call {
    fn blank() -> Self {
        Self {
            api: String::new(),
            arguments: Value::Null,
            malformed: None,
            observation: None,
            error: false,
            goals: Vec::new(),
            id: None,
        }
    }

    fn native(call: &ToolCall) -> Self {
        let id = Some(call.id.clone());
        let blank = Self { api: call.function.name.clone(), id, ..Self::blank() };
        match call.function.object() {
            Ok(_) if call.function.is_wrapped() => Self { malformed: Some(call.function.arguments.clone()), ..blank },
            Ok(arguments) => Self { arguments: Value::Object(arguments), ..blank },
            Err(_) => Self { malformed: Some(call.function.arguments.clone()), ..blank },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::agent::OUT_OF_RETRIES;
    use crate::dialogue::react::{NO_COMMAND, observed, spoken};
    use serde_json::json;

    fn shown(messages: &[Message]) -> Value {
        serde_json::to_value(turns(messages, 0)).unwrap()
    }

    #[test]
    fn a_react_turn_is_plan_call_and_speech() {
        let found = shown(&[
            Message::user("a hotel, please"),
            Message::assistant(
                r#"PLAN look <COMMAND_END> APICALL {"name": "search_hotel", "parameters": {"area": "north"}} <COMMAND_END>"#,
            ),
            observed(r#"[{"name": "avalon"}]"#),
            spoken("The Avalon."),
            Message::user("bye END_CONVERSATION"),
        ]);
        let call = json!({
            "step": "call", "api": "search_hotel", "arguments": {"area": "north"}, "malformed": null,
            "observation": r#"[{"name": "avalon"}]"#, "error": false, "goals": [],
        });
        let steps = json!([{"step": "plan", "text": "look"}, call, {"step": "said", "text": "The Avalon."}]);
        assert_eq!(found[1], json!({"number": 2, "role": "assistant", "steps": steps, "goals": []}));
        assert_eq!(found[2]["steps"][0]["text"], "bye END_CONVERSATION");
        assert_eq!(found.as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn several_calls_of_one_reply_get_their_own_observations() {
        let reply = "APICALL {\"name\": \"a\", \"parameters\": {}} <COMMAND_END> APICALL nothing <COMMAND_END>";
        let found = turns(&[Message::assistant(reply), observed("[]"), observed("FAILURE no call"), observed("x")], 4);
        let calls: Vec<_> = found[0].calls().map(|call| (call.observation.as_deref(), call.error)).collect();
        assert_eq!(calls, [(Some("[]"), false), (Some("FAILURE no call"), true)]);
        assert_eq!(found[0].steps[2], Step::Seen { text: "x".into() });
        assert_eq!((found[0].number, found.len()), (5, 1));
        let call = |id: &str| ToolCall::new(id, id, "{}");
        let messages = [
            Message {
                tool_calls: vec![call("c1"), call("c2"), ToolCall::new("c3", "c", "[")],
                ..Message::assistant("hm")
            },
            Message::tool("c2", "two"),
            Message::tool("c1", "\"ERROR: no\""),
            Message::tool("c3", "ERROR"),
            Message::assistant("done"),
        ];
        let found = turns(&messages, 0);
        let seen: Vec<_> = found[0].calls().map(|call| (call.observation.as_deref().unwrap(), call.error)).collect();
        assert_eq!(seen, [("\"ERROR: no\"", true), ("two", false), ("ERROR", true)]);
        assert_eq!(found[0].steps[0], Step::Plan { text: "hm".into() });
        assert_eq!(
            (found[0].said(), found[0].calls().nth(2).unwrap().malformed.as_deref()),
            ("done".into(), Some("["))
        );
    }

    #[test]
    fn what_nobody_heard_is_not_said() {
        let messages = [
            Message::user("hi"),
            Message::assistant("hello there"),
            observed(NO_COMMAND),
            Message::assistant("PLAN wait"),
            observed(NO_COMMAND),
            Message::assistant(""),
            Message::new(Role::System, OUT_OF_RETRIES),
        ];
        let found = turns(&messages, 0);
        let seen = Step::Seen { text: NO_COMMAND.into() };
        let unread = Step::Unread { text: "hello there".into() };
        assert_eq!(found[1].steps, [unread, seen.clone(), Step::Plan { text: "wait".into() }, seen]);
        assert_eq!(
            (found[1].said(), found[2].role, found[2].said()),
            (String::new(), Role::System, OUT_OF_RETRIES.into())
        );
        assert_eq!(turns(&[Message::user("hi"), Message::assistant("hello")], 0)[1].said(), "hello");
    }
}
