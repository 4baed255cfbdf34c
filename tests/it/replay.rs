//! Recorded calls answered and judged again, through the real binary.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::golden;
use crate::project::Project;
use thresh::dialogue::episode::{EpisodeRow, Outcome};
use thresh::dialogue::replay::OutcomeRow;
use thresh::fs;
use thresh::table;

/// What the reference's server said to one call, and what that call earns.
#[derive(Deserialize)]
struct Vector {
    dialogue: String,
    api: String,
    observation: String,
    reward_if_only_call: f64,
    goals_hit: Vec<String>,
}

/// A corpus to convert: one beside the golden files, else the real one, else the repository's own 25 dialogues.
fn corpus() -> PathBuf {
    let beside = golden::folder().join("multiwoz");
    let real = std::env::var_os("THRESH_MULTIWOZ").map(PathBuf::from);
    if beside.is_dir() { beside } else { real.unwrap_or_else(|| golden::own_folder().join("multiwoz")) }
}

/// A project that converts a corpus under `compat`, with `stages` after that.
fn project(corpus: &Path, compat: &str, stages: &str) -> Project {
    let project = Project::new();
    let mut manifest = format!(
        "name = 'woz'\nlicence = 'MIT'\norigin = 'o'\ndescription = 'd'\nsource = [{{path = '{}'}}]\n",
        corpus.display()
    );
    let mut open = vec![corpus.to_owned()];
    let wanted = ["data.json", "dataset.zip", "valListFile.json", "testListFile.json"];
    while let Some(folder) = open.pop() {
        for path in fs::list(folder).unwrap() {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                open.push(path);
            } else if wanted.contains(&name.as_str()) || name.ends_with("_db.json") {
                let bytes = fs::read(&path).unwrap();
                let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                let below = path.strip_prefix(corpus).unwrap().display().to_string();
                manifest.push_str(&format!(
                    "[[file]]\npath = '{below}'\nto = '{below}'\nsha256 = '{sha256}'\nbytes = {}\n",
                    bytes.len()
                ));
            }
        }
    }
    project.write("woz.toml", &manifest);
    let head = "name: p\nstages:\n  woz: {kind: dataset.fetch, with: {manifest: woz.toml}}\n";
    let convert =
        format!("  toolwoz: {{kind: toolwoz.convert, in: {{corpus: woz.files}}, with: {{compat: {compat}}}}}\n");
    project.write("p.yaml", &format!("{head}{convert}{stages}"));
    project
}

const FILE: &str = "  again:
    kind: toolwoz.replay
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {calls: calls.jsonl, compat: repo-head}
";

#[test]
fn golden_vectors_come_out_to_the_byte() {
    let lines: String = golden::texts("api_vectors", ".jsonl").into_iter().map(|(_, text)| text + "\n").collect();
    let vectors: Vec<Vector> =
        lines.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!vectors.is_empty());
    let project = project(&corpus(), "repo-head", FILE);
    project.write("calls.jsonl", &lines);
    assert_eq!(project.run(&["p.yaml"])["failed"], 0);
    let outcomes: Vec<OutcomeRow> = table::read(&project.result("p.yaml", "again.outcomes")).unwrap();
    assert_eq!(outcomes.len(), vectors.len());
    for (line, (outcome, vector)) in outcomes.iter().zip(&vectors).enumerate() {
        let found = (&outcome.dialogue, &outcome.api, &outcome.observation, &outcome.goals_hit);
        let expected = (&vector.dialogue, &vector.api, &vector.observation, &vector.goals_hit);
        assert_eq!(found, expected, "vector {}", line + 1);
        assert!((outcome.reward - vector.reward_if_only_call).abs() < 1e-12, "vector {}", line + 1);
    }
}

#[test]
fn wrong_lines_are_named() {
    let project = project(&golden::own_folder().join("multiwoz"), "repo-head", FILE);
    let known = golden::texts("api_vectors", ".jsonl")[0].1.lines().next().unwrap().to_owned();
    let known = serde_json::from_str::<Value>(&known).unwrap()["dialogue"].as_str().unwrap().to_owned();
    let good = json!({"dialogue": known, "api": "search_hotel", "args": ["north"], "more": 1});
    for (bad, message) in [
        ("{\"dialogue\": \"A\"", "`calls.jsonl` line 3 is no call"),
        ("{\"dialogue\": \"A\", \"api\": \"search_hotel\"}", "missing field `args`"),
        ("{\"dialogue\": 3, \"api\": \"search_hotel\", \"args\": {}}", "invalid type: integer `3`"),
        (
            "{\"dialogue\": \"A\", \"api\": \"search_hotel\", \"args\": {}}",
            "`calls.jsonl` line 3: dialogue `A` is none of the 25 tasks",
        ),
    ] {
        project.write("calls.jsonl", &format!("{good}\n\n{bad}\n"));
        let ran = project.thresh(&["run", "p.yaml"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains(message), "{}", ran.stderr);
    }
    project.write("calls.jsonl", &format!("{good}\n"));
    project.ok(&["run", "p.yaml"]);
    let outcomes: Vec<OutcomeRow> = table::read(&project.result("p.yaml", "again.outcomes")).unwrap();
    assert!(outcomes[0].observation.contains("NOT ALLOWED") && outcomes[0].reward == 0.0);
    assert_eq!(project.run(&["p.yaml"])["computed"], 0);
    project.write("calls.jsonl", &format!("{good}\n{good}\n"));
    assert_eq!(project.run(&["p.yaml"])["computed"], 1, "the content of the file counts");
}

#[test]
fn episodes_are_scored_under_other_rules() {
    let stages = "  played:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {tasks: {}, agent: {kind: rule, noise: 0.3}, seed: 3}
  same:
    kind: toolwoz.replay
    in: {tasks: toolwoz.tasks, world: toolwoz.world, episodes: played.episodes}
  strict:
    kind: toolwoz.replay
    in: {tasks: toolwoz.tasks, world: toolwoz.world, episodes: played.episodes}
    with: {compat: repo-head}
  scores:
    kind: eval.toolwoz
    in: {episodes: strict.rescored, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {compat: repo-head, samples: 10}
";
    let project = project(&golden::own_folder().join("multiwoz"), "fixed", stages);
    assert_eq!(project.run(&["p.yaml"])["failed"], 0);
    let read = |output: &str| -> Vec<EpisodeRow> { table::read(&project.result("p.yaml", output)).unwrap() };
    let (played, same, strict) = (read("played.episodes"), read("same.rescored"), read("strict.rescored"));
    assert_eq!(played, same, "under their own rules episodes come out as they went in");
    assert!(played.iter().map(|episode| episode.calls.len()).sum::<usize>() > 25);
    assert_ne!(played, strict);
    for (old, new) in played.iter().zip(&strict) {
        assert_eq!((&old.dialogue, &old.messages), (&new.dialogue, &new.messages));
        assert_eq!(new.success, new.outcome == Outcome::Success);
    }
    let outcomes: Vec<OutcomeRow> = table::read(&project.result("p.yaml", "same.outcomes")).unwrap();
    for episode in &played {
        let calls: Vec<&OutcomeRow> = outcomes.iter().filter(|row| row.dialogue == episode.dialogue).collect();
        assert_eq!(
            calls.iter().map(|row| row.index as usize).collect::<Vec<_>>(),
            (0..episode.calls.len()).collect::<Vec<_>>()
        );
        assert!((calls.last().map_or(0.0, |row| row.reward_so_far) - episode.reward).abs() < 1e-12);
    }
}
