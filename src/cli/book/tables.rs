//! The page of the tables: the columns of every row type.

use serde_json::Value;

use super::{WRITTEN, anchor, cell};
use crate::config::schema::columns;
use crate::stages;

pub(super) fn page() -> String {
    let mut page = format!(
        "# Tables\n\n{WRITTEN} The folder `schemas/rows` holds the same as JSON.\n\nEvery table is a Parquet file. Its row type stands in \
         the file's metadata under `thresh.row`; the number behind `/v` rises whenever columns change.\n\n"
    );
    for row in stages::rows() {
        let docs = row.about.map(|about| about().to_value()).unwrap_or_default();
        let text = docs.get("description").and_then(Value::as_str).unwrap_or_default();
        page.push_str(&format!(
            "- [`{}`](#{}): {}\n",
            row.name,
            anchor(row.name),
            cell(text.split("\n\n").next().unwrap_or_default())
        ));
    }
    for row in stages::rows() {
        page.push_str(&format!("\n## {}\n\n| column | type | |\n|---|---|---|\n", row.name));
        columns(row).iter().for_each(|column| rows(column, "", &mut page));
    }
    page
}

/// A column, followed by those inside it.
fn rows(column: &Value, above: &str, page: &mut String) {
    let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default();
    let path = format!("{above}{}", text("name"));
    let mut said = cell(text("description"));
    if let Some(values) = column.get("values").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        said.push_str(&format!("{}{}.", if said.is_empty() { "" } else { " One of " }, values.join(", ")));
    }
    page.push_str(&format!("| `{path}` | {} | {said} |\n", kind(column)));
    let inner = |column: &Value, above: &str, page: &mut String| {
        let fields = column.get("fields").and_then(Value::as_array);
        fields.into_iter().flatten().for_each(|field| rows(field, above, page));
    };
    match column.get("items") {
        Some(items) => inner(items, &format!("{path}[]."), page),
        None => inner(column, &format!("{path}."), page),
    }
}

/// The type of a column, with that of a list's items.
fn kind(column: &Value) -> String {
    let name = column.get("type").and_then(Value::as_str).unwrap_or_default();
    let null = if column["nullable"] == true { ", may be null" } else { "" };
    match column.get("items") {
        Some(items) => format!("list of {}{null}", items["type"].as_str().unwrap_or_default()),
        None => format!("{name}{null}"),
    }
}
