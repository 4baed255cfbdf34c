//! What the store can do without: results that no kept run reaches, and what was left of computations that never ended.
//!
//! A run keeps the results of all of its stages, and those keep the journals that they were made with. A run is kept when it
//! is pinned, when it is the newest of its pipeline, or when nothing that was asked for lets it go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::history::{self, RunRecord};
use super::labels;
use super::store::{Found, Store, StoreError};
use crate::fs::{self, PathError};

/// Which runs may go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rule {
    /// Those that began longer ago than this; unfinished computations of that age go, too.
    pub older_than: Option<Duration>,
    /// Those beyond so many newest of each pipeline.
    pub keep: Option<usize>,
}

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The record of a run, its logs and labels.
    Run,
    /// A result.
    Result,
    /// A journal of finished rows.
    Journal,
    /// What an interrupted computation left.
    Unfinished,
}

/// Something that the store can do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// What it is.
    pub what: What,
    /// Its name: of a run, a fingerprint, a journal's file.
    pub name: String,
    /// Its size on the disk in bytes.
    pub bytes: u64,
    paths: Vec<PathBuf>,
}

/// Why nothing could be collected.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The file system said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Results that a run has just found must not vanish under it.
    #[error("a run is going on in `{}`; try again when it has ended", fs::short(.0).display())]
    Busy(PathBuf),
    /// What a run keeps that cannot be read is not known.
    #[error(
        "the record `{}` is damaged, so what its run keeps is not known; remove the file to let all of that go", fs::short(.0).display()
    )]
    Damaged(PathBuf),
    /// There is no such run.
    #[error("there is no run `{0}`; `thresh runs` lists them")]
    NoRun(String),
}

impl From<PathError> for GcError {
    fn from(error: PathError) -> Self {
        Self::Store(error.into())
    }
}

/// Finds what can go, and removes it unless it is only asked for.
///
/// # Errors
/// When a run is going on in the store, or something cannot be read or removed.
pub fn collect(store: &Store, rule: Rule, dry_run: bool) -> Result<Vec<Garbage>, GcError> {
    let _alone = match store.alone() {
        Ok(Some(alone)) => Some(alone),
        Ok(None) => return Err(GcError::Busy(store.root().to_owned())),
        // Where nothing can be removed, one can still ask.
        Err(_) if dry_run => None,
        Err(error) => return Err(error.into()),
    };
    let (records, damaged) = history::read_all(store)?;
    if let Some(record) = damaged.into_iter().next() {
        return Err(GcError::Damaged(record));
    }
    let pinned = pins(store)?;
    let (kept, gone) = sort_runs(&records, &pinned, rule);
    let mut garbage = Vec::new();
    for record in gone {
        let record_file = store.runs().join(format!("{}.json", record.run));
        let paths = vec![record_file, history::logs(store, &record.run), labels::file(store, &record.run)];
        garbage.push(found(What::Run, &record.run, paths)?);
    }
    let live: BTreeSet<&str> =
        kept.iter().flat_map(|record| &record.stages).filter_map(|stage| stage.fingerprint.as_deref()).collect();
    let mut journals = BTreeSet::new();
    for folder in results(store)? {
        let name = name_of(&folder);
        if !live.contains(name.as_str()) {
            garbage.push(found(What::Result, &name, vec![folder])?);
        } else if let Found::Whole(manifest) = store.find(&name)? {
            journals.extend(manifest.journals);
        }
    }
    let old = |path: &Path| rule.older_than.is_some_and(|limit| age(path) > limit);
    // A journal that no result names may belong to a computation that is to go on later.
    for path in fs::list(store.rows())?.into_iter().filter(|path| !journals.contains(&name_of(path)) && old(path)) {
        garbage.push(found(What::Journal, &name_of(&path), vec![path])?);
    }
    // Records that were half written: nobody writes one now.
    let halves =
        fs::list(store.runs())?.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "tmp"));
    let left = fs::list(store.root().join("work"))?.into_iter().filter(|path| old(path));
    for path in left.chain(halves) {
        garbage.push(found(What::Unfinished, &name_of(&path), vec![path])?);
    }
    if !dry_run {
        garbage.iter().try_for_each(|garbage| remove(store, garbage))?;
    }
    Ok(garbage)
}

