//! The parameters of a stage: a map into the type of its kind, every mistake told.

use std::sync::Arc;

use super::diagnostic::Diagnostic;
use crate::engine::stage::AnyStage;
use crate::stages::Kind;
use crate::value::{Key, Node, PlaceError, Span, Value};

/// Keys that stand beside `with` and that people take for parameters.
const STAGE_ONLY: [&str; 8] = ["in", "note", "matrix", "each", "pool", "retries", "timeout", "frozen"];

/// Reads the parameters. Serde stops at the first mistake, so each wrong entry is reported, taken out, and the rest read
/// again: all mistakes appear at once, and what is missing only because it was taken out is not reported.
pub fn read(kind: &'static Kind, with: &Node, key: &Key, problems: &mut Vec<Diagnostic>) -> Option<Arc<dyn AnyStage>> {
    let mut parsed = (kind.parse)(with);
    let right = parsed.is_ok();
    let mut node = if right { Node { value: Value::Null, span: with.span } } else { with.clone() };
    let mut taken: Vec<Vec<String>> = Vec::new();
    loop {
        let error = match parsed {
            Ok(stage) => {
                let checked = stage.check();
                for problem in &checked {
                    let place = at(with, &problem.field).unwrap_or(with.span);
                    problems.push(Diagnostic::at(place, format!("`{}` {}", problem.field, problem.message)));
                }
                return (right && checked.is_empty()).then_some(stage);
            }
            Err(error) => error,
        };
        let mut path = error.path.clone();
        let missing = error.missing.as_ref().map(|field| [path.as_slice(), std::slice::from_ref(field)].concat());
        if missing.is_none_or(|missing| !taken.contains(&missing)) {
            problems.push(explain(kind, &error, with, key));
        }
        if is_unknown_key(&error) {
            path.extend(error.unknown.as_ref().map(|unknown| unknown.0.clone()));
        }
        if !take(&mut node, &mut path) {
            return None;
        }
        taken.push(path);
        parsed = (kind.parse)(&node);
    }
}

fn is_unknown_key(error: &PlaceError) -> bool {
    error.unknown.is_some() && error.message.starts_with("unknown key")
}

/// The place of a dotted path below a node.
pub fn at(node: &Node, path: &str) -> Option<Span> {
    let mut node = node;
    for part in path.split('.') {
        node = match &node.value {
            Value::List(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => node.get(part)?,
        };
    }
    Some(node.span)
}

/// Takes the entry at a path out of its map. Of a list all is taken, and the path cut down to it, so that the others keep
/// their numbers.
fn take(node: &mut Node, path: &mut Vec<String>) -> bool {
    let mut depth = 0;
    let mut at = &*node;
    while depth < path.len() && matches!(at.value, Value::Map(_)) {
        let Some(inner) = at.get(&path[depth]) else { return false };
        at = inner;
        depth += 1;
    }
    path.truncate(depth);
    let Some((last, parents)) = path.split_last() else { return false };
    let mut at = node;
    for name in parents {
        let Value::Map(entries) = &mut at.value else { return false };
        let Some((_, inner)) = entries.iter_mut().find(|(key, _)| key.text == *name) else { return false };
        at = inner;
    }
    let Value::Map(entries) = &mut at.value else { return false };
    entries.retain(|(key, _)| key.text != *last);
    true
}

fn explain(kind: &Kind, error: &PlaceError, with: &Node, key: &Key) -> Diagnostic {
    let path = error.path.join(".");
    let pages = format!("`thresh kinds {}` shows its parameters", kind.name);
    if let Some(field) = &error.missing {
        let (span, missing) = match path.is_empty() {
            true => (key.span, field.clone()),
            false => (at(with, &path).unwrap_or(key.span), format!("{path}.{field}")),
        };
        return Diagnostic::at(span, format!("stage `{}` lacks the parameter `{missing}`", key.text)).help(pages);
    }
    let span = error.span.unwrap_or(with.span);
    let Some((name, known)) = error.unknown.as_deref() else {
        let field = if path.is_empty() { "with" } else { &path };
        return Diagnostic::at(span, format!("`{field}`: {}", error.message));
    };
    let problem = Diagnostic::at(
        span,
        match (is_unknown_key(error), path.is_empty()) {
            (true, true) => format!("unknown parameter `{name}` of `{}`", kind.name),
            (true, false) => format!("unknown key `{name}` in `{path}`"),
            (false, _) => format!("`{path}`: unknown value `{name}`"),
        },
    );
    let parameter = is_unknown_key(error) && path.is_empty();
    if parameter && let Some((_, instead)) = kind.replaced.iter().find(|(old, _)| old == name) {
        return problem.help(*instead);
    }
    match parameter && STAGE_ONLY.contains(&name.as_str()) {
        true => problem.help(format!("`{name}` stands beside `with`, not in it")),
        false => problem.suggest(name, known.iter().map(String::as_str)),
    }
}
