//! The columns of a table: what they are called, what they hold, how often they are empty, what they mean.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};

use super::cell::cut;
use super::grouped;
use super::rows::wrapped;
use super::source::Table;

/// What columns mean, by their names; fields within as `column.field`.
pub type About = BTreeMap<String, String>;

/// The letters between two columns.
const GAP: usize = 2;

/// The fewest letters in which a meaning can be told.
const MEANING: usize = 20;

struct Line {
    name: String,
    kind: String,
    nulls: String,
    about: String,
}

/// A line for each column, and for each field within one.
pub(super) fn columns(table: &Table, about: &About, width: usize) -> anyhow::Result<String> {
    let mut lines = vec![Line {
        name: "column".to_owned(),
        kind: "type".to_owned(),
        nulls: "nulls".to_owned(),
        about: if about.is_empty() { String::new() } else { "meaning".to_owned() },
    }];
    for (field, nulls) in table.columns().zip(table.nulls()?) {
        let nulls = if field.is_nullable() { grouped(nulls) } else { "-".to_owned() };
        push(&mut lines, field, field.name(), 0, nulls, about);
    }
    let widest = |part: fn(&Line) -> &String| lines.iter().map(|line| part(line).chars().count()).max().unwrap_or(0);
    let (name, kind, nulls) = (widest(|line| &line.name), widest(|line| &line.kind), widest(|line| &line.nulls));
    let indent = name + kind + nulls + 3 * GAP;
    let show = |line: &Line| {
        let first = format!("{:name$}  {:kind$}  {:>nulls$}", line.name, line.kind, line.nulls);
        match width.checked_sub(indent) {
            Some(room) if room >= MEANING => beside(&first, wrapped(&line.about, room), indent),
            _ => cut(first.trim_end(), width),
        }
    };
    Ok(lines.iter().map(show).collect::<Vec<_>>().join("\n"))
}

/// A text in lines beside what stands in the first of them.
fn beside(first: &str, text: Vec<String>, indent: usize) -> String {
    let mut lines = text.into_iter();
    let mut all = format!("{first:indent$}{}", lines.next().unwrap_or_default()).trim_end().to_owned();
    for line in lines {
        all.push_str(&format!("\n{:indent$}{line}", ""));
    }
    all
}

fn push(lines: &mut Vec<Line>, field: &Field, path: &str, depth: usize, nulls: String, about: &About) {
    let about_it = about.get(path).cloned().unwrap_or_default();
    let name = format!("{}{}", "  ".repeat(depth), field.name());
    lines.push(Line { name, kind: kind(field.data_type()), nulls, about: about_it });
    if let DataType::Struct(fields) = innermost(field.data_type()) {
        for inner in fields {
            push(lines, inner, &format!("{path}.{}", inner.name()), depth + 1, String::new(), about);
        }
    }
}

/// What a list's items are in the end.
fn innermost(kind: &DataType) -> &DataType {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            innermost(item.data_type())
        }
        other => other,
    }
}

/// A type in a word that people know.
fn kind(of: &DataType) -> String {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _) => "text".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("list of {}", kind(item.data_type()).replace("struct", "structs"))
        }
        DataType::Struct(_) => "struct".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
