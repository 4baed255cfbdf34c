//! `--set` on the command line and `sweep` in a file: one value changes a parameter, several make a matrix over it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::change::{self, Change, Changes};
use super::diagnostic::Diagnostic;
use super::fan::Axis;
use super::matrix;
use super::params::{Setter, mentions, rename};
use super::read::Reader;
use crate::value::{Key, Node, Value};

/// A matrix that a file's `sweep` or the command line puts over a pipeline.
pub struct Sweep {
    /// Its one axis.
    pub axis: Rc<Axis>,
    /// The stage that it belongs to; every stage that uses the axis where it is a parameter of the pipeline.
    pub stage: Option<String>,
}

/// Applies what the files sweep and then changes from the command line, `PATH=VALUE` or `PATH=VALUE,VALUE`, to a pipeline's tree.
/// Of two that change the same the later one counts.
pub fn apply(reader: &mut Reader, root: &mut Node, mut changes: Changes, sets: &[String]) -> Vec<Sweep> {
    for text in sets {
        if let Some(change) = change::read(reader, text) {
            changes.add(change);
        }
    }
    let changes = changes.into_list();
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
    if sweeps && refers(reader, &values) {
        return None;
    }
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

/// Whether a value of a sweep is made of another one, which is told: values give instances their names and stay as they are written.
fn refers(reader: &mut Reader, values: &[Node]) -> bool {
    let referring = |value: &&Node| mentions(value, "${params.") || mentions(value, "${matrix.");
    let before = reader.problems.len();
    for value in values.iter().filter(referring) {
        let problem = Diagnostic::at(value.span, "a value of a sweep refers to another value");
        reader
            .problems
            .push(problem.help("write the value itself; to sweep a parameter of the pipeline, sweep `params.NAME`"));
    }
    reader.problems.len() > before
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
