//! MultiWOZ's dialogues turned into ToolWOZ's tasks (reference, section 2.2).

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::multiwoz::{Goal, Outline};
use super::observation::sqlite_columns;
use super::python_json::dumps;
use super::rules::Columns;
use super::task::{DomainGoal, GoalCall, Slot, Task, WorldItem};
use super::tools::{DOMAINS, TOOLS, parameter_names, unique_key};
use super::values::{is_empty, scalar_text};
use super::world::{Record, World, WorldError};
use crate::compat::Rules;
use crate::seed::derive;
use crate::value::described;

/// A dialogue that is no dialogue of MultiWOZ.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` is {found}, expected {expected}")]
pub struct ConvertError {
    path: String,
    found: &'static str,
    expected: &'static str,
}

/// Which dialogues are set apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Splits {
    /// The names of the validation dialogues.
    pub val: BTreeSet<String>,
    /// The names of the test dialogues.
    pub test: BTreeSet<String>,
}

impl Splits {
    /// Reads two lists of names, one a line.
    pub fn from_lists(val: &str, test: &str) -> Self {
        let names =
            |list: &str| list.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self { val: names(val), test: names(test) }
    }

    /// Where a dialogue belongs: `test`, `val`, or `train` for all the others.
    pub fn split(&self, dialogue: &str) -> &'static str {
        if self.test.contains(dialogue) {
            "test"
        } else if self.val.contains(dialogue) {
            "val"
        } else {
            "train"
        }
    }
}

/// What a conversion did with the dialogues that it saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Dialogues seen.
    pub dialogues: usize,
    /// Tasks made of them.
    pub tasks: usize,
    /// Dialogues left out because their goal asks for a domain without tools; by the first such domain of taxi, police,
    /// hospital.
    pub untooled: [usize; 3],
    /// Dialogues left out because nothing in their goal earns reward.
    pub without_goals: usize,
    /// Bookings that a goal asks for and no call of the task stands for, since the dialogue records none or not what was
    /// booked (quirk Q11); by domain in the order of [`DOMAINS`].
    pub unrecorded_bookings: [usize; 4],
    /// Dialogues left out because of such a booking.
    pub left_out: usize,
    /// Such bookings that became goals all the same.
    pub made_up_bookings: usize,
}

/// What becomes of a booking that a goal asks for and the dialogue does not record (quirk Q11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unrecorded {
    /// It earns nothing; the task's other goals stay. As the reference has it.
    #[default]
    Drop,
    /// The whole dialogue is left out.
    LeaveOut,
    /// It is a goal: the entity is the annotated one, or the first that the goal's search finds, and the reference number is
    /// made up. Where neither names an entity it is dropped.
    Keep,
}

/// The domains whose dialogues are left out.
const UNTOOLED: [&str; 3] = ["taxi", "police", "hospital"];

/// Where the SQLite records of the published trees differ from the JSON records: domain, name, field, SQLite's value.
const SQLITE_DIFFERENCES: [(&str, &str, &str, &str); 3] = [
    ("restaurant", "ask restaurant", "name", "ask"),
    ("restaurant", "meze bar", "name", "meze bar restaurant"),
    ("hotel", "allenbell", "takesbookings", "NULL"),
];

/// The items of a world: the records domain by domain in the order of [`DOMAINS`], then the tools.
pub fn world_items(databases: &[(String, Vec<Record>)], rules: &Rules) -> Vec<WorldItem> {
    let record = |domain: &str, record: &Record| WorldItem {
        part: "record".to_owned(),
        name: domain.to_owned(),
        body: Value::Object(in_era(domain, record.clone(), rules)).to_string(),
    };
    let records = DOMAINS.iter().flat_map(|domain| {
        let databases = databases.iter().filter(move |(name, _)| name == domain);
        databases.flat_map(|(domain, records)| records.iter().map(move |found| record(domain, found)))
    });
    records.chain(TOOLS.iter().map(super::tools::Tool::item)).collect()
}

/// A record as the rules' era had it.
fn in_era(domain: &str, mut record: Record, rules: &Rules) -> Record {
    if rules.sqlite_records() {
        let name = record.get("name").cloned();
        for (_, _, field, value) in
            SQLITE_DIFFERENCES.iter().filter(|other| other.0 == domain && name == Some(other.1.into()))
        {
            record.insert((*field).to_owned(), Value::from(*value));
        }
    }
    record
}

/// Turns dialogues into tasks, one at a time.
#[derive(Clone, Debug)]
pub struct Converter {
    world: World,
    splits: Splits,
    rules: Rules,
    unrecorded: Unrecorded,
    report: Report,
}

impl Converter {
    /// A converter over the records of `items`.
    ///
    /// # Errors
    /// When the items make no world.
    pub fn new(items: &[WorldItem], splits: Splits, rules: Rules) -> Result<Self, WorldError> {
        let world = World::from_items(items.iter().cloned())?;
        Ok(Self { world, splits, rules, unrecorded: Unrecorded::default(), report: Report::default() })
    }

