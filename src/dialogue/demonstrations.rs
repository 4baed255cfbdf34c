//! Demonstrations: annotated dialogues turned into chats in the exact form in which the ReAct agent works.
//!
//! A turn of the system's side becomes the calls that its annotation tells of, then its words. Where the constraints of a
//! domain changed, a search with all of them; where a booking was recorded, or complete details changed without one, a
//! booking. The calls are made on a real server, so the observations are those that an agent sees.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::agent_words::plan;
use super::command::Command;
use super::multiwoz::{Dialogue, Turn};
use super::react::observed;
use super::reward::reward;
use super::server::{Session, TaskError};
use super::task::Task;
use super::tools::{DOMAINS, parameter_names, unique_key};
use super::values::{is_empty, scalar_text};
use super::words::{has_any, words};
use super::world::World;
use crate::chat::Message;
use crate::compat::Rules;

/// A dialogue as a demonstration.
#[derive(Clone, Debug, PartialEq)]
pub struct Demonstration {
    /// The chat, without a system message; it ends with an assistant's message.
    pub messages: Vec<Message>,
    /// What its calls earn, 0 to 1.
    pub reward: f64,
}

/// Why a dialogue is no demonstration.
#[derive(Debug, thiserror::Error)]
pub enum DemonstrationError {
    /// The task cannot be served.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The utterances do not alternate, or an utterance is empty.
    #[error("dialogue `{dialogue}`: utterance {turn}: {reason}")]
    Turn { dialogue: String, turn: usize, reason: &'static str },
}

/// Calls that one turn may hold: a ReAct agent has three replies a turn, the last one to speak.
const CALLS: usize = 2;

/// Builds the demonstration of a dialogue.
///
/// # Errors
/// When the task cannot be served, or the log does not alternate between customer and system.
pub fn demonstrate(
    world: &Arc<World>,
    task: Arc<Task>,
    dialogue: &Dialogue,
    rules: Rules,
) -> Result<Demonstration, DemonstrationError> {
    let name = task.dialogue.clone();
    let mut trace =
        Trace { session: Session::new(world.clone(), task, rules)?, messages: Vec::new(), before: Map::new() };
    for (at, pair) in dialogue.log[..spoken(&dialogue.log)].chunks(2).enumerate() {
        let wrong =
            |turn: usize, reason| DemonstrationError::Turn { dialogue: name.clone(), turn: 2 * at + turn, reason };
        let [customer, system] = pair else { return Err(wrong(0, "the system's side does not answer")) };
        if !customer.metadata.is_empty() || system.metadata.is_empty() {
            return Err(wrong(1, "customer and system do not alternate"));
        }
        let (heard, said) = (one_line(&customer.text), one_line(&system.text));
        if heard.is_empty() || said.is_empty() {
            return Err(wrong(usize::from(!heard.is_empty()), "it says nothing"));
        }
        trace.messages.push(Message::user(heard));
        trace.turn(&system.metadata);
        trace.messages.push(Message::assistant(Command::Speak(said).text()));
    }
    let reward = reward(trace.session.task(), trace.session.calls(), trace.session.rules());
    Ok(Demonstration { messages: trace.messages, reward })
}

struct Trace {
    session: Session,
    messages: Vec<Message>,
    before: Map<String, Value>,
}

impl Trace {
    fn turn(&mut self, state: &Map<String, Value>) {
        let mut calls = Vec::new();
        for domain in DOMAINS {
            let search = self.arguments(state, domain, "semi", &format!("search_{domain}"));
            if !search.is_empty() && search != self.arguments(&self.before, domain, "semi", &format!("search_{domain}"))
            {
                calls.push((format!("search_{domain}"), search));
            }
        }
        calls.truncate(CALLS);
        for (api, arguments) in calls.drain(..) {
            self.call(&api, arguments);
        }
        // Bookings come after the searches, for they take what those found.
        let made = self.messages.iter().rev().take_while(|message| message.content.starts_with("APIRETURN")).count();
        for domain in DOMAINS.into_iter().take(if made < CALLS { DOMAINS.len() } else { 0 }) {
            let grown = booked(state, domain).len() > booked(&self.before, domain).len();
            let api = format!("book_{domain}");
            let details = self.arguments(state, domain, "book", &api);
            let changed = details != self.arguments(&self.before, domain, "book", &api);
            let complete =
                parameter_names(&api).filter(|name| *name != unique_key(domain)).all(|name| details.contains_key(name));
            if grown {
                let entity = booked(state, domain).last().and_then(|entry| entry.get(unique_key(domain))).cloned();
                self.book(domain, &api, details, entity.filter(Value::is_string));
            } else if changed && complete && !details.is_empty() {
                self.try_refused(domain, &api, details);
            }
        }
        self.before.clone_from(state);
    }

    fn call(&mut self, api: &str, arguments: Map<String, Value>) {
        let arguments = Value::Object(arguments);
        let observation = self.session.call(api, &arguments).text;
        let plan = Command::Plan(plan(api)).text();
        let call = Command::Call { api: api.to_owned(), arguments }.text();
        self.messages.push(Message::assistant(format!("{plan} {call}")));
        self.messages.push(observed(&observation));
    }