/// The runs that are kept, and those that go.
fn sort_runs<'a>(
    records: &'a [RunRecord],
    pinned: &BTreeSet<String>,
    rule: Rule,
) -> (Vec<&'a RunRecord>, Vec<&'a RunRecord>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let limit = rule.older_than.and_then(|age| SystemTime::now().checked_sub(age)).map(history::time);
    records.iter().partition(|record| {
        let newer = seen.entry(record.pipeline.as_str()).or_default();
        *newer += 1;
        let many = rule.keep.is_none_or(|keep| *newer > keep);
        let old = limit.as_ref().is_none_or(|limit| record.started < *limit);
        let asked = rule.keep.is_some() || rule.older_than.is_some();
        !(asked && many && old) || *newer == 1 || pinned.contains(&record.run)
    })
}

/// The folders of all results.
fn results(store: &Store) -> Result<Vec<PathBuf>, PathError> {
    let mut found = Vec::new();
    for group in fs::list(store.root().join("results"))? {
        found.extend(fs::list(group)?);
    }
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// How long ago something was last written; nothing where the system does not say.
fn age(path: &Path) -> Duration {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok()).unwrap_or_default()
}

fn found(what: What, name: &str, paths: Vec<PathBuf>) -> Result<Garbage, PathError> {
    let mut bytes = 0;
    let mut open = paths.clone();
    while let Some(path) = open.pop() {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            open.extend(fs::list(&path)?);
        } else {
            bytes += metadata.len();
        }
    }
    Ok(Garbage { what, name: name.to_owned(), bytes, paths })
}

fn remove(store: &Store, garbage: &Garbage) -> Result<(), StoreError> {
    if garbage.what == What::Result {
        return store.discard(&garbage.name);
    }
    for path in &garbage.paths {
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The runs that are never collected.
pub fn pins(store: &Store) -> Result<BTreeSet<String>, StoreError> {
    Ok(fs::list(store.pins())?.iter().map(|path| name_of(path)).collect())
}

/// Pins a run, or lets it go again.
///
/// # Errors
/// When there is no such run, or the store cannot be written.
pub fn pin(store: &Store, run: &str, pinned: bool) -> Result<(), GcError> {
    if !store.runs().join(format!("{run}.json")).is_file() {
        return Err(GcError::NoRun(run.to_owned()));
    }
    let path = store.pins().join(run);
    if pinned {
        fs::create(path).map(drop)?
    } else {
        fs::remove_file(path)?
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pipeline: &str, day: u32) -> RunRecord {
        RunRecord {
            run: format!("{pipeline}-{day}"),
            pipeline: pipeline.to_owned(),
            file: String::new(),
            set: Vec::new(),
            started: format!("2020-01-{day:02}T00:00:00Z"),
            seconds: None,
            stages: Vec::new(),
            labels: labels::Labels::default(),
        }
    }

    fn kept(rule: Rule, pinned: &[&str]) -> Vec<String> {
        let records: Vec<RunRecord> =
            (1..=4).rev().flat_map(|day| [record("a", day), record("b", day)]).take(7).collect();
        let pinned = pinned.iter().map(|&name| name.to_owned()).collect();
        sort_runs(&records, &pinned, rule).0.into_iter().map(|record| record.run.clone()).collect()
    }

    #[test]
    fn runs_go_only_when_asked_for_and_never_the_newest_or_a_pinned_one() {
        assert_eq!(kept(Rule::default(), &[]).len(), 7);
        assert_eq!(kept(Rule { keep: Some(2), ..Rule::default() }, &[]), ["a-4", "b-4", "a-3", "b-3"]);
        assert_eq!(kept(Rule { keep: Some(0), ..Rule::default() }, &["a-2"]), ["a-4", "b-4", "a-2"]);
        let day = Duration::from_secs(86_400);
        assert_eq!(kept(Rule { older_than: Some(day), keep: Some(3) }, &[]).len(), 6);
        assert_eq!(kept(Rule { older_than: Some(day), keep: None }, &[]), ["a-4", "b-4"]);
        assert_eq!(kept(Rule { older_than: Some(day * 36_500), keep: Some(0) }, &[]).len(), 7);
    }
}
