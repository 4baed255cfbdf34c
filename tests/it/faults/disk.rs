//! A disk that is full, and files that may not grow: what cannot be written is named, what was finished stays.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, setrlimit};
use serde_json::Value;

use super::namespace::{inside, mount};
use super::{artifacts, clean, files_and_folders, json, nothing_is_left, store, twin};
use crate::project::Project;

/// The unit in which this disk is filled.
const PAGE: u64 = 4096;

/// The events of a run, and its exit code.
struct Run {
    code: Option<i32>,
    events: Vec<Value>,
    stderr: String,
}

impl Run {
    fn of(mut command: Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Self { code: output.status.code(), events, stderr: String::from_utf8(output.stderr).unwrap() }
    }

    fn texts(&self, event: &str, field: &str) -> Vec<String> {
        let events = self.events.iter().filter(|one| one["event"] == event);
        events.map(|one| one[field].as_str().unwrap().to_owned()).collect()
    }

    fn last(&self) -> &Value {
        self.events.last().unwrap_or_else(|| panic!("no event: {}", self.stderr))
    }
}

/// Fills a disk but for so many bytes.
fn fill(disk: &Path, free: u64) {
    let path = disk.join("ballast");
    let mut ballast = std::fs::File::create(&path).unwrap();
    while ballast.write_all(&[0; PAGE as usize]).is_ok() {}
    ballast.set_len(ballast.metadata().unwrap().len().saturating_sub(free)).unwrap();
}

/// What the next run must find of a run: everything that it computed.
fn nothing_is_lost(project: &Project, failed: &Run, arguments: &[&str]) {
    let computed = failed.events.iter().filter(|one| one["event"] == "stage_finished").count();
    for group in files_and_folders(&store(project).join("results")) {
        for result in files_and_folders(&group) {
            let manifest = json(&result.join("manifest.json"));
            for output in manifest["outputs"].as_object().unwrap().values() {
                for file in output["files"].as_array().unwrap() {
                    let bytes = std::fs::read(result.join(file["path"].as_str().unwrap())).unwrap();
                    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), file["digest"].as_str().unwrap());
                }
            }
        }
    }
    let next = project.run(&[&["twin.yaml"], arguments].concat());
    assert!(next["fresh"].as_u64().unwrap() >= computed as u64, "{computed} were computed: {next}");
    assert_eq!(next["failed"], 0);
}

/// Where a full disk may hit, as the messages tell.
fn place(message: &str) -> Option<&'static str> {
    let places = [
        ("manifest.json", "manifest"),
        (".parquet", "table"),
        ("the command failed", "command"),
        ("output.txt", "log"),
        ("rows/", "journal"),
        ("runs/", "record"),
    ];
    places.iter().find(|(part, _)| message.contains(part)).map(|(_, name)| *name)
}

/// Runs on disks with ever more room, some stages ready before the disk is filled; the places that were hit.
fn sweep(project: &Project, disk: &Path, ready: &[&str], free: &[u64], arguments: &[&str]) -> BTreeSet<&'static str> {
    let mut hit = BTreeSet::new();
    for &free in free {
        for entry in files_and_folders(disk) {
            if entry.is_dir() { std::fs::remove_dir_all(entry).unwrap() } else { std::fs::remove_file(entry).unwrap() }
        }
        for upto in ready {
            project.ok(&["run", "-q", "twin.yaml", "--upto", upto]);
        }
        fill(disk, free);
        let run = Run::of(project.command(&[&["run", "--json", "twin.yaml"], arguments].concat()));
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        let failures = run.texts("stage_failed", "message");
        for message in &failures {
            assert!(message.contains("No space left on device") || message.contains("bytes left"), "{message}");
            assert!(
                message.contains(disk.to_str().unwrap()) || message.contains(".thresh/"),
                "names no file: {message}"
            );
        }
        let warnings = [run.texts("not_recorded", "why"), run.texts("warning", "text")].concat();
        hit.extend(failures.iter().chain(&warnings).filter_map(|message| place(message)));
        if run.code != Some(0) {
            assert_eq!(run.code, Some(1), "{}", run.stderr);
            assert!(!failures.is_empty() || run.stderr.contains("No space left on device"), "{}", run.stderr);
        }
        std::fs::remove_file(disk.join("ballast")).unwrap();
        nothing_is_lost(project, &run, arguments);
        nothing_is_left(project);
        if arguments.is_empty() {
            assert_eq!(artifacts(project), *clean(20));
        }
    }
    hit
}

#[test]
fn a_full_disk_costs_the_stage_that_fills_it_and_nothing_else() {
    if !inside("faults::disk::a_full_disk_costs_the_stage_that_fills_it_and_nothing_else") {
        return;
    }
    let project = twin();
    let disk = store(&project);
    std::fs::create_dir(&disk).unwrap();
    let _mounted = mount(&["-t", "tmpfs", "-o", "size=16m", "none"], &disk);
    // Page by page through what one command needs: its log, its output, the manifest, the record.
    let pages: Vec<u64> = (0..10).map(|pages| pages * PAGE).collect();
    let mut hit = sweep(&project, &disk, &[], &pages, &["--upto", "corpus"]);
    let rows: Vec<u64> = (0..7).map(|step| step * 4 * PAGE).collect();
    hit.extend(sweep(&project, &disk, &["rows_corpus"], &rows, &["--upto", "rows_scores"]));
    hit.extend(sweep(&project, &disk, &["rows_toolwoz"], &rows, &["--upto", "rows_scores"]));
    hit.extend(sweep(&project, &disk, &[], &[50_000, 300_000, 700_000, 1_200_000, 1_500_000, 2_500_000], &[]));
    println!("hit: {hit:?}");
    for expected in ["command", "journal", "manifest", "record", "table"] {
        assert!(hit.contains(expected), "the full disk never hit a {expected}: {hit:?}");
    }
}

#[test]
fn files_that_may_not_grow_cost_the_stage_that_needs_them() {
    let mut hit = BTreeSet::new();
    for limit in [100, 600, 1_000, 3_000, 8_000, 20_000, 60_000, 500_000] {
        let project = twin();
        project.ok(&["run", "-q", "twin.yaml", "--upto", "rows_corpus"]);
        let mut command = project.command(&["run", "--json", "--keep-going", "twin.yaml"]);
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_FSIZE, limit, limit)?));
        }
        let run = Run::of(command);
        assert_eq!(run.code, Some(1), "{limit}: {}", run.stderr);
        assert_eq!(run.last()["event"], "run_finished");
        let failures = run.texts("stage_failed", "message");
        assert!(!failures.is_empty());
        for message in &failures {
            let said = message.contains("File too large") && message.contains(".thresh/");
            assert!(said || message.contains("SIGXFSZ") || message.contains("File size limit"), "{message}");
        }
        let warnings = [run.texts("not_recorded", "why"), run.texts("warning", "text")].concat();
        hit.extend(failures.iter().chain(&warnings).filter_map(|message| place(message)));
        nothing_is_lost(&project, &run, &[]);
        assert_eq!(artifacts(&project), *clean(20));
        nothing_is_left(&project);
    }
    println!("hit: {hit:?}");
    for expected in ["command", "journal", "manifest", "record", "table"] {
        assert!(hit.contains(expected), "no {expected} was too large: {hit:?}");
    }
}
