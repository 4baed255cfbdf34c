//! `${params.x}`, `set:` and `--set`: values put in their places before a stage sees them.

use std::collections::BTreeMap;

use super::diagnostic::Diagnostic;
use crate::value::{Key, Node, Value};

/// The pipeline's parameters by name.
pub type Params = BTreeMap<String, Node>;

/// Replaces every `${params.x}` below a node. A text that is nothing but a reference takes the parameter's type.
pub fn fill(node: &mut Node, params: &Params, problems: &mut Vec<Diagnostic>) {
    match &mut node.value {
        Value::Text(text) if text.contains("${") => match filled(text, node.span, params) {
            Ok(value) => node.value = value,
            Err(problem) => problems.push(problem),
        },
        Value::List(items) => items.iter_mut().for_each(|item| fill(item, params, problems)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| fill(value, params, problems)),
        _ => {}
    }
}

fn filled(text: &str, span: crate::value::Span, params: &Params) -> Result<Value, Diagnostic> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let end = rest[start..].find('}').map(|length| start + length);
        let Some(end) = end else {
            return Err(Diagnostic::at(span, "`${` without `}`"));
        };
        let reference = &rest[start + 2..end];
        let Some(name) = reference.strip_prefix("params.") else {
            return Err(Diagnostic::at(span, format!("`${{{reference}}}` is no reference"))
                .help("a reference is `${params.NAME}`"));
        };
        let Some(value) = params.get(name) else {
            return Err(Diagnostic::at(span, format!("unknown parameter `{name}`"))
                .suggest(name, params.keys().map(String::as_str)));
        };
        if start == 0 && end + 1 == text.len() {
            return Ok(value.value.clone());
        }
        result.push_str(&rest[..start]);
        match &value.value {
            Value::Bool(value) => result.push_str(&value.to_string()),
            Value::Int(value) => result.push_str(&value.to_string()),
            Value::Large(value) => result.push_str(&value.to_string()),
            Value::Float(value) => result.push_str(&value.to_string()),
            Value::Text(value) => result.push_str(value),
            _ => {
                return Err(Diagnostic::at(
                    span,
                    format!("`{name}` is {} and cannot stand inside a text", value.describe()),
                ));
            }
        }
        rest = &rest[end + 1..];
    }
    result.push_str(rest);
    Ok(Value::Text(result))
}

/// Puts a value at a dotted path of a pipeline: `params.seed`, or `harvest.beam` for the stage's parameter.
pub fn set(root: &mut Node, path: &Key, value: Node) -> Result<(), Diagnostic> {
    let parts: Vec<&str> = path.text.split('.').collect();
    let (Some(first), true) = (parts.first(), parts.len() >= 2) else {
        return Err(Diagnostic::at(path.span, format!("`{}` names no parameter", path.text))
            .help("write `stage.parameter` or `params.name`"));
    };
    let mut keys: Vec<&str> = Vec::new();
    if *first == "params" {
        if let Some(params) = root.get("params")
            && params.get(parts[1]).is_none()
        {
            return Err(Diagnostic::at(path.span, format!("unknown parameter `{}`", parts[1]))
                .suggest(parts[1], params.entries().iter().map(|(key, _)| key.text.as_str())));
        }
        keys.extend(&parts);
    } else {
        let stages = root.get("stages").map(Node::entries).unwrap_or_default();
        if !stages.iter().any(|(key, _)| key.text == *first) {
            return Err(Diagnostic::at(path.span, format!("unknown stage `{first}`"))
                .suggest(first, stages.iter().map(|(key, _)| key.text.as_str())));
        }
        keys.extend(["stages", first, "with"]);
        keys.extend(&parts[1..]);
    }
    put(root, &keys, path, value)
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
        return Err(Diagnostic::at(path.span, format!("`{}` leads into {found}", path.text)));
    };
    let index = entries.iter().position(|(key, _)| key.text == *first).unwrap_or_else(|| {
        let key = Key { text: (*first).to_owned(), span: path.span };
        entries.push((key, Node { value: Value::Null, span: path.span }));
        entries.len() - 1
    });
    put(&mut entries[index].1, rest, path, value)
}
