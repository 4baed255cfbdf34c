//! JSON Schema of pipeline files and of row types, for editors and for people who read the Parquet.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, Fields};
use serde_json::{Map, Value, json};

use super::kind_ports::ports;
use crate::engine::fingerprint::type_name;
use crate::engine::port::{Arity, Holds, PortSpec};
use crate::stages::{self, Kind, RowType};

/// The keys of a stage beside `kind`, `in` and `with`: name, JSON Schema, and what documentation says of each.
pub fn stage_keys() -> Vec<(&'static str, Value, &'static str)> {
    let values = json!({"type": ["string", "number", "boolean", "null"]});
    let items =
        json!({"type": "array", "items": {"type": "object", "minProperties": 1, "additionalProperties": values}});
    let axis = json!({"anyOf": [{"type": "array", "minItems": 1, "items": values}, {"$ref": "#/$defs/reference"}]});
    let time = json!({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^[0-9.]+ *(s|min|h)$"}]});
    vec![
        (
            "matrix",
            json!({
                "type": "object",
                "minProperties": 1,
                "properties": {"include": items, "exclude": items},
                "additionalProperties": axis,
            }),
            "Axes, each with its values, `{lr: [1e-4, 3e-4], seed: [1, 2]}`: the stage becomes one instance for each \
             combination, `NAME[lr=1e-4,seed=1]`, and `${matrix.lr}` under `with` is its value. `exclude` takes combinations \
             away, `include` adds some. What reads the stage fans out too.",
        ),
        (
            "each",
            json!({"type": "array", "items": {"type": "string"}}),
            "The axes that the stage fans out over although its port takes any number of connections; instances along \
             the other axes are collected.",
        ),
        (
            "pool",
            json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}),
            "The pool that it takes a slot of while it runs: `cpu`, `gpu` or `llm`; the kind's own where absent.",
        ),
        (
            "retries",
            json!({"type": "integer", "minimum": 0, "maximum": 1000, "default": 0}),
            "How often it is tried again after it failed.",
        ),
        ("timeout", time, "How long one attempt may take: seconds, or a text such as `90 s`, `30 min` or `2 h`."),
        (
            "frozen",
            json!({"type": "boolean", "default": false}),
            "Whether its newest result counts whatever has changed since.",
        ),
        ("note", json!(true), "A remark; it changes nothing."),
    ]
}

/// The JSON Schema of a pipeline file: completion and hover text for every kind and parameter.
pub fn pipeline() -> Value {
    let mut definitions = Map::new();
    definitions.insert(
        "reference".to_owned(),
        json!({
            "type": "string",
            "pattern": "^\\$\\{(params|matrix)\\.[^}]+\\}$",
            "description": "A parameter of the pipeline, `${params.NAME}`, or the value of an axis, `${matrix.AXIS}`.",
        }),
    );
    let mut cases = Vec::new();
    for kind in stages::kinds() {
        let mut schema = (kind.schema)().to_value();
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
            object.remove("title");
            // Definitions inside a parameter schema move up, where `#/$defs/…` finds them.
            if let Some(Value::Object(inner)) = object.remove("$defs") {
                definitions.extend(inner.into_iter().map(|(name, schema)| (name, with_references(schema))));
            }
        }
        cases.push(case(kind, &schema));
        definitions.insert(kind.name.to_owned(), with_references(schema));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A thresh pipeline",
        "type": "object",
        "additionalProperties": false,
        "anyOf": [{"required": ["name", "stages"]}, {"required": ["extends"]}],
        "properties": {
            "name": {"type": "string", "description": "The pipeline's name: runs are compared under it."},
            "description": {"type": "string", "description": "What it is for."},
            "extends": {
                "type": "string",
                "description": "A pipeline file that this one is a variation of, relative to this one's folder.",
            },
            "params": {"type": ["object", "null"], "description": "Values that stages use as `${params.NAME}`."},
            "set": {
                "type": ["object", "null"],
                "description": "What differs from the base: `stage.parameter: value` or `params.NAME: value`.",
                "propertyNames": {"pattern": "^[A-Za-z0-9_-]+(\\.[^.]+)+$"},
            },
            "sweep": {
                "type": ["object", "null"],
                "description": "What is tried with several values, `stage.parameter: [value, value]` or `params.NAME: [value, value]`, \
                     as `--set` does from the command line: every stage that uses the parameter becomes one instance for each value, \
                     and what reads it fans out too.",
                "propertyNames": {"pattern": "^[A-Za-z0-9_-]+(\\.[^.]+)+$"},
                "additionalProperties": {"type": "array", "minItems": 1},
            },
            "stages": {
                "type": "object",
                "description": "The stages by name.",
                "propertyNames": {"pattern": "^[A-Za-z0-9_-]+$", "not": {"const": "params"}},
                "additionalProperties": stage(cases),
            },
        },
        "$defs": definitions,
    })
}

