//! What is wrong with a query, in words that say what would be right.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::LazyLock;

use anyhow::anyhow;
use polars::prelude::{DataType, PolarsError, PolarsResult, Schema};
use polars::sql::keywords::all_functions;
use regex::Regex;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::TokenizerError;

use crate::value::nearest;

/// The most columns that an error lists.
const LISTED: usize = 30;

/// Words that queries are made of, to guess which one was meant.
const WORDS: &[&str] = &[
    "select",
    "distinct",
    "from",
    "where",
    "group",
    "order",
    "by",
    "having",
    "limit",
    "offset",
    "join",
    "left",
    "right",
    "inner",
    "full",
    "cross",
    "using",
    "union",
    "all",
    "except",
    "intersect",
    "with",
    "as",
    "on",
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "like",
    "between",
    "case",
    "when",
    "then",
    "else",
    "end",
    "asc",
    "desc",
    "exists",
];

static PLACE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(?s)(.*?),? at Line: (\d+), Column:? (\d+)").expect("a fixed pattern"));
static FOUND: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"found: (.*)$").expect("a fixed pattern"));

/// A text that cannot be cut into tokens.
pub(super) fn no_tokens(text: &str, error: &TokenizerError) -> anyhow::Error {
    let place = (error.location.line, error.location.column);
    anyhow!("the query breaks off: {}{}", lower(&error.message), shown(text, place))
}

/// Tokens that are no query.
pub(super) fn no_sql(text: &str, error: &ParserError) -> anyhow::Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.clone(),
        ParserError::RecursionLimitExceeded => return anyhow!("the query is nested too deeply"),
    };
    let (said, place) = match PLACE.captures(&message) {
        Some(parts) => (parts[1].to_owned(), (parts[2].parse().unwrap_or(0), parts[3].parse().unwrap_or(0))),
        None => (message, (0, 0)),
    };
    let word = FOUND.captures(&said).map(|parts| parts[1].to_owned());
    let hint = word.as_deref().and_then(|word| {
        nearest(&word.to_lowercase(), WORDS.iter().copied()).filter(|near| *near != word.to_lowercase())
    });
    let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    anyhow!("the query is no SQL: {}{hint}{}", parser_words(&said), shown(text, place))
}

/// `Expected: an expression, found: EOF` as a sentence.
fn parser_words(said: &str) -> String {
    let said = said.strip_prefix("sql parser error: ").unwrap_or(said);
    match said.strip_prefix("Expected: ").and_then(|rest| rest.split_once(", found: ")) {
        Some((expected, "EOF")) => format!("expected {expected}, found its end"),
        Some((expected, found)) => format!("expected {expected}, found `{found}`"),
        None => lower(said),
    }
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The line of a place with a caret below it, and the line's number where there are several.
pub(super) fn shown(text: &str, (line, column): (u64, u64)) -> String {
    let Some(row) = text.lines().nth((line as usize).wrapping_sub(1)) else { return String::new() };
    let number = if text.trim_end().contains('\n') { format!("line {line}: ") } else { String::new() };
    let indent = number.chars().count() + (column as usize).saturating_sub(1);
    format!("\n  {number}{row}\n  {}^", " ".repeat(indent))
}

/// Does what polars does, and takes its panics for errors: it has some for queries that it was never tried with.
pub(super) fn caught<T>(work: impl FnOnce() -> PolarsResult<T>) -> PolarsResult<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    done.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(PolarsError::InvalidOperation(format!("polars cannot answer this query ({text})").into()))
    })
}

/// What could have been meant: the tables and columns of a query.
pub(super) struct Known {
    text: String,
    columns: BTreeSet<String>,
}

/// How polars names a column that is not there.
static COLUMN: LazyLock<[Regex; 4]> = LazyLock::new(|| {
    [
        r#"unable to find column "([^"]+)""#,
        r"no column named '([^']+)' found in table",
        r"^field not found: (\S+)",
        r#"unable to find field "?([^"\s]+)"?"#,
    ]
    .map(|pattern| Regex::new(pattern).expect("a fixed pattern"))
});

static TABLE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"no table or struct column named '"?([^'"]+)"?' found"#).expect("a fixed pattern"));
static RELATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"relation '([^']+)' was not found").expect("a fixed pattern"));
static FUNCTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"unsupported function '([^']+)'").expect("a fixed pattern"));

