//! What leaves the store: drawings of pipelines and runs, and results of runs as other programs read them.

use std::fs;

use serde_json::Value;

use crate::project::Project;

/// A pipeline that trains a little, and one stage of which fails.
const PIPELINE: &str = r#"
name: tiny
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 20, seed: 1}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  demonstrations:
    kind: demonstrations.build
    in: {corpus: corpus.corpus, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {tasks: {limit: 3}}
  blank:
    kind: model.init
    in: {examples: demonstrations.examples}
    with: {layers: 1, heads: 1, kv_heads: 1, hidden_size: 8, intermediate_size: 16, vocab_size: 300, context: 4096, seed: 1}
  train:
    kind: train.sft
    matrix: {seed: [1, 2]}
    in: {examples: demonstrations.examples, base: blank.model}
    with: {max_steps: 2, batch_size: 1, learning_rate: 1e-3, seed: "${matrix.seed}"}
  broken:
    kind: command.run
    in: {world: toolwoz.world}
    with: {command: ["false"], outputs: {x: {path: x}}}
"#;

fn tiny() -> Project {
    let project = Project::new();
    project.write("tiny.yaml", PIPELINE);
    project
}

fn read(project: &Project, name: &str) -> String {
    fs::read_to_string(project.path().join(name)).unwrap()
}

/// Whether something below a folder is called so.
fn files(project: &Project, folder: &str) -> Vec<String> {
    let root = project.path().join(folder);
    let mut open = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    let mut names: Vec<String> =
        found.iter().map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn pipelines_are_drawn() {
    let project = tiny();
    let mermaid = project.ok(&["graph", "tiny.yaml", "--format", "mermaid"]);
    assert!(mermaid.starts_with("flowchart TD\n"), "{mermaid}");
    assert!(mermaid.contains("n0[\"corpus<br/><small>multiwoz.synthesize</small>\"]"), "{mermaid}");
    assert!(mermaid.contains("-->|\"corpus\"| n1"), "{mermaid}");
    let dot = project.ok(&["graph", "tiny.yaml", "--format", "dot"]);
    assert!(dot.contains("n0 -> n1 [label=\"corpus\"]") && dot.ends_with("}\n"), "{dot}");
    project.ok(&["graph", "tiny.yaml", "--format", "svg", "-o", "tiny.svg"]);
    let svg = read(&project, "tiny.svg");
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("dag-stage dag-planned").count(), 7);
    assert_eq!(svg.matches("class=\"dag-edge\"").count(), 10);
    let graph: Value = serde_json::from_str(&project.ok(&["graph", "tiny.yaml", "--json"])).unwrap();
    assert_eq!(graph["stages"][1]["in"][0]["from"], "corpus.corpus");
}

#[test]
fn runs_are_drawn_with_what_became_of_them() {
    let project = tiny();
    project.run(&["tiny.yaml", "--upto", "broken"]);
    let svg = project.ok(&["graph", "latest", "--format", "svg"]);
    assert_eq!(svg, project.ok(&["graph", "tiny", "--format", "svg"]), "the same run gives the same bytes");
    assert!(svg.contains("dag-stage dag-failed\" data-stage=\"broken\""), "{svg}");
    assert!(svg.contains("dag-stage dag-computed\" data-stage=\"toolwoz\""), "{svg}");
    let text = project.ok(&["graph", "latest"]);
    let line = text.lines().find(|line| line.starts_with("broken")).unwrap();
    assert!(line.contains("failed") && line.ends_with("<- toolwoz.world"), "{text}");
    let mermaid = project.ok(&["graph", "latest", "--format", "mermaid"]);
    assert!(mermaid.contains(":::failed") && mermaid.contains("classDef failed"), "{mermaid}");
    let graph: Value = serde_json::from_str(&project.ok(&["graph", "latest", "--json"])).unwrap();
    assert!(graph["stages"].as_array().unwrap().iter().any(|stage| stage["outcome"] == "failed"), "{graph}");
    for (arguments, said) in [
        (["graph", "tony"].as_slice(), "there is no run `tony`; did you mean `tiny`?"),
        (&["graph", "latest.corpus"], "is a stage of"),
        (&["graph", "nothing.yaml"], "nothing.yaml"),
        (&["graph", "latest", "--set", "params.seed=1"], "`--set` changes a pipeline"),
    ] {
        let ran = project.thresh(arguments);
        assert!(ran.code == Some(2) && ran.stderr.contains(said), "{arguments:?} {:?}: {}", ran.code, ran.stderr);
    }
}

#[test]
fn results_of_runs_are_exported() {
    let project = tiny();
    project.run(&["tiny.yaml", "--upto", "train"]);
    let run: Value = serde_json::from_str(project.ok(&["runs", "--json"]).lines().next().unwrap()).unwrap();
    let run = run["run"].as_str().unwrap();

    project.ok(&["export", "latest", "--to", "all"]);
    let names = files(&project, "all");
    assert!(names.iter().any(|name| name == "toolwoz.tasks.parquet"), "{names:?}");
    assert!(names.iter().any(|name| name == "blank.model/config.json"), "{names:?}");
    project.ok(&["export", "tiny", "train", "toolwoz.tasks", "--to", "some", "--format", "csv"]);
    let names = files(&project, "some");
    assert!(names.iter().any(|name| name == "train[seed=2].log.csv"), "{names:?}");
    project.ok(&["export", &format!("{run}.demonstrations.examples"), "--to", "one", "--format", "trl"]);
    assert_eq!(files(&project, "one"), ["demonstrations.examples.jsonl"]);
    let object: Value =
        serde_json::from_str(read(&project, "one/demonstrations.examples.jsonl").lines().next().unwrap()).unwrap();
    assert!(object["messages"].is_array(), "{object}");
    // Of two runs' outputs of one name both are there.
    project.run(&["tiny.yaml", "--upto", "toolwoz"]);
    project.ok(&["export", "latest~1.toolwoz.tasks", "latest.toolwoz.tasks", "--to", "two"]);
    assert_eq!(files(&project, "two").len(), 2);

    let refused = |arguments: &[&str], code: i32, said: &str| {
        let ran = project.thresh(&[&["export", "--to", "no"], arguments].concat());
        assert!(ran.code == Some(code) && ran.stderr.contains(said), "{arguments:?} {:?}: {}", ran.code, ran.stderr);
    };
    refused(&["latest.toolwoz", "--format", "trl"], 2, "holds no training examples");
    refused(&["latest.toolwoz.rows"], 2, "has no output `rows`");
    refused(&["latest~1", "trian"], 2, "did you mean");
    refused(&["latest.train[seed=1]"], 1, "has no result in run");
    refused(&["latest", "--format", "tensorboard"], 1, "no result here holds a training log");
    refused(&["latest~1.blank", "--format", "tensorboard"], 2, "holds no training log");
}

#[test]
fn training_logs_become_event_files() {
    let project = tiny();
    project.run(&["tiny.yaml", "--upto", "train"]);
    let said = project.ok(&["export", "latest", "--to", "logs", "--format", "tensorboard", "--json"]);
    assert_eq!(said.lines().count(), 2, "{said}");
    let names = files(&project, "logs");
    let run: Value = serde_json::from_str(project.ok(&["runs", "--json"]).lines().next().unwrap()).unwrap();
    let run = run["run"].as_str().unwrap();
    let expected = [1, 2].map(|seed| format!("{run}/train[seed={seed}]/events.out.tfevents.0.thresh"));
    assert_eq!(names, expected);
    let bytes = fs::read(project.path().join("logs").join(&names[0])).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).filter(|part| *part == text.as_bytes()).count();
    assert_eq!((holds("brain.Event:2"), holds("train/loss"), holds("train/learning_rate")), (1, 2, 2));
    // Of a pipeline its newest logs, below the pipeline's name; the bytes are those of the log alone.
    project.ok(&["export", "tiny.yaml", "train[seed=1]", "--to", "again", "--format", "tensorboard"]);
    let again = "again/tiny/train[seed=1]/events.out.tfevents.0.thresh";
    assert_eq!(fs::read(project.path().join(again)).unwrap(), bytes);
}