fn stage(cases: Vec<Value>) -> Value {
    let kind = |kind: &Kind| {
        let schema = (kind.schema)();
        json!({"const": kind.name, "description": schema.get("description")})
    };
    let mut properties = Map::new();
    let kinds: Vec<Value> = stages::kinds().map(kind).collect();
    properties.insert("kind".to_owned(), json!({"description": "What the stage does.", "oneOf": kinds}));
    properties.insert(
        "in".to_owned(),
        json!({
            "type": ["object", "null"],
            "description": "Connections: `port: stage.port`, or `port: stage[axis=value].port` for one instance of a matrix.",
            "additionalProperties": {"type": "string", "pattern": "^[A-Za-z0-9_-]+(\\[.*\\])?\\.[A-Za-z0-9_-]+$"},
        }),
    );
    properties.insert("with".to_owned(), json!({"description": "The kind's parameters."}));
    for (name, mut schema, text) in stage_keys() {
        match schema.as_object_mut() {
            Some(object) => _ = object.insert("description".to_owned(), text.into()),
            None => schema = json!({"description": text}),
        }
        properties.insert(name.to_owned(), schema);
    }
    json!({
        "type": "object",
        "required": ["kind"],
        "additionalProperties": false,
        "properties": properties,
        "allOf": cases,
    })
}

/// What holds for the stages of a kind: its parameters and its inputs, which no parameter changes.
fn case(kind: &Kind, schema: &Value) -> Value {
    let mut properties = json!({"with": {"$ref": format!("#/$defs/{}", kind.name)}});
    let mut required = Vec::new();
    if schema.get("required").and_then(Value::as_array).is_some_and(|names| !names.is_empty()) {
        required.push("with");
    } else {
        properties["with"] = json!({"anyOf": [properties["with"].take(), {"type": "null"}]});
    }
    let inputs = ports(kind).map(|(inputs, _)| inputs.as_slice()).unwrap_or_default();
    let many = inputs.iter().find(|port| port.arity == Arity::Many);
    let mut known = Map::new();
    for port in inputs.iter().filter(|port| port.arity != Arity::Many) {
        let how = if port.arity == Arity::Optional { "; may stay unconnected" } else { "" };
        known.insert(port.name.clone(), json!({"description": format!("Takes `{}`{how}.", type_name(&port.holds))}));
    }
    let mut connections = json!({"properties": known});
    let needed: Vec<&str> =
        inputs.iter().filter(|port| port.arity == Arity::One).map(|port| port.name.as_str()).collect();
    match many {
        None => connections["propertyNames"] = json!({"enum": known_names(inputs)}),
        Some(port) if port.holds != Holds::Anything => connections["minProperties"] = 1.into(),
        Some(_) => {}
    }
    if !needed.is_empty() || connections.get("minProperties").is_some() {
        connections["required"] = json!(needed);
        connections["type"] = "object".into();
        required.push("in");
    }
    properties["in"] = connections;
    json!({
        "if": {"properties": {"kind": {"const": kind.name}}, "required": ["kind"]},
        "then": {"properties": properties, "required": required},
    })
}

fn known_names(inputs: &[PortSpec]) -> Vec<&str> {
    inputs.iter().map(|port| port.name.as_str()).collect()
}

/// Lets a reference stand wherever a value stands that is no free text.
fn with_references(mut schema: Value) -> Value {
    let Some(object) = schema.as_object_mut() else { return schema };
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (_, property) in properties.iter_mut() {
            *property = or_reference(with_references(property.take()));
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key).filter(|inner| inner.is_object()) {
            *inner = or_reference(with_references(inner.take()));
        }
    }
    schema
}

fn or_reference(schema: Value) -> Value {
    let reference = json!({"$ref": "#/$defs/reference"});
    let Value::Object(mut object) = schema else { return schema };
    let text = |kind: &Value| kind == "string" || kind.as_array().is_some_and(|kinds| kinds.contains(&"string".into()));
    if object.get("type").is_some_and(text) && !object.contains_key("enum") && !object.contains_key("const") {
        return Value::Object(object);
    }
    // What an editor shows stays outside.
    let mut outer = Map::new();
    for key in ["description", "default"] {
        if let Some(value) = object.remove(key) {
            outer.insert(key.to_owned(), value);
        }
    }
    outer.insert("anyOf".to_owned(), json!([object, reference]));
    Value::Object(outer)
}