impl Known {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), columns: BTreeSet::new() }
    }

    pub(super) fn add(&mut self, schema: &Schema) {
        for (name, kind) in schema.iter() {
            self.columns.insert(name.to_string());
            self.add_fields(kind);
        }
    }

    fn add_fields(&mut self, kind: &DataType) {
        match kind {
            DataType::List(inner) => self.add_fields(inner),
            DataType::Struct(fields) => {
                for field in fields {
                    self.columns.insert(field.name.to_string());
                    self.add_fields(&field.dtype);
                }
            }
            _ => {}
        }
    }

    /// An error of polars as one of the query.
    pub(super) fn explain(&self, error: &PolarsError) -> anyhow::Error {
        let said = error.to_string();
        let said = said.split("\n\nResolved plan").next().unwrap_or_default();
        let named = |pattern: &Regex| pattern.captures(said).map(|parts| parts[1].to_owned());
        if let Some(name) = COLUMN.iter().find_map(named) {
            return anyhow!("there is no column `{name}`{}{}", self.columns_like(&name), self.at_word(&name));
        }
        if let Some(name) = named(&TABLE) {
            return anyhow!(
                "there is no table or column `{name}` here; tables are called as behind `from`, or as `as` says{}",
                self.at_word(&name)
            );
        }
        if let Some(name) = named(&RELATION) {
            return anyhow!(
                "there is no table `{name}` here: a table of `with` does not see itself{}",
                self.at_word(&name)
            );
        }
        if let Some(name) = named(&FUNCTION) {
            let known = all_functions();
            let hint = nearest(&name, known.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
            return anyhow!("there is no function `{name}`{}{}", hint.unwrap_or_default(), self.at_word(&name));
        }
        if said.starts_with("complex field access") {
            return anyhow!(
                "fields of a list's items cannot be named directly; write `cross join unnest(LIST) as item` and then `item.FIELD`"
            );
        }
        anyhow!("the query cannot be answered: {}", lower(said.trim_end()))
    }

    fn columns_like(&self, name: &str) -> String {
        match nearest(name, self.columns.iter().map(String::as_str)) {
            Some(near) => format!("; did you mean `{near}`?"),
            None if self.columns.is_empty() || self.columns.len() > LISTED => String::new(),
            None => {
                let known = self.columns.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                format!("; there are {known}")
            }
        }
    }

    /// Where a word stands first in the query.
    fn at_word(&self, word: &str) -> String {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let whole = |&(at, _): &(usize, &str)| {
            !self.text[..at].ends_with(is_part) && !self.text[at + word.len()..].starts_with(is_part)
        };
        let Some((at, _)) = self.text.match_indices(word).find(whole) else { return String::new() };
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        shown(&self.text, (line as u64, column as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Query;
    use crate::table::{self, Row};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Part {
        role: String,
    }

    #[derive(Serialize, Deserialize)]
    struct Talk {
        dialogue: String,
        reward: f64,
        parts: Vec<Part>,
    }

    impl Row for Talk {
        const TYPE: &'static str = "test.talk/v1";
    }

    fn said(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talks");
        let talk = Talk { dialogue: "x".to_owned(), reward: 0.5, parts: vec![Part { role: "user".to_owned() }] };
        table::write(&path, [talk]).unwrap();
        let answer = Query::parse(text).and_then(|query| {
            let files = vec![path.clone(); query.tables().len()];
            query.plan(&files)?.answer(None)
        });
        answer.err().map_or_else(|| panic!("`{text}` is answered"), |error| error.to_string())
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
        for (text, expected) in [
            (
                "selct * from t",
                "the query is no SQL: expected an SQL statement, found `selct`; did you mean `select`?\n  selct * from t\n  ^",
            ),
            (
                "select * frm t",
                "the query is no SQL: expected end of statement, found `frm`; did you mean `from`?\n  select * frm t\n           ^",
            ),
            ("select (1", "the query is no SQL: expected ), found its end"),
            ("select 'a", "the query breaks off: unterminated string literal\n  select 'a\n         ^"),
            ("", "expected one query, such as `select * from base.scores`"),
            ("select 1; select 2", "expected one query, such as `select * from base.scores`"),
            ("drop table t", "expected a query (`select …` or `with … select …`): tables are read here, never changed"),
            (
                "select dialogue,\n  rewrd\nfrom t",
                "there is no column `rewrd`; did you mean `reward`?\n  line 2:   rewrd\n            ^",
            ),
            (
                "select x.rewrd from t x",
                "there is no column `rewrd`; did you mean `reward`?\n  select x.rewrd from t x\n           ^",
            ),
            (
                "select zzz from t",
                "there is no column `zzz`; there are `dialogue`, `parts`, `reward`, `role`\n  select zzz from t\n         ^",
            ),
            (
                "select y.reward from t x",
                "there is no table or column `y` here; tables are called as behind `from`, or as `as` says\n  select y.reward from t x\n         ^",
            ),
            (
                "select lenght(dialogue) from t",
                "there is no function `lenght`; did you mean `length`?\n  select lenght(dialogue) from t\n         ^",
            ),
            (
                "select parts[1].role from t",
                "fields of a list's items cannot be named directly; write `cross join unnest(LIST) as item` and then `item.FIELD`",
            ),
            (
                "with t as (select * from t) select * from t",
                "there is no table `t` here: a table of `with` does not see itself\n  with t as (select * from t) select * from t\n       ^",
            ),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        let said = said("select cast(dialogue as int) from t");
        assert!(
            said.starts_with(
                "the query cannot be answered: conversion from `str` to `i32` failed in column 'dialogue'"
            ),
            "{said}"
        );
    }
}
