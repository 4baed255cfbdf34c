//! Goals of the invented town's customers, in the layout of MultiWOZ: each has an answer in the databases.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use serde_json::{Map, Value, json};

use super::lexicon::DAYS;
use super::synth_world::{AREAS, FOODS, PRICES, SIGHTS, pick, time};
use super::tools::{DOMAINS, unique_key};
use super::user_words::{Said, attribute, clauses, details, joined};
use super::world::Record;

/// A goal, and what will be booked.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledGoal {
    /// The goal as it stands in `data.json`: the domains and `message`.
    pub goal: Map<String, Value>,
    /// The bookings as the last state records them: the domain, and `{name | trainID, reference}`.
    pub booked: Vec<(String, Value)>,
}

/// What goals are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct GoalMix {
    /// The domains that goals may have.
    pub domains: Vec<String>,
    /// The most domains of one goal.
    pub max_domains: usize,
    /// The share of searches, and of bookings, that the customer first tries with values that fail.
    pub failing: f64,
}

type Slots = Vec<(&'static str, String)>;

/// Draws a goal.
pub fn sample(rng: &mut ChaCha8Rng, databases: &[(String, Vec<Record>)], mix: &GoalMix) -> SampledGoal {
    let mut domains: Vec<&str> = mix.domains.iter().map(String::as_str).collect();
    domains.shuffle(rng);
    domains.truncate(rng.random_range(1..=mix.max_domains.clamp(1, domains.len().max(1))));
    let mut sampled = SampledGoal { goal: Map::new(), booked: Vec::new() };
    let mut message = vec!["You plan a visit to the town.".to_owned()];
    for domain in DOMAINS.into_iter().chain(["taxi", "police", "hospital"]) {
        sampled.goal.insert(domain.to_owned(), json!({}));
    }
    for domain in domains {
        let Some((_, records)) = databases.iter().find(|(name, _)| name == domain) else { continue };
        let goal = DomainGoal::sample(rng, domain, records, mix.failing);
        message.extend(goal.message(domain));
        if !goal.book.is_empty() {
            let key = unique_key(domain);
            let booked = json!({ key: goal.record.get(key), "reference": reference(rng) });
            sampled.booked.push((domain.to_owned(), booked));
        }
        sampled.goal.insert(domain.to_owned(), goal.json());
    }
    sampled.goal.insert("message".to_owned(), json!(message));
    sampled
}

/// A reference of two syllables and a digit: short, and easy to copy.
fn reference(rng: &mut ChaCha8Rng) -> String {
    let consonants = ["B", "D", "F", "K", "L", "M", "N", "P", "R", "S", "T", "V"];
    let vowels = ["A", "E", "I", "O", "U"];
    let mut text = String::new();
    for letters in [&consonants[..], &vowels, &consonants, &vowels] {
        text.push_str(pick(rng, letters));
    }
    text.push_str(&rng.random_range(1..10).to_string());
    text
}

struct DomainGoal {
    record: Record,
    info: Slots,
    fail_info: Slots,
    book: Slots,
    fail_book: Slots,
    requests: Vec<&'static str>,
}

impl DomainGoal {
    fn sample(rng: &mut ChaCha8Rng, domain: &str, records: &[Record], failing: f64) -> Self {
        let record = records[rng.random_range(0..records.len())].clone();
        let info = info(rng, domain, &record);
        let fails = domain != "train" && rng.random_bool(failing);
        let fail_info = if fails { unanswerable(rng, domain, &info, records) } else { Slots::new() };
        let book = booking(rng, domain);
        let fails = !book.is_empty() && domain != "train" && rng.random_bool(failing);
        let fail_book = if fails { other_booking(rng, domain, &book) } else { Slots::new() };
        let requests = requests(rng, domain, book.is_empty());
        Self { record, info, fail_info, book, fail_book, requests }
    }

    fn json(&self) -> Value {
        let mut goal = Map::new();
        goal.insert("info".to_owned(), object(&self.info));
        goal.insert("fail_info".to_owned(), object(&self.fail_info));
        if !self.requests.is_empty() {
            goal.insert("reqt".to_owned(), json!(self.requests));
        }
        if !self.book.is_empty() {
            goal.insert("book".to_owned(), object(&self.book));
            goal.insert("fail_book".to_owned(), object(&self.fail_book));
        }
        Value::Object(goal)
    }

    /// The goal in sentences, values emphasised.
    fn message(&self, domain: &str) -> Vec<String> {
        let emphasis = |text: &str| format!("<span class='emphasis'>{text}</span>");
        let what = match domain {
            "hotel" => "place to stay",
            other => other,
        };
        let constraints = |slots: &Slots| emphasis(&clauses(domain, &said(slots)));
        let mut lines = vec![format!("You need {} {}.", article(what), emphasis(what))];
        if self.fail_info.is_empty() {
            lines.push(format!("It should {}.", constraints(&self.info)));
        } else {
            lines.push(format!("At first ask that it should {}.", constraints(&self.fail_info)));
            lines.push(format!("If there is none, it should {}.", constraints(&self.info)));
        }
        if !self.book.is_empty() {
            lines.push(format!("Once it is found, book it {}.", emphasis(&details(&said(&self.book)))));
        }
        if !self.fail_book.is_empty() {
            let first = emphasis(&details(&said(&self.fail_book)));
            lines.pop();
            lines.push(format!("Once it is found, try to book it {first}."));
            lines.push(format!("If that fails, book it {}.", emphasis(&details(&said(&self.book)))));
        }
        if !self.requests.is_empty() {
            let names: Vec<String> = self.requests.iter().map(|name| emphasis(attribute(name))).collect();
            lines.push(format!("Ask for the {}.", joined(&names)));
        }
        lines
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with('a') { "an" } else { "a" }
}

fn said<'a>(slots: &'a Slots) -> Vec<Said<'a>> {
    slots.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

fn object(slots: &Slots) -> Value {
    Value::Object(slots.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect())
}

fn field(record: &Record, name: &str) -> String {
    record.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn some_of(
    rng: &mut ChaCha8Rng,
    record: &Record,
    slots: &[&'static str],
    counts: std::ops::RangeInclusive<usize>,
) -> Slots {
    let mut at: Vec<usize> = (0..slots.len()).collect();
    at.shuffle(rng);
    at.truncate(rng.random_range(counts));
    at.sort_unstable();
    at.into_iter().map(|at| (slots[at], field(record, slots[at]))).collect()
}

fn info(rng: &mut ChaCha8Rng, domain: &str, record: &Record) -> Slots {
    match domain {
        _ if domain != "train" && rng.random_bool(0.08) => vec![("name", field(record, "name"))],
        "restaurant" => some_of(rng, record, &["food", "pricerange", "area"], 2..=3),
        "hotel" => some_of(rng, record, &["pricerange", "area", "stars", "type", "internet", "parking"], 2..=3),
        "attraction" => some_of(rng, record, &["type", "area"], 2..=2),
        _ => train(rng, record),
    }
}

/// A train's ends and day, and a time that the train meets with a margin.
fn train(rng: &mut ChaCha8Rng, record: &Record) -> Slots {
    let minutes = |slot: &str| {
        let text = field(record, slot);
        let (hours, minutes) = text.split_once(':').unwrap_or(("0", "0"));
        hours.parse::<u32>().unwrap_or(0) * 60 + minutes.parse::<u32>().unwrap_or(0)
    };
    let mut slots: Slots = ["departure", "destination", "day"].map(|slot| (slot, field(record, slot))).into();
    let margin = 15 * rng.random_range(1..4);
    slots.push(if rng.random_bool(0.5) {
        ("leaveAt", time((minutes("leaveAt") - margin) / 15 * 15))
    } else {
        ("arriveBy", time((minutes("arriveBy") + margin).div_ceil(15) * 15))
    });
    slots
}

fn booking(rng: &mut ChaCha8Rng, domain: &str) -> Slots {
    let people = |rng: &mut ChaCha8Rng| ("people", rng.random_range(1..=4).to_string());
    let day = |rng: &mut ChaCha8Rng| ("day", pick(rng, DAYS).to_owned());
    match domain {
        "restaurant" if rng.random_bool(0.6) => {
            vec![people(rng), day(rng), ("time", time(60 * rng.random_range(12..20)))]
        }
        "hotel" if rng.random_bool(0.6) => vec![people(rng), ("stay", rng.random_range(1..=4).to_string()), day(rng)],
        "train" if rng.random_bool(0.6) => vec![people(rng)],
        _ => Slots::new(),
    }
}

/// The same booking with one value that will be refused.
fn other_booking(rng: &mut ChaCha8Rng, domain: &str, book: &Slots) -> Slots {
    let slot = if domain == "restaurant" { "time" } else { "stay" };
    let mut other = book.clone();
    let Some((_, value)) = other.iter_mut().find(|(name, _)| *name == slot) else { return Slots::new() };
    loop {
        let drawn = match slot {
            "time" => time(60 * rng.random_range(12..20)),
            _ => rng.random_range(1..=4).to_string(),
        };
        if drawn != *value {
            *value = drawn;
            return other;
        }
    }
}

/// The same constraints with one value changed so that no record fits; none where every change fits some record.
fn unanswerable(rng: &mut ChaCha8Rng, domain: &str, info: &Slots, records: &[Record]) -> Slots {
    let mut choices = Vec::new();
    for (at, (slot, value)) in info.iter().enumerate() {
        let others: &[&str] = match (domain, *slot) {
            (_, "food") => &FOODS,
            (_, "area") => &AREAS,
            (_, "pricerange") => &PRICES,
            ("attraction", "type") => &SIGHTS,
            (_, "stars") => &["1", "2", "3", "4"],
            _ => &[],
        };
        for other in others.iter().filter(|other| **other != value.as_str()) {
            let mut changed = info.clone();
            changed[at].1 = (*other).to_owned();
            let fits = |record: &Record| changed.iter().all(|(slot, value)| field(record, slot) == *value);
            if !records.iter().any(fits) {
                choices.push(changed);
            }
        }
    }
    if choices.is_empty() { Slots::new() } else { choices.swap_remove(rng.random_range(0..choices.len())) }
}

fn requests(rng: &mut ChaCha8Rng, domain: &str, only_search: bool) -> Vec<&'static str> {
    let choices: &[&'static str] = if domain == "train" { &["price", "duration"] } else { &["phone", "address"] };
    if !rng.random_bool(if only_search { 0.6 } else { 0.2 }) {
        return Vec::new();
    }
    match rng.random_range(0..3) {
        0 => choices.to_vec(),
        one => vec![choices[one - 1]],
    }
}

#[cfg(test)]
mod tests {
    use super::super::seed::generator;
    use super::super::synth_world::databases;
    use super::*;

    #[test]
    fn goals_have_answers_and_failures_have_none() {
        let databases = databases(1);
        let mix = GoalMix { domains: DOMAINS.map(str::to_owned).to_vec(), max_domains: 2, failing: 0.5 };
        let mut failing = 0;
        for index in 0..300 {
            let goal = sample(&mut generator(index, &["goal"]), &databases, &mix).goal;
            for (domain, records) in &databases {
                let fits = |slots: &Value| {
                    let slots = slots.as_object().cloned().unwrap_or_default();
                    records.iter().any(|record| {
                        slots.iter().all(|(slot, value)| match slot.as_str() {
                            "leaveAt" => record["leaveAt"].as_str() > value.as_str(),
                            "arriveBy" => record["arriveBy"].as_str() < value.as_str(),
                            _ => record.get(slot) == Some(value),
                        })
                    })
                };
                let Some(info) = goal[domain].get("info") else { continue };
                assert!(fits(info), "{goal:?}");
                let fail = &goal[domain]["fail_info"];
                if fail.as_object().is_some_and(|fail| !fail.is_empty()) {
                    failing += 1;
                    assert!(!fits(fail), "{goal:?}");
                }
            }
        }
        assert!(failing > 30);
    }
}
