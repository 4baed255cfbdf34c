//! `thresh kinds`: what stages there are.

use clap::Args;
use serde_json::{Value, json};

use super::{Common, Failure, Outcome, say};
use crate::config::diagnostic::nearest;
use crate::config::ports;
use crate::config::schema::stage_keys;
use crate::engine::fingerprint::type_name;
use crate::engine::port::{Arity, Holds, PortSpec};
use crate::stages::{self, Kind};

#[derive(Args)]
pub(super) struct KindsArgs {
    /// The kind to document.
    kind: Option<String>,
}

pub(super) fn run(args: &KindsArgs, common: &Common) -> Outcome {
    let Some(name) = &args.kind else { return list(common.json) };
    let Some(kind) = stages::find(name) else {
        let hint = match nearest(name, stages::kinds().map(|kind| kind.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`thresh kinds` lists them".to_owned(),
        };
        return Err(Failure::Wrong(anyhow::anyhow!("unknown kind `{name}`; {hint}")));
    };
    if common.json {
        say(serde_json::to_string_pretty(&page(kind))?)?
    } else {
        document(kind)?
    }
    Ok(())
}

/// A kind as JSON: what the page says, and the JSON Schema of the parameters.
fn page(kind: &Kind) -> Value {
    let ports = ports(kind);
    let list = |ports: &[PortSpec]| -> Vec<Value> {
        let arity = |arity| match arity {
            Arity::One => "one",
            Arity::Optional => "optional",
            Arity::Many => "many",
        };
        ports
            .iter()
            .map(|port| json!({"name": port.name, "type": type_name(&port.holds), "arity": arity(port.arity)}))
            .collect()
    };
    json!({
        "kind": kind.name,
        "version": kind.version,
        "description": description(kind),
        "inputs": ports.map(|(inputs, _)| list(inputs)),
        "outputs": ports.map(|(_, outputs)| list(outputs)),
        "parameters": (kind.schema)(),
        "example": kind.example,
    })
}

fn list(json: bool) -> Outcome {
    let width = stages::kinds().map(|kind| kind.name.len()).max().unwrap_or(0);
    for kind in stages::kinds() {
        let description = description(kind);
        let summary = description.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        if json {
            say(json!({"kind": kind.name, "version": kind.version, "summary": summary}).to_string())?;
        } else {
            say(format!("{:width$}  {summary}", kind.name))?;
        }
    }
    Ok(())
}

pub(super) fn description(kind: &Kind) -> String {
    (kind.schema)().get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn document(kind: &Kind) -> Outcome {
    say(format!("{} (version {})\n\n{}", kind.name, kind.version, description(kind)))?;
    if let Some((inputs, outputs)) = ports(kind) {
        // Only outputs that parameters name may carry anything.
        let named = outputs.iter().any(|port| port.holds == Holds::Anything);
        let title = if named { "\nOutputs, here those of the example" } else { "\nOutputs" };
        for (title, ports) in [("\nInputs", inputs), (title, outputs)] {
            if !ports.is_empty() {
                say(title)?;
            }
            for port in ports {
                let how = match port.arity {
                    Arity::One => "",
                    Arity::Optional => ", optional",
                    Arity::Many => ", any number under names of yours",
                };
                say(format!("  {}: {}{how}", port.name, type_name(&port.holds)))?;
            }
        }
    }
    let schema = (kind.schema)().to_value();
    say("\nParameters, under `with`")?;
    for Parameter { depth, path, takes, fallback, text } in parameters(&schema) {
        let margin = "  ".repeat(depth);
        let fallback = if fallback.is_empty() { fallback } else { format!(", {fallback}") };
        say(format!("{margin}{path} ({takes}{fallback}): {text}"))?;
    }
    say("\nBeside `kind`, `in` and `with` every stage takes")?;
    for (name, _, text) in stage_keys() {
        say(format!("  {name}: {text}"))?;
    }
    say(format!("\nExample\n{}", indent(kind.example)))?;
    Ok(())
}

/// A parameter as documentation shows it.
pub(super) struct Parameter {
    /// How deep it lies: 1 where it stands under `with` itself.
    pub depth: usize,
    /// Its name with those above it: `agent.temperature`.
    pub path: String,
    /// What it takes, in a few words.
    pub takes: String,
    /// `required`, `optional`, `default 8`, or nothing where what is inside it says so.
    pub fallback: String,
    /// Its docstring in one line.
    pub text: String,
}

/// All parameters of a schema, each followed by those inside it.
pub(super) fn parameters(schema: &Value) -> Vec<Parameter> {
    let mut found = Vec::new();
    within(schema, schema, "", None, 1, &mut found);
    found
}

/// The parameters of an object; `over` is a default that goes before the inner ones.
fn within(root: &Value, object: &Value, path: &str, over: Option<&Value>, depth: usize, found: &mut Vec<Parameter>) {
    let required: Vec<&str> =
        object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = object.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let default = over.and_then(|over| over.get(name)).or_else(|| property.get("default"));
        let inner = resolved(root, present(property));
        let nested = inner.get("properties").is_some();
        let fallback = match default {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            Some(Value::Null) | None => "optional".to_owned(),
            Some(_) if nested => String::new(),
            Some(default) => format!("default {default}"),
        };
        let text = property.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        let path = format!("{path}{name}");
        found.push(Parameter { depth, path: path.clone(), takes: type_of(root, property), fallback, text });
        if nested && depth < 4 {
            within(root, inner, &format!("{path}."), default, depth + 1, found);
        }
        let entries = inner.get("additionalProperties").map(|entries| resolved(root, entries));
        if let Some(entries) = entries.filter(|entries| entries.get("properties").is_some() && depth < 4) {
            within(root, entries, &format!("{path}.NAME."), None, depth + 1, found);
        }
    }
}

/// What a value that may be absent is where it is there.
fn present(schema: &Value) -> &Value {
    let cases = schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice);
    match cases {
        Some([case, null] | [null, case]) if null.get("type").is_some_and(|kind| kind == "null") => case,
        _ => schema,
    }
}

