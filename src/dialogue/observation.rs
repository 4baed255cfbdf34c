//! What the agent sees of records and errors, and what is remembered of a call.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::python_json::{dumps, separate, write_string, write_value};
use super::rules::Shape;
use super::world::{Record, Table};

/// The server's answer to an unknown tool or parameter.
pub const NOT_ALLOWED: &str = "ERROR: INVALID API CALL! YOUR REQUEST CONTAINED PARAMETERS THAT ARE NOT ALLOWED FOR THIS API or AN IMPROPER API NAME!";

/// The server's answer to a list or an object as an argument.
pub const NESTED: &str = "ERROR: INVALID API CALL! LISTS AND DICTS ARE NOT ALLOWED AS VALUES!";

/// The server's answer to a tool that neither searches nor books.
pub const NO_ACTION: &str = "ERROR: INVALID API CALL!";

/// One call as the server remembers it: what rewards are judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The tool's name as given.
    pub api: String,
    /// The arguments as given: an object.
    pub arguments: Value,
    /// For a search the record that was served, or null for none; for a booking the answer; else the error's text.
    pub returned: Arc<Value>,
}

/// What the agent sees of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The exact text: JSON as Python writes it.
    pub text: String,
    /// Whether the server remembers the call. Arguments that are no object are refused and forgotten; the reference raises
    /// an exception there.
    pub recorded: bool,
}

/// What a search serves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Served {
    /// What is remembered.
    pub(super) returned: Arc<Value>,
    /// What the agent sees.
    pub(super) text: Arc<str>,
}

impl Served {
    /// A value that is seen as it is remembered.
    pub(super) fn value(returned: Value) -> Self {
        Self { text: dumps(&returned).into(), returned: returned.into() }
    }

    /// An error.
    pub(super) fn error(text: &str) -> Self {
        Self::value(Value::from(text))
    }

    /// A search's result: one record, or none.
    pub(super) fn record(table: &Table, row: Option<usize>, shape: Shape) -> Self {
        let Some(row) = row else { return Self { returned: Value::Null.into(), text: "[]".into() } };
        let record = &table.records()[row];
        match shape {
            Shape::AllColumns => all_columns(table.columns(), record),
            Shape::Sqlite => listed(sqlite(table.domain(), record)),
            Shape::Plain => listed(plain(record)),
        }
    }
}

fn listed(record: Record) -> Served {
    let returned = Value::Object(record);
    Served { text: format!("[{}]", dumps(&returned)).into(), returned: returned.into() }
}

/// A record as a row of the reference's data frame. A missing field is seen as `NaN`, which no JSON value can hold, and
/// remembered as null: neither equals any wanted value.
fn all_columns(columns: &[String], record: &Record) -> Served {
    let mut text = "[{".to_owned();
    let mut returned = Map::new();
    for (index, column) in columns.iter().enumerate() {
        separate(&mut text, index);
        write_string(&mut text, column);
        text.push_str(": ");
        match record.get(column) {
            Some(value) => write_value(&mut text, value),
            None => text.push_str("NaN"),
        }
        returned.insert(column.clone(), record.get(column).cloned().unwrap_or(Value::Null));
    }
    text.push_str("}]");
    Served { returned: Value::Object(returned).into(), text: text.into() }
}

/// The fields that a record has, without lists and objects.
fn plain(record: &Record) -> Record {
    let scalar = |value: &Value| !matches!(value, Value::Null | Value::Array(_) | Value::Object(_));
    record.iter().filter(|(_, value)| scalar(value)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A record as a row of the SQLite tables: their columns, `NULL` for what is missing. A domain that they lack keeps its
/// plain fields.
fn sqlite(domain: &str, record: &Record) -> Record {
    let columns = sqlite_columns(domain);
    if columns.is_empty() {
        return plain(record);
    }
    let field = |column: &&str| {
        let value = match *column {
            "entrance" => record.get("entrance fee"),
            "single" | "double" | "family" => record.get("price").and_then(|price| price.get(*column)),
            _ => record.get(*column),
        };
        ((*column).to_owned(), value.cloned().unwrap_or_else(|| Value::from("NULL")))
    };
    columns.iter().map(field).collect()
}

/// The columns of a domain's SQLite table (reference, section 2.1, "returns"); none for an unknown domain.
pub fn sqlite_columns(domain: &str) -> &'static [&'static str] {
    match domain {
        "restaurant" => &[
            "id",
            "address",
            "area",
            "food",
            "introduction",
            "name",
            "phone",
            "postcode",
            "pricerange",
            "signature",
            "type",
        ],
        "hotel" => &[
            "id",
            "address",
            "area",
            "internet",
            "parking",
            "single",
            "double",
            "family",
            "name",
            "phone",
            "postcode",
            "pricerange",
            "takesbookings",
            "stars",
            "type",
        ],
        "attraction" => {
            &["id", "address", "area", "entrance", "name", "phone", "postcode", "pricerange", "openhours", "type"]
        }
        "train" => &["trainID", "arriveBy", "day", "departure", "destination", "duration", "leaveAt", "price"],
        _ => &[],
    }
}
