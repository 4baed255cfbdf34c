//! One stage of a pipeline file: its kind, its parameters, its connections.

use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::policy;
use crate::engine::graph::Policy;
use crate::engine::stage::AnyStage;
use crate::stages::{self, Kind};
use crate::value::{Key, Node, PlaceError, Span, Value};

/// A stage as far as it could be read.
pub struct Draft {
    /// Its name and place.
    pub key: Key,
    /// Its kind, where that is known.
    pub kind: Option<&'static Kind>,
    /// Itself, where its parameters are right.
    pub stage: Option<Arc<dyn AnyStage>>,
    /// The inputs that it names, rightly connected or not.
    pub named: Vec<String>,
    /// Its connections: input name, `stage`, `port`, and the place of the text.
    pub inputs: Vec<(Key, String, String, Span)>,
    /// How it is run.
    pub policy: Policy,
}

/// Reads a stage; everything wrong with it goes to `problems`.
pub fn read(key: &Key, node: &Node, problems: &mut Vec<Diagnostic>) -> Draft {
    let mut draft = Draft {
        key: key.clone(),
        kind: None,
        stage: None,
        named: Vec::new(),
        inputs: Vec::new(),
        policy: policy::read(node, problems),
    };
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("stage `{}` is {}, expected a map with `kind`", key.text, node.describe());
        problems.push(Diagnostic::at(node.span, message));
        return draft;
    }
    let known = [&["kind", "in", "with", "note"][..], &policy::KEYS].concat();
    unknown_keys(node, &known, &format!("stage `{}`", key.text), problems);
    draft.kind = kind(key, node, problems);
    draft.named =
        node.get("in").map(Node::entries).unwrap_or_default().iter().map(|(key, _)| key.text.clone()).collect();
    draft.inputs = inputs(node, problems);
    if let Some(kind) = draft.kind {
        let empty = Node { value: Value::Map(Vec::new()), span: key.span };
        let with = node.get("with").unwrap_or(&empty);
        draft.stage = parameters(kind, with, key, problems);
    }
    draft
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
                .suggest(name, stages::KINDS.iter().map(|kind| kind.name)),
        );
    }
    kind
}

fn inputs(node: &Node, problems: &mut Vec<Diagnostic>) -> Vec<(Key, String, String, Span)> {
    let Some(inputs) = node.get("in") else { return Vec::new() };
    if !matches!(inputs.value, Value::Map(_) | Value::Null) {
        let message = format!("expected connections `port: stage.port`, found {}", inputs.describe());
        problems.push(Diagnostic::at(inputs.span, message));
    }
    let mut read = Vec::new();
    for (key, value) in inputs.entries() {
        match value.text().and_then(|text| text.rsplit_once('.')) {
            Some((stage, port)) => read.push((key.clone(), stage.to_owned(), port.to_owned(), value.span)),
            None => problems.push(
                Diagnostic::at(value.span, format!("expected `stage.port`, found {}", value.describe()))
                    .help("a connection names a stage of this file and one of its output ports"),
            ),
        }
    }
    read
}

/// Reads the parameters. Serde stops at the first mistake, so each wrong entry is reported, taken out, and the rest read
/// again: all mistakes appear at once, and what is missing only because it was taken out is not reported.
fn parameters(
    kind: &'static Kind,
    with: &Node,
    key: &Key,
    problems: &mut Vec<Diagnostic>,
) -> Option<Arc<dyn AnyStage>> {
    let mut node = with.clone();
    let mut taken: Vec<String> = Vec::new();
    let mut clean = true;
    loop {
        match (kind.parse)(&node) {
            Ok(stage) => {
                let checked = stage.check();
                for problem in &checked {
                    let place = at(with, &problem.field).unwrap_or(with.span);
                    problems.push(Diagnostic::at(place, format!("`{}` {}", problem.field, problem.message)));
                }
                return (clean && checked.is_empty()).then_some(stage);
            }
            Err(error) => {
                clean = false;
                let done = match &error.missing {
                    Some(field) if error.path.is_empty() => {
                        if !taken.contains(field) {
                            problems.push(explain(kind, &error, key.span, key));
                        }
                        true
                    }
                    _ => {
                        problems.push(explain(kind, &error, with.span, key));
                        !take(&mut node, &error, &mut taken)
                    }
                };
                if done {
                    return None;
                }
            }
        }
    }
}

/// The place of a dotted path below a node.
fn at(node: &Node, path: &str) -> Option<Span> {
    let mut node = node;
    for part in path.split('.') {
        node = match &node.value {
            Value::List(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => node.get(part)?,
        };
    }
    Some(node.span)
}

fn take(node: &mut Node, error: &PlaceError, taken: &mut Vec<String>) -> bool {
    let name = error.path.first().cloned().or_else(|| error.unknown.as_ref().map(|unknown| unknown.0.clone()));
    let (Some(name), Value::Map(entries)) = (name, &mut node.value) else { return false };
    let before = entries.len();
    entries.retain(|(key, _)| key.text != name);
    let removed = entries.len() < before;
    taken.push(name);
    removed
}

fn explain(kind: &Kind, error: &PlaceError, fallback: Span, key: &Key) -> Diagnostic {
    let span = error.span.unwrap_or(fallback);
    if let Some(field) = &error.missing {
        let path = error.path.iter().map(|part| format!("{part}.")).collect::<String>();
        return Diagnostic::at(fallback, format!("stage `{}` lacks the parameter `{path}{field}`", key.text))
            .help(format!("`thresh kinds {}` shows its parameters", kind.name));
    }
    if let Some((name, known)) = error.unknown.as_deref() {
        let message = if error.message.starts_with("unknown key") {
            format!("unknown parameter `{name}` of `{}`", kind.name)
        } else {
            format!("unknown value `{name}`")
        };
        return Diagnostic::at(span, message).suggest(name, known.iter().map(String::as_str));
    }
    let field = if error.path.is_empty() { "with".to_owned() } else { error.path.join(".") };
    Diagnostic::at(span, format!("`{field}`: {}", error.message))
}
