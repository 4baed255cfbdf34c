//! One stage of a pipeline file: its kind, its parameters, its connections.

use std::collections::HashSet;

use super::diagnostic::{Diagnostic, Sources};
use super::fan::Fan;
use super::params::{self, Params};
use super::{matrix, policy};
use crate::engine::graph::Policy;
use crate::stages::{self, Kind};
use crate::value::{Key, Node, Span, Value};

/// A stage as its file writes it, as far as that could be read.
pub struct Template {
    /// Its name and place.
    pub key: Key,
    /// Its kind, where that is known.
    pub kind: Option<&'static Kind>,
    /// Its parameters, references to axes still in them.
    pub with: Node,
    /// Places whose references are wrong, which is told: what is left there says nothing new.
    pub told: HashSet<Span>,
    /// The inputs that it names, rightly connected or not; `None` where they could not be read.
    pub named: Option<Vec<Key>>,
    /// Its connections.
    pub inputs: Vec<Connection>,
    /// Its own matrix.
    pub matrix: Option<Fan>,
    /// Whether it has one that could not be read.
    pub matrix_wrong: bool,
    /// The axes that it fans out over where it would collect, and whether a parameter of the pipeline bears the name: such an
    /// axis is there only when a file or the command line sweeps it.
    pub each: Vec<(Key, bool)>,
    /// How it is run.
    pub policy: Policy,
}

/// A connection as its file writes it: `input: stage[axis=value].output`.
pub struct Connection {
    /// The input.
    pub input: Key,
    /// The stage that is read.
    pub stage: Key,
    /// The values of axes that single out some of its instances.
    pub select: Vec<(String, String)>,
    /// That stage's output.
    pub output: Key,
}

/// Whether a text can name a stage, an axis or a pool.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(plain)
}

/// The keys of a stage.
const KEYS: [&str; 10] = ["kind", "in", "with", "note", "matrix", "each", "pool", "retries", "timeout", "frozen"];

/// Reads a stage; everything wrong with it goes to `problems`.
pub fn read(key: &Key, node: &Node, params: &Params, sources: &Sources, problems: &mut Vec<Diagnostic>) -> Template {
    check_name(key, problems);
    let empty = Node { value: Value::Map(Vec::new()), span: key.span };
    let mut template = Template {
        key: key.clone(),
        kind: None,
        with: node.get("with").cloned().unwrap_or(empty),
        told: HashSet::new(),
        named: named(node),
        inputs: Vec::new(),
        matrix: None,
        matrix_wrong: false,
        each: Vec::new(),
        policy: policy::read(node, problems),
    };
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("stage `{}` is {}, expected a map with `kind`", key.text, node.describe());
        problems.push(Diagnostic::at(if node.value == Value::Null { key.span } else { node.span }, message));
        return template;
    }
    template.kind = kind(key, node, problems);
    stage_keys(node, key, template.kind, problems);
    template.inputs = inputs(node, sources, problems);
    let before = problems.len();
    params::fill(&mut template.with, &mut &*params, problems);
    template.told = problems[before..].iter().filter_map(Diagnostic::span).collect();
    if let Some((at, node)) = node.entries().iter().find(|(key, _)| key.text == "matrix") {
        let mut node = node.clone();
        let before = problems.len();
        params::fill(&mut node, &mut &*params, problems);
        if problems.len() == before {
            template.matrix = matrix::read(&node, at, sources, problems);
        }
        template.matrix_wrong = template.matrix.is_none();
    }
    let each = each(node, sources, problems).into_iter();
    template.each = each.map(|axis| (axis.clone(), params.contains_key(&axis.text))).collect();
    template
}

fn named(node: &Node) -> Option<Vec<Key>> {
    let Some(inputs) = node.get("in") else { return Some(Vec::new()) };
    let readable = matches!(inputs.value, Value::Map(_) | Value::Null);
    readable.then(|| inputs.entries().iter().map(|(key, _)| key.clone()).collect())
}

fn check_name(key: &Key, problems: &mut Vec<Diagnostic>) {
    if !is_plain(&key.text) || key.text == "params" {
        problems.push(
            Diagnostic::at(key.span, format!("`{}` cannot be the name of a stage", key.text))
                .help("use letters, digits, `_` and `-`; `params` is taken"),
        );
    }
}

/// Reports the keys that no stage has; a parameter that stands beside `with` is told to go into it.
fn stage_keys(node: &Node, key: &Key, kind: Option<&Kind>, problems: &mut Vec<Diagnostic>) {
    for (name, _) in node.entries().iter().filter(|(name, _)| !KEYS.contains(&name.text.as_str())) {
        let problem = Diagnostic::at(name.span, format!("unknown key `{}` in stage `{}`", name.text, key.text));
        let parameter = kind.filter(|kind| {
            let schema = (kind.schema)();
            schema.get("properties").is_some_and(|properties| properties.get(&name.text).is_some())
        });
        problems.push(match parameter {
            Some(kind) => problem.help(format!("it is a parameter of `{}`: write it under `with`", kind.name)),
            None => problem.suggest(&name.text, KEYS),
        });
    }
}