    /// The same with another way of treating bookings that are not recorded.
    pub fn with_unrecorded(self, unrecorded: Unrecorded) -> Self {
        Self { unrecorded, ..self }
    }

    /// The task of a dialogue; `None` for one that has no place in ToolWOZ, which the report counts.
    ///
    /// # Errors
    /// When the dialogue is not laid out as MultiWOZ's.
    pub fn convert(&mut self, dialogue: &str, outline: &Outline) -> Result<Option<Task>, ConvertError> {
        self.report.dialogues += 1;
        for (domain, dropped) in UNTOOLED.iter().zip(&mut self.report.untooled) {
            if object(&outline.goal, domain, "goal")?.is_some_and(|goal| !goal.is_empty()) {
                *dropped += 1;
                return Ok(None);
            }
        }
        let (mut domains, mut goals, mut lacking) = (Vec::new(), Vec::new(), false);
        for (index, domain) in DOMAINS.into_iter().enumerate() {
            let Some(goal) = object(&outline.goal, domain, "goal")?.filter(|goal| !goal.is_empty()) else { continue };
            let goal = domain_goal(domain, goal)?;
            goals.extend(search_goal(&goal));
            if !goal.book.is_empty() {
                let mut booking = self.booking_goal(&goal, outline, booked(&outline.state, domain)?);
                if booking.is_none() {
                    self.report.unrecorded_bookings[index] += 1;
                    lacking = true;
                    if self.unrecorded == Unrecorded::Keep {
                        booking = self.booking_goal(&goal, outline, Some(made_up(dialogue, domain)));
                        self.report.made_up_bookings += usize::from(booking.is_some());
                    }
                }
                goals.extend(booking);
            }
            domains.push(goal);
        }
        if lacking && self.unrecorded == Unrecorded::LeaveOut {
            self.report.left_out += 1;
            return Ok(None);
        }
        tie_searches_to_bookings(&mut goals);
        if goals.is_empty() {
            self.report.without_goals += 1;
            return Ok(None);
        }
        self.report.tasks += 1;
        let message = message(&outline.goal)?;
        domains.sort_by_key(|goal| mention(&message, &goal.domain));
        let (dialogue, split) = (dialogue.to_owned(), self.splits.split(dialogue).to_owned());
        Ok(Some(Task { dialogue, split, message, domains, goals }))
    }

    /// What happened so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The booking that an entry stands for; `None` of no entry, or of one that does not say what was booked.
    fn booking_goal(
        &self,
        goal: &DomainGoal,
        outline: &Outline,
        entry: Option<Map<String, Value>>,
    ) -> Option<GoalCall> {
        let domain = goal.domain.as_str();
        let mut returns = entry?;
        let key = unique_key(domain);
        for missing in [key, "reference"] {
            if !returns.contains_key(missing) {
                returns.insert(missing.to_owned(), self.supply(goal, missing, &outline.state)?);
            }
        }
        let unique_id = returns[key].as_str().map_or_else(|| dumps(&returns[key]), str::to_owned);
        let api = format!("book_{domain}");
        let mut parameters = parameters(&api, &[&goal.book]);
        for slot in parameters.iter_mut().filter(|slot| slot.name == key) {
            slot.value.clone_from(&unique_id);
        }
        let returns = dumps(&Value::Object(returns));
        Some(GoalCall { api, parameters, unique_id: Some(unique_id), returns: Some(returns) })
    }

    /// What a recorded booking lacks: from the annotated constraints, or from the first record that the goal's search finds
    /// (quirk Q1).
    fn supply(&self, goal: &DomainGoal, key: &str, state: &Map<String, Value>) -> Option<Value> {
        let annotated = state.get(&goal.domain).and_then(|state| state.get("semi")).and_then(|semi| semi.get(key));
        if let Some(value) = annotated.filter(|value| value.as_str().is_some_and(|text| !is_empty(text, &self.rules))) {
            return Some(value.clone());
        }
        let table = self.world.table(&goal.domain)?;
        let wanted = parameters(&format!("search_{}", goal.domain), &[&goal.info]);
        let doubled =
            |text: &str| if self.rules.doubles_apostrophes() { text.replace('\'', "''") } else { text.to_owned() };
        let wanted = wanted.iter().map(|slot| (slot.name.clone(), Value::from(doubled(&slot.value)))).collect();
        let found = *table.search(&wanted, &self.rules).first()?;
        let column = match self.rules.columns() {
            Columns::ByName => key,
            Columns::ByPosition => {
                let position = sqlite_columns(&goal.domain).iter().position(|column| *column == key)?;
                table.columns().get(position)?
            }
        };
        table.records()[found].get(column).cloned()
    }
}

/// A search must serve the entity that its domain's booking books.
fn tie_searches_to_bookings(goals: &mut [GoalCall]) {
    for index in 0..goals.len() {
        let Some(domain) = goals[index].api.strip_prefix("search_") else { continue };
        let booking = format!("book_{domain}");
        goals[index].unique_id = goals.iter().find(|goal| goal.api == booking).and_then(|goal| goal.unique_id.clone());
    }
}

