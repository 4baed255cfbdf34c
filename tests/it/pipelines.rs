//! The pipelines of the tree, run for real: the quickstart in small, the real data whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::project::Project;
use thresh::dialogue::episode::{EpisodeRow, Outcome};
use thresh::dialogue::task::Task;
use thresh::eval::ComparisonRow;
use thresh::examples::{KtoExample, SftExample};
use thresh::josh::node::NodeRow;
use thresh::table;

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A project that holds a pipeline of the tree and the manifests.
fn project(pipeline: &str) -> Project {
    let project = Project::new();
    project.write(pipeline, &std::fs::read_to_string(tree().join("pipelines").join(pipeline)).unwrap());
    for entry in std::fs::read_dir(tree().join("datasets")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_name().unwrap().to_str().unwrap();
            project.write(&format!("datasets/{name}"), &std::fs::read_to_string(&path).unwrap());
        }
    }
    project
}

/// The quickstart with few of everything. An agent that hardly learnt anything earns nothing, so rules take its part in the
/// harvest.
const SMALL: &[&str] = &[
    "corpus.dialogues=160",
    "params.demonstrations=40",
    "params.harvest_tasks=12",
    "params.test_tasks=6",
    "harvest.agent.kind=rule",
    "harvest.agent.noise=0.2",
    "base.max_steps=4",
    "josh_sft.max_steps=2",
    "josh_kto.max_steps=2",
];

fn small() -> Vec<String> {
    let mut arguments = vec!["quickstart.yaml".to_owned()];
    arguments.extend(SMALL.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
    arguments
}

fn digests(project: &Project) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![project.path().join(".thresh/results")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().unwrap() != "manifest.json" {
                let name = path.strip_prefix(project.path()).unwrap().display().to_string();
                found.insert(name, blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string());
            }
        }
    }
    found
}

#[test]
fn the_quickstart_runs_twice_to_the_same_bytes_and_then_not_at_all() {
    let arguments = small();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (first, second) = (project("quickstart.yaml"), project("quickstart.yaml"));
    let event = first.run(&arguments);
    assert_eq!((event["computed"].as_u64(), event["failed"].as_u64()), (Some(26), Some(0)), "{event}");
    // One stage at a time must give the same as two side by side.
    let mut alone = arguments.clone();
    alone.extend(["--jobs", "1"]);
    second.run(&alone);
    let (one, two) = (digests(&first), digests(&second));
    assert!(one.len() > 30);
    assert_eq!(one, two);
    assert_eq!(first.run(&arguments)["computed"], 0);
    let printed = first.ok(&[&["run", "-q"], arguments.as_slice()].concat());
    assert!(printed.contains("josh-sft") && printed.contains("average reward"), "{printed}");
    let result = |output: &str| {
        let mut path = vec!["path"];
        path.extend(&arguments);
        path.push(output);
        PathBuf::from(first.ok(&path).trim())
    };
    let rows: Vec<ComparisonRow> = table::read(&result("comparison_greedy.comparison")).unwrap();
    assert_eq!(rows.iter().map(|row| row.arm.as_str()).collect::<Vec<_>>(), ["base", "josh-kto", "josh-sft", "rule"]);
    assert_eq!(rows[3].success, Some(1.0), "rules without noise reach every goal");
    let trees: Vec<NodeRow> = table::read(&result("harvest.trees")).unwrap();
    assert!(trees.iter().any(|row| row.golden));
}

#[test]
fn the_real_data_give_the_counts_of_the_reference() {
    let pip = std::process::Command::new("python3").args(["-m", "pip", "--version"]).output();
    let pip = pip.is_ok_and(|output| output.status.success());
    if !pip && std::env::var_os("CI").is_none() {
        eprintln!("skipped: the real data come through `python3 -m pip`, which is not here");
        return;
    }
    let project = project("toolwoz.yaml");
    let event = project.run(&["toolwoz.yaml"]);
    assert_eq!((event["failed"].as_u64(), event["skipped"].as_u64()), (Some(0), Some(0)), "{event}");
    let tasks: Vec<Task> = table::read(&project.result("toolwoz.yaml", "toolwoz.tasks")).unwrap();
    let split = |name: &str| tasks.iter().filter(|task| task.split == name).count();
    assert_eq!((tasks.len(), split("train"), split("val"), split("test")), (7849, 6251, 793, 805));
    let sft: Vec<SftExample> = table::read(&project.result("toolwoz.yaml", "sft_data.examples")).unwrap();
    let kto: Vec<KtoExample> = table::read(&project.result("toolwoz.yaml", "kto_data.examples")).unwrap();
    let desirable = kto.iter().filter(|example| example.label).count();
    assert_eq!((sft.len(), desirable, kto.len() - desirable), (420, 3283, 911));
    let episodes: Vec<EpisodeRow> = table::read(&project.result("toolwoz.yaml", "rule_episodes.episodes")).unwrap();
    assert_eq!(episodes.len(), 450);
    assert!(episodes.iter().all(|episode| episode.outcome != Outcome::Broken));
    let mean = episodes.iter().map(|episode| episode.reward).sum::<f64>() / 450.0;
    assert!(mean > 0.9, "the rule-based agent earns {mean}");
}

#[test]
fn every_pipeline_of_the_tree_is_right_and_the_readme_shows_one_as_it_is() {
    let readme = std::fs::read_to_string(tree().join("README.md")).unwrap();
    let project = Project::new();
    for folder in ["pipelines", "pipelines/ablations"] {
        for entry in std::fs::read_dir(tree().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                project.ok(&["check", path.to_str().unwrap()]);
            }
        }
    }
    let josh = std::fs::read_to_string(tree().join("pipelines/josh.yaml")).unwrap();
    assert!(readme.contains(&format!("```yaml\n{josh}```")), "README.md shows an old pipelines/josh.yaml");
}

#[test]
fn an_endpoint_that_is_down_is_one_clear_error() {
    let project = Project::new();
    // A port that was free a moment ago, and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    project.write(
        "thresh.toml",
        &format!("[endpoints.gone]\nurl = \"http://127.0.0.1:{port}/v1\"\nretries = 0\ntimeout = 5.0\n"),
    );
    let stages = "name: p
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 20}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: served, model: MODEL}}
";
    project.write("p.yaml", &stages.replace("MODEL", "gone"));
    let ran = project.thresh(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("every dialogue is broken: endpoint `gone` did not answer"), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 computed, 0 fresh, 1 failed"), "{}", ran.stderr);
    project.write("p.yaml", &stages.replace("MODEL", "nobody"));
    let ran = project.thresh(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("add `[endpoints.nobody]` with `url` to thresh.toml"), "{}", ran.stderr);
}
