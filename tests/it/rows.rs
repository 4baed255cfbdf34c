//! Rows as the unit of work: what was finished once is not computed again, and nobody can tell it from what was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::project::Project;
use crate::server::{Answer, Request, Server};

const TOWN: &str = "name: p
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 400, domains: [restaurant, hotel], max_domains: 2, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: 0.2}, tasks: {split: train, limit: 20}, seed: 4}
  harvest:
    kind: josh.harvest
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: 0.3}, tasks: {split: train, limit: 6}, beam: 4, seed: 4}
  scores:
    kind: eval.toolwoz
    in: {episodes: episodes.episodes, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {samples: 100}
";

fn town() -> Project {
    let project = Project::new();
    project.write("p.yaml", TOWN);
    project
}

/// Rows, computed, journalled and broken ones.
type Counts = [u64; 4];

/// The counts of every stage that was computed in a run which must not fail.
fn counts(project: &Project, arguments: &[&str]) -> BTreeMap<String, Counts> {
    let lines = project.ok(&[&["run", "--json", "p.yaml"], arguments].concat());
    let mut found = BTreeMap::new();
    for line in lines.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        if event["event"] == "stage_finished" && event["computed"] == true {
            let figure = |name: &str| event["figures"][name].as_f64().map(|value| value as u64);
            let names = ["rows", "rows.computed", "rows.journalled", "rows.broken"];
            let counts = names.map(|name| figure(name).unwrap_or_default());
            found.insert(event["stage"].as_str().unwrap().to_owned(), counts);
        }
    }
    found
}

/// The bytes of the tables that stages over rows made.
fn tables(project: &Project, arguments: &[&str]) -> Vec<Vec<u8>> {
    ["episodes.episodes", "harvest.trees", "scores.scores", "scores.summary"]
        .map(|output| {
            let path = project.ok(&[&["path", "p.yaml"], arguments, &[output]].concat());
            std::fs::read(path.trim()).unwrap()
        })
        .into()
}

/// The same, computed in one go where nothing is known yet.
fn tables_afresh(pipeline: &str, arguments: &[&str]) -> Vec<Vec<u8>> {
    let project = Project::new();
    project.write("p.yaml", pipeline);
    project.ok(&[&["run", "-q", "p.yaml"], arguments].concat());
    tables(&project, arguments)
}

fn journals(project: &Project) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(project.path().join(".thresh/rows")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

const MORE: &[&str] = &["--set", "episodes.tasks.limit=30", "--set", "harvest.tasks.limit=9"];

#[test]
fn a_higher_limit_computes_only_the_new_rows_and_a_lower_one_none() {
    let project = town();
    let first = counts(&project, &[]);
    assert_eq!((first["episodes"], first["harvest"], first["scores"]), ([20, 20, 0, 0], [6, 6, 0, 0], [20, 20, 0, 0]));
    let more = counts(&project, MORE);
    assert_eq!(more.keys().collect::<Vec<_>>(), ["episodes", "harvest", "scores"]);
    assert_eq!((more["episodes"], more["harvest"], more["scores"]), ([30, 10, 20, 0], [9, 3, 6, 0], [30, 10, 20, 0]));
    assert_eq!(tables(&project, MORE), tables_afresh(TOWN, MORE));
    let middle = counts(&project, &["--set", "episodes.tasks.skip=5"]);
    assert_eq!((middle["episodes"], middle["scores"]), ([20, 0, 20, 0], [20, 0, 20, 0]));
    assert!(counts(&project, &[]).is_empty(), "the first result is still there");
    // Another interval is made of the same scores; another seed makes other dialogues.
    assert_eq!(counts(&project, &["--set", "scores.confidence=0.9"])["scores"], [20, 0, 20, 0]);
    assert_eq!(counts(&project, &["--set", "episodes.seed=9"])["episodes"], [20, 20, 0, 0]);
    // Who asks for it gets everything computed again.
    assert_eq!(counts(&project, &["--force", "episodes"])["episodes"], [20, 20, 0, 0]);
}

#[test]
fn a_changed_dialogue_is_the_only_one_that_is_computed_again() {
    let all = &["--set", "episodes.tasks.limit=300"];
    let project = town();
    counts(&project, all);
    let between = "  changed:
    kind: command.run
    in: {corpus: corpus.corpus}
    with:
      command: 'mkdir {out.corpus} && cp -r {in.corpus}/. {out.corpus}/ && sed -i \"2s/You need/You want/\" {out.corpus}/data.json'
      outputs: {corpus: {path: corpus, type: files/v1}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: changed.corpus}}
";
    let changed = TOWN.replace("  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}\n", between);
    project.write("p.yaml", &changed);
    let found = counts(&project, all);
    let [rows, ..] = found["episodes"];
    assert!(rows > 200);
    assert_eq!(found["episodes"], [rows, 1, rows - 1, 0]);
    assert_eq!(found["scores"], [rows, 1, rows - 1, 0]);
    assert_eq!(tables(&project, all), tables_afresh(&changed, all));
}