fn search_goal(goal: &DomainGoal) -> Option<GoalCall> {
    let api = format!("search_{}", goal.domain);
    let parameters = parameters(&api, &[&goal.info]);
    (!goal.info.is_empty()).then_some(GoalCall { api, parameters, unique_id: None, returns: None })
}

/// All parameters of a tool in its order, each with the first value that the sources have, or empty.
fn parameters(api: &str, sources: &[&[Slot]]) -> Vec<Slot> {
    let value =
        |name: &str| sources.iter().copied().flatten().find(|slot| slot.name == name).map(|slot| slot.value.clone());
    parameter_names(api).map(|name| Slot { name: name.to_owned(), value: value(name).unwrap_or_default() }).collect()
}

/// An entry for a booking that no dialogue records: a reference number that depends on the names alone.
fn made_up(dialogue: &str, domain: &str) -> Map<String, Value> {
    let number = derive(0, &["unrecorded booking", dialogue, domain]);
    let letters = b"0123456789ABCDEFGHJKLMNPQRSTUVWX";
    let reference: String = (0..8).map(|place| char::from(letters[(number >> (5 * place) & 31) as usize])).collect();
    Map::from_iter([("reference".to_owned(), Value::from(reference))])
}

/// The last entry of a domain's list of bookings.
fn booked(state: &Map<String, Value>, domain: &str) -> Result<Option<Map<String, Value>>, ConvertError> {
    let path = || format!("{domain}.book.booked");
    let list = state.get(domain).and_then(|state| state.get("book")).and_then(|book| book.get("booked"));
    match list {
        None => Ok(None),
        Some(Value::Array(entries)) => match entries.last() {
            None => Ok(None),
            Some(Value::Object(entry)) => Ok(Some(entry.clone())),
            Some(other) => Err(wrong(path(), other, "a list of objects")),
        },
        Some(other) => Err(wrong(path(), other, "a list")),
    }
}

fn domain_goal(domain: &str, goal: &Map<String, Value>) -> Result<DomainGoal, ConvertError> {
    let path = format!("goal.{domain}");
    let slots = |key: &str| slots(goal, key, &path);
    let requests = match goal.get("reqt") {
        None => Vec::new(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(other) => return Err(wrong(format!("{path}.reqt"), other, "a list")),
    };
    Ok(DomainGoal {
        domain: domain.to_owned(),
        info: slots("info")?,
        fail_info: slots("fail_info")?,
        book: slots("book")?,
        fail_book: slots("fail_book")?,
        requests,
    })
}

/// The named values of an object; its truth values (`invalid`, `pre_invalid`) are marks of the source, not values.
fn slots(goal: &Map<String, Value>, key: &str, path: &str) -> Result<Vec<Slot>, ConvertError> {
    let Some(values) = object(goal, key, path)? else { return Ok(Vec::new()) };
    let slot = |(name, value): (&String, &Value)| match (value, scalar_text(value)) {
        (Value::Bool(_), _) => None,
        (_, Some(text)) => Some(Ok(Slot { name: name.clone(), value: text.into_owned() })),
        (other, None) => Some(Err(wrong(format!("{path}.{key}.{name}"), other, "a text"))),
    };
    values.iter().filter_map(slot).collect()
}

fn object<'a>(
    parent: &'a Map<String, Value>,
    key: &str,
    path: &str,
) -> Result<Option<&'a Map<String, Value>>, ConvertError> {
    match parent.get(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => Err(wrong(format!("{path}.{key}"), other, "an object")),
    }
}

fn message(goal: &Goal) -> Result<String, ConvertError> {
    match goal.get("message") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(lines)) => {
            let line =
                |line: &Value| line.as_str().map(str::to_owned).ok_or_else(|| wrong("goal.message", line, "texts"));
            Ok(lines.iter().map(line).collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        Some(other) => Err(wrong("goal.message", other, "a text or a list of texts")),
    }
}

/// Where a goal message first tells of a domain: at an emphasised phrase that introduces it, else at any of its words, else
/// never. The opening sentence names domains in passing ("excited about seeing local tourist attractions"), unemphasised.
fn mention(message: &str, domain: &str) -> (usize, usize) {
    let phrases: &[&str] = match domain {
        "hotel" => &["place to stay", "particular hotel", "hotel", "guesthouse"],
        "attraction" => &["places to go", "particular attraction", "attraction"],
        "train" => &["train"],
        _ => &["place to dine", "restaurant", "particular restaurant"],
    };
    let message = message.to_lowercase();
    let emphasised = phrases.iter().filter_map(|phrase| message.find(&format!(">{phrase}<"))).min();
    let plain = phrases.iter().filter_map(|phrase| message.find(phrase)).min();
    match (emphasised, plain) {
        (Some(at), _) => (0, at),
        (None, Some(at)) => (0, at),
        (None, None) => (1, 0),
    }
}

fn wrong(path: impl Into<String>, found: &Value, expected: &'static str) -> ConvertError {
    ConvertError { path: path.into(), found: described(found), expected }
}
