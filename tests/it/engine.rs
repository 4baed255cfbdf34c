//! What runs, what does not, and what a run leaves behind.

use std::time::{Duration, Instant};

use crate::project::{Project, counts, ran};

/// `numbers` writes the seed, `double` reads it, `sum` reads both; each leaves a mark when it really runs.
const CHAIN: &str = r#"
name: chain
params: {seed: 3}
stages:
  numbers:
    kind: command.run
    with:
      command: "echo ${params.seed} > {out.n}; echo numbers >> {project}/ran"
      outputs: {n: {path: n.txt}}
  parity:
    kind: command.run
    in: {n: numbers.n}
    with:
      command: "echo $(( $(cat {in.n}/n.txt) % 2 )) > {out.n}; echo parity >> {project}/ran"
      outputs: {n: {path: n.txt}}
  report:
    kind: command.run
    in: {parity: parity.n}
    with:
      command: "cat {in.parity}/n.txt > {out.text}; echo report >> {project}/ran"
      outputs: {text: {path: text.txt}}
"#;

#[test]
fn a_second_run_computes_nothing_and_a_change_only_what_depends_on_it() {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    assert_eq!(counts(&project.run(&["p.yaml"])), (3, 0, 0));
    assert_eq!(ran(&project), ["numbers", "parity", "report"]);
    assert_eq!(counts(&project.run(&["p.yaml"])), (0, 3, 0));
    assert!(ran(&project).is_empty());
    // 5 has the parity of 3: `parity` runs and yields the same bytes, so `report` is cut off.
    assert_eq!(counts(&project.run(&["p.yaml", "--set", "params.seed=5"])), (2, 1, 0));
    assert_eq!(ran(&project), ["numbers", "parity"]);
    assert_eq!(counts(&project.run(&["p.yaml", "--set", "params.seed=4"])), (3, 0, 0));
    // An earlier value restores its results.
    assert_eq!(counts(&project.run(&["p.yaml", "--set", "params.seed=3"])), (0, 3, 0));
    let text = std::fs::read_to_string(project.result("p.yaml", "report.text").join("text.txt")).unwrap();
    assert_eq!(text, "1\n");
}

#[test]
fn plan_and_why_say_what_changed_from_what_to_what() {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    assert!(project.ok(&["why", "p.yaml", "report"]).contains("`numbers` would run: no result yet"));
    project.run(&["p.yaml"]);
    let line = |text: &str, stage: &str| {
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.into_iter().find(|line| line["stage"] == stage).unwrap()
    };
    let plan = project.ok(&["plan", "p.yaml", "--json", "--set", "params.seed=4"]);
    assert_eq!(line(&plan, "numbers")["state"], "run");
    assert!(line(&plan, "numbers")["reason"].as_str().unwrap().contains("with.command"));
    assert_eq!(line(&plan, "report")["state"], "after");
    let why = project.ok(&["why", "p.yaml", "report", "--set", "params.seed=4"]);
    assert!(why.contains("`report` would run because of `numbers`"), "{why}");
    assert!(why.contains("with.command: \"echo 3") && why.contains("-> \"echo 4"), "{why}");
    assert!(ran(&project).len() == 3, "plan and why run nothing");
    assert!(project.ok(&["why", "p.yaml"]).contains("every result is there"));
    assert_eq!(project.ok(&["runs"]).lines().count(), 1);
}

