//! `kill -9` of one process alone: the warden, a supervisor, the command.

use std::process::{Child, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{files_and_folders, nothing_is_left, processes, store, within};
use crate::project::Project;

/// A stage that waits until it is told to end, with a family: children, grandchildren, a session of its own. And one after it.
const FAMILY: &str = r#"
name: family
stages:
  long:
    kind: command.run
    with:
      command: |
        sleep 300 & (sleep 301 & sleep 302) & setsid sh -c 'sleep 303 & sleep 304' &
        touch {project}/ready; while [ ! -e {project}/go ]; do sleep 0.02; done; echo 1 > {out.x}
      outputs: {x: {path: x}}
  after: {kind: command.run, in: {x: long.x}, with: {command: "cat {in.x}/x > {out.x}", outputs: {x: {path: x}}}}
"#;

struct Running {
    project: Project,
    child: Child,
}

/// A run whose first stage is under way with all of its family.
fn running() -> Running {
    let project = Project::new();
    project.write("p.yaml", FAMILY);
    let child = start(&project);
    let sleepers = || processes(project.path()).iter().filter(|(_, line)| line.starts_with("sleep 30")).count();
    assert!(within(20, || project.path().join("ready").exists() && sleepers() == 5), "{:?}", processes(project.path()));
    Running { project, child }
}

fn start(project: &Project) -> Child {
    let mut command = project.command(&["run", "p.yaml"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

impl Running {
    fn runner(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The process that starts commands: the runner's only child.
    fn warden(&self) -> i32 {
        let runner = self.runner();
        let all = processes(self.project.path());
        let children: Vec<i32> = all.iter().map(|(pid, _)| *pid).filter(|&pid| parent(pid) == runner).collect();
        assert_eq!(children.len(), 1, "{all:?}");
        children[0]
    }

    fn supervisor(&self) -> i32 {
        let warden = self.warden();
        let all = processes(self.project.path());
        all.iter().map(|(pid, _)| *pid).find(|&pid| parent(pid) == warden).expect("a supervisor")
    }

    fn command(&self) -> i32 {
        let supervisor = self.supervisor();
        let all = processes(self.project.path());
        let found = all.iter().find(|(pid, line)| line.starts_with("sh -c") && parent(*pid) == supervisor);
        found.expect("a command").0
    }

    /// How the run ended.
    fn end(self) -> (Project, Output) {
        (self.project, self.child.wait_with_output().unwrap())
    }
}

fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// What a stage that failed left is nothing to go on from.
fn next_run_is_right(project: &Project) {
    assert!(processes(project.path()).is_empty(), "left behind: {:?}", processes(project.path()));
    assert_eq!(files_and_folders(&store(project).join("results")).len(), 0, "a failed stage has no result");
    project.write("go", "");
    project.ok(&["run", "p.yaml"]);
    let text = std::fs::read_to_string(project.result("p.yaml", "after.x").join("x")).unwrap();
    assert_eq!(text, "1\n");
    nothing_is_left(project);
}

fn failed(output: &Output, message: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("long: failed:") && text.contains(message), "{text}");
}

#[test]
fn a_killed_command_is_named_and_leaves_nothing() {
    let running = running();
    kill_9(running.command());
    let (project, output) = running.end();
    failed(&output, "killed by SIGKILL");
    next_run_is_right(&project);
}

#[test]
fn a_killed_supervisor_is_named_and_leaves_nothing() {
    let running = running();
    kill_9(running.supervisor());
    let (project, output) = running.end();
    failed(&output, "the process that watched over the command is gone");
    next_run_is_right(&project);
}

#[test]
fn a_killed_warden_costs_at_most_a_clear_failure() {
    let running = running();
    kill_9(running.warden());
    // What runs goes on; what comes after it either runs or says why not.
    running.project.write("go", "");
    let (project, output) = running.end();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("long: computed"), "{text}");
    if output.status.code() != Some(0) {
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("after: failed:") && text.contains("the process that starts commands is gone"), "{text}");
    }
    assert!(processes(project.path()).is_empty(), "left behind: {:?}", processes(project.path()));
    project.ok(&["run", "p.yaml"]);
    assert_eq!(std::fs::read_to_string(project.result("p.yaml", "after.x").join("x")).unwrap(), "1\n");
    nothing_is_left(&project);
}

#[test]
fn a_killed_warden_does_not_save_a_commands_family_from_the_runners_end() {
    let running = running();
    kill_9(running.warden());
    kill_9(running.runner());
    let (project, _) = running.end();
    assert!(within(10, || processes(project.path()).is_empty()), "{:?}", processes(project.path()));
    next_run_is_right(&project);
}
