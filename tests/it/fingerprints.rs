//! Fingerprints are stable across releases: those of every kind's example, with inputs of fixed content, are kept in
//! `tests/golden/fingerprints.json`. `THRESH_BLESS=1` writes them anew, to be read in the diff.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thresh::engine::fingerprint::{Fields, changes, fields, fingerprint};
use thresh::engine::port::{Arity, Holds};
use thresh::stages::{KINDS, Kind};

use crate::project::Project;

/// What a kind's example comes to.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Golden {
    fingerprint: String,
    fields: Fields,
}

/// The files that examples name, with a content of their own.
fn project() -> Project {
    let project = Project::new();
    project.write("scripts/score.py", "print(1)\n");
    for file in [
        "models/SmolLM2-135M-Instruct.Q4_1.gguf",
        "adapters/friendly/adapter_config.json",
        "adapters/friendly/adapter_model.safetensors",
    ] {
        project.write(file, file);
    }
    let origin = "name = \"toolwoz\"\nlicence = \"none\"\norigin = \"nowhere\"\ndescription = \"nothing\"\n";
    let source = "[[source]]\npath = \"datasets/a.json\"\n";
    let sha256 = "5".repeat(64);
    let file = format!("[[file]]\npath = \"a.json\"\nto = \"a.json\"\nsha256 = \"{sha256}\"\nbytes = 7\n");
    project.write("datasets/toolwoz.toml", &format!("{origin}{source}{file}"));
    project
}

fn golden(kind: &Kind, project: &Path) -> Golden {
    let node = thresh::config::yaml_node(kind.example).unwrap();
    let (_, stage) = node.entries().first().unwrap();
    let empty = thresh::config::yaml_node("{}").unwrap();
    let parsed =
        (kind.parse)(stage.get("with").unwrap_or(&empty)).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
    let ports = parsed.inputs();
    let mut inputs = Vec::new();
    for (name, _) in stage.get("in").map(|node| node.entries()).unwrap_or_default() {
        let takes = |port: &&thresh::engine::port::PortSpec| port.name == name.text || port.arity == Arity::Many;
        let holds = match &ports.iter().find(takes).unwrap().holds {
            Holds::Anything => Holds::Folder("files/v1".to_owned()),
            other => other.clone(),
        };
        inputs.push((name.text.clone(), holds, blake3::hash(name.text.as_bytes()).to_hex().to_string()));
    }
    inputs.sort_by(|a, b| a.0.cmp(&b.0));
    let also = parsed.also_depends_on(project).unwrap_or_else(|error| panic!("{}: {error:#}", kind.name));
    let fields = fields(parsed.as_ref(), &inputs, &also);
    Golden { fingerprint: fingerprint(&fields), fields }
}

#[test]
fn fingerprints_are_those_of_the_last_release() {
    let project = project();
    let found: BTreeMap<&str, Golden> = KINDS.iter().map(|kind| (kind.name, golden(kind, project.path()))).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fingerprints.json");
    if std::env::var_os("THRESH_BLESS").is_some() {
        std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&found).unwrap())).unwrap();
    }
    let kept: BTreeMap<String, Golden> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (kind, found) in &found {
        let Some(kept) = kept.get(*kind) else {
            wrong.push(format!("{kind}: is not in the file yet"));
            continue;
        };
        let changes = changes(&kept.fields, &found.fields);
        for change in &changes {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".to_owned());
            wrong.push(format!("{kind}: `{}`: {} -> {}", change.field, value(&change.old), value(&change.new)));
        }
        if changes.is_empty() && kept.fingerprint != found.fingerprint {
            wrong.push(format!(
                "{kind}: the same fields are hashed to {}, once {}",
                found.fingerprint, kept.fingerprint
            ));
        }
    }
    wrong.extend(kept.keys().filter(|kind| !found.contains_key(kind.as_str())).map(|kind| format!("{kind}: is gone")));
    assert!(
        wrong.is_empty(),
        "fingerprints differ from those of the last release, so everybody's results of these kinds would be computed again:\n\n  \
         {}\n\nA new optional parameter must be left out of the fields where it is absent (`skip_serializing_if`, default `null`).\n\
         A kind that now computes something else for the same parameters raises its `VERSION`: then, and where an example\n\
         changed, `THRESH_BLESS=1 cargo test --test it fingerprints` writes the file anew.",
        wrong.join("\n  ")
    );
}
