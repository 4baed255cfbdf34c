//! `${params.x}`, `${matrix.x}` and `set:`: values put in their places before a stage sees them.

use std::collections::{BTreeMap, HashMap};

use super::diagnostic::Diagnostic;
use crate::value::{Key, Node, Span, Value};

/// The pipeline's parameters by name.
pub type Params = BTreeMap<String, Node>;

/// Where the values of references come from.
pub trait Scope {
    /// The node behind what stands between `${` and `}`; `None` leaves the reference for a later pass.
    fn find(&mut self, reference: &str, span: Span) -> Result<Option<Node>, Diagnostic>;

    /// The place of a value that takes the place of a whole text: the text's own, unless the value's says more.
    fn place(&mut self, text: Span, _value: Span) -> Span {
        text
    }
}

/// Fills `${params.x}` and leaves `${matrix.x}`.
impl Scope for &Params {
    fn find(&mut self, reference: &str, span: Span) -> Result<Option<Node>, Diagnostic> {
        if reference.starts_with("matrix.") {
            return Ok(None);
        }
        let Some(name) = reference.strip_prefix("params.") else {
            let problem = Diagnostic::at(span, format!("`${{{reference}}}` is no reference"));
            let known = self.keys().any(|name| name == reference);
            let wanted = if known { reference } else { "NAME" };
            return Err(problem.help(format!(
                "a reference is `${{params.{wanted}}}` or `${{matrix.AXIS}}`; a variable of the shell stands without braces"
            )));
        };
        let Some(value) = self.get(name) else {
            let problem = Diagnostic::at(span, format!("the pipeline has no parameter `{name}`"));
            return Err(match self.is_empty() {
                true => problem.help("write it under `params:` at the top of the file"),
                false => problem.suggest(name, self.keys().map(String::as_str)),
            });
        };
        Ok(Some(value.clone()))
    }
}

/// Replaces the references below a node. A text that is nothing but a reference takes the value's type.
pub fn fill(node: &mut Node, scope: &mut impl Scope, problems: &mut Vec<Diagnostic>) {
    match &mut node.value {
        Value::Text(text) if text.contains("${") => match filled(text, node.span, scope) {
            Ok(Filled::Whole(found)) => {
                let span = scope.place(node.span, found.span);
                *node = Node { value: found.value, span };
            }
            Ok(Filled::Within(filled)) => *text = filled,
            Err(problem) => problems.push(problem),
        },
        Value::List(items) => items.iter_mut().for_each(|item| fill(item, scope, problems)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| fill(value, scope, problems)),
        _ => {}
    }
}

enum Filled {
    Whole(Node),
    Within(String),
}

fn filled(text: &str, span: Span, scope: &mut impl Scope) -> Result<Filled, Diagnostic> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(end) = rest[start..].find('}').map(|length| start + length) else {
            return Err(Diagnostic::at(span, "`${` without `}`"));
        };
        let reference = &rest[start + 2..end];
        result.push_str(&rest[..start]);
        match scope.find(reference, span)? {
            Some(node) if rest.len() == text.len() && start == 0 && end + 1 == text.len() => {
                return Ok(Filled::Whole(node));
            }
            Some(node) => result.push_str(&within(&node, reference, span)?),
            None => result.push_str(&rest[start..=end]),
        }
        rest = &rest[end + 1..];
    }
    result.push_str(rest);
    Ok(Filled::Within(result))
}

fn within(node: &Node, reference: &str, span: Span) -> Result<String, Diagnostic> {
    match &node.value {
        Value::Bool(value) => Ok(value.to_string()),
        Value::Int(value) => Ok(value.to_string()),
        Value::Large(value) => Ok(value.to_string()),
        Value::Float(value) => Ok(value.to_string()),
        Value::Text(value) => Ok(value.clone()),
        _ => {
            let message = format!("`{reference}` is {} and cannot stand inside a text", node.describe());
            Err(Diagnostic::at(span, message))
        }
    }
}