    fn book(&mut self, domain: &str, api: &str, details: Map<String, Value>, entity: Option<Value>) {
        if let Some(entity) = entity.or_else(|| self.found(domain)) {
            self.call(api, in_order(api, details, domain, entity));
        }
    }

    /// A booking that the dialogue tells of as refused is shown only where the server refuses it too.
    fn try_refused(&mut self, domain: &str, api: &str, details: Map<String, Value>) {
        let Some(entity) = self.found(domain) else { return };
        let arguments = in_order(api, details, domain, entity);
        let mut ahead = self.session.clone();
        let observation = ahead.call(api, &Value::Object(arguments.clone())).text;
        if observation.contains("\"success\": false") {
            self.call(api, arguments);
        }
    }

    /// What the last search of a domain served.
    fn found(&self, domain: &str) -> Option<Value> {
        let api = format!("search_{domain}");
        let last = self.session.calls().iter().rfind(|call| call.api == api)?;
        last.returned.get(unique_key(domain)).cloned()
    }

    /// The slots of a state as a tool's arguments, in the tool's order, empty ones left out.
    fn arguments(&self, state: &Map<String, Value>, domain: &str, part: &str, api: &str) -> Map<String, Value> {
        let slots = state.get(domain).and_then(|state| state.get(part));
        let filled = |name: &'static str| {
            let text = scalar_text(slots?.get(name)?)?.trim().to_lowercase();
            let absent = text.is_empty() || text == "not mentioned" || is_empty(&text, self.session.rules());
            (!absent && (part == "semi" || name != "name")).then(|| (name.to_owned(), json!(text)))
        };
        parameter_names(api).filter_map(filled).collect()
    }
}

fn in_order(api: &str, mut details: Map<String, Value>, domain: &str, entity: Value) -> Map<String, Value> {
    details.insert(unique_key(domain).to_owned(), entity);
    parameter_names(api).filter_map(|name| Some((name.to_owned(), details.get(name)?.clone()))).collect()
}

fn booked<'a>(state: &'a Map<String, Value>, domain: &str) -> &'a [Value] {
    state
        .get(domain)
        .and_then(|state| state.pointer("/book/booked"))
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// How much of a log an agent would see answered: without a closing exchange of farewells, for an agent does not answer the
/// customer's last words (reference, section 2.5).
fn spoken(log: &[Turn]) -> usize {
    let [rest @ .., customer, system] = log else { return log.len() };
    let unchanged =
        rest.iter().rfind(|turn| !turn.metadata.is_empty()).is_some_and(|turn| turn.metadata == system.metadata);
    let bye = has_any(&words(&customer.text), &["bye", "goodbye", "that is all", "thats all", "thank you", "thanks"]);
    if unchanged && bye && !customer.text.contains('?') { rest.len() } else { log.len() }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::convert::{Converter, Splits, world_items};
    use super::super::multiwoz::Outline;
    use super::super::synth::Synthesizer;
    use super::super::synth_goal::GoalMix;
    use super::super::synth_world::databases;
    use super::super::user_agenda::END;
    use super::*;

    fn each_synthetic(count: usize, mut check: impl FnMut(Demonstration, Vec<Message>)) {
        let mix = GoalMix { domains: DOMAINS.map(str::to_owned).to_vec(), max_domains: 2, failing: 0.3 };
        let mut synthesizer = Synthesizer::new(11, mix).unwrap();
        let items = world_items(&databases(11), &Rules::default());
        let world = Arc::new(World::from_items(items.clone()).unwrap());
        let mut converter = Converter::new(&items, Splits::default(), Rules::default()).unwrap();
        for index in 0..count {
            let made = synthesizer.dialogue(index).unwrap();
            let state = made.dialogue.log.last().unwrap().metadata.clone();
            let outline = Outline { goal: made.dialogue.goal.clone(), state };
            let task = converter.convert(&made.name, &outline).unwrap().unwrap();
            let demonstration = demonstrate(&world, Arc::new(task), &made.dialogue, Rules::default()).unwrap();
            check(demonstration, made.internal);
        }
    }

    #[test]
    fn synthetic_dialogues_are_shown_as_the_agent_lived_them() {
        each_synthetic(60, |demonstration, mut lived| {
            assert_eq!(demonstration.reward, 1.0);
            let farewell = lived.pop().unwrap();
            assert!(farewell.content.contains(END));
            assert_eq!(demonstration.messages, lived);
        });
    }

    #[test]
    fn a_log_that_does_not_alternate_is_refused() {
        let items = world_items(&databases(1), &Rules::default());
        let world = Arc::new(World::from_items(items).unwrap());
        let task = Task {
            dialogue: "A".into(),
            split: "train".into(),
            message: String::new(),
            domains: Vec::new(),
            goals: Vec::new(),
        };
        let turn = |text: &str| Turn { text: text.into(), metadata: Map::new() };
        let dialogue = Dialogue { goal: Map::new(), log: vec![turn("hello"), turn("hello?")] };
        let error = demonstrate(&world, Arc::new(task), &dialogue, Rules::default()).unwrap_err();
        assert_eq!(error.to_string(), "dialogue `A`: utterance 1: customer and system do not alternate");
    }
}
