//! How a run is steered: which stages, how often, how long, how many at once, and what is kept of it.

use std::time::{Duration, Instant};

use crate::project::{Project, ran, within};

/// A diamond: `a` and `side` feed `b`, which feeds `c`. Each leaves a mark when it really runs.
const DIAMOND: &str = r#"
name: diamond
stages:
  a: {kind: command.run, with: {command: "echo 1 > {out.x}; echo a >> {project}/ran", outputs: {x: {path: x}}}}
  side: {kind: command.run, with: {command: "echo 2 > {out.x}; echo side >> {project}/ran", outputs: {x: {path: x}}}}
  b:
    kind: command.run
    in: {a: a.x, side: side.x}
    with: {command: "cat {in.a}/x {in.side}/x > {out.x}; echo b >> {project}/ran", outputs: {x: {path: x}}}
  c:
    kind: command.run
    in: {b: b.x}
    with: {command: "cat {in.b}/x > {out.x}; echo c >> {project}/ran", outputs: {x: {path: x}}}
"#;

fn diamond() -> Project {
    let project = Project::new();
    project.write("p.yaml", DIAMOND);
    project
}

/// The newest run's record.
fn record(project: &Project) -> serde_json::Value {
    let text = project.ok(&["runs", "--json"]);
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

#[test]
fn upto_runs_what_a_stage_needs_and_downstream_what_needs_it() {
    let project = diamond();
    project.ok(&["run", "p.yaml", "--upto", "a"]);
    assert_eq!(ran(&project), ["a"]);
    project.ok(&["run", "p.yaml", "--downstream", "b"]);
    assert_eq!(ran(&project), ["b", "c", "side"]);
}

#[test]
fn only_computes_a_stage_and_nothing_that_it_needs() {
    let project = diamond();
    let refused = project.thresh(&["run", "p.yaml", "--only", "b"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    for needed in ["a", "side"] {
        let told = format!("{needed}: failed: it has no result for these values");
        assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    }
    assert!(ran(&project).is_empty());
    project.ok(&["run", "p.yaml", "--upto", "b"]);
    ran(&project);
    project.ok(&["run", "p.yaml", "--only", "b", "--force", "b"]);
    assert_eq!(ran(&project), ["b"]);
    assert_eq!(project.thresh(&["run", "p.yaml", "--only", "b", "--upto", "c"]).code, Some(2));
    assert_eq!(project.thresh(&["run", "p.yaml", "--upto", "b", "--force", "c"]).code, Some(2));
}

#[test]
fn a_failure_stops_new_stages_unless_told_to_keep_going() {
    let project = Project::new();
    let text = DIAMOND.replace("echo 1 >", "exit 3; echo 1 >");
    project.write("p.yaml", &text);
    let stopped = project.thresh(&["run", "p.yaml", "--jobs", "1"]);
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.stderr.contains("0 computed, 0 fresh, 1 failed, 3 not run"), "{}", stopped.stderr);
    assert!(ran(&project).is_empty());
    let on = project.thresh(&["run", "p.yaml", "--jobs", "1", "--keep-going"]);
    assert_eq!(on.code, Some(1));
    assert!(on.stderr.contains("1 computed, 0 fresh, 1 failed, 2 not run"), "{}", on.stderr);
    assert_eq!(ran(&project), ["side"]);
}

#[test]
fn a_frozen_stage_keeps_its_newest_result_whatever_changes() {
    let project = diamond();
    let frozen = |text: &str| text.replace("a: {kind: command.run,", "a: {kind: command.run, frozen: true,");
    project.write("p.yaml", &frozen(DIAMOND));
    let none = project.thresh(&["run", "p.yaml"]);
    assert!(none.stderr.contains("a: failed: it is frozen and has no result yet"), "{}", none.stderr);
    project.write("p.yaml", DIAMOND);
    project.ok(&["run", "p.yaml"]);
    ran(&project);
    project.write("p.yaml", &frozen(&DIAMOND.replace("echo 1 >", "echo 7 >")));
    assert!(project.ok(&["plan", "p.yaml"]).contains("a     frozen"), "{}", project.ok(&["plan", "p.yaml"]));
    project.ok(&["run", "p.yaml"]);
    assert!(ran(&project).is_empty());
    assert_eq!(record(&project)["stages"][0]["outcome"], "frozen");
    let forced = project.thresh(&["run", "p.yaml", "--force", "a"]);
    assert!(forced.code == Some(2) && forced.stderr.contains("is frozen"), "{}", forced.stderr);
    project.write("p.yaml", &DIAMOND.replace("echo 1 >", "echo 7 >"));
    project.ok(&["run", "p.yaml"]);
    assert_eq!(ran(&project), ["a", "b", "c"]);
}

#[test]
fn a_stage_is_tried_again_and_every_attempt_is_kept() {
    let project = Project::new();
    project.write(
        "p.yaml",
        r#"
name: p
stages:
  flaky:
    kind: command.run
    retries: 2
    with:
      command: "echo try >> {project}/tries; echo said; if [ $(wc -l < {project}/tries) -lt 2 ]; then exit 9; fi; echo 1 > {out.x}"
      outputs: {x: {path: x}}
"#,
    );
    let ran = project.thresh(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("flaky: attempt 1 failed, again in 1.0 s: the command failed: exit code 9"),
        "{}",
        ran.stderr
    );
    let record = record(&project);
    let attempts = record["stages"][0]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    assert!(attempts[0]["error"].as_str().unwrap().contains("exit code 9") && attempts[1].get("error").is_none());
    for attempt in attempts {
        assert!(attempt["seconds"].as_f64().unwrap() > 0.0 && attempt["cpu_seconds"].as_f64().unwrap() > 0.0);
        assert!(attempt["peak_memory"].as_u64().unwrap() > 100_000);
    }
    let logs = project.path().join(".thresh/runs").join(format!("{}.logs", record["run"].as_str().unwrap()));
    for attempt in ["flaky.1.output.txt", "flaky.2.output.txt"] {
        assert_eq!(std::fs::read_to_string(logs.join(attempt)).unwrap(), "said\n");
    }
    assert!(std::fs::read_to_string(logs.join("flaky.1.log")).unwrap().contains("exit code 9"));
    let shown = project.ok(&["log", "latest", "flaky"]);
    assert!(shown.contains("attempt 2: ") && shown.matches("\nsaid\n").count() == 2, "{shown}");
    assert!(project.ok(&["log"]).contains("flaky"), "{}", project.ok(&["log"]));
    assert_eq!(project.thresh(&["log", "latest", "flakey"]).code, Some(2));
}

#[test]
fn an_attempt_ends_at_its_time_limit_and_the_next_has_its_own() {
    let project = Project::new();
    project.write(
        "p.yaml",
        r#"
name: p
stages:
  slow:
    kind: command.run
    retries: 1
    timeout: 0.5
    with:
      command: "echo $$ >> {project}/tries; [ $(wc -l < {project}/tries) -ge 2 ] || sleep 100; echo 1 > {out.x}"
      outputs: {x: {path: x}}
"#,
    );
    let begin = Instant::now();
    let ran = project.thresh(&["run", "p.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("attempt 1 failed, again in 1.0 s: timed out after 0.5 s"), "{}", ran.stderr);
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn pools_bound_what_runs_at_once() {
    let project = Project::new();
    // Each notes how many run beside it.
    let stage = |name: &str, pool: &str| {
        format!(
            "  {name}: {{kind: command.run, pool: {pool}, with: {{command: \"touch {{project}}/busy.{pool}.{name}; ls {{project}} | grep -c busy.{pool} > {{out.x}}; sleep 0.4; rm {{project}}/busy.{pool}.{name}\", outputs: {{x: {{path: x}}}}}}}}\n"
        )
    };
    let names = ["a", "b", "c", "d"];
    let stages: String = names
        .iter()
        .map(|name| stage(name, "gpu"))
        .chain(names.iter().map(|name| stage(&format!("{name}2"), "net")))
        .collect();
    project.write("p.yaml", &format!("name: p\nstages:\n{stages}"));
    let refused = project.thresh(&["run", "p.yaml"]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("stage `a2` wants the pool `net`, which the profile does not have"),
        "{}",
        refused.stderr
    );
    project.write("thresh.toml", "jobs = 1\npools = {net = 4}\n");
    project.ok(&["run", "p.yaml"]);
    let most = |stage: &str| {
        std::fs::read_to_string(project.result("p.yaml", &format!("{stage}.x")).join("x"))
            .unwrap()
            .trim()
            .parse::<u32>()
            .unwrap()
    };
    assert_eq!(names.map(most), [1; 4]);
    assert!(names.iter().map(|name| most(&format!("{name}2"))).max() > Some(1));
}

#[test]
fn watch_runs_again_after_each_change_and_waits_out_mistakes() {
    let project = diamond();
    let text = DIAMOND
        .replace("echo 1 > {out.x};", "cat {project}/leaf > {out.x};")
        .replace("outputs: {x: {path: x}}}}\n  side", "files: [leaf], outputs: {x: {path: x}}}}\n  side");
    project.write("leaf", "1\n");
    project.write("p.yaml", &text);
    let mut watching =
        project.command(&["run", "p.yaml", "--watch"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let result = || project.thresh(&["path", "p.yaml", "c.x"]);
    let content = |expected: &str| {
        let ran = result();
        ran.code == Some(0)
            && !ran.stderr.contains("changed since")
            && std::fs::read_to_string(format!("{}/x", ran.stdout.trim())).unwrap() == expected
    };
    assert!(within(20, || content("1\n2\n")));
    project.write("leaf", "5\n");
    assert!(within(20, || content("5\n2\n")));
    project.write("p.yaml", "name: [");
    std::thread::sleep(Duration::from_millis(700));
    project.write("p.yaml", &text.replace("echo 2 >", "echo 3 >"));
    assert!(within(20, || content("5\n3\n")));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(watching.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(130));
}

#[test]
fn json_lines_tell_what_happens_and_the_pace() {
    let project = Project::new();
    project.write(
        "p.yaml",
        "name: p\nstages:\n  woz: {kind: multiwoz.synthesize, with: {dialogues: 60, seed: 1}}\n  \
         tasks: {kind: toolwoz.convert, in: {corpus: woz.corpus}}\n  \
         played: {kind: dialogue.simulate, in: {tasks: tasks.tasks, world: tasks.world}, \
         with: {agent: {kind: served, model: m}, tasks: {split: null, limit: 8}}}\n",
    );
    // Each answer takes a while, so that there is a pace to tell.
    let server = crate::server::Server::start(|_, _| {
        let body = r#"{"choices":[{"message":{"content":"SPEAK: Goodbye."},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
        crate::server::Answer::json(200, body).slow(Duration::from_millis(120))
    });
    let url = server.url("/v1");
    project.write("thresh.toml", &format!("[endpoints.m]\nurl = \"{url}\"\nin_flight = 1\n"));
    let ran = project.thresh(&["run", "--json", "p.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let events: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], "run_started");
    assert_eq!(events.last().unwrap()["event"], "run_finished");
    let paced = |event: &&serde_json::Value| event["event"] == "progress" && event.get("rate").is_some();
    let paced: Vec<_> = events.iter().filter(paced).collect();
    assert!(!paced.is_empty(), "{}", ran.stdout);
    for event in paced {
        assert!(event["rate"].as_f64().unwrap() > 0.0 && event["seconds_left"].as_f64().unwrap() >= 0.0);
    }
}

#[test]
fn a_stop_lets_go_at_once_even_where_another_process_computes() {
    let project = diamond();
    project.write("p.yaml", &DIAMOND.replace("echo 1 >", "sleep 60; echo 1 >"));
    let spawn =
        || project.command(&["run", "p.yaml", "--upto", "a"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut first = spawn();
    assert!(within(10, || std::fs::read_dir(project.path().join(".thresh/work"))
        .is_ok_and(|mut work| work.next().is_some())));
    let mut second = spawn();
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    for child in [&mut second, &mut first] {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    // Nothing is left that a person would have to delete.
    assert_eq!(std::fs::read_dir(project.path().join(".thresh/work")).unwrap().count(), 0);
}

/// What is left in a folder of the store.
fn entries(project: &Project, folder: &str) -> usize {
    std::fs::read_dir(project.path().join(".thresh").join(folder)).unwrap().count()
}

/// How many results the store holds.
fn results(project: &Project) -> usize {
    let groups = std::fs::read_dir(project.path().join(".thresh/results")).unwrap();
    groups.map(|group| std::fs::read_dir(group.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn garbage_is_what_no_kept_run_reaches() {
    let project = diamond();
    project.ok(&["run", "p.yaml"]);
    let first = record(&project)["run"].as_str().unwrap().to_owned();
    for value in ["7", "8"] {
        project.write("p.yaml", &DIAMOND.replace("echo 1 >", &format!("echo {value} >")));
        project.ok(&["run", "p.yaml"]);
    }
    assert_eq!(results(&project), 4 + 3 + 3);
    // Without being asked for, no run goes, and what runs reach stays.
    assert!(project.ok(&["gc"]).contains("nothing to remove"));
    project.ok(&["pin", &first]);
    let dry = project.ok(&["gc", "--keep", "1", "--dry-run"]);
    assert!(dry.contains("would be freed: 1 run (") && dry.contains("3 results ("), "{dry}");
    assert_eq!((results(&project), entries(&project, "pins")), (10, 1));
    let done = project.ok(&["gc", "--keep", "1"]);
    assert_eq!(dry.replace("would be freed", "freed"), done);
    assert_eq!(results(&project), 7);
    // What is left is whole: nothing of the newest and of the pinned run is computed again.
    ran(&project);
    project.ok(&["run", "p.yaml"]);
    project.write("p.yaml", DIAMOND);
    project.ok(&["run", "p.yaml"]);
    assert!(ran(&project).is_empty());
    project.ok(&["pin", "--remove", &first]);
    assert_eq!(project.thresh(&["pin", "no-such-run"]).code, Some(2));
    assert_eq!(project.thresh(&["gc", "--older-than", "soon"]).code, Some(2));
}

#[test]
fn nothing_is_collected_under_a_run() {
    let project = diamond();
    project.write("p.yaml", &DIAMOND.replace("echo 1 >", "sleep 60; echo 1 >"));
    let mut running = project.command(&["run", "p.yaml"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    assert!(within(10, || project.path().join(".thresh/work").is_dir() && entries(&project, "work") > 0));
    let refused = project.thresh(&["gc"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("a run is going on"), "{}", refused.stderr);
    running.kill().unwrap();
    running.wait().unwrap();
    // What the killed run left goes when it is old enough.
    assert!(entries(&project, "work") > 0);
    project.ok(&["gc", "--older-than", "0 s"]);
    assert_eq!(entries(&project, "work"), 0);
}

#[test]
fn artifacts_come_out_as_files() {
    let project = diamond();
    assert_eq!(project.thresh(&["export", "p.yaml", "--to", "out"]).code, Some(1));
    project.ok(&["run", "p.yaml", "--upto", "b"]);
    project.ok(&["export", "p.yaml", "--to", "out"]);
    assert_eq!(std::fs::read_to_string(project.path().join("out/b.x/x")).unwrap(), "1\n2\n");
    assert!(!project.path().join("out/c.x").exists());
    project.ok(&["export", "p.yaml", "a", "--to", "one"]);
    assert_eq!(std::fs::read_dir(project.path().join("one")).unwrap().count(), 1);
    assert_eq!(project.thresh(&["export", "p.yaml", "c.x", "--to", "out"]).code, Some(1));
    assert_eq!(project.thresh(&["export", "p.yaml", "d.x", "--to", "out"]).code, Some(2));
    // What was damaged is not handed out, and the next run computes it again.
    let artifact = project.result("p.yaml", "a.x").join("x");
    std::fs::write(&artifact, "9\n").unwrap();
    let refused = project.thresh(&["export", "p.yaml", "a.x", "--to", "out"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("is not what was written"), "{}", refused.stderr);
    project.ok(&["run", "p.yaml", "--upto", "b"]);
    assert_eq!(std::fs::read_to_string(&artifact).unwrap(), "1\n");
}

#[test]
fn tables_come_out_as_json_lines_too() {
    let project = Project::new();
    project.write(
        "p.yaml",
        "name: p\nstages:\n  woz: {kind: multiwoz.synthesize, with: {dialogues: 12, seed: 1}}\n  \
         tasks: {kind: toolwoz.convert, in: {corpus: woz.corpus}}\n",
    );
    project.ok(&["run", "p.yaml"]);
    project.ok(&["export", "p.yaml", "tasks.tasks", "--to", "out", "--format", "jsonl"]);
    let text = std::fs::read_to_string(project.path().join("out/tasks.tasks.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!rows.is_empty() && rows.iter().all(|row| row["dialogue"].is_string()));
}
