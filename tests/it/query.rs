//! Looking into tables: `thresh show`, `thresh sql`, and tables as text in `thresh export`.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::project::{Project, Ran};

const TOWN: &str = "name: town
params: {noise: 0.3}
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 300, domains: [restaurant, hotel], max_domains: 2, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  harvest:
    kind: josh.harvest
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: 0.3}, tasks: {split: train, limit: 4}, beam: 4, seed: 4}
  talks:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: \"${params.noise}\"}, tasks: {split: train, limit: 40}, seed: 4}
  scores:
    kind: eval.toolwoz
    in: {episodes: talks.episodes, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {samples: 100}
";

/// A town of which two runs talked, the newer one with less noise.
fn town() -> Project {
    let project = Project::new();
    project.write("town.yaml", TOWN);
    project.run(&["town.yaml"]);
    project.run(&["town.yaml", "--set", "params.noise=0.1"]);
    project
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ask(project: &Project, sql: &str) -> Vec<Value> {
    rows(&project.ok(&["sql", "--json", sql]))
}

/// What is said of a query that is wrong.
fn refused(project: &Project, sql: &str) -> String {
    let Ran { code, stderr, stdout } = project.thresh(&["sql", sql]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{sql}: {stderr}");
    stderr
}

fn piped(project: &Project, arguments: &[&str], text: &str) -> String {
    let mut child = project.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tables_are_shown_so_that_they_can_be_read() {
    let project = town();
    let shown = project.ok(&["show", "scores.scores"]);
    assert!(shown.starts_with("eval.score/v1, 40 rows, 5 columns\n\ncolumn "), "{shown}");
    assert!(shown.contains("\noutcome    text         -  How it ended.\n"), "{shown}");
    assert!(shown.contains("\ndialogue        reward  success  outcome  reachable\n────"), "{shown}");
    assert!(shown.ends_with("the first 10 of 40 rows\n"), "{shown}");
    for output in
        ["scores.scores", "scores.summary", "talks.episodes", "harvest.trees", "toolwoz.tasks", "toolwoz.world"]
    {
        for width in [60, 80, 132] {
            let mut command = project.command(&["show", output]);
            let shown = String::from_utf8(command.env("COLUMNS", width.to_string()).output().unwrap().stdout).unwrap();
            let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width && shown.lines().count() > 8, "{output} at {width}:\n{shown}");
        }
    }
    let records = project.ok(&["show", "talks.episodes", "--rows", "2"]);
    for part in
        ["── row 2 ──", "\n  role ", "messages                 1  role: user, content: ", "the first 2 of 40 rows"]
    {
        assert!(records.contains(part), "{part}\n{records}");
    }
    let chosen = project.ok(&["show", "talks.episodes", "--columns", "outcome,dialogue", "--rows", "3"]);
    assert!(chosen.contains("\noutcome  dialogue\n"), "{chosen}");
    let wrong = project.thresh(&["show", "talks.episodes", "--columns", "dialog"]);
    assert_eq!(wrong.code, Some(2));
    assert_eq!(wrong.stderr, "error: there is no column `dialog`; did you mean `dialogue`?\n");
    let whole = rows(&project.ok(&["show", "talks.episodes", "--json", "--columns", "messages,reward"]));
    assert_eq!(whole.len(), 40);
    assert!(whole.iter().all(|row| row.as_object().unwrap().keys().eq(["messages", "reward"])));
    assert!(whole[0]["messages"].as_array().unwrap().len() > 2);
    let files = project.ok(&["show", "corpus.corpus"]);
    assert!(files.contains(" files, ") && files.lines().count() > 3, "{files}");
    let listed: Value = serde_json::from_str(&project.ok(&["show", "corpus.corpus", "--json"])).unwrap();
    let sum: u64 = listed["files"].as_array().unwrap().iter().map(|file| file["bytes"].as_u64().unwrap()).sum();
    assert_eq!(listed["bytes"], sum);
}

#[test]
fn all_of_any_table_is_what_show_shows() {
    let project = town();
    let tables = ask(&project, "select run, stage, port, bytes from artifacts where holds <> 'files/v1'");
    assert_eq!(tables.len(), 2 * 6);
    for table in tables {
        let name = format!(
            "{}.{}.{}",
            table["run"].as_str().unwrap(),
            table["stage"].as_str().unwrap(),
            table["port"].as_str().unwrap()
        );
        let shown = project.ok(&["show", "--json", &name]);
        assert!(!shown.is_empty(), "{name}");
        let sql = format!("select * from \"{name}\"");
        assert_eq!(project.ok(&["sql", &sql, "--format", "jsonl"]), shown, "{name}");
        let array: Vec<Value> = serde_json::from_str(&project.ok(&["sql", &sql, "--format", "json"])).unwrap();
        assert_eq!(array, rows(&shown), "{name}");
        project.ok(&["sql", &sql, "-o", "copy.parquet"]);
        assert_eq!(project.ok(&["show", "--json", "copy.parquet"]), shown, "{name}");
        assert_eq!(project.ok(&["sql", "--json", "select * from 'copy.parquet'"]), shown, "{name}");
    }
}

#[test]
fn queries_reach_over_runs() {
    let project = town();
    let count = |sql: &str| ask(&project, sql)[0]["n"].clone();
    assert_eq!(count("select count(*) as n from scores.scores"), 40);
    let both = ask(
        &project,
        "select dialogue, \"latest~1\".scores.scores.reward as before, now.reward as after
         from latest~1.scores.scores join latest.scores.scores as now using (dialogue) order by dialogue",
    );
    let single = |run: &str| ask(&project, &format!("select reward from {run}.scores.scores order by dialogue"));
    let column = |name: &str| both.iter().map(|row| json!({"reward": row[name]})).collect::<Vec<_>>();
    assert_eq!((column("before"), column("after")), (single("latest~1"), single("latest")));
    assert_ne!(column("before"), column("after"));
    let newest = project.ok(&["runs", "--json"]);
    let run = rows(&newest)[0]["run"].as_str().unwrap().to_owned();
    assert_eq!(ask(&project, &format!("select reward from {run}.scores.scores order by dialogue")), single("latest"));
    let nested = "with calls as (select dialogue, call.api as api from talks.episodes cross join unnest(calls) as call)
                  select api, count(distinct dialogue) as n from calls
                  where dialogue in (select dialogue from scores.scores where success) group by api";
    let answer = ask(&project, nested);
    let apis: Vec<&str> = answer.iter().map(|row| row["api"].as_str().unwrap()).collect();
    assert!(apis.contains(&"search_restaurant") && apis.is_sorted(), "{answer:?}");
    assert_eq!(answer, ask(&project, nested));
    // Sums of groups, which polars else adds up in an order of chance.
    let means = "select outcome, avg(reward * 0.1) as r, avg(reachable / 3) as c from scores.scores group by outcome";
    let first = project.ok(&["sql", means, "--json"]);
    assert!((0..4).all(|_| project.ok(&["sql", means, "--json"]) == first));
}

#[test]
fn what_was_run_is_a_table_too() {
    let project = town();
    let runs = ask(&project, "select run, pipeline, outcome, stages, computed, fresh, \"set\" from runs");
    assert_eq!(runs.len(), 2);
    for (key, value) in [
        ("pipeline", json!("town")),
        ("outcome", json!("done")),
        ("computed", json!(2)),
        ("fresh", json!(3)),
        ("set", json!(["params.noise=0.1"])),
    ] {
        assert_eq!(runs[0][key], value, "{key}");
    }
    let stages = ask(
        &project,
        "select s.stage, s.outcome, s.seconds, s.inputs from stages s join runs r using (run) where r.computed = 5",
    );
    assert_eq!(
        stages.iter().map(|row| row["stage"].as_str().unwrap()).collect::<Vec<_>>(),
        ["corpus", "toolwoz", "harvest", "talks", "scores"]
    );
    assert!(stages.iter().all(|row| row["outcome"] == "computed" && row["seconds"].as_f64().unwrap() > 0.0));
    assert_eq!(stages[1]["inputs"], json!([{"port": "corpus", "from": "corpus.corpus"}]));
    let tasks = "select distinct value from figures where stage = 'talks' and name = 'rows'";
    assert_eq!(ask(&project, tasks), [json!({"value": 40.0})]);
    let inner =
        "select distinct f.value from stages cross join unnest(figures) as f where stage = 'talks' and f.name = 'rows'";
    assert_eq!(ask(&project, inner), [json!({"value": 40.0})]);
    let path =
        ask(&project, "select path from artifacts where port = 'summary'")[0]["path"].as_str().unwrap().to_owned();
    assert!(Path::new(&path).is_file() || project.path().join(&path).is_file(), "{path}");
}

#[test]
fn answers_come_in_every_format() {
    let project = town();
    let sql = "select dialogue, goals from talks.episodes order by dialogue limit 2";
    let table = project.ok(&["sql", sql]);
    assert!(table.starts_with("dialogue        goals\n────") && table.lines().count() == 4, "{table}");
    let csv = project.ok(&["sql", sql, "--format", "csv"]);
    assert!(csv.starts_with("dialogue,goals\nSYN") && csv.contains(".json,\"[\"\"search_"), "{csv}");
    let md = project.ok(&["sql", sql, "--format", "md"]);
    assert!(md.starts_with("| dialogue | goals |\n| --- | --- |\n| SYN"), "{md}");
    assert_eq!(piped(&project, &["sql", "-", "--format", "csv"], sql), csv);
    assert_eq!(piped(&project, &["sql", "--format", "csv"], &format!("{sql};\n-- the end\n")), csv);
    for (name, format) in
        [("a.csv", "csv"), ("a.json", "json"), ("a.jsonl", "jsonl"), ("a.md", "md"), ("a.txt", "table")]
    {
        assert_eq!(project.ok(&["sql", sql, "-o", name]), "");
        let written = std::fs::read_to_string(project.path().join(name)).unwrap();
        assert_eq!(written, project.ok(&["sql", sql, "--format", format]), "{name}");
    }
    let wide = project.ok(&["sql", "select * from toolwoz.tasks"]);
    assert!(wide.contains("── row 1 ──"), "{wide}");
    let many = project.ok(&["sql", "select dialogue, split from toolwoz.tasks order by dialogue"]);
    assert!(many.ends_with(" rows\n") && many.contains("\nthe first 40 of "), "{many}");
    assert_eq!(many.lines().count(), 43);
    assert_eq!(
        project.ok(&["sql", "select dialogue from toolwoz.tasks", "--format", "csv", "--rows", "7"]).lines().count(),
        8
    );
    let odd = project.thresh(&["sql", sql, "-o", "a.xls"]);
    assert_eq!(odd.code, Some(2));
    assert!(odd.stderr.contains("`a.xls` says no format: end it in `.csv`, "), "{}", odd.stderr);
}

#[test]
fn wrong_queries_are_told_what_would_be_right() {
    let project = town();
    for (sql, message) in [
        ("select * from score.scores", "did you mean `scores`?\n  select * from score.scores\n                ^\n"),
        ("select * from scores.score", "error: there is no table `scores.score`; did you mean `scores.scores`?\n"),
        ("select * from run", "error: there is no table `run`; did you mean `runs`?\n"),
        ("select * from town~7.scores.scores", "has no stage"),
        (
            "select * from corpus.corpus",
            "error: `corpus.corpus` holds `files/v1`, a folder and no table; `thresh show corpus.corpus` lists it\n",
        ),
        ("select * from 'none.parquet'", "none.parquet"),
        ("select * from town.yaml", "for the file write 'town.yaml', in single quotes"),
        ("select * from 'town.yaml'", "error: `town.yaml` is damaged or not Parquet"),
        (
            "select rewad from scores.scores",
            "error: there is no column `rewad`; did you mean `reward`?\n  select rewad from scores.scores\n         ^\n",
        ),
        ("select reward form scores.scores", "error: the query is no SQL: "),
        ("insert into runs values (1)", "error: expected a query"),
    ] {
        let said = refused(&project, sql);
        assert!(said.contains(message), "{sql}: {said}");
    }
    let Ran { code, stderr, .. } = project.thresh(&["sql", "select cast(dialogue as int) from scores.scores"]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with("error: the query cannot be answered: conversion from `str` to `i32` failed"),
        "{stderr}"
    );
    let path = project.result("town.yaml", "scores.scores");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let Ran { code, stderr, .. } = project.thresh(&["sql", "select * from latest~1.scores.scores"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the result is discarded, `thresh run` computes it again"), "{stderr}");
}

#[test]
fn tables_leave_as_csv_and_json_lines() {
    let project = town();
    project.ok(&["export", "town.yaml", "talks.episodes", "--to", "out", "--format", "csv"]);
    project.ok(&["export", "town.yaml", "talks.episodes", "--to", "out", "--format", "jsonl"]);
    let lines = std::fs::read_to_string(project.path().join("out/talks.episodes.jsonl")).unwrap();
    assert_eq!(lines, project.ok(&["show", "town.yaml", "talks.episodes", "--json", "--set", "params.noise=0.3"]));
    let mut reader = csv::Reader::from_path(project.path().join("out/talks.episodes.csv")).unwrap();
    let names = reader.headers().unwrap().clone();
    let mut count = 0;
    for (cells, row) in reader.records().map(Result::unwrap).zip(rows(&lines)) {
        assert_eq!(cells.len(), row.as_object().unwrap().len());
        for (name, cell) in names.iter().zip(&cells) {
            let expected = match &row[name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(cell, expected, "{name}");
        }
        count += 1;
    }
    assert_eq!(count, 40);
}
