//! What was run, as tables that queries read: `runs`, `stages`, `figures` and `artifacts`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::engine::history::{Outcome, RunRecord, StageRecord};
use crate::engine::store::{Manifest, Store};
use crate::table::{self, Row};

/// The tables of this module, by the names that queries give them.
pub const VIRTUAL: &[&str] = &["artifacts", "figures", "runs", "stages"];

/// A run.
#[derive(Debug, Serialize, Deserialize)]
struct RunRow {
    run: String,
    pipeline: String,
    file: String,
    /// UTC, ISO 8601.
    started: String,
    /// Empty while it runs and where it was killed.
    seconds: Option<f64>,
    /// `done`, `failed` or `unfinished`.
    outcome: String,
    stages: u32,
    computed: u32,
    fresh: u32,
    failed: u32,
    skipped: u32,
    /// Changes from the command line.
    set: Vec<String>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    cost: Option<f64>,
}

/// A stage of a run.
#[derive(Debug, Serialize, Deserialize)]
struct StageRow {
    run: String,
    pipeline: String,
    started: String,
    stage: String,
    kind: String,
    outcome: Outcome,
    fingerprint: Option<String>,
    seconds: f64,
    cpu_seconds: Option<f64>,
    /// Bytes.
    peak_memory: Option<u64>,
    attempts: u32,
    inputs: Vec<Input>,
    figures: Vec<Figure>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    cost: Option<f64>,
    warnings: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Input {
    port: String,
    from: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Figure {
    name: String,
    value: f64,
}

/// A figure that a stage gave in a run.
#[derive(Debug, Serialize, Deserialize)]
struct FigureRow {
    run: String,
    pipeline: String,
    stage: String,
    name: String,
    value: f64,
}

/// An output that a run computed or found, and that is still there.
#[derive(Debug, Serialize, Deserialize)]
struct ArtifactRow {
    run: String,
    pipeline: String,
    stage: String,
    port: String,
    holds: String,
    bytes: u64,
    files: u32,
    /// How many of the result's rows are broken.
    broken: u64,
    fingerprint: String,
    digest: String,
    /// The run that computed it.
    computed_by: String,
    path: String,
}

impl Row for RunRow {
    const TYPE: &'static str = "history.run/v1";
}

impl Row for StageRow {
    const TYPE: &'static str = "history.stage/v1";
}

impl Row for FigureRow {
    const TYPE: &'static str = "history.figure/v1";
}

impl Row for ArtifactRow {
    const TYPE: &'static str = "history.artifact/v1";
}

/// The tables as files that go away with this.
pub struct History<'a> {
    folder: TempDir,
    records: &'a [RunRecord],
}

impl<'a> History<'a> {
    /// Tables of these records, of which none is written yet.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn of(records: &'a [RunRecord]) -> anyhow::Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, records })
    }

    /// Writes one of [`VIRTUAL`]; where it lies. The newest run is first. `result` looks up what a stage left.
    ///
    /// # Errors
    /// When there is no room for it, or a result cannot be looked up.
    pub fn table<E: From<anyhow::Error>>(
        &self,
        name: &str,
        store: &Store,
        result: impl Fn(&StageRecord) -> Result<Option<Manifest>, E>,
    ) -> Result<PathBuf, E> {
        let path = self.folder.path().join(name);
        let records = self.records;
        let stages = || records.iter().flat_map(|run| run.stages.iter().map(move |stage| (run, stage)));
        match name {
            "runs" => write(&path, records.iter().map(run_row))?,
            "stages" => write(&path, stages().map(|(run, stage)| stage_row(run, stage)))?,
            "figures" => write(&path, stages().flat_map(|(run, stage)| figure_rows(run, stage)))?,
            _ => {
                let mut rows = Vec::new();
                let mut known: BTreeMap<&str, Option<Manifest>> = BTreeMap::new();
                for (run, stage) in stages() {
                    let Some(fingerprint) = stage.fingerprint.as_deref() else { continue };
                    if !known.contains_key(fingerprint) {
                        known.insert(fingerprint, result(stage)?);
                    }
                    let manifest = known.get(fingerprint).and_then(Option::as_ref);
                    rows.extend(manifest.into_iter().flat_map(|manifest| artifact_rows(store, run, stage, manifest)));
                }
                write(&path, rows)?;
            }
        }
        Ok(path)
    }
}

fn write<T: Row>(path: &Path, rows: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
    table::write(path, rows).map(|_| ())
}