/// The columns of every row type: file name and content.
pub fn rows() -> Vec<(String, Value)> {
    let describe = |row: &RowType| {
        (format!("{}.json", row.name.replace('/', ".")), json!({"row": row.name, "columns": columns(row)}))
    };
    stages::rows().map(describe).collect()
}

/// The columns of a row type with what is said of each.
pub fn columns(row: &RowType) -> Vec<Value> {
    let about = about(row);
    (row.schema)().fields().iter().map(|field| column(field, field.name(), &about)).collect()
}

fn column(field: &Field, path: &str, about: &BTreeMap<String, String>) -> Value {
    let (name, inner) = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => ("text".to_owned(), None),
        DataType::Boolean => ("bool".to_owned(), None),
        DataType::List(item) => ("list".to_owned(), Some(item_of(item, path, about))),
        DataType::Struct(fields) => ("struct".to_owned(), Some(fields_of(fields, path, about))),
        DataType::Dictionary(_, _) => ("text".to_owned(), None),
        other => (other.to_string().to_lowercase(), None),
    };
    let mut column = json!({"name": field.name(), "type": name, "nullable": field.is_nullable()});
    let Some(object) = column.as_object_mut() else { return column };
    if let Some(text) = about.get(path) {
        object.insert("description".to_owned(), text.as_str().into());
    }
    if let Some(inner) = inner {
        let key = if name == "list" { "items" } else { "fields" };
        object.insert(key.to_owned(), inner);
    }
    column
}

/// A list's item, whose description is the list's.
fn item_of(item: &Field, path: &str, about: &BTreeMap<String, String>) -> Value {
    let mut item = column(item, path, about);
    if let Some(object) = item.as_object_mut() {
        object.shift_remove("description");
    }
    item
}

fn fields_of(fields: &Fields, path: &str, about: &BTreeMap<String, String>) -> Value {
    fields.iter().map(|field| column(field, &format!("{path}.{}", field.name()), about)).collect()
}

/// What the columns of a row type mean, by their names; the fields within them as `column.field`, whatever lists lie between.
pub fn about(row: &RowType) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    if let Some(about) = row.about {
        let schema = about().to_value();
        collect(&schema, &schema, "", &mut texts);
    }
    texts
}

fn collect(root: &Value, schema: &Value, path: &str, texts: &mut BTreeMap<String, String>) {
    if let Some(name) = schema["$ref"].as_str() {
        return collect(root, root.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null), path, texts);
    }
    for inner in
        schema["anyOf"].as_array().into_iter().flatten().chain([&schema["items"]]).filter(|one| one.is_object())
    {
        collect(root, inner, path, texts);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if let Some(text) = field["description"].as_str() {
            texts.insert(path.clone(), text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        collect(root, field, &path, texts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_definition_means_the_same_in_every_kind() {
        let mut known: Map<String, Value> = Map::new();
        for kind in stages::KINDS {
            let schema = (kind.schema)().to_value();
            let definitions = schema.get("$defs").and_then(Value::as_object);
            for (name, definition) in definitions.into_iter().flatten() {
                let first = known.entry(name.clone()).or_insert_with(|| definition.clone());
                assert_eq!(first, definition, "`{name}` of {}", kind.name);
            }
        }
    }

    #[test]
    fn columns_are_described_down_to_the_fields_within() {
        let row = crate::stages::rows().find(|row| row.name == "dialogue.episode/v2").unwrap();
        let about = about(row);
        assert_eq!(about["reason"], "Why it is broken.");
        assert_eq!(about["calls.observation"], "What the agent saw.");
        assert!(about.contains_key("messages.tool_calls.function.name"), "{about:?}");
        for row in crate::stages::rows() {
            let about = super::about(row);
            for field in (row.schema)().fields() {
                assert!(about.contains_key(field.name()), "`{}` of {} has no description", field.name(), row.name);
            }
        }
    }

    #[test]
    fn references_stand_for_what_is_no_text() {
        let schema = json!({"properties": {"n": {"type": "integer", "description": "N."}, "t": {"type": "string"}}});
        let filled = with_references(schema);
        assert_eq!(filled["properties"]["n"]["description"], "N.");
        assert_eq!(filled["properties"]["n"]["anyOf"][0], json!({"type": "integer"}));
        assert_eq!(filled["properties"]["n"]["anyOf"][1], json!({"$ref": "#/$defs/reference"}));
        assert_eq!(filled["properties"]["t"], json!({"type": "string"}));
    }
}
