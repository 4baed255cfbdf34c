//! The pages of the two files that people write: the keys of pipelines and those of `thresh.toml`.

use serde_json::Value;

use super::{WRITTEN, cell};
use crate::cli::kinds::{Parameter, parameters};
use crate::config::Settings;
use crate::config::schema::{self, stage_keys};

/// The keys of a pipeline file.
pub(super) fn pipelines() -> String {
    let mut page = format!("# Pipeline files\n\n{WRITTEN}\n\n| key | |\n|---|---|\n");
    let schema = schema::pipeline();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        page.push_str(&row(name, property["description"].as_str().unwrap_or_default()));
    }
    page.push_str("\n## A stage\n\n| key | |\n|---|---|\n");
    let stage = &schema["properties"]["stages"]["additionalProperties"]["properties"];
    for name in ["kind", "in", "with"] {
        page.push_str(&row(name, stage[name]["description"].as_str().unwrap_or_default()));
    }
    for (name, _, text) in stage_keys() {
        page.push_str(&row(name, text));
    }
    page.push_str("\nWhat stands under `in` and `with` depends on the kind: see [kinds](kinds.md).\n");
    page
}

fn row(name: &str, text: &str) -> String {
    format!("| `{name}` | {} |\n", cell(text))
}

/// The keys of `thresh.toml`.
pub(super) fn settings() -> String {
    let mut page = format!(
        "# thresh.toml\n\n{WRITTEN}\n\nThe file marks a project's folder and says where stages run. Nothing in it changes a \
         result or becomes part of a fingerprint. Everything may be left out, the file too.\n\n| key | takes | where absent | |\n\
         |---|---|---|---|\n"
    );
    let schema: Value = schemars::schema_for!(Settings).to_value();
    for Parameter { path, takes, fallback, text, .. } in parameters(&schema) {
        let fallback = match fallback.strip_prefix("default ") {
            Some(value) => format!("`{}`", value.trim_matches('"')),
            None => fallback,
        };
        page.push_str(&format!("| `{path}` | {} | {} | {} |\n", cell(&takes), cell(&fallback), cell(&text)));
    }
    page
}
