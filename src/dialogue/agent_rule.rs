//! The rule-based agent: a chat model that understands by keywords, and can be made to err.
//!
//! It keeps no dialogue but to read it faster. From the chat alone it works out what the customer wants, what was searched and booked, and writes
//! its next command in the ReAct form. With `noise` above 0 a decision is spoilt with that probability, drawn from the
//! request's seed: then different seeds take different ways, which a search over dialogues can choose among.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::LocalBoxFuture;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde_json::{Map, Value};

use super::agent_words as say;
use super::belief::{Belief, Beliefs, Effect};
use super::command::{Command, parse};
use super::hearing::asked_slots;
use super::lexicon::Lexicon;
use super::react::observation;
use super::seed;
use super::tools::{parameter_names, unique_key};
use crate::chat::{Chat, Message, Role};
use crate::llm::{ChatModel, ChatRequest, ModelError, Reply};

/// The rule agent of one world.
#[derive(Debug)]
pub struct RuleAgent {
    lexicon: Arc<Lexicon>,
    noise: f64,
    /// The chats that were read last, the latest at the end: a chat that goes on from one of them is read from there.
    known: Mutex<VecDeque<(Chat, Arc<View>)>>,
}

/// Chats that are remembered: enough for the branches of a tree of dialogues.
const KNOWN: usize = 64;

/// A call that stands in the chat, and what came of it.
#[derive(Debug)]
struct Done {
    api: String,
    arguments: Map<String, Value>,
    answer: Value,
}

/// What the agent does next.
#[derive(Clone, Debug, PartialEq)]
enum Decision {
    Call { api: String, arguments: Map<String, Value> },
    Say(String),
}

/// The chat as the agent understands it.
#[derive(Clone, Debug, Default)]
struct View {
    beliefs: Beliefs,
    effect: Effect,
    /// The call that the next message answers.
    pending: Option<(String, Map<String, Value>)>,
    done: Vec<Arc<Done>>,
    /// Where in `done` the present turn starts.
    turn: usize,
    asked: BTreeSet<&'static str>,
    said: String,
}

impl RuleAgent {
    /// An agent that understands by this lexicon and errs with probability `noise` (0 to 1) at each decision.
    pub fn new(lexicon: Arc<Lexicon>, noise: f64) -> Self {
        Self { lexicon, noise: noise.clamp(0.0, 1.0), known: Mutex::default() }
    }

    /// The next reply to a chat. The same chat and seed give the same text.
    pub fn reply(&self, chat: &Chat, seed: u64) -> String {
        let mut rng = seed::generator(seed, &["rule-agent"]);
        let view = self.view(chat);
        let decision = view.decide(&mut rng);
        let decision = if rng.random_bool(self.noise) { self.spoil(decision, &mut rng) } else { decision };
        match decision {
            Decision::Say(text) => Command::Speak(text).text(),
            Decision::Call { api, arguments } => {
                let plan = Command::Plan(say::plan(&api)).text();
                format!("{plan} {}", Command::Call { api, arguments: Value::Object(arguments) }.text())
            }
        }
    }

