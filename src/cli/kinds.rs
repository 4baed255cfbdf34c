//! `thresh kinds`: what stages there are.

use clap::Args;
use serde_json::Value;

use super::{Failure, Outcome, say};
use crate::config::diagnostic::nearest;
use crate::config::ports;
use crate::engine::fingerprint::type_name;
use crate::engine::port::Arity;
use crate::stages::{self, KINDS, Kind};

#[derive(Args)]
pub(super) struct KindsArgs {
    /// The kind to document.
    kind: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &KindsArgs) -> Outcome {
    let Some(name) = &args.kind else { return list(args.json) };
    let Some(kind) = stages::find(name) else {
        let hint = match nearest(name, KINDS.iter().map(|kind| kind.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`thresh kinds` lists them".to_owned(),
        };
        return Err(Failure::Wrong(anyhow::anyhow!("unknown kind `{name}`; {hint}")));
    };
    if args.json {
        say(serde_json::to_string_pretty(&(kind.schema)())?)?;
        return Ok(());
    }
    document(kind)
}

fn list(json: bool) -> Outcome {
    let width = KINDS.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    for kind in KINDS {
        let summary = description(kind).lines().next().unwrap_or_default().to_owned();
        if json {
            say(serde_json::json!({"kind": kind.name, "version": kind.version, "summary": summary}).to_string())?;
        } else {
            say(format!("{:width$}  {summary}", kind.name))?;
        }
    }
    Ok(())
}

fn description(kind: &Kind) -> String {
    (kind.schema)().get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn document(kind: &Kind) -> Outcome {
    say(format!("{} (version {})\n\n{}", kind.name, kind.version, description(kind)))?;
    if let Some((inputs, outputs)) = ports(kind) {
        for (title, ports) in [("\nInputs", inputs), ("\nOutputs", outputs)] {
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
    let schema = (kind.schema)();
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        say("\nParameters")?;
        for (name, property) in properties {
            let fallback = match property.get("default") {
                _ if required.contains(&name.as_str()) => "required".to_owned(),
                Some(Value::Null) | None => "optional".to_owned(),
                Some(default) => format!("default {default}"),
            };
            let text = property.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
            say(format!("  {name} ({fallback}): {text}"))?;
        }
    }
    say(format!("\nExample\n{}", indent(kind.example)))?;
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect::<String>().trim_end().to_owned()
}
