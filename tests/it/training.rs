//! Trainings of adapters, on pairs, with held-out examples: as a pipeline runs them, and killed in their midst.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::project::{Project, within};
use thresh::table;
use thresh::train::TrainLog;
use thresh::train::rows::{Fate, TrainRow};

const PIPELINE: &str = "lora.yaml";

fn project() -> Project {
    let project = Project::new();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(PIPELINE)).unwrap();
    project.write(PIPELINE, &text);
    project
}

fn log(project: &Project, stage: &str) -> Vec<TrainLog> {
    table::read(&project.result(PIPELINE, &format!("{stage}.log"))).unwrap()
}

fn weights(project: &Project, stage: &str) -> Vec<u8> {
    let read = |output: &str, file: &str| {
        std::fs::read(project.result(PIPELINE, &format!("{stage}.{output}")).join(file)).unwrap()
    };
    [read("model", "model.safetensors"), read("adapter", "adapter_model.safetensors")].concat()
}

/// Asserts what the pipeline shows.
fn shows_what_it_says(project: &Project) {
    let tuned = log(project, "tuned");
    let measured: Vec<u64> = tuned.iter().filter(|row| row.eval_loss.is_some()).map(|row| row.step).collect();
    assert_eq!(measured, [10, 20, tuned.len() as u64]);
    let (first, last) = (tuned[9].eval_loss.unwrap(), tuned.last().unwrap().eval_loss.unwrap());
    assert!(last < first, "{first} {last}");
    let rows: Vec<TrainRow> = table::read(&project.result(PIPELINE, "tuned.rows")).unwrap();
    let held_out = rows.iter().filter(|row| row.fate == Fate::HeldOut).count();
    assert!((5..30).contains(&held_out) && rows.iter().all(|row| (row.fate == Fate::HeldOut) == (row.times == 0)));

    let preferring = log(project, "preferring");
    let losses: Vec<(u64, f64)> =
        preferring.iter().filter_map(|row| row.eval_loss.map(|loss| (row.step, loss))).collect();
    let best = losses.iter().copied().fold((0, 2_f64.ln()), |best, new| if new.1 < best.1 { new } else { best });
    let last = losses.last().unwrap();
    assert!(best.0 > 0 && last.0 > best.0, "it ends when the held-out pairs gain nothing more: {losses:?}");
    assert_eq!(losses.iter().filter(|(step, _)| *step > best.0).count(), 2, "{losses:?}");
    assert!(preferring.last().unwrap().rewards_margin.unwrap() > 0.1, "{:?}", preferring.last());
}

/// The checkpoints of the stages that run, the step and the folder.
fn checkpoints(folder: &Path) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.strip_prefix("step-").map(str::parse) {
            Some(Ok(step)) => found.push((step, path)),
            Some(Err(_)) => {}
            None if path.is_dir() => found.extend(checkpoints(&path)),
            None => {}
        }
    }
    found
}

/// Runs up to a stage and kills that at a checkpoint of this step or a later one.
fn kill_at(project: &Project, arguments: &[&str], stage: &str, step: u64) {
    let mut all = vec!["run", "--json", PIPELINE, "--upto", stage];
    all.extend(arguments);
    let mut child: Child = project.command(&all).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let work = project.path().join(".thresh/work");
    let there = within(120, || {
        checkpoints(&work).iter().any(|(found, _)| *found >= step) || child.try_wait().unwrap().is_some()
    });
    assert!(there, "no checkpoint of step {step}");
    assert!(child.try_wait().unwrap().is_none(), "`{stage}` was over before it could be killed");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The first step of which a run's events tell.
fn first_step(events: &str, stage: &str) -> u64 {
    let steps = events.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut steps = steps.filter(|event| event["stage"] == stage && event["unit"] == "steps");
    steps.next().unwrap()["done"].as_u64().unwrap()
}

#[test]
fn trainings_killed_in_their_midst_end_with_the_same_bits() {
    let (whole, killed) = (project(), project());
    let event = whole.run(&[PIPELINE]);
    assert_eq!((event["computed"].as_u64(), event["failed"].as_u64()), (Some(9), Some(0)), "{event}");
    shows_what_it_says(&whole);
    // How often checkpoints are written is a parameter, so the fingerprint is another one, and the bytes are the same.
    let every = ["--set", "tuned.checkpoint_every=1", "--set", "preferring.checkpoint_every=1"];
    for (stage, steps) in [("tuned", [3, 12]), ("preferring", [5, 20])] {
        steps.into_iter().for_each(|step| kill_at(&killed, &every, stage, step));
        let mut arguments = vec!["run", "--json", PIPELINE, "--upto", stage];
        arguments.extend(every);
        let first = first_step(&killed.ok(&arguments), stage);
        assert!(first > steps[1], "`{stage}` began again at step {first}");
    }
    let path = |output: &str| {
        let mut arguments = vec!["path", PIPELINE];
        arguments.extend(every);
        arguments.push(output);
        PathBuf::from(killed.ok(&arguments).trim())
    };
    for stage in ["tuned", "preferring"] {
        let read = |output: &str, file: &str| std::fs::read(path(&format!("{stage}.{output}")).join(file)).unwrap();
        let found = [read("model", "model.safetensors"), read("adapter", "adapter_model.safetensors")].concat();
        assert!(found == weights(&whole, stage), "the weights of `{stage}` differ");
        let rows: Vec<TrainLog> = table::read(&path(&format!("{stage}.log"))).unwrap();
        assert_eq!(rows, log(&whole, stage));
    }
}