#[test]
fn with_keep_going_a_failure_stops_what_needs_it_and_nothing_else() {
    let project = Project::new();
    project.write(
        "p.yaml",
        r#"
name: p
stages:
  good: {kind: command.run, with: {command: "echo 1 > {out.x}", outputs: {x: {path: x}}}}
  bad: {kind: command.run, with: {command: "echo on purpose >&2; exit 3", outputs: {x: {path: x}}}}
  after: {kind: command.run, in: {x: bad.x}, with: {command: "echo 1 > {out.x}", outputs: {x: {path: x}}}}
  beside: {kind: command.run, in: {x: good.x}, with: {command: "cat {in.x}/x > {out.x}", outputs: {x: {path: x}}}}
"#,
    );
    let ran = project.thresh(&["run", "--keep-going", "p.yaml"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("bad: failed:") && ran.stderr.contains("on purpose"), "{}", ran.stderr);
    assert!(ran.stderr.contains("after: skipped, it needs `bad`"), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 computed, 0 fresh, 1 failed, 1 not run"), "{}", ran.stderr);
    assert_eq!(counts(&project.run(&["p.yaml", "--keep-going"])), (0, 2, 1));
}

#[test]
fn a_missing_output_is_named_and_leaves_no_result() {
    let project = Project::new();
    project.write(
        "p.yaml",
        "name: p\nstages:\n  a: {kind: command.run, with: {command: \"true\", outputs: {x: {path: x}}}}\n",
    );
    let ran = project.thresh(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("`x`"), "{}", ran.stderr);
    assert_eq!(project.thresh(&["path", "p.yaml", "a.x"]).code, Some(1));
}

#[test]
fn damaged_results_are_named_and_computed_again() {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    project.run(&["p.yaml"]);
    ran(&project);
    // Truncated: seen by its size.
    let numbers = project.result("p.yaml", "numbers.n").join("n.txt");
    std::fs::write(&numbers, "").unwrap();
    let again = project.thresh(&["run", "p.yaml"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("n.txt` has 0 bytes, 2 were written"), "{}", again.stderr);
    assert_eq!(ran(&project), ["numbers"]);
    // Flipped: seen by its content when a stage reads it, which then waits for it.
    std::fs::write(&numbers, "8\n").unwrap();
    let again = project.thresh(&["run", "p.yaml", "--force", "parity"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("is not what was written"), "{}", again.stderr);
    assert_eq!(ran(&project), ["numbers", "parity"]);
    assert_eq!(std::fs::read_to_string(&numbers).unwrap(), "3\n");
}

#[test]
fn independent_stages_run_side_by_side() {
    let project = Project::new();
    // Each waits for a sign of the other: one after the other would never end.
    let stage = |own: &str, other: &str| {
        format!(
            "  {own}: {{kind: command.run, with: {{command: \"touch {{project}}/{own}; while [ ! -e {{project}}/{other} ]; do sleep 0.05; done; echo 1 > {{out.x}}\", outputs: {{x: {{path: x}}}}}}}}\n"
        )
    };
    project.write("p.yaml", &format!("name: p\nstages:\n{}{}", stage("a", "b"), stage("b", "a")));
    assert_eq!(counts(&project.run(&["p.yaml", "--jobs", "2"])), (2, 0, 0));
}

#[test]
fn a_killed_run_keeps_what_was_finished_and_starts_again_at_once() {
    let project = Project::new();
    let text = CHAIN.replace("cat {in.parity}/n.txt > {out.text}", "sleep 60; cat {in.parity}/n.txt > {out.text}");
    project.write("p.yaml", &text);
    let mut child = project.command(&["run", "p.yaml"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string(project.path().join("ran")).unwrap_or_default().contains("parity") {
        assert!(Instant::now() < deadline, "the second stage never ran");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    ran(&project);
    project.write("p.yaml", &text.replace("sleep 60; ", ""));
    assert_eq!(counts(&project.run(&["p.yaml"])), (1, 2, 0));
    assert_eq!(ran(&project), ["report"]);
}

#[test]
fn two_processes_on_one_store_do_not_compute_a_result_twice() {
    let project = Project::new();
    project.write("p.yaml", &CHAIN.replace("echo numbers", "sleep 0.5; echo numbers"));
    let children: Vec<_> = (0..2).map(|_| project.command(&["run", "p.yaml"]).spawn().unwrap()).collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    let mut marks = ran(&project);
    marks.sort();
    assert_eq!(marks, ["numbers", "parity", "report"]);
}

#[test]
fn renaming_reordering_and_comments_change_nothing() {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    project.run(&["p.yaml"]);
    let renamed =
        format!("# a remark\n{}", CHAIN.replace("numbers", "digits").replace("echo digits >>", "echo numbers >>"));
    project.write("p.yaml", &renamed);
    assert_eq!(counts(&project.run(&["p.yaml"])), (0, 3, 0));
}

#[test]
fn an_experiment_is_a_few_lines_over_its_base() {
    let project = Project::new();
    project.write("base.yaml", CHAIN);
    project.run(&["base.yaml"]);
    project.write("exp.yaml", "name: exp\nextends: base.yaml\nparams: {seed: 5}\n");
    assert_eq!(counts(&project.run(&["exp.yaml"])), (2, 1, 0));
    project.write("exp2.yaml", "name: exp2\nextends: exp.yaml\nset: {params.seed: 3}\n");
    assert_eq!(counts(&project.run(&["exp2.yaml"])), (0, 3, 0));
}

#[test]
fn wrong_commands_say_so_with_code_2() {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    for (arguments, message) in [
        (vec!["run", "nothing.yaml"], "there is no pipeline `nothing.yaml`; expected the path of a YAML file"),
        (vec!["run", "p.yaml", "--set", "params.sed=1"], "did you mean `seed`?"),
        (vec!["run", "p.yaml", "--set", "number.command=1"], "did you mean `numbers`?"),
        (vec!["run", "p.yaml", "--force", "raport"], "did you mean `report`?"),
        (vec!["path", "p.yaml", "report.test"], "did you mean `text`?"),
        (vec!["kinds", "comand.run"], "did you mean `command.run`?"),
        (vec!["run", "p.yaml", "--profile", "gpu"], "there is no profile `gpu`"),
    ] {
        let ran = project.thresh(&arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(message), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn an_output_that_older_results_lack_has_no_result_yet() {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    project.run(&["p.yaml"]);
    let renamed = CHAIN.replace("{out.text}", "{out.words}").replace("{text: {path", "{words: {path");
    project.write("p.yaml", &renamed);
    for command in ["path", "show"] {
        let found = project.thresh(&[command, "p.yaml", "report.words"]);
        assert_eq!(found.code, Some(1), "{}", found.stderr);
        assert!(found.stderr.contains("`report` has no result yet"), "{}", found.stderr);
    }
}