#[test]
fn a_killed_run_loses_only_what_was_in_flight() {
    let many = &["--set", "episodes.tasks.limit=300", "--set", "harvest.tasks.limit=40"];
    let expected = tables_afresh(TOWN, many);
    let mut journalled = 0;
    for least in [1, 60_000, 400_000] {
        let project = town();
        counts(&project, &["--upto", "toolwoz"]);
        let mut child = project.command(&[&["run", "-q", "p.yaml", "--jobs", "1"][..], many].concat());
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while journals(&project).iter().map(|path| length(path)).sum::<u64>() < least {
            assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = counts(&project, many);
        for [rows, computed, taken, broken] in found.values().filter(|counts| counts[0] > 0) {
            assert_eq!((computed + taken, *broken), (*rows, 0));
            journalled += taken;
        }
        assert_eq!(tables(&project, many), expected);
    }
    assert!(journalled > 0);
}

#[test]
fn a_damaged_journal_costs_the_damaged_rows() {
    let project = town();
    counts(&project, &[]);
    for path in journals(&project) {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        bytes.truncate(bytes.len() - 10);
        std::fs::write(&path, bytes).unwrap();
    }
    let found = counts(&project, MORE);
    assert_eq!(
        (found["episodes"], found["harvest"], found["scores"]),
        ([30, 12, 18, 0], [9, 5, 4, 0], [30, 12, 18, 0])
    );
    assert_eq!(tables(&project, MORE), tables_afresh(TOWN, MORE));
}

#[test]
fn two_processes_share_the_journals() {
    let project = town();
    let run = |arguments: &[&str]| {
        let mut command = project.command(&[&["run", "-q", "p.yaml"], arguments].concat());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children = [run(&[]), run(MORE), run(MORE)];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(tables(&project, MORE), tables_afresh(TOWN, MORE));
    assert_eq!(tables(&project, &[]), tables_afresh(TOWN, &[]));
    let last = &["--set", "episodes.tasks.limit=25", "--set", "harvest.tasks.limit=7"];
    let found = counts(&project, last);
    assert_eq!((found["episodes"], found["harvest"]), ([25, 0, 25, 0], [7, 0, 7, 0]));
}

#[test]
fn journals_that_cannot_be_written_cost_a_warning() {
    let project = town();
    counts(&project, &["--upto", "toolwoz"]);
    let rows = project.path().join(".thresh/rows");
    std::fs::remove_dir_all(&rows).unwrap();
    std::fs::create_dir(&rows).unwrap();
    // Folders stand where the journals would: also root cannot write there.
    let other = town();
    counts(&other, &[]);
    for path in journals(&other) {
        std::fs::create_dir(rows.join(path.file_name().unwrap())).unwrap();
    }
    let ran = project.thresh(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("a run that is interrupted starts over").count(), 3, "{}", ran.stderr);
    assert_eq!(tables(&project, &[]), tables(&other, &[]));
}

const SERVED: &str = "name: p
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 60, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: served, model: flaky}, tasks: {split: train, limit: 15}}
  harvest:
    kind: josh.harvest
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: served, model: flaky}, tasks: {split: train, limit: 15}, beam: 2, max_steps: 2}
  scores: {kind: eval.toolwoz, in: {episodes: episodes.episodes}, with: {samples: 100}}
";

/// How a request's dialogue began.
fn opening(request: &Request) -> String {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let messages = body["messages"].as_array().unwrap();
    messages.iter().find(|message| message["role"] == "user").unwrap()["content"].as_str().unwrap().to_owned()
}

fn unlucky(opening: &str) -> bool {
    blake3::hash(opening.as_bytes()).as_bytes()[0].is_multiple_of(3)
}

