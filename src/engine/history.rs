//! The records of runs: what ran, when, with what outcome. Never part of a result.

use std::collections::{BTreeMap, HashMap, HashSet};

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::graph::{Edge, Graph, Node};
use super::labels::Labels;
use super::seal;
use super::store::{Store, StoreError};
use crate::fs;

/// The folder of the logs of a run: `STAGE.ATTEMPT.log`, and what programs printed.
pub fn logs(store: &Store, run: &str) -> PathBuf {
    store.runs().join(format!("{run}.logs"))
}

/// The most bytes of a stage's name in the name of a file; file systems take 255 in all.
const LONGEST_NAME: usize = 150;

/// The name of a log in that folder: of an attempt of a stage, counted from 1.
pub fn log_name(stage: &str, attempt: usize, kind: &str) -> String {
    // A matrix over paths has slashes in its stages' names.
    let mut plain: String = stage.chars().map(|one| if one == '/' || one.is_control() { '_' } else { one }).collect();
    if plain.len() > LONGEST_NAME {
        plain.truncate(plain.floor_char_boundary(LONGEST_NAME));
        plain = format!("{plain}-{}", &blake3::hash(stage.as_bytes()).to_hex()[..16]);
    }
    format!("{plain}.{attempt}.{kind}")
}

/// What became of a stage in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did not come to its turn.
    Pending,
    /// Its result was there.
    Fresh,
    /// It is frozen: its newest result was taken.
    Frozen,
    /// It was computed.
    Computed,
    /// It failed.
    Failed,
    /// One that it needs failed.
    Skipped,
}

/// A stage in the record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Its name in the pipeline.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What it reads: `stage.port` by its input ports. Absent in records of earlier versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// The fingerprint of its result, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Wall seconds that it took.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seconds: f64,
    /// Figures that it gave.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
    /// Warnings that it gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its attempts, where it was computed; all but the last have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// One attempt at computing a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it began, in seconds after the run did. Absent in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<f64>,
    /// Wall seconds.
    pub seconds: f64,
    /// CPU seconds: of the programs that it ran and of its own thread; where it ran none, of the whole process meanwhile.
    pub cpu_seconds: f64,
    /// The largest resident memory in bytes: of the programs that it ran; where it ran none, of the whole process meanwhile.
    pub peak_memory: u64,
    /// Whether other stages ran in this process meanwhile, so that figures of the whole process are not this stage's alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run's name: when it began, and its pipeline.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline's file.
    pub file: String,
    /// Changes from the command line.
    pub set: Vec<String>,
    /// When it began, UTC, ISO 8601.
    pub started: String,
    /// Wall seconds; `None` while it runs and where it was killed.
    pub seconds: Option<f64>,
    /// The stages in the file's order.
    pub stages: Vec<StageRecord>,
    /// What people wrote on it. No part of the record: [`super::labels`] keeps it, and puts it here.
    #[serde(skip)]
    pub labels: Labels,
}

impl StageRecord {
    /// A stage that did not come to its turn yet.
    pub fn blank(graph: &Graph, node: &Node) -> Self {
        let from = |edge: &Edge| format!("{}.{}", graph.nodes[edge.from].name, edge.output);
        Self {
            name: node.name.clone(),
            kind: node.stage.kind().to_owned(),
            outcome: Outcome::Pending,
            inputs: node.inputs.iter().map(|edge| (edge.input.clone(), from(edge))).collect(),
            fingerprint: None,
            seconds: 0.0,
            figures: BTreeMap::new(),
            warnings: Vec::new(),
            error: None,
            attempts: Vec::new(),
        }
    }
}

impl RunRecord {
    /// How many stages came out so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.stages.iter().filter(|stage| stage.outcome == outcome).count()
    }

    /// The stages' records by their names.
    pub fn by_name(&self) -> HashMap<&str, &StageRecord> {
        self.stages.iter().map(|stage| (stage.name.as_str(), stage)).collect()
    }

    /// A stage's record.
    pub fn stage(&self, name: &str) -> Option<&StageRecord> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

