//! What people call runs, their stages and outputs: `RUN`, `RUN.stage`, `RUN.stage.port`, and without `RUN.` those of the newest
//! run that has them.
//!
//! `RUN` is a run's name or the beginning of one, the name of a pipeline for its newest run, or `latest`; `~N` behind the latter
//! two goes N runs back.

use std::path::PathBuf;

use anyhow::anyhow;

use super::{Failure, intact};
use crate::config::diagnostic::nearest;
use crate::engine::history::{RunRecord, StageRecord};
use crate::engine::store::{Artifact, Found, Manifest, Store};

/// A run, and a stage or an output of it where one was named.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named<'a> {
    /// The run.
    pub run: &'a RunRecord,
    /// Its stage.
    pub stage: Option<&'a StageRecord>,
    /// The stage's output port; whether there is one of this name the result knows.
    pub port: Option<&'a str>,
}

/// The run of a name. The records are the newest first.
pub(super) fn run_of<'a>(records: &'a [RunRecord], name: &str) -> Result<&'a RunRecord, Failure> {
    find(records, name).ok_or_else(|| {
        let pipelines = records.iter().map(|record| record.pipeline.as_str()).chain(["latest"]);
        let hint = nearest(name, pipelines).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        Failure::Wrong(anyhow!("there is no run `{name}`{hint}; `thresh runs` lists them"))
    })
}

fn find<'a>(records: &'a [RunRecord], name: &str) -> Option<&'a RunRecord> {
    let (newest, back) = match name.rsplit_once('~') {
        Some((newest, back)) => (newest, back.parse().ok()?),
        None => (name, 0),
    };
    let of_pipeline = |record: &&RunRecord| newest == "latest" || record.pipeline == newest;
    let by_name = || records.iter().find(|record| !name.is_empty() && record.run.starts_with(name));
    records.iter().filter(of_pipeline).nth(back).or_else(by_name)
}

/// What a reference names.
pub(super) fn named<'a>(records: &'a [RunRecord], text: &'a str) -> Result<Named<'a>, Failure> {
    if let Some(run) = find(records, text) {
        return Ok(Named { run, stage: None, port: None });
    }
    let newest = |record: &'a RunRecord| within(record, text).filter(|named| has_result(named));
    if let Some(named) = records.iter().find_map(newest) {
        return Ok(named);
    }
    for (dot, _) in text.match_indices('.') {
        let Some(run) = find(records, &text[..dot]) else { continue };
        return within(run, &text[dot + 1..]).ok_or_else(|| no_stage(run, &text[dot + 1..]));
    }
    match records.iter().find_map(|record| within(record, text)) {
        Some(named) => Ok(named),
        None if text.contains('.') && !records.is_empty() => Err(no_stage(&records[0], text)),
        None => run_of(records, text).map(|run| Named { run, stage: None, port: None }),
    }
}

/// The result of a stage in a run, where it is still there.
pub(super) fn result(store: &Store, stage: &StageRecord) -> Result<Option<Manifest>, Failure> {
    let Some(fingerprint) = &stage.fingerprint else { return Ok(None) };
    match store.find(fingerprint)? {
        Found::Whole(manifest) => Ok(Some(*manifest)),
        _ => Ok(None),
    }
}

/// Where a named output lies, its bytes found to be those that were written. A stage alone stands for its only output.
pub(super) fn output(store: &Store, records: &[RunRecord], text: &str) -> Result<(PathBuf, Artifact), Failure> {
    let Named { run, stage, port } = named(records, text)?;
    let stage = stage.ok_or_else(|| {
        Failure::Wrong(anyhow!("`{text}` is a run; expected `{text}.stage.port`, `thresh log {text}` shows its stages"))
    })?;
    let manifest = result(store, stage)?.ok_or_else(|| {
        Failure::Failed(anyhow!(
            "`{}` has no result in run `{}`: it was not computed, or removed since",
            stage.name,
            run.run
        ))
    })?;
    let mut ports = manifest.outputs.keys().map(String::as_str);
    let port = match (port, ports.len()) {
        (Some(port), _) => port,
        (None, 1) => ports.next().unwrap_or_default(),
        (None, _) => {
            let known = ports.map(|port| format!("`{text}.{port}`")).collect::<Vec<_>>().join(", ");
            return Err(Failure::Wrong(anyhow!("`{text}` has several outputs: {known}")));
        }
    };
    let artifact = manifest.outputs.get(port).cloned().ok_or_else(|| {
        let known = manifest.outputs.keys().map(|port| format!("`{port}`")).collect::<Vec<_>>().join(", ");
        Failure::Wrong(anyhow!("stage `{}` has no output `{port}`; it has {known}", stage.name))
    })?;
    Ok((intact(store, &manifest.fingerprint, &artifact)?, artifact))
}

