//! Several processes on one store.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::{TWIN, artifacts, clean, nothing_is_left, processes, store, twin, within};
use crate::project::Project;

fn start(project: &Project, arguments: &[&str]) -> Child {
    let mut command = project.command(&[&["run", "-q"], arguments].concat());
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn succeed(children: Vec<Child>) {
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

/// How often each result was computed by a command.
fn marks(project: &Project) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(project.path().join("marks")).unwrap();
    let mut marks = BTreeMap::new();
    for line in text.lines() {
        *marks.entry(line.to_owned()).or_default() += 1;
    }
    marks
}

/// Another pipeline with the same beginning: another name, other names of stages, another end.
fn other() -> String {
    let text = TWIN.replace("name: twin", "name: other").replace("josh_sft", "tuned").replace("kto_data", "pairs");
    text.replace("cat {in.trees}/1 {in.trees}/2", "cat {in.trees}/2 {in.trees}/1")
}

#[test]
fn processes_with_the_same_pipeline_compute_each_result_once() {
    for count in [2, 5] {
        let project = twin();
        succeed((0..count).map(|_| start(&project, &["twin.yaml"])).collect());
        assert!(marks(&project).values().all(|&times| times == 1), "{:?}", marks(&project));
        assert_eq!(marks(&project).len(), 25);
        let runs = project.ok(&["runs"]);
        assert_eq!(runs.lines().count(), count, "each run has a record of its own: {runs}");
        assert_eq!(artifacts(&project), *clean(20));
        nothing_is_left(&project);
    }
}

#[test]
fn processes_with_different_pipelines_share_what_they_have_in_common() {
    let project = twin();
    project.write("other.yaml", &other());
    let files = ["twin.yaml", "other.yaml", "twin.yaml", "other.yaml", "other.yaml"];
    succeed(files.iter().map(|file| start(&project, &[file])).collect());
    assert!(marks(&project).values().all(|&times| times == 1), "{:?}", marks(&project));
    // Of the other pipeline: its `sft_data` and what comes of it.
    assert_eq!(marks(&project).len(), 25 + 6, "{:?}", marks(&project));
    project.ok(&["run", "-q", "twin.yaml"]);
    assert_eq!(artifacts(&project), *clean(20));
    nothing_is_left(&project);
}

#[test]
fn when_one_is_killed_the_others_take_over_at_once() {
    for after in [60, 150, 240] {
        let project = twin();
        let mut children: Vec<Child> = (0..3).map(|_| start(&project, &["twin.yaml"])).collect();
        std::thread::sleep(Duration::from_millis(after));
        let mut victim = children.remove(1);
        victim.kill().unwrap();
        victim.wait().unwrap();
        succeed(children);
        // At most what the victim had in its hands was computed a second time.
        let again = marks(&project).values().filter(|&&times| times > 1).count();
        assert!(again <= 2 && marks(&project).values().all(|&times| times <= 2), "{:?}", marks(&project));
        project.ok(&["run", "-q", "twin.yaml"]);
        assert_eq!(artifacts(&project), *clean(20));
        nothing_is_left(&project);
    }
}

#[test]
fn nothing_is_collected_while_runs_go_on() {
    let project = twin();
    project.ok(&["run", "-q", "twin.yaml"]);
    let before = artifacts(&project);
    project.write("long.yaml", "name: long\nstages:\n  a: {kind: command.run, with: {command: \"while [ ! -e {project}/go ]; do sleep 0.02; done; echo 1 > {out.x}\", outputs: {x: {path: x}}}}\n");
    let runs = vec![start(&project, &["long.yaml"]), start(&project, &["long.yaml"])];
    assert!(within(20, || processes(project.path()).iter().any(|(_, line)| line.starts_with("sh -c"))));
    // Without its records all of the twin's results could go.
    for file in super::files_and_folders(&store(&project).join("runs")) {
        if file.to_string_lossy().ends_with("-twin.json") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let refused = project.thresh(&["gc", "--keep", "0", "--older-than", "0s"]);
    assert_eq!(refused.code, Some(1), "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("a run is going on"), "{}", refused.stderr);
    let fresh = project.run(&["twin.yaml"]);
    assert_eq!(fresh["computed"], 0, "{fresh}");
    assert_eq!(artifacts(&project), before);
    project.write("go", "");
    succeed(runs);
    project.ok(&["gc"]);
    assert_eq!(project.run(&["twin.yaml"])["computed"], 0);
    nothing_is_left(&project);
}
