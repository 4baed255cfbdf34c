//! The stages of each run: what became of them, what they took, and where in time they lay.

use serde_json::{Value, json};

use super::{Content, Material, Section};
use crate::engine::history::{Attempt, RunRecord, StageRecord};

pub(super) const TIMELINE: Section = Section {
    id: "timeline",
    title: "Timeline",
    style: include_str!("assets/timeline.css"),
    script: include_str!("assets/timeline.js"),
    make: timeline,
};

/// What both the graph and the timeline know of a stage.
pub(super) fn facts(material: &Material, run: usize, stage: &StageRecord) -> Value {
    let manifest = material.result(run, &stage.name);
    let parameter = |(name, value): (&String, &String)| Some(json!([name.strip_prefix("with.")?, value]));
    let output =
        |(port, artifact): (&String, &crate::engine::store::Artifact)| json!([port, artifact.holds, artifact.bytes()]);
    let earlier = manifest.map(|manifest| manifest.run.as_str()).filter(|by| *by != material.runs[run].run);
    let mut facts = json!({"name": stage.name, "kind": stage.kind, "outcome": stage.outcome});
    // What is not there is left out: a page of many stages stays small.
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            facts[name] = value;
        }
    };
    let some = |values: Vec<Value>| (!values.is_empty()).then_some(Value::Array(values));
    put("seconds", (!stage.attempts.is_empty()).then(|| stage.seconds.into()));
    put("attempts", some(stage.attempts.iter().map(attempt).collect()));
    put("figures", some(stage.figures.iter().map(|(name, value)| json!([name, value])).collect()));
    put("warnings", some(stage.warnings.iter().map(|warning| json!(warning)).collect()));
    put("error", stage.error.as_ref().map(|error| json!(error)));
    put("parameters", manifest.and_then(|manifest| some(manifest.fields.iter().filter_map(parameter).collect())));
    put("outputs", manifest.and_then(|manifest| some(manifest.outputs.iter().map(output).collect())));
    put("inputs", some(stage.inputs.iter().map(|(name, from)| json!([name, from])).collect()));
    put("by", earlier.map(|by| json!(by)));
    facts
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "began": attempt.began,
        "seconds": attempt.seconds,
        "cpu": attempt.cpu_seconds,
        "memory": attempt.peak_memory,
        "shared": attempt.shared,
        "error": attempt.error,
    })
}

fn timeline(material: &Material) -> anyhow::Result<Option<Content>> {
    let tried = |run: &&RunRecord| run.stages.iter().any(|stage| !stage.attempts.is_empty());
    // The stages themselves are in the data of the section before.
    Ok(material.runs.iter().any(tried).then(Content::default))
}
