//! The runs themselves: what was run, when, how long it took and what became of its stages.

use serde_json::{Value, json};

use super::{Content, Material, Section};
use crate::engine::history::{Outcome, RunRecord};

pub(super) const SECTION: Section = Section {
    id: "runs",
    title: "Runs",
    style: include_str!("assets/runs.css"),
    script: include_str!("assets/runs.js"),
    make,
};

fn make(material: &Material) -> anyhow::Result<Option<Content>> {
    for (index, run) in material.runs.iter().enumerate() {
        if run.stages.iter().all(|stage| material.result(index, &stage.name).is_none()) {
            material.note(format!("Run {} has no results: the page shows what became of its stages.", run.run));
        }
    }
    let runs: Vec<Value> = material.runs.iter().map(|run| facts(run)).collect();
    Ok(Some(json!(runs).into()))
}

fn facts(run: &RunRecord) -> Value {
    let outcomes =
        [Outcome::Computed, Outcome::Fresh, Outcome::Frozen, Outcome::Failed, Outcome::Skipped, Outcome::Pending];
    let attempts = || run.stages.iter().flat_map(|stage| &stage.attempts);
    json!({
        "file": run.file,
        "started": run.started,
        "seconds": run.seconds,
        "work": attempts().map(|attempt| attempt.seconds).sum::<f64>(),
        "memory": attempts().map(|attempt| attempt.peak_memory).max(),
        "tokens": [tokens(run, &[".prompt_tokens"]), tokens(run, &[".generated_tokens", ".completion_tokens"])],
        "stages": outcomes.map(|outcome| json!([outcome, run.count(outcome)])),
        "warnings": run.stages.iter().map(|stage| stage.warnings.len()).sum::<usize>(),
    })
}

/// The sum of figures with these endings over the stages that this run computed; `None` where nobody counted.
fn tokens(run: &RunRecord, endings: &[&str]) -> Option<f64> {
    let figures = run.stages.iter().flat_map(|stage| &stage.figures);
    let counted = figures.filter(|(name, _)| endings.iter().any(|ending| name.ends_with(ending)));
    counted.map(|(_, value)| *value).reduce(|sum, value| sum + value)
}