/// Writes a record, in place of an earlier state of the same run.
pub fn write(store: &Store, record: &RunRecord) -> Result<(), StoreError> {
    Ok(fs::write_whole(store.runs().join(format!("{}.json", record.run)), &seal::seal(record))?)
}

/// All records, the newest first, and the files of the damaged ones.
pub fn read_all(store: &Store) -> Result<(Vec<RunRecord>, Vec<PathBuf>), StoreError> {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    for path in fs::list(store.runs())?.into_iter().rev() {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_one(&path)? {
            Some(Ok(record)) => records.push(record),
            Some(Err(())) => damaged.push(path),
            None => {}
        }
    }
    Ok((records, damaged))
}

/// The records that tell of each stage of a pipeline what became of it last, the newest first, and the files of damaged ones.
/// Older ones are not read.
pub fn recent(store: &Store, pipeline: &str, stages: &[&str]) -> Result<(Vec<RunRecord>, Vec<PathBuf>), StoreError> {
    let ending = format!("-{pipeline}.json");
    let mut missing: HashSet<&str> = stages.iter().copied().collect();
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    for path in fs::list(store.runs())?.into_iter().rev() {
        if missing.is_empty() {
            break;
        }
        if !path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&ending)) {
            continue;
        }
        match read_one(&path)? {
            Some(Ok(record)) if record.pipeline == pipeline => {
                for stage in record.stages.iter().filter(|stage| stage.fingerprint.is_some()) {
                    missing.remove(stage.name.as_str());
                }
                records.push(record);
            }
            Some(Err(())) => damaged.push(path),
            _ => {}
        }
    }
    Ok((records, damaged))
}

/// A record, or that it is damaged; `None` where it was collected since it was listed.
fn read_one(path: &Path) -> Result<Option<Result<RunRecord, ()>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(seal::open(&bytes).ok_or(()))),
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The newest results of a pipeline's stages in any run: for each the run and the fingerprint.
#[derive(Default)]
pub struct Newest<'a>(HashMap<&'a str, (&'a RunRecord, &'a str)>);

impl<'a> Newest<'a> {
    /// Reads them off the records, which are the newest first.
    pub fn of(records: &'a [RunRecord], pipeline: &str) -> Self {
        let mut newest = HashMap::new();
        for record in records.iter().filter(|record| record.pipeline == pipeline) {
            for stage in &record.stages {
                if let Some(fingerprint) = stage.fingerprint.as_deref() {
                    newest.entry(stage.name.as_str()).or_insert((record, fingerprint));
                }
            }
        }
        Self(newest)
    }

    /// That of a stage.
    pub fn get(&self, stage: &str) -> Option<(&'a RunRecord, &'a str)> {
        self.0.get(stage).copied()
    }
}

/// The name of a run that begins now, and the time: `20261123-061530-123456-NAME` and `2026-11-23T06:15:30Z`.
pub fn name_now(pipeline: &str) -> (String, String) {
    let now = SystemTime::now();
    // To the microsecond: several processes may start at once, and each needs a record of its own.
    let micros = now.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_micros();
    let time = time(now);
    let plain: String = time.chars().filter(char::is_ascii_digit).collect();
    (format!("{}-{}-{micros:06}-{pipeline}", &plain[..8], &plain[8..]), time)
}

/// A time as records write it: UTC, ISO 8601, to the second.
pub fn time(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (year, month, day) = date((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01 (the proleptic Gregorian calendar, by eras of 400 years).
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #[test]
    fn logs_have_names_that_file_systems_take() {
        assert_eq!(super::log_name("train[data=a/b.csv]", 2, "log"), "train[data=a_b.csv].2.log");
        let long = |end: &str| super::log_name(&format!("{}{end}", "ü".repeat(200)), 1, "output.txt");
        assert!(long("x").len() < 200 && long("x") != long("y"));
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(super::date(0), (1970, 1, 1));
        assert_eq!(super::date(19_782), (2024, 2, 29));
        assert_eq!(super::date(20_780), (2026, 11, 23));
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_709_210_096);
        assert_eq!(super::time(time), "2024-02-29T12:34:56Z");
    }
}
