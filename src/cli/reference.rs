//! What people call runs, their stages and outputs: `RUN`, `RUN.stage`, `RUN.stage.port`, and without `RUN.` those of the newest
//! run that has them.
//!
//! `RUN` is a run's name or the beginning of one, a tag or the name of a pipeline for the newest run that has it, or `latest`;
//! `~N` behind the latter three goes N runs back. Where many runs can be named, `~*` behind them means all.

use std::path::PathBuf;

use anyhow::anyhow;

use super::{Failure, intact};
use crate::config::diagnostic::nearest;
use crate::engine::graph::{base, pairs};
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
        let tags = records.iter().flat_map(|record| &record.labels.tags).map(String::as_str);
        let pipelines = records.iter().map(|record| record.pipeline.as_str());
        let hint = nearest(name, tags.chain(pipelines).chain(["latest"]))
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default();
        Failure::Wrong(anyhow!("there is no run `{name}`{hint}; `thresh runs` lists them"))
    })
}

fn find<'a>(records: &'a [RunRecord], name: &str) -> Option<&'a RunRecord> {
    let (newest, back) = match name.rsplit_once('~') {
        Some((newest, back)) => (newest, back.parse().ok()?),
        None => (name, 0),
    };
    let by_name = || records.iter().find(|record| !name.is_empty() && record.run.starts_with(name));
    called(records, newest).nth(back).or_else(by_name)
}

/// The runs that have a tag; of a word that is no tag, those of the pipeline of this name; of `latest`, all.
fn called<'a>(records: &'a [RunRecord], word: &str) -> impl Iterator<Item = &'a RunRecord> {
    let tagged = records.iter().any(|record| record.labels.tags.contains(word));
    records.iter().filter(move |record| {
        word == "latest" || if tagged { record.labels.tags.contains(word) } else { record.pipeline == word }
    })
}

/// What a reference names where it may name several: all runs of `NAME~*`, and all stages of a matrix by its bare name, or by
/// some of its values. Of several runs, those without the stage are left out.
pub(super) fn named_all<'a>(records: &'a [RunRecord], text: &'a str) -> Result<Vec<Named<'a>>, Failure> {
    let Some((word, rest)) = text.split_once("~*") else { return one_or_instances(records, text) };
    let runs: Vec<&RunRecord> = called(records, word).collect();
    if runs.is_empty() {
        return run_of(records, word).map(|_| Vec::new()).and_then(|_: Vec<Named>| {
            Err(Failure::Wrong(anyhow!(
                "`{text}`: `{word}` names one run; `~*` goes behind a tag, a pipeline or `latest`"
            )))
        });
    }
    let Some(place) = rest.strip_prefix('.') else {
        return match rest {
            "" => Ok(runs.into_iter().map(|run| Named { run, stage: None, port: None }).collect()),
            _ => Err(Failure::Wrong(anyhow!("`{text}`: expected `{word}~*` or `{word}~*.stage`"))),
        };
    };
    let found: Vec<Named> = runs.iter().flat_map(|run| instances(run, place)).collect();
    if found.is_empty() { Err(no_stage(runs[0], place)) } else { Ok(found) }
}