    /// The chat as it is understood: from where it goes on from one that was read before.
    fn view(&self, chat: &Chat) -> Arc<View> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.iter().rev().find(|(before, _)| chat.continues(before));
        let (length, mut view) =
            before.map_or((0, View::default()), |(before, view)| (before.len(), view.as_ref().clone()));
        view.read(&chat.since(length), &self.lexicon);
        let view = Arc::new(view);
        if known.len() == KNOWN {
            known.pop_front();
        }
        known.push_back((chat.clone(), view.clone()));
        view
    }

    /// Spoils a decision: a slot is dropped or gets a value of its kind, or the call is not made, or a booking is claimed.
    fn spoil(&self, decision: Decision, rng: &mut ChaCha8Rng) -> Decision {
        let Decision::Call { api, mut arguments } = decision else {
            return Decision::Say(say::anything_else(rng));
        };
        if arguments.is_empty() || rng.random_bool(0.25) {
            let claim = if api.starts_with("book") { say::booked(rng, "OK") } else { say::anything_else(rng) };
            return Decision::Say(claim);
        }
        let slot = arguments.keys().nth(rng.random_range(0..arguments.len())).cloned().unwrap_or_default();
        let domain = api.split_once('_').map_or("", |(_, domain)| domain);
        let others = self.others(domain, &slot, &arguments);
        if others.is_empty() || rng.random_bool(0.5) {
            arguments.shift_remove(&slot);
        } else {
            let other = &others[rng.random_range(0..others.len())];
            arguments.insert(slot, Value::from(self.lexicon.spelt(other)));
        }
        Decision::Call { api, arguments }
    }

    fn others(&self, domain: &str, slot: &str, arguments: &Map<String, Value>) -> Vec<String> {
        let words: Vec<String> = match slot {
            "name" | "trainID" => self.lexicon.names(domain).to_vec(),
            "people" | "stay" | "stars" => (1..=5).map(|count| count.to_string()).collect(),
            "day" => super::lexicon::DAYS.iter().map(|day| (*day).to_owned()).collect(),
            "time" | "leaveAt" | "arriveBy" => (8..20).map(|hour| format!("{hour:02}:00")).collect(),
            _ => self.lexicon.values(domain, slot).to_vec(),
        };
        let present = arguments.get(slot).and_then(Value::as_str).unwrap_or_default();
        words.into_iter().filter(|word| word != present).collect()
    }
}

impl ChatModel for RuleAgent {
    fn complete(&self, request: ChatRequest) -> LocalBoxFuture<'_, Result<Reply, ModelError>> {
        let text = self.reply(&request.chat, request.seed);
        // Rules read and write no tokens.
        Box::pin(ready(Ok(Reply {
            text,
            tool_calls: Vec::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            cut_off: false,
        })))
    }
}

impl View {
    /// Reads on.
    fn read(&mut self, messages: &[&Message], lexicon: &Lexicon) {
        for message in messages.iter().filter(|message| message.role != Role::System) {
            if message.role == Role::Assistant {
                self.pending = self.read_commands(&message.content);
            } else if let Some(text) = observation(message) {
                if let Some((api, arguments)) = self.pending.take() {
                    let answer = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
                    self.done.push(Arc::new(Done { api, arguments, answer }));
                }
            } else {
                self.effect = self.beliefs.hear(lexicon, &self.said, &message.content);
                self.turn = self.done.len();
            }
        }
    }

    /// Reads what the agent wrote; returns the call that the next message answers.
    fn read_commands(&mut self, text: &str) -> Option<(String, Map<String, Value>)> {
        let mut call = None;
        for command in parse(text) {
            match command {
                Command::Call { api, arguments: Value::Object(arguments) } => call = Some((api, arguments)),
                Command::Speak(said) => {
                    if let Some(domain) = self.beliefs.current.filter(|domain| !asked_slots(&said, domain).is_empty()) {
                        self.asked.insert(domain);
                    }
                    self.said = said;
                }
                _ => {}
            }
        }
        call
    }

    fn decide(&self, rng: &mut ChaCha8Rng) -> Decision {
        let Some(domain) = self.beliefs.current else {
            return Decision::Say(say::anything_else(rng));
        };
        let belief = self.beliefs.of(domain);
        let search = format!("search_{domain}");
        let book = format!("book_{domain}");
        let wants_search = self.effect.informed || belief.wants_booking && self.last(&search).is_none();
        if wants_search && self.is_ready(domain, &belief) && !self.in_turn(&search) {
            let arguments = ordered(&search, &belief.info);
            if self.last(&search).is_none_or(|last| last.arguments != arguments) {
                return Decision::Call { api: search, arguments };
            }
        }
        if let Some(arguments) = self.booking(domain, &belief, &book) {
            return Decision::Call { api: book, arguments };
        }
        Decision::Say(self.speech(domain, &belief, rng))
    }

