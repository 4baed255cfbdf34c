//! The rule agent's sentences: short, two or three wordings each.

use rand::rngs::ChaCha8Rng;
use serde_json::{Map, Value};

use super::hearing::domain_slots;
use super::user_words::{attribute, joined, one_of, question_word, thing};

/// What the agent thinks before a call: `search hotel`.
pub fn plan(api: &str) -> String {
    api.replace('_', " ")
}

fn field<'a>(row: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    row.get(name).and_then(Value::as_str).filter(|text| !text.is_empty() && *text != "?")
}

/// Offers what a search served.
pub fn offer(rng: &mut ChaCha8Rng, domain: &str, row: &Map<String, Value>) -> String {
    if domain == "train" {
        let id = field(row, "trainID").unwrap_or("it");
        let times = [("leaveAt", "leaves at"), ("arriveBy", "arrives at")];
        let times: Vec<String> =
            times.iter().filter_map(|(slot, verb)| field(row, slot).map(|time| format!("{verb} {time}"))).collect();
        return if times.is_empty() { format!("i found {id}.") } else { format!("{id} {}.", joined(&times)) };
    }
    let shown =
        domain_slots(domain).iter().filter(|slot| matches!(**slot, "pricerange" | "food" | "stars" | "area" | "type"));
    let slots: Vec<(&str, &str)> = shown.filter_map(|slot| field(row, slot).map(|value| (*slot, value))).collect();
    let name = field(row, "name").unwrap_or("it");
    let what = thing(domain, &slots);
    match one_of(rng, &["found", "is"]) {
        "found" => format!("i found {name}, {what}."),
        _ => format!("{name} is {what}."),
    }
}

/// Says that nothing was found.
pub fn nothing(rng: &mut ChaCha8Rng) -> String {
    one_of(rng, &["sorry, i found nothing like that.", "sorry, there is no such place."]).to_owned()
}

/// Says that no train was found.
pub fn no_train(rng: &mut ChaCha8Rng) -> String {
    one_of(rng, &["sorry, i found no such train.", "sorry, there is no such train."]).to_owned()
}

/// Tells a booking's reference.
pub fn booked(rng: &mut ChaCha8Rng, reference: &str) -> String {
    format!("{} {reference}.", one_of(rng, &["booked. the reference is", "it is booked, reference"]))
}

/// Says that a booking was refused.
pub fn refused(rng: &mut ChaCha8Rng) -> String {
    one_of(rng, &["sorry, the booking failed.", "sorry, i could not book it."]).to_owned()
}

/// Asks for slots.
pub fn question(slots: &[&str]) -> String {
    let list: Vec<String> = slots
        .iter()
        .map(|slot| match *slot {
            "people" => "how many people".to_owned(),
            "stay" => "how many nights".to_owned(),
            other => format!("which {}", question_word(other)),
        })
        .collect();
    format!("{}?", joined(&list))
}

/// Tells attributes of what a search served; those that it lacks are said to be unknown.
pub fn facts(row: &Map<String, Value>, names: &[&str]) -> String {
    let list: Vec<String> = names
        .iter()
        .map(|name| match field(row, name) {
            Some(value) => format!("the {} is {value}", attribute(name)),
            None => format!("the {} is unknown", attribute(name)),
        })
        .collect();
    format!("{}.", joined(&list))
}

/// Offers help.
pub fn anything_else(rng: &mut ChaCha8Rng) -> String {
    one_of(rng, &["anything else?", "can i help with anything else?"]).to_owned()
}
