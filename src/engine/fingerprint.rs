//! What a result depends on, as fields: the same fields are hashed and, when a result is missing, compared and shown.
//!
//! | field | value | why |
//! |---|---|---|
//! | `kind` | the stage's kind | another kind computes something else |
//! | `version` | the kind's version | a release that computes something else raises it |
//! | `with.NAME` | each parameter, defaults filled in, `null` left out | so writing a default down, or a release that adds an optional parameter, changes nothing |
//! | `in.NAME` | the content of the connected artifact (BLAKE3) and its type | content, not origin: an upstream stage that reruns and yields the same bytes changes nothing |
//! | `out.NAME` | the type of each output | a row type that changes its columns has a new version |
//! | `also.NAME` | what else the kind declares, such as the hash of a file that a parameter names | |
//!
//! The content of a folder is the names and bytes of its files, the folder's own name among them: empty folders and
//! permissions are no content. Inside lists, `null` counts.
//!
//! Not hashed: names of stages and pipelines, how a stage is run (pool, retries, time limit, frozen), the order of keys,
//! comments, the profile (device, endpoints, jobs), the clock, the environment, the machine.

use std::collections::BTreeMap;

use serde_json::Value;

use super::port::{Holds, PortSpec};
use super::stage::AnyStage;

/// Field names and values, both as text.
pub type Fields = BTreeMap<String, String>;

/// What a stage's result depends on.
///
/// `inputs` are the connected inputs' names, types and content digests; `also` what the stage declares beside them.
pub fn fields(stage: &dyn AnyStage, inputs: &[(String, Holds, String)], also: &[(String, String)]) -> Fields {
    let mut fields = Fields::new();
    fields.insert("kind".into(), stage.kind().into());
    fields.insert("version".into(), stage.version().to_string());
    flatten("with", &stage.parameters(), &mut fields);
    for (name, holds, digest) in inputs {
        fields.insert(format!("in.{name}"), format!("{digest} ({})", type_name(holds)));
    }
    for PortSpec { name, holds, .. } in stage.outputs() {
        fields.insert(format!("out.{name}"), type_name(&holds).to_owned());
    }
    for (name, value) in also {
        fields.insert(format!("also.{name}"), value.clone());
    }
    fields
}

/// A type as files and messages name it.
pub fn type_name(holds: &Holds) -> &str {
    match holds {
        Holds::Table(name) | Holds::Folder(name) => name,
        Holds::Anything => "anything",
    }
}

fn flatten(prefix: &str, value: &Value, fields: &mut Fields) {
    match value {
        Value::Null => {}
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                // A key with a dot of its own must not look like two keys.
                let key = if key.contains(['.', '"']) { Value::from(key.as_str()).to_string() } else { key.clone() };
                flatten(&format!("{prefix}.{key}"), value, fields);
            }
        }
        other => {
            fields.insert(prefix.to_owned(), canonical(other).to_string());
        }
    }
}

/// Lists keep their order, maps inside them are put in the order of their keys.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(entries) => {
            let sorted: BTreeMap<&String, Value> = entries.iter().map(|(key, value)| (key, canonical(value))).collect();
            sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// The fingerprint of fields: 64 hexadecimal digits.
pub fn fingerprint(fields: &Fields) -> String {
    let mut hash = blake3::Hasher::new();
    for (name, value) in fields {
        for part in [name, value] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finalize().to_hex().to_string()
}

/// A field that differs between two results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The field.
    pub field: String,
    /// Its old value, where it had one.
    pub old: Option<String>,
    /// Its new value, where it has one.
    pub new: Option<String>,
}

/// The fields in which two results differ, in the order of their names.
pub fn changes(old: &Fields, new: &Fields) -> Vec<Change> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| Change { field: name.clone(), old: old.get(name).cloned(), new: new.get(name).cloned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flat(value: Value) -> Fields {
        let mut fields = Fields::new();
        flatten("with", &value, &mut fields);
        fields
    }

    #[test]
    fn order_and_absent_options_do_not_matter_while_values_do() {
        let one =
            flat(json!({"beam": 8, "agent": {"kind": "rule", "noise": 0.1}, "list": [{"b": 1, "a": 2}], "x": null}));
        let two = flat(json!({"list": [{"a": 2, "b": 1}], "agent": {"noise": 0.1, "kind": "rule"}, "beam": 8}));
        assert_eq!(fingerprint(&one), fingerprint(&two));
        let other = flat(json!({"list": [{"a": 2, "b": 1}], "agent": {"noise": 0.2, "kind": "rule"}, "beam": 8}));
        assert_ne!(fingerprint(&one), fingerprint(&other));
        let expected = Change { field: "with.agent.noise".into(), old: Some("0.1".into()), new: Some("0.2".into()) };
        assert_eq!(changes(&one, &other), [expected]);
    }

    #[test]
    fn a_dot_in_a_key_is_not_a_step() {
        assert_ne!(flat(json!({"a.b": 1})), flat(json!({"a": {"b": 1}})));
    }

    #[test]
    fn a_fingerprint_is_stable_across_releases() {
        let fields = flat(json!({"beam": 8, "text": "ü"}));
        assert_eq!(fingerprint(&fields), "bfd9f4c709c22b49a497ec07be59fb78c48565f5ace0d3cb1b3bd0417361bc42");
    }
}