/// A project whose agent is served; while `down` is set, the server answers nothing to dialogues that are unlucky.
fn served(down: &Arc<AtomicBool>) -> (Project, Server) {
    let down = down.clone();
    let server = Server::start(move |request, _| {
        if down.load(Ordering::SeqCst) && unlucky(&opening(request)) {
            return Answer::json(500, "{}");
        }
        let message = serde_json::json!({"role": "assistant", "content": "SPEAK Any wish? <COMMAND_END>"});
        let usage = serde_json::json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10});
        let choice = serde_json::json!({"message": message, "finish_reason": "stop"});
        Answer::json(200, serde_json::json!({"choices": [choice], "usage": usage}).to_string())
    });
    let project = Project::new();
    let url = server.url("/v1");
    project
        .write("thresh.toml", &format!("jobs = 2\n[endpoints.flaky]\nurl = \"{url}\"\nretries = 0\ntimeout = 5.0\n"));
    project.write("p.yaml", SERVED);
    (project, server)
}

#[test]
fn broken_rows_are_tried_again_when_asked_and_no_others() {
    let down = Arc::new(AtomicBool::new(true));
    let (project, server) = served(&down);
    let first = counts(&project, &[]);
    let ([.., broken], [.., trees]) = (first["episodes"], first["harvest"]);
    assert_eq!((first["episodes"], first["harvest"]), ([15, 15, 0, broken], [15, 15, 0, trees]));
    assert!((1..15).contains(&broken) && (1..15).contains(&trees), "{broken} {trees}");
    assert!(counts(&project, &[]).is_empty(), "nothing is tried again unasked");
    let asked = server.requests().len();
    let still = counts(&project, &["--retry-broken"]);
    assert_eq!(still["episodes"], [15, broken, 15 - broken, broken]);
    assert_eq!(still["harvest"], [15, trees, 15 - trees, trees]);
    assert!(!still.contains_key("scores"), "the episodes are as they were");
    down.store(false, Ordering::SeqCst);
    let found = counts(&project, &["--retry-broken"]);
    assert_eq!(found["episodes"], [15, broken, 15 - broken, 0]);
    assert_eq!(found["harvest"], [15, trees, 15 - trees, 0]);
    assert_eq!(found["scores"], [15, broken, 15 - broken, 0]);
    let openings: BTreeSet<String> = server.requests()[asked..].iter().map(opening).collect();
    assert!(!openings.is_empty() && openings.iter().all(|opening| unlucky(opening)), "{openings:?}");
    assert!(counts(&project, &["--retry-broken"]).is_empty(), "nothing is broken any more");
    let (fresh, _server) = served(&down);
    counts(&fresh, &[]);
    assert_eq!(tables(&project, &[]), tables(&fresh, &[]));
}

#[test]
fn a_stage_whose_every_row_is_broken_fails_and_keeps_nothing() {
    let (project, server) = served(&Arc::default());
    let url = server.url("/v1");
    drop(server);
    let ran = project.thresh(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("every dialogue is broken: endpoint `flaky` did not answer"), "{url} {}", ran.stderr);
    assert!(ran.stderr.contains("every tree is broken: endpoint `flaky` did not answer"), "{}", ran.stderr);
    assert!(journals(&project).iter().all(|path| length(path) == 0));
}

#[test]
fn a_policys_rows_do_not_depend_on_the_number_of_threads() {
    let pipeline = TOWN
        .replace(
            "  episodes:",
            "  examples: {kind: demonstrations.build, in: {corpus: corpus.corpus, tasks: toolwoz.tasks, world: toolwoz.world}}
  policy:
    kind: model.init
    in: {examples: examples.examples}
    with: {layers: 2, hidden_size: 64, intermediate_size: 600, context: 1200, seed: 1}
  episodes:",
        )
        .replace("world: toolwoz.world}\n    with: {agent: {kind: rule, noise: 0.2}", "world: toolwoz.world, policy: policy.model}\n    with: {agent: {temperature: 1.0, max_tokens: 32}");
    let project = Project::new();
    project.write("p.yaml", &pipeline);
    counts(&project, &["--upto", "policy"]);
    let mut seen = Vec::new();
    for threads in ["1", "2", "5"] {
        let mut command = project.command(&["run", "-q", "p.yaml", "--force", "episodes", "--upto", "episodes"]);
        assert!(command.env("RAYON_NUM_THREADS", threads).stdout(Stdio::null()).status().unwrap().success());
        seen.push(std::fs::read(project.result("p.yaml", "episodes.episodes")).unwrap());
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
}
