//! Every command, one after the other, in one project.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::COMMANDS;
use crate::project::Project;

const PIPELINE: &str = "name: p
params: {noise: 0.0}
stages:
  said: {kind: command.run, with: {command: 'echo hello; echo 1 > {out.n}', outputs: {n: {path: n.txt}}}}
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 40, domains: [restaurant], max_domains: 1, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: '${params.noise}'}, seed: 1}
  scores:
    kind: eval.toolwoz
    in: {episodes: episodes.episodes, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {samples: 100}
  examples:
    kind: demonstrations.build
    in: {corpus: corpus.corpus, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {tasks: {split: train, limit: 20}}
  blank:
    kind: model.init
    in: {examples: examples.examples}
    with: {layers: 1, hidden_size: 16, heads: 2, kv_heads: 2, intermediate_size: 16, vocab_size: 400, context: 900, seed: 1}
";

/// Two runs of a pipeline whose scores differ, and its model in `model`.
fn project() -> Project {
    let project = Project::new();
    project.write("p.yaml", PIPELINE);
    project.run(&["p.yaml", "--set", "params.noise=0.5"]);
    project.run(&["p.yaml"]);
    std::os::unix::fs::symlink(project.result("p.yaml", "blank.model"), project.path().join("model")).unwrap();
    project
}

/// A command of the binary as a terminal would not start it: nothing says that there be no colour.
fn command(project: &Project, name: &str, more: &[&str], arguments: &[&str], count: usize) -> Command {
    let fresh = format!("new-{}-{count}", more.concat());
    let arguments = arguments.iter().map(|one| if *one == "NEW" { fresh.as_str() } else { one });
    let all: Vec<&str> = name.split(' ').chain(more.iter().copied()).chain(arguments).collect();
    let mut command = project.command(&all);
    command.env_remove("NO_COLOR").env("TERM", "xterm-256color").env("COLORTERM", "truecolor");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it with a line on its input.
fn answer(mut command: Command) -> Output {
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"hello\n");
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Whether a text is one JSON value, or one a line.
fn is_json(text: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    value(text) || (!text.is_empty() && text.lines().all(value))
}

#[test]
fn every_command_answers_in_json_and_leaves_pipes_plain_and_closed_ones_alone() {
    let root = thresh::cli::command();
    let names: BTreeSet<String> = thresh::cli::commands(&root)
        .into_iter()
        .filter(|(_, command)| !command.has_subcommands())
        .map(|(name, _)| name)
        .collect();
    let tried: BTreeSet<String> = COMMANDS.iter().map(|(name, _)| (*name).to_owned()).chain(["serve".into()]).collect();
    assert_eq!(names, tried, "each command stands in `COMMANDS` with arguments that work");
    let project = project();
    for (count, (name, arguments)) in COMMANDS.iter().enumerate() {
        for more in [&[] as &[&str], &["--quiet"], &["--json"]] {
            let output = answer(command(&project, name, more, arguments, count));
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            let told = format!("thresh {name} {more:?} {arguments:?}\n{stdout}\n{stderr}");
            assert_eq!(output.status.code(), Some(0), "{told}");
            assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "an escape code: {told}");
            assert!(more != ["--quiet"] || stderr.is_empty(), "it is not quiet: {told}");
            assert!(more != ["--json"] || is_json(stdout), "no JSON: {told}");
        }
        let mut child = command(&project, name, &["--json", "-q"], arguments, count).spawn().unwrap();
        drop(child.stdout.take());
        let _ = child.stdin.take().unwrap().write_all(b"hello\n");
        let output = child.wait_with_output().unwrap();
        let told = format!("thresh {name} {arguments:?} with nobody who reads\n{}", text(&output.stderr));
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{told}");
    }
    served(&project);
}

/// The only command that does not end by itself.
fn served(project: &Project) {
    let mut child = command(project, "serve", &["--json"], &["model", "--port", "0"], 0).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    assert!(said["address"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{said}");
    assert_eq!(said["model"], "model");
}