fn each(node: &Node, sources: &Sources, problems: &mut Vec<Diagnostic>) -> Vec<Key> {
    let Some(node) = node.get("each") else { return Vec::new() };
    let Value::List(items) = &node.value else {
        let message = format!("`each` is {}, expected a list of axes", node.describe());
        let written = sources.slice(node.span);
        let problem = Diagnostic::at(node.span, message);
        problems.push(if node.text().is_some() { problem.help(format!("write `each: [{written}]`")) } else { problem });
        return Vec::new();
    };
    let mut axes = Vec::new();
    for item in items {
        match item.text() {
            Some(text) => axes.push(Key { text: text.to_owned(), span: item.span }),
            None => {
                let message = format!("expected the name of an axis, found {}", item.describe());
                problems.push(Diagnostic::at(item.span, message));
            }
        }
    }
    axes
}

/// Reports the keys of a map that nobody reads.
pub fn unknown_keys(node: &Node, known: &[&str], what: &str, problems: &mut Vec<Diagnostic>) {
    for (key, _) in node.entries() {
        if !known.contains(&key.text.as_str()) {
            problems.push(
                Diagnostic::at(key.span, format!("unknown key `{}` in {what}", key.text))
                    .suggest(&key.text, known.iter().copied()),
            );
        }
    }
}

fn kind(key: &Key, node: &Node, problems: &mut Vec<Diagnostic>) -> Option<&'static Kind> {
    let Some(named) = node.get("kind") else {
        problems.push(
            Diagnostic::at(key.span, format!("stage `{}` has no `kind`", key.text))
                .help("`thresh kinds` lists the kinds"),
        );
        return None;
    };
    let Some(name) = named.text() else {
        problems.push(Diagnostic::at(named.span, format!("expected the name of a kind, found {}", named.describe())));
        return None;
    };
    let kind = stages::find(name);
    if kind.is_none() {
        problems.push(
            Diagnostic::at(named.span, format!("unknown kind `{name}`"))
                .suggest(name, stages::kinds().map(|kind| kind.name)),
        );
    }
    kind
}

fn inputs(node: &Node, sources: &Sources, problems: &mut Vec<Diagnostic>) -> Vec<Connection> {
    let Some(inputs) = node.get("in") else { return Vec::new() };
    if !matches!(inputs.value, Value::Map(_) | Value::Null) {
        let message = format!("expected connections `port: stage.port`, found {}", inputs.describe());
        problems.push(Diagnostic::at(inputs.span, message));
    }
    let mut read = Vec::new();
    for (key, value) in inputs.entries() {
        if key.text.contains(['[', ']']) {
            problems.push(
                Diagnostic::at(key.span, format!("`{}` cannot be the name of an input", key.text))
                    .help("brackets stand for instances: they are added where a matrix is collected"),
            );
        }
        match connection(key, value, sources) {
            Ok(connection) => read.push(connection),
            Err(problem) => problems.push(problem),
        }
    }
    read
}

/// Reads `stage.output` or `stage[axis=value,...].output`.
fn connection(input: &Key, value: &Node, sources: &Sources) -> Result<Connection, Diagnostic> {
    let expected = || {
        Diagnostic::at(value.span, format!("expected `stage.port`, found {}", value.describe()))
            .help("a connection names a stage of this file and one of its output ports")
    };
    let text = value.text().ok_or_else(expected)?;
    if text.contains("${") {
        return Err(Diagnostic::at(value.span, "connections take no references")
            .help("`${params.x}` and `${matrix.x}` stand under `with` only; a matrix is followed by itself"));
    }
    let (stage, select, output) = match text.split_once('[') {
        None => text.rsplit_once('.').map(|(stage, output)| (stage, "", output)).ok_or_else(expected)?,
        Some((stage, rest)) => {
            let (select, output) = rest.rsplit_once(']').ok_or_else(|| {
                Diagnostic::at(value.span, format!("`[` without `]` in `{text}`")).help("as in `train[seed=2].model`")
            })?;
            (stage, select, output.strip_prefix('.').ok_or_else(expected)?)
        }
    };
    // The text begins at the place of the value, behind a quote where it is quoted.
    let begin = match sources.slice_for_place(value.span) {
        written if written == text => Some(value.span.start),
        written if written.len() == text.len() + 2 && &written[1..=text.len()] == text => Some(value.span.start + 1),
        _ => None,
    };
    let part = |at: usize, part: &str| {
        let span = begin.map_or(value.span, |begin| Span {
            start: begin + at,
            end: begin + at + part.len().max(1),
            ..value.span
        });
        Key { text: part.to_owned(), span }
    };
    let mut selected = Vec::new();
    for pair in crate::engine::graph::pairs(select) {
        let (axis, value) = pair.split_once('=').ok_or_else(|| {
            Diagnostic::at(part(stage.len() + 1, select).span, format!("expected `axis=value`, found `{pair}`"))
                .help("as in `train[lr=1e-4,seed=2].model`")
        })?;
        selected.push((axis.trim().to_owned(), value.trim().to_owned()));
    }
    let output = part(text.len() - output.len(), output);
    // The place of the stage holds the values that single out instances.
    let stage = Key { text: stage.to_owned(), span: part(0, &text[..text.len() - output.text.len() - 1]).span };
    Ok(Connection { input: input.clone(), stage, select: selected, output })
}