/// A schema behind its reference.
pub(super) fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
    name.and_then(|name| root.get("$defs")?.get(name)).unwrap_or(schema)
}

/// What a parameter takes, in a few words.
fn type_of(root: &Value, schema: &Value) -> String {
    let schema = resolved(root, schema);
    if let Some(choices) = choices(schema) {
        return choices;
    }
    if let Some(cases) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
        let cases = cases.iter().filter(|case| case.get("type").is_none_or(|kind| kind != "null"));
        return cases.map(|case| type_of(root, case)).collect::<Vec<_>>().join(" or ");
    }
    let kinds = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        other => other.and_then(Value::as_str),
    };
    let inner = |key: &str| schema.get(key).map(|inner| type_of(root, inner));
    match kinds {
        Some("integer") => "whole number".to_owned(),
        Some("number") => "number".to_owned(),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("string") => "text".to_owned(),
        Some("array") => inner("items").map_or("list".to_owned(), |inner| format!("list of {inner}")),
        Some("object") if schema.get("properties").is_none() => {
            inner("additionalProperties").map_or("map".to_owned(), |inner| format!("map of names to {inner}"))
        }
        _ => "map".to_owned(),
    }
}

/// The names that an enumeration allows.
fn choices(schema: &Value) -> Option<String> {
    let plain = schema.get("enum").and_then(Value::as_array).map(|names| names.iter().collect::<Vec<_>>());
    let described = || {
        let cases = schema.get("oneOf")?.as_array()?;
        cases.iter().map(|case| case.get("const").or_else(|| case.get("enum")?.get(0))).collect::<Option<Vec<_>>>()
    };
    let names = plain.or_else(described)?;
    Some(names.iter().filter_map(|name| name.as_str()).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect::<String>().trim_end().to_owned()
}