    /// The booking to be made now: asked for, complete, and not already tried with these arguments.
    fn booking(&self, domain: &str, belief: &Belief, book: &str) -> Option<Map<String, Value>> {
        let wanted = belief.wants_booking && (self.effect.booking || self.in_turn(&format!("search_{domain}")));
        if !wanted || self.in_turn(book) || !missing(domain, belief).is_empty() {
            return None;
        }
        let entity = belief.entity.clone().or_else(|| self.found(domain))?;
        let mut slots = belief.book.clone();
        slots.insert(unique_key(domain), entity);
        let arguments = ordered(book, &slots);
        self.last(book).is_none_or(|last| last.arguments != arguments).then_some(arguments)
    }

    fn speech(&self, domain: &str, belief: &Belief, rng: &mut ChaCha8Rng) -> String {
        let mut parts = Vec::new();
        let row = self.row(domain);
        if let Some(done) = self.done[self.turn..].last() {
            parts.push(self.report(domain, done, rng));
        } else if self.effect.informed && row.is_none() && !self.is_ready(domain, belief) {
            return say::question(&open_slots(domain, belief));
        }
        if let Some(row) = row.filter(|_| !self.effect.requests.is_empty()) {
            parts.push(say::facts(row, &self.effect.requests));
        }
        let missing = missing(domain, belief);
        let may_book = parts.is_empty() && belief.wants_booking && row.is_some();
        if may_book && self.effect.booking && !missing.is_empty() {
            return say::question(&missing);
        }
        if let Some(last) = self.last(&format!("book_{domain}")).filter(|_| may_book && self.effect.booking) {
            parts.push(self.report(domain, last, rng));
        } else if let Some(row) = row.filter(|_| parts.is_empty() && self.effect.informed) {
            parts.push(say::offer(rng, domain, row));
        } else if parts.is_empty() && self.effect.informed && self.last(&format!("search_{domain}")).is_some() {
            parts.push(if domain == "train" { say::no_train(rng) } else { say::nothing(rng) });
        }
        if parts.is_empty() { say::anything_else(rng) } else { parts.join(" ") }
    }

    /// Tells the customer what came of a call.
    fn report(&self, domain: &str, done: &Done, rng: &mut ChaCha8Rng) -> String {
        if done.api.starts_with("book") {
            let reference = done.answer.pointer("/return/reference").and_then(Value::as_str);
            return match (done.answer.get("success"), reference) {
                (Some(Value::Bool(true)), reference) => say::booked(rng, reference.unwrap_or("unknown")),
                _ => say::refused(rng),
            };
        }
        match done.answer.get(0).and_then(Value::as_object) {
            Some(row) => say::offer(rng, domain, row),
            None if domain == "train" => say::no_train(rng),
            None => say::nothing(rng),
        }
    }

    fn is_ready(&self, domain: &str, belief: &Belief) -> bool {
        let known = |slots: &[&str]| slots.iter().filter(|slot| belief.info.contains_key(**slot)).count();
        match domain {
            _ if belief.info.contains_key("name") => true,
            "train" => known(&["departure", "destination", "day"]) == 3,
            "attraction" => !belief.info.is_empty() || self.asked.contains(domain),
            _ => belief.info.len() >= 2 || self.asked.contains(domain) && !belief.info.is_empty(),
        }
    }

    fn last(&self, api: &str) -> Option<&Done> {
        self.done.iter().rfind(|done| done.api == api).map(Arc::as_ref)
    }

    fn in_turn(&self, api: &str) -> bool {
        self.done[self.turn..].iter().any(|done| done.api == api)
    }