fn run_row(run: &RunRecord) -> RunRow {
    let count = |outcome| run.count(outcome) as u32;
    let failed = count(Outcome::Failed);
    let outcome = match (failed, run.seconds) {
        (1.., _) => "failed",
        (0, Some(_)) => "done",
        (0, None) => "unfinished",
    };
    RunRow {
        run: run.run.clone(),
        pipeline: run.pipeline.clone(),
        file: run.file.clone(),
        started: run.started.clone(),
        seconds: run.seconds,
        outcome: outcome.to_owned(),
        stages: run.stages.len() as u32,
        computed: count(Outcome::Computed),
        fresh: count(Outcome::Fresh) + count(Outcome::Frozen),
        failed,
        skipped: count(Outcome::Skipped),
        set: run.set.clone(),
        prompt_tokens: tokens(run.stages.iter().flat_map(|stage| &stage.figures), READ),
        completion_tokens: tokens(run.stages.iter().flat_map(|stage| &stage.figures), WRITTEN),
        cost: sum(run.stages.iter().flat_map(|stage| &stage.figures), COST),
    }
}

fn stage_row(run: &RunRecord, stage: &StageRecord) -> StageRow {
    let last = stage.attempts.last();
    StageRow {
        run: run.run.clone(),
        pipeline: run.pipeline.clone(),
        started: run.started.clone(),
        stage: stage.name.clone(),
        kind: stage.kind.clone(),
        outcome: stage.outcome,
        fingerprint: stage.fingerprint.clone(),
        seconds: stage.seconds,
        cpu_seconds: last.map(|attempt| attempt.cpu_seconds),
        peak_memory: last.map(|attempt| attempt.peak_memory),
        attempts: stage.attempts.len() as u32,
        inputs: stage.inputs.iter().map(|(port, from)| Input { port: port.clone(), from: from.clone() }).collect(),
        figures: stage.figures.iter().map(|(name, &value)| Figure { name: name.clone(), value }).collect(),
        prompt_tokens: tokens(&stage.figures, READ),
        completion_tokens: tokens(&stage.figures, WRITTEN),
        cost: sum(&stage.figures, COST),
        warnings: stage.warnings.clone(),
        error: stage.error.clone(),
    }
}

fn figure_rows(run: &RunRecord, stage: &StageRecord) -> Vec<FigureRow> {
    let row = |(name, &value): (&String, &f64)| FigureRow {
        run: run.run.clone(),
        pipeline: run.pipeline.clone(),
        stage: stage.name.clone(),
        name: name.clone(),
        value,
    };
    stage.figures.iter().map(row).collect()
}

fn artifact_rows(store: &Store, run: &RunRecord, stage: &StageRecord, manifest: &Manifest) -> Vec<ArtifactRow> {
    let row = |(port, artifact): (&String, &crate::engine::store::Artifact)| ArtifactRow {
        run: run.run.clone(),
        pipeline: run.pipeline.clone(),
        stage: stage.name.clone(),
        port: port.clone(),
        holds: artifact.holds.clone(),
        bytes: artifact.bytes(),
        files: artifact.files.len() as u32,
        broken: manifest.broken,
        fingerprint: manifest.fingerprint.clone(),
        digest: artifact.digest.clone(),
        computed_by: manifest.run.clone(),
        path: store.path(&manifest.fingerprint, artifact).display().to_string(),
    };
    manifest.outputs.iter().map(row).collect()
}

/// How the names of figures end that count tokens that models read, tokens that they wrote, and what that cost.
const READ: &[&str] = &["prompt_tokens"];
const WRITTEN: &[&str] = &["completion_tokens", "generated_tokens"];
const COST: &[&str] = &["cost"];

/// The sum of the figures of these endings; `None` where there is none.
fn sum<'a>(figures: impl IntoIterator<Item = (&'a String, &'a f64)>, endings: &[&str]) -> Option<f64> {
    let ends = |name: &str| endings.contains(&name.rsplit('.').next().unwrap_or_default());
    figures.into_iter().filter(|(name, _)| ends(name)).fold(None, |sum, (_, value)| Some(sum.unwrap_or(0.0) + value))
}

fn tokens<'a>(figures: impl IntoIterator<Item = (&'a String, &'a f64)>, endings: &[&str]) -> Option<u64> {
    sum(figures, endings).map(|sum| sum as u64)
}
