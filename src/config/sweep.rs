//! `--set` on the command line: one value changes a parameter, several make a matrix over it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use super::diagnostic::Diagnostic;
use super::fan::Axis;
use super::matrix;
use super::params::{Setter, mentions, rename};
use super::read::Reader;
use super::yaml;
use crate::value::{Key, Node, Span, Value};

/// A matrix that the command line puts over a pipeline.
pub struct Sweep {
    /// Its one axis.
    pub axis: Rc<Axis>,
    /// The stage that it belongs to; every stage that uses the axis where it is a parameter of the pipeline.
    pub stage: Option<String>,
}

/// One `--set`.
struct Change {
    key: Key,
    values: Vec<Node>,
}

/// Applies changes, `PATH=VALUE` or `PATH=VALUE,VALUE`, to a pipeline's tree. Of two that change the same the later one counts.
pub fn apply(reader: &mut Reader, root: &mut Node, sets: &[String]) -> Vec<Sweep> {
    let mut changes: Vec<Change> = Vec::new();
    for text in sets {
        if let Some(change) = read(reader, text) {
            changes.retain(|earlier| earlier.key.text != change.key.text);
            changes.push(change);
        }
    }
    let names = axis_names(root, &changes);
    let mut sweeps = Vec::new();
    for change in changes {
        let name = names.get(&change.key.text).cloned().unwrap_or_default();
        if let Some(sweep) = one(reader, root, change, &name) {
            sweeps.push(sweep);
        }
    }
    sweeps
}

fn read(reader: &mut Reader, text: &str) -> Option<Change> {
    let file = reader.sources.add(Path::new("--set"), text.to_owned());
    let Some((path, values)) = text.split_once('=') else {
        let span = Span { file, start: 0, end: text.len() };
        reader.problems.push(Diagnostic::at(span, "expected `PATH=VALUE`").help("as in `--set harvest.beam=16`"));
        return None;
    };
    let begin = path.len() - path.trim_start().len();
    let key = Key { text: path.trim().to_owned(), span: Span { file, start: begin, end: path.trim_end().len() } };
    let parts = parts(values);
    let mut read = Vec::new();
    for &(start, part) in &parts {
        let offset = path.len() + 1 + start;
        if parts.len() > 1 && part.trim().is_empty() {
            let span = Span { file, start: offset, end: offset + part.len().max(1) };
            let problem = Diagnostic::at(span, "a value of the sweep is missing");
            reader.problems.push(problem.help("a text that holds commas stands in quotes: `a.text='\"x,y\"'`"));
            return None;
        }
        match yaml::read(file, part) {
            Ok(mut value) => {
                shift(&mut value, offset);
                read.push(value);
            }
            Err(mut problems) => {
                for (span, _) in problems.iter_mut().filter_map(|problem| problem.place.as_mut()) {
                    (span.start, span.end) = (span.start + offset, span.end + offset);
                }
                reader.problems.extend(problems);
                return None;
            }
        }
    }
    Some(Change { key, values: read })
}

/// The parts of a value between commas that stand outside of quotes and brackets, and where each begins.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut quote, mut escaped) = (0, 0usize, None, false);
    // A quote opens only where a value begins: `it's` holds none.
    let mut fresh = true;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), _) if c == open && !escaped => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if fresh => quote = Some(c),
            (None, '[' | '{') if fresh || depth > 0 => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push((start, &text[start..at]));
                start = at + 1;
            }
            _ => {}
        }
        escaped = false;
        // After a closing `'` another one goes on with the same text.
        fresh = quote.is_none() && (c.is_whitespace() && fresh || matches!(c, ',' | '[' | '{' | ':' | '\''));
    }
    parts.push((start, &text[start..]));
    parts
}