fn has_result(named: &Named) -> bool {
    named.stage.is_some_and(|stage| stage.fingerprint.is_some())
}

/// A stage of a run, or an output. Names of a matrix hold dots, as in `train[lr=0.1]`.
fn within<'a>(run: &'a RunRecord, text: &'a str) -> Option<Named<'a>> {
    if let Some(stage) = run.stage(text) {
        return Some(Named { run, stage: Some(stage), port: None });
    }
    let (stage, port) = text.rsplit_once('.')?;
    Some(Named { run, stage: Some(run.stage(stage)?), port: Some(port) })
}

fn no_stage(run: &RunRecord, text: &str) -> Failure {
    let name = text.rsplit_once('.').map_or(text, |(stage, _)| stage);
    let near = nearest(name, run.stages.iter().map(|stage| stage.name.as_str()));
    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Failure::Wrong(anyhow!("run `{}` has no stage `{name}`{hint}", run.run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn records() -> Vec<RunRecord> {
        let stage = |name: &str, done: bool| json!({"name": name, "kind": "eval.toolwoz", "outcome": "fresh", "fingerprint": done.then_some("f")});
        let record = |run: &str, pipeline: &str, stages: serde_json::Value| -> RunRecord {
            let value = json!({
                "run": run, "pipeline": pipeline, "file": "p.yaml", "set": [], "started": "", "seconds": 1.0, "stages": stages,
            });
            serde_json::from_value(value).unwrap()
        };
        vec![
            record("20261123-3-josh", "josh", json!([stage("base", false), stage("train[lr=0.1]", true)])),
            record("20261123-2-lora", "lora", json!([stage("base", true)])),
            record("20261122-1-josh", "josh", json!([stage("base", true), stage("josh", true)])),
        ]
    }

    #[test]
    fn runs_have_many_names() {
        let records = records();
        let name = |text: &str| run_of(&records, text).map(|run| run.run.clone()).ok();
        for (text, at) in [("latest", 0), ("latest~2", 2), ("josh", 0), ("josh~1", 2), ("lora", 1), ("20261122", 2)] {
            assert_eq!(name(text).as_ref(), Some(&records[at].run), "{text}");
        }
        for text in ["latest~3", "latest~x", "lora~1", "", "nothing"] {
            assert_eq!(name(text), None, "{text}");
        }
        let Err(Failure::Wrong(error)) = run_of(&records, "jash") else { panic!() };
        assert_eq!(error.to_string(), "there is no run `jash`; did you mean `josh`?; `thresh runs` lists them");
    }

    #[test]
    fn outputs_are_of_the_newest_run_that_has_them() {
        let records = records();
        let name = |text: &'static str| {
            let Ok(named) = named(&records, text) else { panic!("{text}") };
            (named.run.run.as_str(), named.stage.map(|stage| stage.name.as_str()), named.port)
        };
        assert_eq!(name("base.scores"), ("20261123-2-lora", Some("base"), Some("scores")));
        assert_eq!(name("latest.base.scores"), ("20261123-3-josh", Some("base"), Some("scores")));
        assert_eq!(name("train[lr=0.1].log"), ("20261123-3-josh", Some("train[lr=0.1]"), Some("log")));
        assert_eq!(name("train[lr=0.1]"), ("20261123-3-josh", Some("train[lr=0.1]"), None));
        assert_eq!(name("josh~1.base"), ("20261122-1-josh", Some("base"), None));
        assert_eq!(name("josh"), ("20261123-3-josh", None, None));
        for (text, said) in [
            ("lora.bass.scores", "run `20261123-2-lora` has no stage `bass`; did you mean `base`?"),
            ("bass.scores", "run `20261123-3-josh` has no stage `bass`; did you mean `base`?"),
            ("nothing", "there is no run `nothing`; `thresh runs` lists them"),
        ] {
            let Err(Failure::Wrong(error)) = named(&records, text) else { panic!("{text}") };
            assert_eq!(error.to_string(), said);
        }
    }
}