/// Whether a text below a node holds some text.
pub fn mentions(node: &Node, wanted: &str) -> bool {
    match &node.value {
        Value::Text(text) => text.contains(wanted),
        Value::List(items) => items.iter().any(|item| mentions(item, wanted)),
        Value::Map(entries) => entries.iter().any(|(_, value)| mentions(value, wanted)),
        _ => false,
    }
}

/// Replaces a text by another one in every text below a node.
pub fn rename(node: &mut Node, from: &str, to: &str) {
    match &mut node.value {
        Value::Text(text) if text.contains(from) => *text = text.replace(from, to),
        Value::List(items) => items.iter_mut().for_each(|item| rename(item, from, to)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| rename(value, from, to)),
        _ => {}
    }
}

/// Puts values at dotted paths of a pipeline: `params.seed`, or `harvest.beam` for the stage's parameter.
pub struct Setter<'a> {
    root: &'a mut Node,
    /// Where each stage stands, so that many changes of many stages stay quick.
    stages: HashMap<String, usize>,
}

impl<'a> Setter<'a> {
    /// Changes a pipeline, given as its root.
    pub fn new(root: &'a mut Node) -> Self {
        let stages = root.get("stages").map(Node::entries).unwrap_or_default();
        let stages = stages.iter().enumerate().map(|(index, (key, _))| (key.text.clone(), index)).collect();
        Self { root, stages }
    }

    /// Puts a value at a path.
    pub fn set(&mut self, path: &Key, value: Node) -> Result<(), Diagnostic> {
        let parts: Vec<&str> = path.text.split('.').collect();
        if parts.len() < 2 || parts.contains(&"") {
            return Err(Diagnostic::at(path.span, format!("`{}` names no parameter", path.text))
                .help("write `stage.parameter` or `params.name`"));
        }
        if parts[0] == "params" {
            let params = self.root.get("params").map(Node::entries).unwrap_or_default();
            if !params.iter().any(|(key, _)| key.text == parts[1]) {
                let problem = Diagnostic::at(path.span, format!("the pipeline has no parameter `{}`", parts[1]));
                return Err(match params.is_empty() {
                    true => problem.help("`params:` at the top of the file is where it would have its first value"),
                    false => problem.suggest(parts[1], params.iter().map(|(key, _)| key.text.as_str())),
                });
            }
            return put(self.root, &parts, path, value);
        }
        let Some(&index) = self.stages.get(parts[0]) else {
            let stages = self.root.get("stages").map(Node::entries).unwrap_or_default();
            return Err(Diagnostic::at(path.span, format!("unknown stage `{}`", parts[0]))
                .suggest(parts[0], stages.iter().map(|(key, _)| key.text.as_str())));
        };
        let Value::Map(entries) = &mut self.root.value else { return Ok(()) };
        let stages = entries.iter_mut().find(|(key, _)| key.text == "stages");
        let Some(Value::Map(stages)) = stages.map(|(_, node)| &mut node.value) else { return Ok(()) };
        let keys = [&["with"], &parts[1..]].concat();
        put(&mut stages[index].1, &keys, path, value)
    }
}

fn put(node: &mut Node, keys: &[&str], path: &Key, value: Node) -> Result<(), Diagnostic> {
    let Some((first, rest)) = keys.split_first() else {
        *node = value;
        return Ok(());
    };
    if node.value == Value::Null {
        node.value = Value::Map(Vec::new());
    }
    let found = node.describe();
    let Value::Map(entries) = &mut node.value else {
        return Err(Diagnostic::at(path.span, format!("`{}` leads into {found}", path.text))
            .related(node.span, "this is no map: set it whole"));
    };
    let index = entries.iter().position(|(key, _)| key.text == *first).unwrap_or_else(|| {
        let key = Key { text: (*first).to_owned(), span: path.span };
        entries.push((key, Node { value: Value::Null, span: path.span }));
        entries.len() - 1
    });
    put(&mut entries[index].1, rest, path, value)
}
