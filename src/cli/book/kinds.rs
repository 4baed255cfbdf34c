//! The page of the kinds: ports, parameters and an example of each.

use super::{WRITTEN, anchor, cell};
use crate::cli::kinds::{Parameter, description, parameters};
use crate::config::ports;
use crate::engine::fingerprint::type_name;
use crate::engine::port::{Arity, Holds, PortSpec};
use crate::stages::{self, Kind};

pub(super) fn page() -> String {
    let mut page = format!("# Kinds of stages\n\n{WRITTEN} `thresh kinds` says the same in a terminal.\n\n");
    page.push_str("| kind | what it does |\n|---|---|\n");
    for kind in stages::kinds() {
        let description = description(kind);
        let summary = description.split("\n\n").next().unwrap_or_default();
        page.push_str(&format!("| [`{}`](#{}) | {} |\n", kind.name, anchor(kind.name), cell(summary)));
    }
    stages::kinds().for_each(|kind| section(kind, &mut page));
    page
}

fn section(kind: &Kind, page: &mut String) {
    page.push_str(&format!("\n## {}\n\n{}\n", kind.name, description(kind)));
    page.push_str(&format!("\n```yaml,part\n{}```\n", kind.example));
    if let Some((inputs, outputs)) = ports(kind) {
        // Only outputs that parameters name may carry anything.
        let named = outputs.iter().any(|port| port.holds == Holds::Anything);
        page.push_str("\n| port | carries | |\n|---|---|---|\n");
        let note = if named { "output, here that of the example" } else { "output" };
        inputs.iter().for_each(|port| row(port, arity(port.arity), page));
        outputs.iter().for_each(|port| row(port, note, page));
    }
    let parameters = parameters(&(kind.schema)().to_value());
    if !parameters.is_empty() {
        page.push_str("\n| parameter | takes | where absent | |\n|---|---|---|---|\n");
    }
    for Parameter { path, takes, fallback, text, .. } in parameters {
        let fallback = match fallback.strip_prefix("default ") {
            Some(value) => format!("`{value}`"),
            None => fallback,
        };
        page.push_str(&format!("| `{path}` | {} | {} | {} |\n", cell(&takes), cell(&fallback), cell(&text)));
    }
}

fn arity(arity: Arity) -> &'static str {
    match arity {
        Arity::One => "input",
        Arity::Optional => "input, may stay unconnected",
        Arity::Many => "inputs, any number under names of yours",
    }
}

fn row(port: &PortSpec, how: &str, page: &mut String) {
    let name = type_name(&port.holds);
    let carries = match &port.holds {
        Holds::Table(row) if stages::rows().any(|known| known.name == row) => {
            format!("[`{name}`](tables.md#{})", anchor(row))
        }
        _ => format!("`{name}`"),
    };
    page.push_str(&format!("| `{}` | {carries} | {how} |\n", port.name));
}
