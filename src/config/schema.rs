//! JSON Schema of pipeline files and of row types, for editors and for people who read the Parquet.

use arrow::datatypes::{DataType, Field};
use serde_json::{Map, Value, json};

use crate::stages::{KINDS, ROWS};

/// The JSON Schema of a pipeline file: completion and hover text for every kind and parameter.
pub fn pipeline() -> Value {
    let mut definitions = Map::new();
    let mut cases = Vec::new();
    for kind in KINDS {
        let mut schema = (kind.schema)().to_value();
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
            // Definitions inside a parameter schema move up, where `#/$defs/…` finds them.
            if let Some(Value::Object(inner)) = object.remove("$defs") {
                definitions.extend(inner);
            }
        }
        definitions.insert(kind.name.to_owned(), schema);
        cases.push(json!({
            "if": {"properties": {"kind": {"const": kind.name}}, "required": ["kind"]},
            "then": {"properties": {"with": {"$ref": format!("#/$defs/{}", kind.name)}}},
        }));
    }
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let stage = json!({
        "type": "object",
        "required": ["kind"],
        "additionalProperties": false,
        "properties": {
            "kind": {"enum": names, "description": "What the stage does."},
            "in": {
                "type": "object",
                "description": "Connections: `port: stage.port`.",
                "additionalProperties": {"type": "string", "pattern": "^[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]+$"},
            },
            "with": {"description": "The kind's parameters."},
            "note": {"description": "A remark; it changes nothing."},
            "pool": {
                "type": "string",
                "pattern": "^[A-Za-z0-9_-]+$",
                "description": "The pool that it takes a slot of while it runs, such as `cpu`, `gpu` or `llm`; the kind's own where absent.",
            },
            "retries": {
                "type": "integer",
                "minimum": 0,
                "maximum": 1000,
                "default": 0,
                "description": "How often it is tried again after it failed.",
            },
            "timeout": {
                "description": "How long one attempt may take: seconds, or a text such as `90 s`, `30 min` or `2 h`.",
                "anyOf": [
                    {"type": "number", "exclusiveMinimum": 0},
                    {"type": "string", "pattern": "^[0-9.]+ *(s|min|h)$"},
                ],
            },
            "frozen": {
                "type": "boolean",
                "default": false,
                "description": "Whether its newest result counts whatever has changed since.",
            },
        },
        "allOf": cases,
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A thresh pipeline",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "description": "The pipeline's name: runs are compared under it."},
            "description": {"type": "string", "description": "What it is for."},
            "extends": {"type": "string", "description": "A pipeline file that this one is a variation of."},
            "params": {"type": "object", "description": "Values that stages use as `${params.NAME}`."},
            "set": {"type": "object", "description": "What differs from the base: `stage.parameter: value`."},
            "stages": {"type": "object", "description": "The stages by name.", "additionalProperties": stage},
        },
        "$defs": definitions,
    })
}

/// The columns of every row type: file name and content.
pub fn rows() -> Vec<(String, Value)> {
    let describe = |row: &crate::stages::RowType| {
        let columns: Vec<Value> = (row.schema)().fields().iter().map(|field| column(field)).collect();
        (format!("{}.json", row.name.replace('/', ".")), json!({"row": row.name, "columns": columns}))
    };
    ROWS.iter().map(describe).collect()
}

fn column(field: &Field) -> Value {
    let (name, inner) = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => ("text".to_owned(), None),
        DataType::Boolean => ("bool".to_owned(), None),
        DataType::List(item) => ("list".to_owned(), Some(json!(column(item)))),
        DataType::Struct(fields) => ("struct".to_owned(), Some(fields.iter().map(|field| column(field)).collect())),
        DataType::Dictionary(_, _) => ("text".to_owned(), None),
        other => (other.to_string().to_lowercase(), None),
    };
    let mut column = json!({"name": field.name(), "type": name, "nullable": field.is_nullable()});
    if let (Some(inner), Some(object)) = (inner, column.as_object_mut()) {
        let key = if name == "list" { "items" } else { "fields" };
        object.insert(key.to_owned(), inner);
    }
    column
}
