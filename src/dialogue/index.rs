//! The records of a table as one set of rules compares them: made once, shared by all dialogues.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::observation::Served;
use super::rules::Times;
use super::spelling::{clock, spell};
use super::values::{Bound, bound, readable};
use super::world::{Record, Table};
use crate::compat::Rules;

/// In place of the number of a text: the record has none.
const NONE: u32 = u32::MAX;

/// The columns of a table, prepared for searching under one set of rules.
#[derive(Debug)]
pub(super) struct Index {
    rules: Rules,
    records: usize,
    columns: Vec<(String, Column)>,
    /// What a search serves of each record, as soon as it did.
    served: Vec<OnceLock<Served>>,
}

/// One column. Texts are numbered; those that the rules take for the same have one number.
#[derive(Debug, Default)]
struct Column {
    /// Per record the number of its text.
    numbers: Vec<u32>,
    /// The number of a text.
    known: HashMap<String, u32>,
    /// Per number the text.
    texts: Vec<String>,
    /// Per number the time of day that the text is.
    clocks: Vec<Option<u16>>,
    /// Per number the records, ascending.
    rows: Vec<Vec<u32>>,
}

impl Column {
    fn new(name: &str, records: &[Record], rules: &Rules) -> Self {
        let mut column = Self::default();
        for (row, record) in records.iter().enumerate() {
            let text = record.get(name).and_then(|value| readable(value, rules));
            let number = text.map_or(NONE, |text| {
                // What bounds times is compared as it stands.
                let text = if bound(name).is_some() { text } else { spell(name, &text, rules).into_owned().into() };
                column.number(&text)
            });
            if let Some(rows) = column.rows.get_mut(number as usize) {
                rows.push(row as u32);
            }
            column.numbers.push(number);
        }
        column
    }

    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.known.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.known.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        self.clocks.push(clock(text));
        self.rows.push(Vec::new());
        number
    }
}

/// What is asked of one column.
#[derive(Debug)]
enum Test<'i> {
    /// The text of this number.
    Is(&'i Column, u32),
    /// A time that keeps to a limit.
    Keeps { column: &'i Column, bound: Bound, limit: String, time: Option<u16> },
}

impl Test<'_> {
    fn fits(&self, row: usize, rules: &Rules) -> bool {
        match self {
            Self::Is(column, number) => column.numbers[row] == *number,
            Self::Keeps { column, bound, limit, time } => {
                let number = column.numbers[row] as usize;
                match (column.texts.get(number), rules.times()) {
                    (None, _) => false,
                    (Some(_), Times::Clock) => bound.keeps(column.clocks[number], *time),
                    (Some(text), Times::Text) => bound.allows(text, limit, rules),
                }
            }
        }
    }
}

/// The records that fit all that is asked.
#[derive(Debug)]
pub(super) struct Found<'i> {
    rules: Rules,
    rows: Rows<'i>,
    tests: Vec<Test<'i>>,
}

/// Records among which those that fit are.
#[derive(Clone, Copy, Debug)]
enum Rows<'i> {
    All(usize),
    Some(&'i [u32]),
}

impl Index {
    /// Prepares a table.
    pub(super) fn new(table: &Table, rules: &Rules) -> Self {
        let records = table.records();
        let columns = table.columns().iter().map(|name| (name.clone(), Column::new(name, records, rules)));
        Self {
            rules: *rules,
            records: records.len(),
            columns: columns.collect(),
            served: records.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// Whose rules these are.
    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, column)| column)
    }

    /// The records that have all wanted texts, which are spelt as the rules spell them: fields that bound times keep to them.
    pub(super) fn find<'i, 't>(&'i self, wanted: impl Iterator<Item = (&'t str, &'t str)>) -> Found<'i> {
        let mut found = Found { rules: self.rules, rows: Rows::All(self.records), tests: Vec::new() };
        for (name, text) in wanted {
            let Some(column) = self.column(name) else { return Found { rows: Rows::Some(&[]), ..found } };
            if let Some(bound) = bound(name) {
                found.tests.push(Test::Keeps { column, bound, limit: text.to_owned(), time: clock(text) });
                continue;
            }
            let Some(number) = column.known.get(text) else { return Found { rows: Rows::Some(&[]), ..found } };
            let rows = &column.rows[*number as usize];
            if found.rows.most() > rows.len() {
                found.rows = Rows::Some(rows);
            }
            found.tests.push(Test::Is(column, *number));
        }
        found
    }

    /// What a search serves of a record.
    pub(super) fn served(&self, table: &Table, row: Option<usize>) -> Served {
        match row.and_then(|row| self.served.get(row)) {
            Some(served) => served.get_or_init(|| Served::record(table, row, self.rules.shape())).clone(),
            None => Served::record(table, row, self.rules.shape()),
        }
    }
}

impl Rows<'_> {
    fn most(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::Some(rows) => rows.len(),
        }
    }

    fn at(self, place: usize) -> usize {
        match self {
            Self::All(_) => place,
            Self::Some(rows) => rows[place] as usize,
        }
    }
}

impl Found<'_> {
    /// Whether a record is among them.
    pub(super) fn has(&self, row: usize) -> bool {
        self.tests.iter().all(|test| test.fits(row, &self.rules))
            && !matches!(self.rows, Rows::Some(rows) if rows.is_empty())
    }

    /// Their places, ascending.
    pub(super) fn rows(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.rows.most()).map(|place| self.rows.at(place)).filter(|row| self.has(*row))
    }
}

/// The indexes of a table, one for each set of rules that was asked for.
pub(super) type Indexes = std::sync::Mutex<Vec<Arc<Index>>>;