/// An axis bears the last part of its path, or the whole path where that part alone could mean another axis.
fn axis_names(root: &Node, changes: &[Change]) -> BTreeMap<String, String> {
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (_, stage) in root.get("stages").map(Node::entries).unwrap_or_default() {
        for (name, values) in stage.get("matrix").map(Node::entries).unwrap_or_default() {
            taken.insert(&name.text);
            // Axes may be named by the first item of `include` alone.
            let Value::List(items) = &values.value else { continue };
            taken.extend(items.first().map(Node::entries).unwrap_or_default().iter().map(|(key, _)| key.text.as_str()));
        }
    }
    let last = |change: &Change| change.key.text.rsplit('.').next().unwrap_or_default().to_owned();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.values.len() > 1) {
        *counts.entry(last(change)).or_default() += 1;
    }
    changes
        .iter()
        .map(|change| {
            let short = last(change);
            let clear = counts.get(&short).is_none_or(|count| *count == 1) && !taken.contains(short.as_str());
            (change.key.text.clone(), if clear { short } else { change.key.text.clone() })
        })
        .collect()
}

fn one(reader: &mut Reader, root: &mut Node, change: Change, name: &str) -> Option<Sweep> {
    let Change { key, values } = change;
    let first = values.first()?.clone();
    let reference = format!("${{matrix.{name}}}");
    let sweeps = values.len() > 1;
    let stage = key.text.split('.').next().filter(|stage| *stage != "params").map(str::to_owned);
    let value = match (sweeps, &stage) {
        (true, Some(_)) => Node { value: Value::Text(reference.clone()), span: first.span },
        _ => first,
    };
    if let Err(problem) = Setter::new(root).set(&key, value) {
        reader.problems.push(problem);
        return None;
    }
    if !sweeps {
        return None;
    }
    if stage.is_none() {
        sweep_parameter(reader, root, &key, &reference)?;
    }
    let named = Key { text: name.to_owned(), span: key.span };
    Some(Sweep { axis: matrix::axis(&named, &values, &reader.sources, &mut reader.problems), stage })
}

/// Lets every stage that uses a parameter of the pipeline use the axis in its stead.
fn sweep_parameter(reader: &mut Reader, root: &mut Node, key: &Key, reference: &str) -> Option<()> {
    let old = format!("${{{}}}", key.text);
    let mut used = false;
    let Value::Map(entries) = &mut root.value else { return None };
    let stages = entries.iter_mut().find(|(name, _)| name.text == "stages").map(|(_, node)| &mut node.value);
    let Some(Value::Map(stages)) = stages else { return None };
    for (name, stage) in stages {
        if let Some(matrix) = stage.get("matrix").filter(|matrix| mentions(matrix, &old)) {
            let message = format!("`{}` makes up the matrix of `{}` and cannot be swept as well", key.text, name.text);
            reader.problems.push(Diagnostic::at(key.span, message).related(matrix.span, "used in this matrix"));
            return None;
        }
        let Value::Map(fields) = &mut stage.value else { continue };
        for (_, with) in fields.iter_mut().filter(|(key, _)| key.text == "with") {
            used |= mentions(with, &old);
            rename(with, &old, reference);
        }
    }
    if !used {
        let message = format!("no stage uses `{old}`: there is nothing to sweep");
        reader.problems.push(Diagnostic::at(key.span, message));
        return None;
    }
    Some(())
}

fn shift(node: &mut Node, by: usize) {
    node.span.start += by;
    node.span.end += by;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, by)),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            key.span.start += by;
            key.span.end += by;
            shift(value, by);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_part_values_outside_of_quotes_and_brackets() {
        let texts = |text: &str| parts(text).into_iter().map(|(_, part)| part.to_owned()).collect::<Vec<_>>();
        assert_eq!(texts("1e-4,3e-4"), ["1e-4", "3e-4"]);
        assert_eq!(texts("it's, so"), ["it's", " so"]);
        assert_eq!(texts("a[0],b]"), ["a[0]", "b]"]);
        assert_eq!(texts(r#""x,\"y",'it''s, z'"#), [r#""x,\"y""#, "'it''s, z'"]);
        for whole in ["[1, 2]", "{a: 1, b: [2, 3]}", "\"x,y\"", "'x,y'", "{a: 'x], y'}", "", "[1, 2"] {
            assert_eq!(texts(whole), [whole]);
        }
        assert_eq!(texts("1,"), ["1", ""]);
        assert_eq!(parts("ab, cd")[1], (3, " cd"));
    }
}
