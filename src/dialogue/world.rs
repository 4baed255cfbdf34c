//! The world behind the tools: records and tool definitions, built once and shared by every session.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value};

use super::index::{Index, Indexes};
use super::spelling::spell;
use super::task::WorldItem;
use super::values::{is_empty, readable, scalar_text};
use crate::compat::Rules;

/// A record as its source gives it, fields in the source's order.
pub type Record = Map<String, Value>;

/// Why items make no world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// An item is neither a record nor a tool.
    #[error("world item {index} (`{name}`): part is `{part}`, expected `record` or `tool`")]
    Part { index: usize, name: String, part: String },
    /// An item's body is not what its part needs.
    #[error("world item {index} ({part} `{name}`): {reason}")]
    Body { index: usize, part: String, name: String, reason: String },
}

/// A tool as the world defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorldTool {
    /// Its name: `search_hotel`.
    pub name: String,
    /// The names of its parameters, in the definition's order.
    pub parameters: Vec<String>,
    /// The definition: an OpenAI function schema.
    pub schema: Value,
}

/// Records and tools. Build it once, share it as `Arc<World>`.
#[derive(Clone, Debug, Default)]
pub struct World {
    tables: Vec<Table>,
    tools: Vec<WorldTool>,
}

/// The records of one domain.
#[derive(Clone, Debug, Default)]
pub struct Table {
    domain: String,
    columns: Vec<String>,
    records: Vec<Record>,
    /// By column the distinct values as the records spell them, sorted.
    values: HashMap<String, Vec<String>>,
    /// Shared by clones, whose records are the same.
    indexes: Arc<Indexes>,
}

impl World {
    /// Builds a world from its items; the order of records is the order of items.
    ///
    /// # Errors
    /// When an item's part is unknown, a record is no JSON object, or a tool no function schema.
    pub fn from_items(items: impl IntoIterator<Item = WorldItem>) -> Result<Self, WorldError> {
        let mut world = Self::default();
        for (index, item) in items.into_iter().enumerate() {
            let body: Value = serde_json::from_str(&item.body).map_err(|error| item.wrong(index, error.to_string()))?;
            match (item.part.as_str(), body) {
                ("record", Value::Object(record)) => world.table_mut(&item.name).push(record),
                ("record", _) => return Err(item.wrong(index, "a record must be a JSON object".to_owned())),
                ("tool", schema) => {
                    let tool = WorldTool::new(schema).map_err(|reason| item.wrong(index, reason))?;
                    world.tools.push(tool);
                }
                _ => return Err(WorldError::Part { index, name: item.name, part: item.part }),
            }
        }
        world.tables.iter_mut().for_each(Table::prepare);
        Ok(world)
    }

    /// The records of a domain; `None` where the world has none.
    pub fn table(&self, domain: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.domain == domain)
    }

    /// The domains that have records, in the order of the items.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|table| table.domain.as_str())
    }

    /// The tools, in the order of the items.
    pub fn tools(&self) -> &[WorldTool] {
        &self.tools
    }

    /// The tool of a name.
    pub fn tool(&self, name: &str) -> Option<&WorldTool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// The distinct values of a field over all records of a domain, as the records spell them, sorted; none for an unknown
    /// domain or field. This is what rule-based understanding may recognise.
    pub fn values(&self, domain: &str, slot: &str) -> &[String] {
        self.table(domain).and_then(|table| table.values.get(slot)).map_or(&[], Vec::as_slice)
    }

    fn table_mut(&mut self, domain: &str) -> &mut Table {
        let at = self.tables.iter().position(|table| table.domain == domain).unwrap_or_else(|| {
            self.tables.push(Table { domain: domain.to_owned(), ..Table::default() });
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }
}

impl WorldItem {
    fn wrong(&self, index: usize, reason: String) -> WorldError {
        WorldError::Body { index, part: self.part.clone(), name: self.name.clone(), reason }
    }
}

impl WorldTool {
    fn new(schema: Value) -> Result<Self, String> {
        let name = schema.pointer("/function/name").and_then(Value::as_str).ok_or("no text at `function.name`")?;
        let properties = schema.pointer("/function/parameters/properties").and_then(Value::as_object);
        let parameters = properties.ok_or("no object at `function.parameters.properties`")?.keys().cloned().collect();
        Ok(Self { name: name.to_owned(), parameters, schema })
    }
}

impl Table {
    /// Whose records these are.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The records, in the source's order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The names of all fields of all records, in the order in which they first occur.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The positions of the records that fit all wanted values, ascending (reference, section 2.3). What is empty or cannot be
    /// read as a text constrains nothing; a field that no record has fits nothing.
    pub fn search(&self, wanted: &Map<String, Value>, rules: &Rules) -> Vec<usize> {
        let wanted: Vec<(&str, String)> = wanted
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), readable(value, rules)?)))
            .filter(|(_, text)| !is_empty(text, rules))
            .map(|(name, text)| (name, spell(name, &text, rules).into_owned()))
            .collect();
        self.index(rules).find(wanted.iter().map(|(name, text)| (*name, text.as_str()))).rows().collect()
    }

    /// The table as the rules compare it: made when it is first asked for.
    pub(super) fn index(&self, rules: &Rules) -> Arc<Index> {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = indexes.iter().find(|index| index.rules() == rules) {
            return index.clone();
        }
        indexes.push(Arc::new(Index::new(self, rules)));
        indexes[indexes.len() - 1].clone()
    }

    fn push(&mut self, record: Record) {
        for name in record.keys() {
            if !self.columns.contains(name) {
                self.columns.push(name.clone());
            }
        }
        self.records.push(record);
    }

    fn prepare(&mut self) {
        for column in &self.columns {
            let texts = self.records.iter().filter_map(|record| record.get(column).and_then(scalar_text));
            let values: BTreeSet<String> = texts.map(Cow::into_owned).collect();
            self.values.insert(column.clone(), values.into_iter().collect());
        }
    }
}
