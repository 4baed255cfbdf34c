//! What a command started dies with the runner, however the runner dies.

use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::project::{Project, within};

/// Writes the numbers of its processes: itself, a child, and one with a session of its own.
const FAMILY: &str = "\
name: family
stages:
  long:
    kind: command.run
    with:
      command: |
        echo $$ >> {project}/pids
        sleep 300 & echo $! >> {project}/pids
        setsid sh -c 'echo $$ >> {project}/pids; sleep 300' &
        sleep 300
      outputs: {never: {path: never}}
";

fn is_alive(pid: &str) -> bool {
    // A dead process that nobody has waited for still has an entry.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn pids(project: &Project) -> Vec<String> {
    let text = std::fs::read_to_string(project.path().join("pids")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A run whose command is under way.
fn running(project: &Project) -> Child {
    project.write("family.yaml", FAMILY);
    let mut command = project.command(&["run", "family.yaml"]);
    let runner = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(within(30, || pids(project).len() == 3), "{:?}", pids(project));
    assert!(pids(project).iter().all(|pid| is_alive(pid)));
    runner
}

#[test]
fn a_killed_runner_leaves_no_process() {
    let project = Project::new();
    let mut runner = running(&project);
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(within(10, || !pids(&project).iter().any(|pid| is_alive(pid))), "{:?}", pids(&project));
}

#[test]
fn an_interrupted_runner_leaves_no_process() {
    let project = Project::new();
    let mut runner = running(&project);
    kill(Pid::from_raw(i32::try_from(runner.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(within(20, || runner.try_wait().unwrap().is_some()));
    assert!(!pids(&project).iter().any(|pid| is_alive(pid)), "{:?}", pids(&project));
}
