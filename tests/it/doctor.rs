//! `thresh doctor`: what it finds, and what it says to do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::project::Project;
use crate::server::{Answer, Request, Server};

const KEY: &str = "sk-do-not-show-me-123456";

/// A server that can do everything, or the least.
fn serve(able: bool) -> Server {
    Server::start(move |request, place| {
        if request.line.starts_with("GET") {
            assert_eq!(request.line, "GET /v1/models HTTP/1.1");
            return if able { Answer::json(200, r#"{"data":[{"id":"small"}]}"#) } else { Answer::json(404, "{}") };
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let (text, calls) = match (able, body.get("tools")) {
            (true, Some(_)) => {
                let function = json!({"name": "get_temperature", "arguments": "{\"city\": \"Cambridge\"}"});
                (String::new(), json!([{"id": "1", "type": "function", "function": function}]))
            }
            (true, None) => (format!("seed {}", body["seed"]), Value::Null),
            (false, _) => (format!("reply {place}"), Value::Null),
        };
        let logprobs = if able { json!({"content": [{"token": "a", "logprob": -1.0}]}) } else { Value::Null };
        let message = json!({"role": "assistant", "content": text, "tool_calls": calls});
        let choice = json!({"message": message, "finish_reason": "stop", "logprobs": logprobs});
        let usage = if able { json!({"prompt_tokens": 5, "completion_tokens": 2}) } else { Value::Null };
        Answer::json(200, json!({"choices": [choice], "usage": usage}).to_string())
    })
}

fn project(url: &str) -> Project {
    let project = Project::new();
    let settings =
        format!("[endpoints.e]\nurl = \"{url}\"\nmodel = \"small\"\nkey_env = \"DOCTOR_KEY\"\nretries = 0\n");
    project.write("thresh.toml", &settings);
    project
}

/// Exit code, and state and advice by check.
fn examine(project: &Project, arguments: &[&str]) -> (i32, BTreeMap<String, (String, Option<String>)>) {
    let mut command = project.command(&[&["doctor", "--json"], arguments].concat());
    let output = command.env("DOCTOR_KEY", KEY).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!stdout.contains(KEY) && !stderr.contains(KEY));
    let findings = stdout.lines().map(|line| {
        let found: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| found[name].as_str().map(str::to_owned);
        (format!("{} {}", text("about").unwrap(), text("check").unwrap()), (text("state").unwrap(), text("advice")))
    });
    (output.status.code().unwrap(), findings.collect())
}

fn asked(server: &Server) -> Vec<Request> {
    server.requests()
}

#[test]
fn a_project_where_everything_works() {
    let server = serve(true);
    let project = project(&server.url("/v1"));
    let (code, found) = examine(&project, &[]);
    assert!(found.values().all(|(state, _)| state == "fine"), "{found:?}");
    let checks: Vec<&str> = found.keys().map(String::as_str).collect();
    let expected = [
        "e logprobs",
        "e model",
        "e reply",
        "e seed",
        "e settings",
        "e tools",
        "e usage",
        "project device",
        "project profile",
        "project program",
        "store garbage",
        "store locks",
        "store records",
        "store results",
        "store room",
        "store work",
        "store writable",
    ];
    assert_eq!((code, checks), (0, expected.to_vec()));
    assert!(asked(&server).iter().all(|request| request.header("authorization") == Some(&format!("Bearer {KEY}"))));
    assert_eq!(asked(&server).len(), 7, "a list and six calls");
    assert_eq!(std::fs::read_dir(project.path().join(".thresh/work")).unwrap().count(), 0);
    let (code, found) = examine(&project, &["--offline"]);
    assert_eq!((code, found.len(), asked(&server).len()), (0, 11, 7));
    let (_, found) = examine(&project, &["--endpoint", "e"]);
    assert!(found.keys().all(|check| check.starts_with("e ")));
}

#[test]
fn what_is_lacking_and_what_is_wrong() {
    let server = serve(false);
    let able = project(&server.url("/v1"));
    let (code, found) = examine(&able, &["--endpoint", "e"]);
    let lacking = ["e logprobs", "e model", "e seed", "e tools", "e usage"];
    for (check, (state, advice)) in &found {
        assert_eq!(state == "lacking", lacking.contains(&check.as_str()), "{check}");
        assert_eq!(advice.is_some(), state == "lacking", "{check}");
    }
    assert_eq!(code, 0, "one can work with it");
    let refuses = Server::answering(vec![Answer::json(401, format!(r#"{{"error":{{"message":"wrong key {KEY}"}}}}"#))]);
    let (code, found) = examine(&project(&refuses.url("/v1")), &["--endpoint", "e"]);
    assert_eq!((code, found["e reply"].0.as_str()), (1, "wrong"));
    assert!(found["e reply"].1.as_ref().unwrap().contains("`key_env`"));
    drop(server);
    assert_eq!(examine(&able, &["--endpoint", "e"]).0, 1);
    let ran = able.thresh(&["doctor"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("the environment variable `DOCTOR_KEY` is not set"), "{}", ran.stdout);
    assert_eq!(able.thresh(&["doctor", "--offline", "nowhere"]).code, Some(2));
    let unknown = able.thresh(&["doctor", "--endpoint", "E"]);
    assert_eq!((unknown.code, unknown.stderr.contains("did you mean `e`?")), (Some(2), true), "{}", unknown.stderr);
    able.write("thresh.toml", "device = \"gpu\"\nstore = \"thresh.toml/store\"\n");
    let ran = able.thresh(&["doctor"]);
    assert_eq!((ran.code, ran.stdout.matches("wrong").count()), (Some(1), 2), "{}", ran.stdout);
}

const NUMBERS: &str = "name: p
stages:
  a: {kind: command.run, with: {command: 'echo 1 > {out.n}', outputs: {n: {path: n.txt}}}}
";

fn state(found: &BTreeMap<String, (String, Option<String>)>, check: &str) -> String {
    found[check].0.clone()
}

#[test]
fn damage_in_the_store_is_named_with_what_to_do() {
    let project = Project::new();
    project.write("p.yaml", NUMBERS);
    project.run(&["p.yaml"]);
    let (code, found) = examine(&project, &["--deep"]);
    assert_eq!((code, found.values().all(|(state, _)| state == "fine")), (0, true), "{found:?}");
    // Bytes that change without changing the size are found by reading only.
    let file = project.result("p.yaml", "a.n").join("n.txt");
    std::fs::write(&file, "2\n").unwrap();
    assert_eq!(state(&examine(&project, &[]).1, "store results"), "fine");
    let (code, found) = examine(&project, &["--deep"]);
    assert_eq!((code, state(&found, "store results").as_str()), (1, "wrong"));
    let text = project.thresh(&["doctor", "--deep"]).stdout;
    assert!(text.contains("n.txt` is not what was written") && text.contains("`thresh run` throws"), "{text}");
    std::fs::write(&file, "longer than before\n").unwrap();
    assert_eq!(state(&examine(&project, &[]).1, "store results"), "wrong");
    project.run(&["p.yaml"]);
    assert_eq!(examine(&project, &["--deep"]).0, 0);
    // What nobody goes on with, and what a record says that nobody can read.
    let old = project.path().join(".thresh/work").join("a".repeat(64));
    std::fs::create_dir_all(old.join("scratch")).unwrap();
    let touch = std::process::Command::new("touch").args(["-d", "2020-01-01"]).arg(&old).status().unwrap();
    assert!(touch.success());
    project.write(".thresh/runs/20200101-000000-000000-p.json", "{}");
    let (code, found) = examine(&project, &[]);
    assert_eq!(
        (code, state(&found, "store work"), state(&found, "store records")),
        (1, "lacking".into(), "wrong".into())
    );
    assert!(found["store work"].1.as_ref().unwrap().contains("thresh gc"), "{found:?}");
    assert!(old.is_dir(), "the doctor only looks");
}

#[test]
fn unknown_keys_of_the_settings_are_all_named_and_the_rest_is_looked_at() {
    let project = Project::new();
    let settings = "jbos = 2\nstore = \"s\"\n[endpoints.e]\nurl = \"http://127.0.0.1:9/v1\"\nkeyenv = \"K\"\n[profiles.big]\npool = {}\njobs = \"two\"\n";
    project.write("thresh.toml", settings);
    let ran = project.thresh(&["runs"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("unknown key `jbos`: did you mean `jobs`?"), "{}", ran.stderr);
    let ran = project.thresh(&["doctor", "--offline"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for said in
        ["unknown key `jbos`", "did you mean `jobs`?", "unknown key `endpoints.e.keyenv`", "did you mean `key_env`?"]
    {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.stdout);
    }
    for said in ["unknown key `profiles.big.pool`", "`profiles.big`: invalid type", "`s`", "127.0.0.1:9"] {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.stdout);
    }
    project.write("thresh.toml", "jobs = = 2\n");
    let ran = project.thresh(&["doctor", "--offline"]);
    assert_eq!((ran.code, ran.stdout.contains("this is no TOML")), (Some(1), true), "{}", ran.stdout);
}