fn one_or_instances<'a>(records: &'a [RunRecord], text: &'a str) -> Result<Vec<Named<'a>>, Failure> {
    let one = named(records, text);
    if one.is_ok() {
        return one.map(|one| vec![one]);
    }
    for (dot, _) in text.match_indices('.') {
        if let Some(run) = find(records, &text[..dot]) {
            let found = instances(run, &text[dot + 1..]);
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    match records.iter().map(|run| instances(run, text)).find(|found| !found.is_empty()) {
        Some(found) => Ok(found),
        None => one.map(|one| vec![one]),
    }
}

/// The stage of this name, or the stages that a matrix made of it and that have the values in the name; or outputs of them.
fn instances<'a>(run: &'a RunRecord, text: &'a str) -> Vec<Named<'a>> {
    if let Some(one) = within(run, text) {
        return vec![one];
    }
    let stages = |name: &str| run.stages.iter().filter(|stage| is_instance(&stage.name, name)).collect::<Vec<_>>();
    let whole = stages(text);
    if !whole.is_empty() {
        return whole.into_iter().map(|stage| Named { run, stage: Some(stage), port: None }).collect();
    }
    let Some((name, port)) = text.rsplit_once('.') else { return Vec::new() };
    stages(name).into_iter().map(|stage| Named { run, stage: Some(stage), port: Some(port) }).collect()
}

/// Whether a stage is one of those that a name with some of a matrix's values stands for.
fn is_instance(stage: &str, name: &str) -> bool {
    let parts = |text: &'_ str| text.split_once('[').map(|(_, inner)| inner.trim_end_matches(']').to_owned());
    let Some(values) = parts(stage) else { return false };
    let wanted = parts(name).unwrap_or_default();
    base(stage) == base(name) && pairs(&wanted).iter().all(|pair| pairs(&values).contains(pair))
}

/// What a reference names.
pub(super) fn named<'a>(records: &'a [RunRecord], text: &'a str) -> Result<Named<'a>, Failure> {
    if let Some(run) = find(records, text) {
        return Ok(Named { run, stage: None, port: None });
    }
    // A pipeline may be called as a stage is: a stage of that run is there, while an output need not be.
    let in_run = |(dot, _): (usize, &str)| within(find(records, &text[..dot])?, &text[dot + 1..]);
    if let Some(named) = text.match_indices('.').find_map(in_run) {
        return Ok(named);
    }
    let newest = |record: &'a RunRecord| within(record, text).filter(|named| has_result(named));
    if let Some(named) = records.iter().find_map(newest) {
        return Ok(named);
    }
    for (dot, _) in text.match_indices('.') {
        let Some(run) = find(records, &text[..dot]) else { continue };
        return Err(no_stage(run, &text[dot + 1..]));
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
    // The stages of a matrix are also known by the name that they share.
    let near = nearest(name, run.stages.iter().flat_map(|stage| [stage.name.as_str(), base(&stage.name)]));
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
    fn tags_are_names_and_come_before_pipelines() {
        let mut records = records();
        records[1].labels.tags.insert("good".to_owned());
        records[2].labels.tags.extend(["good".to_owned(), "lora".to_owned()]);
        let name = |text: &str| run_of(&records, text).map(|run| run.run.clone()).ok();
        for (text, at) in [("good", 1), ("good~1", 2), ("lora", 2), ("josh", 0)] {
            assert_eq!(name(text).as_ref(), Some(&records[at].run), "{text}");
        }
        assert_eq!(name("good~2"), None);
        let Err(Failure::Wrong(error)) = run_of(&records, "goood") else { panic!() };
        assert!(error.to_string().contains("did you mean `good`?"), "{error}");
    }

    #[test]
    fn many_runs_and_many_stages_have_one_name() {
        let mut records = records();
        let other: StageRecord =
            serde_json::from_value(json!({"name": "train[lr=0.1,seed=2]", "kind": "k", "outcome": "fresh"})).unwrap();
        records[0].stages.push(other);
        let names = |text: &'static str| -> Vec<(String, Option<String>, Option<String>)> {
            let Ok(found) = named_all(&records, text) else { panic!("{text}") };
            let owned = |named: &Named| {
                let stage = named.stage.map(|stage| stage.name.clone());
                (named.run.run.clone(), stage, named.port.map(str::to_owned))
            };
            found.iter().map(owned).collect()
        };
        assert_eq!(names("josh~*").len(), 2);
        assert_eq!(names("latest~*").len(), 3);
        assert_eq!(names("latest~*.base.scores").len(), 3);
        assert_eq!(names("josh~*.josh").len(), 1);
        let train = names("josh.train.log");
        assert_eq!((train.len(), train[1].1.as_deref()), (2, Some("train[lr=0.1,seed=2]")));
        assert_eq!((train[0].2.as_deref(), names("train").len()), (Some("log"), 2));
        assert_eq!(names("train[seed=2]").len(), 1);
        assert_eq!(names("base").len(), 1);
        for (text, said) in [
            ("jash~*", "there is no run `jash`; did you mean `josh`?; `thresh runs` lists them"),
            ("2026~*", "`2026~*`: `2026` names one run; `~*` goes behind a tag, a pipeline or `latest`"),
            ("josh~*2", "`josh~*2`: expected `josh~*` or `josh~*.stage`"),
            ("josh~*.bass", "run `20261123-3-josh` has no stage `bass`; did you mean `base`?"),
        ] {
            let Err(Failure::Wrong(error)) = named_all(&records, text) else { panic!("{text}") };
            assert_eq!(error.to_string(), said);
        }
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
        // `josh` is a stage, too, of which `base` might be an output.
        assert_eq!(name("josh.base"), ("20261123-3-josh", Some("base"), None));
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
