//! One bit flipped or one file cut short anywhere in a store: never a panic, never a wrong artifact, and what is damaged is named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::{Artifacts, artifacts, clean, files, record, store, twin, work};
use crate::project::{Project, Ran};

const CASES: u64 = 240;
const THREADS: u64 = 3;

/// Stages whose computing again reads what others have made.
const LATE: &[&str] =
    &["base", "comparison", "josh_kto", "kto_scores", "rows_episodes", "rows_scores", "sft_greedy", "toolwoz"];

/// A store with two runs, a pinned one among them, and what a killed one left.
fn whole() -> Project {
    let project = twin();
    project.ok(&["run", "-q", "twin.yaml", "--set", "params.seed=21"]);
    project.ok(&["pin", record(&project)["run"].as_str().unwrap()]);
    let mut child = project.command(&["run", "-q", "twin.yaml", "--set", "params.seed=22"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while work(&project).is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    project.ok(&["run", "-q", "twin.yaml"]);
    project
}

/// Copies a store. Files are linked where nobody writes into them.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.parent().unwrap().ends_with("rows") {
            std::fs::copy(&path, &target).unwrap();
        } else {
            std::fs::hard_link(&path, &target).unwrap();
        }
    }
}

/// Damages one file that is not empty; which one.
fn damage(project: &Project, random: &mut ChaCha8Rng) -> PathBuf {
    let all = files(&store(project));
    // Half of the time a manifest or a record: there are fewer of them, and they decide more.
    let small = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let chosen: Vec<&PathBuf> =
        if random.random_bool(0.5) { all.iter().filter(small).collect() } else { all.iter().collect() };
    loop {
        let path = chosen[random.random_range(0..chosen.len())];
        let mut bytes = std::fs::read(path).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let place = random.random_range(0..bytes.len());
        if random.random_bool(0.3) {
            bytes.truncate(place)
        } else {
            bytes[place] ^= 1 << random.random_range(0..8)
        }
        // Other copies of the store keep theirs.
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
        return path.clone();
    }
}

/// The folder of a stage's result.
fn result(project: &Project, record: &serde_json::Value, stage: &str) -> PathBuf {
    let stages = record["stages"].as_array().unwrap();
    let fingerprint = stages.iter().find(|one| one["name"] == stage).unwrap()["fingerprint"].as_str().unwrap();
    store(project).join("results").join(&fingerprint[..2]).join(fingerprint)
}

fn sober(ran: &Ran, codes: &[i32], what: &str) {
    assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.stderr);
    assert!(ran.code.is_some_and(|code| codes.contains(&code)), "{what}: {:?} {}", ran.code, ran.stderr);
}

/// Some of the commands that only read, over a damaged store; what they say on stderr.
fn look(project: &Project, random: &mut ChaCha8Rng, what: &str) -> String {
    let runs = [
        &["runs"][..],
        &["plan", "twin.yaml", "--set", "params.seed=22"],
        &["why", "twin.yaml", "comparison", "--set", "params.seed=22"],
        &["compare", "latest~1", "latest", "--flips"],
        &["gc", "--dry-run"],
        &["show", "twin.yaml", "rows_scores.summary"],
        &["path", "twin.yaml", "base.model"],
    ];
    let mut said = String::new();
    for arguments in runs {
        if random.random_bool(0.25) {
            let ran = project.thresh(arguments);
            // 2: a run that cannot be read is a run that is not there.
            sober(&ran, &[0, 1, 2], &format!("{what} {arguments:?}"));
            said += &ran.stderr;
        }
    }
    said
}

fn exported(project: &Project) -> BTreeMap<PathBuf, blake3::Hash> {
    let folder = project.path().join("out");
    let digest =
        |path: &PathBuf| (path.strip_prefix(&folder).unwrap().to_owned(), blake3::hash(&std::fs::read(path).unwrap()));
    files(&folder).iter().map(digest).collect()
}

