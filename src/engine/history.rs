//! The records of runs: what ran, when, with what outcome. Never part of a result.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::store::{Store, StoreError};
use crate::fs;

/// What became of a stage in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did not come to its turn.
    Pending,
    /// Its result was there.
    Fresh,
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
    /// The fingerprint of its result, where it has one.
    pub fingerprint: Option<String>,
    /// Wall seconds that it took.
    pub seconds: f64,
    /// Figures that it gave.
    pub figures: BTreeMap<String, f64>,
    /// Warnings that it gave.
    pub warnings: Vec<String>,
    /// Why it failed.
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
}

impl RunRecord {
    /// How many stages came out so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.stages.iter().filter(|stage| stage.outcome == outcome).count()
    }

    /// A stage's record.
    pub fn stage(&self, name: &str) -> Option<&StageRecord> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

/// Writes a record, in place of an earlier state of the same run.
pub fn write(store: &Store, record: &RunRecord) -> Result<(), StoreError> {
    let text = serde_json::to_vec_pretty(record).unwrap_or_else(|error| panic!("a run record is plain text: {error}"));
    Ok(fs::write_whole(store.runs().join(format!("{}.json", record.run)), &text)?)
}

/// All records, the newest first; a file that is none is left out.
pub fn read(store: &Store) -> Result<Vec<RunRecord>, StoreError> {
    let mut records: Vec<RunRecord> = Vec::new();
    for path in fs::list(store.runs())?.into_iter().rev() {
        if path.extension().is_some_and(|extension| extension == "json")
            && let Ok(record) = serde_json::from_slice(&fs::read(&path)?)
        {
            records.push(record);
        }
    }
    Ok(records)
}

/// The fingerprint of a stage's newest result in any run of a pipeline.
pub fn newest<'a>(records: &'a [RunRecord], pipeline: &str, stage: &str) -> Option<(&'a RunRecord, &'a str)> {
    records.iter().filter(|record| record.pipeline == pipeline).find_map(|record| {
        let stage = record.stage(stage)?;
        Some((record, stage.fingerprint.as_deref()?))
    })
}

/// The name of a run that begins now, and the time: `20261123-061530-123-NAME` and `2026-11-23T06:15:30Z`.
pub fn name_now(pipeline: &str) -> (String, String) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (now.as_secs(), now.subsec_millis());
    let (year, month, day) = date((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let run = format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}-{millis:03}-{pipeline}");
    (run, format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
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
    fn days_become_dates() {
        assert_eq!(super::date(0), (1970, 1, 1));
        assert_eq!(super::date(19_782), (2024, 2, 29));
        assert_eq!(super::date(20_780), (2026, 11, 23));
    }
}