    /// What the last search of a domain served.
    fn row(&self, domain: &str) -> Option<&Map<String, Value>> {
        self.last(&format!("search_{domain}"))?.answer.get(0)?.as_object()
    }

    fn found(&self, domain: &str) -> Option<String> {
        self.row(domain)?.get(unique_key(domain))?.as_str().map(str::to_owned)
    }
}

/// The booking details that are still to be asked for.
fn missing(domain: &str, belief: &Belief) -> Vec<&'static str> {
    let needed: &[&'static str] = match domain {
        "restaurant" => &["people", "day", "time"],
        "hotel" => &["people", "stay", "day"],
        "train" => &["people"],
        _ => &[],
    };
    needed.iter().copied().filter(|slot| !belief.book.contains_key(slot)).collect()
}

/// The constraints to ask for.
fn open_slots(domain: &str, belief: &Belief) -> Vec<&'static str> {
    let core: &[&'static str] = match domain {
        "restaurant" => &["food", "pricerange", "area"],
        "hotel" => &["pricerange", "area"],
        "attraction" => &["type", "area"],
        _ => &["departure", "destination", "day"],
    };
    core.iter().copied().filter(|slot| !belief.info.contains_key(slot)).collect()
}

/// Slots as arguments, in the order of the tool's parameters: one way to write a call, so that it can be learnt.
pub fn ordered(api: &str, slots: &BTreeMap<&'static str, String>) -> Map<String, Value> {
    parameter_names(api).filter_map(|name| Some((name.to_owned(), Value::from(slots.get(name)?.as_str())))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::react::observed;
    use super::super::task::WorldItem;
    use super::super::world::World;
    use super::*;

    fn agent(noise: f64) -> RuleAgent {
        let body = r#"{"name": "golden lantern", "food": "thai", "area": "north", "pricerange": "cheap"}"#;
        let item = WorldItem { part: "record".into(), name: "restaurant".into(), body: body.into() };
        RuleAgent::new(Arc::new(Lexicon::new(&World::from_items([item]).unwrap())), noise)
    }

    #[test]
    fn it_searches_offers_and_books() {
        let agent = agent(0.0);
        let mut chat: Chat = [Message::user("i need a thai restaurant in the north.")].into_iter().collect();
        let reply = agent.reply(&chat, 1);
        assert_eq!(
            reply,
            r#"PLAN search restaurant <COMMAND_END> APICALL {"name": "search_restaurant", "parameters": {"food": "thai", "area": "north"}} <COMMAND_END>"#
        );
        chat.push(Message::assistant(reply));
        chat.push(observed(r#"[{"name": "golden lantern", "food": "thai", "area": "north"}]"#));
        let reply = agent.reply(&chat, 2);
        assert!(reply.starts_with("SPEAK ") && reply.contains("golden lantern"), "{reply}");
        chat.push(Message::assistant(reply));
        chat.push(Message::user("book it for 2 people on friday at 18:00."));
        let reply = agent.reply(&chat, 3);
        assert!(
            reply.contains(r#"{"time": "18:00", "day": "friday", "people": "2", "name": "golden lantern"}"#),
            "{reply}"
        );
    }

    #[test]
    fn it_asks_when_it_knows_too_little() {
        let reply = agent(0.0).reply(&[Message::user("i want a restaurant in the north.")].into_iter().collect(), 1);
        assert_eq!(reply, "SPEAK which food and which price range? <COMMAND_END>");
    }

    #[test]
    fn noise_is_drawn_from_the_seed() {
        let chat = [Message::user("i need a cheap thai restaurant in the north.")].into_iter().collect();
        let noisy = agent(1.0);
        let replies: BTreeSet<String> = (0..20).map(|seed| noisy.reply(&chat, seed)).collect();
        assert!(replies.len() > 3 && !replies.contains(&agent(0.0).reply(&chat, 0)));
        assert_eq!(noisy.reply(&chat, 5), noisy.reply(&chat, 5));
    }
}