/// What every case must come to.
struct Right {
    store: PathBuf,
    artifacts: &'static Artifacts,
    exported: BTreeMap<PathBuf, blake3::Hash>,
    record: serde_json::Value,
}

/// One case: damage, a look around, a run that reads, all artifacts read, and all as they should be.
fn case(number: u64, right: &Right) {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    let project = twin();
    copy(&right.store, &store(&project));
    let newest = &right.record;
    let damaged = damage(&project, &mut random);
    let what = format!("case {number}: {}", damaged.strip_prefix(project.path()).unwrap().display());
    let mut said = look(&project, &mut random, &what);
    let stage = LATE[random.random_range(0..LATE.len())];
    let own = result(&project, newest, stage);
    let mut arguments = vec!["run", "twin.yaml"];
    if random.random_bool(0.5) {
        arguments.extend(["--force", stage]);
    } else {
        std::fs::remove_dir_all(&own).unwrap();
    }
    let ran = project.thresh(&arguments);
    sober(&ran, &[0], &what);
    said += &ran.stderr;
    let mut read = project.thresh(&["export", "twin.yaml", "--to", "out"]);
    if read.code != Some(0) {
        sober(&read, &[1], &what);
        said += &read.stderr;
        project.ok(&["run", "-q", "twin.yaml"]);
        read = project.thresh(&["export", "twin.yaml", "--to", "out"]);
    }
    sober(&read, &[0], &what);
    assert_eq!(exported(&project), right.exported, "{what}");
    assert_eq!(artifacts(&project), *right.artifacts, "{what}");
    let of_run = newest["stages"].as_array().unwrap().iter();
    let mut mine = of_run.map(|one| result(&project, newest, one["name"].as_str().unwrap()));
    if mine.any(|folder| damaged.starts_with(&folder)) && !damaged.starts_with(&own) {
        let name = damaged.file_name().unwrap().to_str().unwrap();
        assert!(
            said.contains(name) && said.contains("damaged") || said.contains("is not what was written"),
            "{what}: {said}"
        );
    }
}

#[test]
fn a_damaged_store_never_gives_a_wrong_artifact() {
    let whole = whole();
    whole.ok(&["export", "twin.yaml", "--to", "out"]);
    let right =
        Right { store: store(&whole), artifacts: clean(20), exported: exported(&whole), record: record(&whole) };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let right = &right;
            scope.spawn(move || (thread..CASES).step_by(THREADS as usize).for_each(|number| case(number, right)));
        }
    });
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_collected() {
    let project = whole();
    let pinned = super::files_and_folders(&store(&project).join("pins")).remove(0);
    let name = format!("{}.json", pinned.file_name().unwrap().to_str().unwrap());
    let path = store(&project).join("runs").join(&name);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // It still parses: one result more that nobody would keep.
    let at = text.find("\"fingerprint\":\"").unwrap() + 15;
    let other = if &text[at..=at] == "0" { "1" } else { "0" };
    std::fs::write(&path, format!("{}{other}{}", &text[..at], &text[at + 1..])).unwrap();
    let runs = project.thresh(&["runs"]);
    assert!(runs.stderr.contains(&name) && runs.stderr.contains("is damaged"), "{}", runs.stderr);
    assert!(!runs.stdout.contains(name.trim_end_matches(".json")), "{}", runs.stdout);
    let before = files(&store(&project));
    for arguments in [&["gc", "--dry-run"][..], &["gc"]] {
        let refused = project.thresh(arguments);
        assert_eq!(refused.code, Some(1), "{}", refused.stdout);
        assert!(refused.stderr.contains(&name) && refused.stderr.contains("is damaged"), "{}", refused.stderr);
    }
    assert_eq!(files(&store(&project)), before);
    std::fs::remove_file(&path).unwrap();
    let half = project.write(".thresh/runs/20261123-061530-123456-twin.77.tmp", "{");
    project.ok(&["gc"]);
    assert!(!half.exists(), "a record that was half written when its run was killed");
    assert_eq!(project.run(&["twin.yaml"])["computed"], 0);
}
