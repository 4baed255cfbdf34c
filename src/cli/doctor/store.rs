//! What `thresh doctor` finds in the store: whether it can be written and locked, and the state of what lies in it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::cli::gc::size;
use crate::config::Project;
use crate::engine::gc::{self, Rule, What};
use crate::engine::history::{self, RunRecord};
use crate::engine::store::{Found, Store, StoreError};
use crate::fs;
use crate::stages::endpoint::{Finding, Verdict};

/// Less room than this is worth a word.
const LITTLE_ROOM: u64 = 1 << 30;

/// What lies in `work` and was not touched for longer is likely to be forgotten.
const STALE: Duration = Duration::from_secs(7 * 86_400);

/// Everything about the store; `deep` reads all results.
pub(super) fn examine(project: &Project, deep: bool) -> Vec<Finding> {
    let path = project.store();
    let elsewhere = "choose another folder with `store = \"…\"` in thresh.toml, or make this one writable";
    let store = match Store::open(&path) {
        Ok(store) => store,
        Err(error) => return vec![Finding::wrong("writable", error.to_string(), elsewhere)],
    };
    let mut findings = vec![match written(store.root()) {
        Ok(()) => Finding::fine("writable", format!("`{}`", fs::short(&path).display())),
        Err(error) => Finding::wrong("writable", error.to_string(), elsewhere),
    }];
    findings.push(match locks(&store) {
        Ok(true) => Finding::fine("locks", "who computes a result keeps others from it"),
        Ok(false) => {
            Finding::wrong("locks", "two could compute the same result at once", "use a store on a local disk")
        }
        Err(reason) => Finding::wrong("locks", reason, "use a store on a disk that has locks"),
    });
    findings.push(room(&path));
    let unreadable = |error: StoreError| vec![Finding::wrong("records", error.to_string(), elsewhere)];
    findings.extend(contents(&store, deep).unwrap_or_else(unreadable));
    findings
}

fn written(folder: &Path) -> Result<(), fs::PathError> {
    let path = folder.join(format!("doctor-{}.tmp", std::process::id()));
    fs::write_whole(&path, b"is this disk writable?")?;
    fs::remove_file(&path)
}

/// Whether a lock keeps a second one away.
fn locks(store: &Store) -> Result<bool, String> {
    let name = format!("doctor-{}", std::process::id());
    let first = store.lock(&name).map_err(|error| error.to_string())?;
    let second = store.lock(&name).map_err(|error| error.to_string())?;
    Ok(first.is_some() && second.is_none())
}

fn room(path: &Path) -> Finding {
    match fs::room(path) {
        None => Finding::lacking("room", "the system does not say how much there is", "nothing"),
        Some(room) if room < LITTLE_ROOM => {
            Finding::lacking("room", format!("only {} are free", size(room)), "`thresh gc` removes what no run needs")
        }
        Some(room) => Finding::fine("room", format!("{} are free", size(room))),
    }
}

fn contents(store: &Store, deep: bool) -> Result<Vec<Finding>, StoreError> {
    let (records, damaged) = history::read_all(store)?;
    let mut findings = vec![match damaged.as_slice() {
        [] => Finding::fine("records", format!("{} of runs, all intact", records.len())),
        [first, ..] => Finding::wrong(
            "records",
            format!(
                "{} of {} are damaged, `{}` first",
                damaged.len(),
                damaged.len() + records.len(),
                fs::short(first).display()
            ),
            "remove these files: what they tell is lost, results are not; until then `thresh gc` removes nothing",
        ),
    }];
    findings.push(results(store, &records, deep)?);
    findings.push(left(store)?);
    if damaged.is_empty() {
        findings.push(garbage(store));
    }
    Ok(findings)
}

/// Whether the results that runs refer to are what was written.
fn results(store: &Store, records: &[RunRecord], deep: bool) -> Result<Finding, StoreError> {
    let mut names: Vec<&str> =
        records.iter().flat_map(|record| &record.stages).filter_map(|stage| stage.fingerprint.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let (mut whole, mut bytes, mut gone, mut damaged) = (0, 0, 0, Vec::new());
    for name in names {
        match store.find(name)? {
            Found::Absent => gone += 1,
            Found::Damaged(what) => damaged.push(what),
            Found::Whole(manifest) => {
                let mut broken = None;
                for artifact in manifest.outputs.values().filter(|_| deep) {
                    broken = broken.or(store.damage(name, artifact)?);
                }
                damaged.extend(broken);
                whole += 1;
                bytes += manifest.outputs.values().map(|artifact| artifact.bytes()).sum::<u64>();
            }
        }
    }
    let how = if deep { "read and found intact" } else { "of the size that was written (`--deep` reads them)" };
    let gone = if gone > 0 { format!("; {gone} were removed since") } else { String::new() };
    Ok(match damaged.first() {
        None => Finding::fine("results", format!("{whole} with {}, {how}{gone}", size(bytes))),
        Some(first) => Finding::wrong(
            "results",
            format!("{} are damaged: {first}", damaged.len()),
            "`thresh run` throws damaged results away and computes them again",
        ),
    })
}

/// What interrupted computations left.
fn left(store: &Store) -> Result<Finding, StoreError> {
    let (mut waiting, mut stale, mut going) = (0, 0, 0);
    for folder in fs::list(store.root().join("work"))? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let age = std::fs::metadata(&folder).and_then(|found| found.modified()).ok();
        let age = age.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
        match store.lock(&name)? {
            None => going += 1,
            Some(_) if age > STALE => stale += 1,
            Some(_) => waiting += 1,
        }
    }
    let said = format!("{going} are being computed, {waiting} interrupted ones wait for the next run");
    Ok(match stale {
        0 => Finding::fine("work", said),
        stale => Finding::lacking(
            "work",
            format!("{said}, {stale} more were left over a week ago"),
            "run their pipelines again to go on with them, or `thresh gc --older-than 7d --keep 1000` removes them",
        ),
    })
}

/// What could be removed.
fn garbage(store: &Store) -> Finding {
    match gc::collect(store, Rule::default(), true) {
        Ok(garbage) => {
            let results = garbage.iter().filter(|item| item.what == What::Result).count();
            let bytes: u64 = garbage.iter().map(|item| item.bytes).sum();
            match garbage.len() {
                0 => Finding::fine("garbage", "every result belongs to a run"),
                _ => Finding::fine(
                    "garbage",
                    format!("{results} results with {} that no run needs; `thresh gc` removes them", size(bytes)),
                ),
            }
        }
        Err(error) => Finding { verdict: Verdict::Fine, ..Finding::fine("garbage", error.to_string()) },
    }
}
