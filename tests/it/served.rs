//! Dialogues with served models: whatever the server does, no dialogue is lost, no call is paid for twice, and what was
//! recorded can be played again without the server.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::project::{Project, within};
use crate::server::{Answer, Request, Server};

fn pipeline(agent: &str, count: usize) -> String {
    format!(
        "name: p
stages:
  corpus: {{kind: multiwoz.synthesize, with: {{dialogues: 320, domains: [restaurant, hotel], max_domains: 2, seed: 3}}}}
  toolwoz: {{kind: toolwoz.convert, in: {{corpus: corpus.corpus}}}}
  episodes:
    kind: dialogue.simulate
    in: {{tasks: toolwoz.tasks, world: toolwoz.world}}
    with: {{agent: {{kind: served, model: paid{agent}}}, tasks: {{split: train, limit: {count}}}, seed: 4}}
  harvest:
    kind: josh.harvest
    in: {{tasks: toolwoz.tasks, world: toolwoz.world}}
    with:
      agent: {{kind: served, model: paid, style: tools, temperature: 1.0{agent}}}
      tasks: {{split: train, limit: 12}}
      beam: 4
      max_steps: 3
      seed: 4
"
    )
}

fn hash(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(blake3::hash(bytes).as_bytes()[..8].try_into().unwrap())
}

/// What the model says to a request: a matter of the request alone, and not always sensible.
fn completion(request: &Request) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let kind = hash(body.to_string().as_bytes()) % 6;
    let (text, calls) = if body["tools"].is_null() { said(kind) } else { called(kind) };
    let message = json!({"role": "assistant", "content": text, "tool_calls": calls});
    let usage = json!({"prompt_tokens": request.body.len() / 4, "completion_tokens": 10});
    let logprobs = json!({"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25}]});
    let logprobs = if body["logprobs"] == true { logprobs } else { Value::Null };
    let choice = json!({"message": message, "finish_reason": "stop", "logprobs": logprobs});
    json!({"choices": [choice], "usage": usage}).to_string()
}

/// A reply in text commands.
fn said(kind: u64) -> (&'static str, Value) {
    let text = match kind {
        0 => "APICALL {\"name\": \"search_restaurant\", \"parameters\": {\"area\": <COMMAND_END>",
        1 => "PLAN grüßen 🌍 <COMMAND_END> SPEAK „Schön“, or 東京? \u{0} <COMMAND_END>",
        2 => "SPEAK Which area do you want? <COMMAND_END>",
        3 => "",
        4 => "APICALL {\"name\": \"search_restaurant\", \"parameters\": {\"area\": \"centre\"}} <COMMAND_END>",
        _ => "SPEAK Anything else? <COMMAND_END>",
    };
    (text, Value::Null)
}

/// A reply with native calls, some of which are none.
fn called(kind: u64) -> (&'static str, Value) {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    match kind {
        0 => ("", json!([call("a", "search_restaurant", "{\"area\": ")])),
        1 => ("", json!([call("a", "search_hotel", "{}"), call("b", "search_spaceship", "[1]")])),
        2 => ("", json!([call("", "search_restaurant", "{\"area\": \"centre\"}")])),
        3 => ("", Value::Null),
        _ => ("Grüße, what else? 🌍", Value::Null),
    }
}

/// How often each request was answered whole: what a paid server would send a bill for.
#[derive(Default)]
struct Bill(Mutex<HashMap<u64, u32>>);

impl Bill {
    fn add(&self, request: &Request) {
        *self.0.lock().unwrap().entry(hash(&request.body)).or_default() += 1;
    }

    fn counts(&self) -> Vec<u32> {
        self.0.lock().unwrap().values().copied().collect()
    }

    fn twice(&self) -> usize {
        self.counts().into_iter().filter(|count| *count > 1).count()
    }
}

/// The server and its bill. With `trouble` many requests meet one before they are answered; which, is a matter of the request.
fn serve(trouble: bool, pause: Duration) -> (Server, Arc<Bill>) {
    let bill = Arc::new(Bill::default());
    let (ours, met) = (bill.clone(), Mutex::new(HashMap::<u64, u32>::new()));
    let server = Server::start(move |request, _| {
        let good = completion(request);
        let place = hash(&request.body);
        let before = {
            let mut met = met.lock().unwrap();
            let times = met.entry(place).or_default();
            *times += 1;
            *times - 1
        };
        let kind = (trouble && before < 1 + (place % 2) as u32).then_some(place / 2 % 40);
        if let Some(bad) = kind.and_then(|kind| unpaid(kind, &good)) {
            return bad;
        }
        ours.add(request);
        match kind {
            Some(10) => Answer::json(200, good).slow(Duration::from_millis(300)),
            Some(11) => Answer::new(200, "text/plain", good),
            _ => Answer::json(200, good).slow(pause),
        }
    });
    (server, bill)
}

/// An answer that is of no use, for some kinds of trouble.
fn unpaid(kind: u64, good: &str) -> Option<Answer> {
    Some(match kind {
        0 => Answer::json(429, r#"{"error":{"message":"slow down"}}"#),
        1 => Answer::json(429, "{}").header("retry-after", "0"),
        2 => Answer::new(500, "text/plain", "oh"),
        3 => Answer::json(200, good).cut_after(good.len() / 2),
        4 => Answer::json(200, &good[..30]),
        5 => Answer::new(200, "text/html", "<html>log in</html>"),
        6 if good.len().is_multiple_of(8) => Answer::json(200, vec![b' '; 9 << 20]),
        7 => Answer::json(200, r#"{"choices":[]}"#),
        8 => Answer::json(200, r#"{"error":{"message":"upstream is busy"}}"#),
        9 => Answer::json(503, "").cut_after(0),
        _ => return None,
    })
}

fn project(server: &Server, settings: &str, pipeline: &str) -> Project {
    let project = Project::new();
    let url = server.url("/v1");
    project.write("thresh.toml", &format!("jobs = 2\n[endpoints.paid]\nurl = \"{url}\"\n{settings}"));
    project.write("p.yaml", pipeline);
    project
}

fn tables(project: &Project) -> Vec<Vec<u8>> {
    ["episodes.episodes", "episodes.calls", "harvest.trees", "harvest.calls"]
        .map(|output| std::fs::read(project.result("p.yaml", output)).unwrap())
        .into()
}

/// The figures of a stage that a run computed.
fn figures(project: &Project, arguments: &[&str], stage: &str) -> HashMap<String, f64> {
    let lines = project.ok(&[&["run", "--json", "p.yaml"], arguments].concat());
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut finished = events.filter(|event| event["event"] == "stage_finished" && event["stage"] == stage);
    serde_json::from_value(finished.next().unwrap()["figures"].clone()).unwrap()
}

#[test]
fn two_hundred_dialogues_through_a_server_that_misbehaves() {
    let (good, _) = serve(false, Duration::ZERO);
    let calm = project(&good, "", &pipeline("", 200));
    calm.ok(&["run", "-q", "p.yaml"]);
    let (bad, bill) = serve(true, Duration::ZERO);
    let stormy = project(&bad, "in_flight = 48\n", &pipeline("", 200));
    let figures = figures(&stormy, &[], "episodes");
    assert_eq!((figures["rows"], figures["rows.broken"], figures["paid.failures"]), (200.0, 0.0, 0.0));
    assert!(figures["paid.retries"] > 50.0, "{figures:?}");
    assert!(bill.counts().iter().all(|count| *count == 1), "{} calls were paid for twice", bill.twice());
    assert!(bad.most_at_once() <= 48);
    for (place, (stormy, calm)) in tables(&stormy).iter().zip(&tables(&calm)).enumerate() {
        assert!(stormy == calm, "table {place} differs");
    }
}

#[test]
fn a_killed_run_pays_for_no_finished_call_again() {
    let (calm, _) = serve(false, Duration::ZERO);
    let expected = {
        let project = project(&calm, "", &pipeline("", 40));
        project.ok(&["run", "-q", "p.yaml"]);
        tables(&project)
    };
    let in_flight = 6;
    for least in [20, 200] {
        let (server, bill) = serve(false, Duration::from_millis(20));
        let project = project(&server, &format!("in_flight = {in_flight}\n"), &pipeline("", 40));
        let mut child = project.command(&["run", "-q", "p.yaml"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert!(within(60, || server.requests().len() >= least));
        child.kill().unwrap();
        child.wait().unwrap();
        // What was in flight is answered to nobody.
        std::thread::sleep(Duration::from_millis(100));
        let before = bill.counts().len();
        project.ok(&["run", "-q", "p.yaml"]);
        assert!(before >= least - in_flight && bill.counts().len() > before, "killed in mid-run");
        assert!(bill.counts().iter().all(|count| *count <= 2));
        assert!(bill.twice() <= in_flight, "{} calls were paid for twice", bill.twice());
        assert!(tables(&project) == expected);
    }
}

#[test]
fn a_broken_dialogue_is_tried_again_without_its_finished_calls() {
    let down = Arc::new(AtomicBool::new(true));
    let (bill, off) = (Arc::new(Bill::default()), down.clone());
    let ours = bill.clone();
    let server = Server::start(move |request, _| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let messages = body["messages"].as_array().unwrap();
        let unlucky = hash(messages[1]["content"].as_str().unwrap().as_bytes()).is_multiple_of(3);
        if off.load(Ordering::SeqCst) && unlucky && messages.len() > 4 {
            return Answer::json(400, "{}");
        }
        ours.add(request);
        Answer::json(200, completion(request))
    });
    let project = project(&server, "", &pipeline("", 20));
    let first = figures(&project, &[], "episodes");
    assert!((1.0..20.0).contains(&first["rows.broken"]) && first["paid.replies"] > 0.0, "{first:?}");
    down.store(false, Ordering::SeqCst);
    let second = figures(&project, &["--retry-broken"], "episodes");
    assert_eq!(second["rows.broken"], 0.0);
    assert!(second["paid.kept"] > 0.0, "{second:?}");
    assert_eq!(bill.twice(), 0);
}

#[test]
fn a_budget_ends_a_run_and_the_next_one_goes_on() {
    let (server, bill) = serve(false, Duration::ZERO);
    let price = "price_per_million = {prompt = 100.0, completion = 1000.0}\n";
    let text = pipeline("", 30).split("  harvest:").next().unwrap().to_owned();
    let project = project(&server, &format!("in_flight = 2\nbudget = 20.0\n{price}"), &text);
    let mut spent = Vec::new();
    for _ in 0..40 {
        let found = figures(&project, &["--retry-broken"], "episodes");
        spent.push(found["paid.cost"]);
        if found["rows.broken"] == 0.0 {
            break;
        }
    }
    assert!((2..40).contains(&spent.len()), "{spent:?}");
    let last = spent.len() - 1;
    assert!(spent[..last].iter().all(|spent| (20.0..20.8).contains(spent)) && spent[last] < 20.8, "{spent:?}");
    assert_eq!(bill.twice(), 0);
    let log = project.ok(&["log"]);
    assert!(log.contains("paid.cost"), "{log}");
}

#[test]
fn what_was_recorded_is_played_again_without_a_server() {
    let (server, bill) = serve(false, Duration::ZERO);
    let text = pipeline(", logprobs: true", 30);
    let project = project(&server, "", &text);
    project.ok(&["run", "-q", "p.yaml"]);
    let (asked, recorded) = (bill.counts().len(), tables(&project));
    drop(server);
    project.write("thresh.toml", "jobs = 2\n");
    let again = |replay: &str, agent: &str| {
        let stages = text.replace("  episodes:\n", "  first:\n").replace("  harvest:\n", "  trees:\n");
        let (head, rest) = text.split_once("  episodes:\n").unwrap();
        let rest = format!("  episodes:\n{rest}")
            .replace("logprobs: true", &format!("logprobs: true, replay: {replay}{agent}"));
        let (simulate, harvest) = rest.split_once("  harvest:\n").unwrap();
        let world = "world: toolwoz.world";
        let simulate = simulate.replace(world, &format!("{world}, calls: first.calls"));
        let harvest = harvest.replace(world, &format!("{world}, calls: trees.calls"));
        let (_, stages) = stages.split_once("  first:\n").unwrap();
        format!("{head}  first:\n{stages}{simulate}  harvest:\n{harvest}")
    };
    project.write("p.yaml", &again("only", ""));
    let found = figures(&project, &[], "episodes");
    assert_eq!((found["rows.broken"], bill.counts().len()), (0.0, asked));
    assert!(found["paid.recorded"] > 30.0, "{found:?}");
    assert!(tables(&project) == recorded);
    let shown = project.ok(&["show", "p.yaml", "episodes.calls"]);
    assert!(shown.contains("-0.75"), "{shown}");
    // Another request is another matter.
    project.write("p.yaml", &again("only", ", max_tokens: 9"));
    let ran = project.thresh(&["run", "p.yaml", "--upto", "episodes"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("the recording has no reply of `paid` to this request"), "{}", ran.stderr);
    // A server that is asked for the rest is needed.
    project.write("p.yaml", &again("first", ""));
    let ran = project.thresh(&["run", "p.yaml", "--upto", "episodes"]);
    assert!(ran.stderr.contains("the profile names no endpoint `paid`"), "{}", ran.stderr);
    let (server, bill) = serve(false, Duration::ZERO);
    project.write("thresh.toml", &format!("jobs = 2\n[endpoints.paid]\nurl = \"{}\"\n", server.url("/v1")));
    project.write(
        "p.yaml",
        &again("first", "").replace("limit: 30}, seed: 4}\n  harvest:", "limit: 33}, seed: 4}\n  harvest:"),
    );
    let found = figures(&project, &["--upto", "episodes"], "episodes");
    assert_eq!((found["rows"], found["rows.broken"]), (33.0, 0.0));
    assert!(found["paid.recorded"] > 30.0 && found["paid.replies"] > 3.0, "{found:?}");
    assert!(bill.counts().len() < asked / 2);
}

#[test]
fn a_low_limit_on_open_files_does_not_count() {
    let (server, _) = serve(false, Duration::from_millis(100));
    let text = pipeline("", 100).split("  harvest:").next().unwrap().to_owned();
    let project = project(&server, "in_flight = 90\nretries = 0\n", &text);
    let mut command = std::process::Command::new("sh");
    let run = format!("ulimit -Sn 60 && exec {} run -q p.yaml", env!("CARGO_BIN_EXE_thresh"));
    let output = command.args(["-c", &run]).current_dir(project.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("broken"));
    assert!(server.most_at_once() > 60, "{}", server.most_at_once());
}

#[test]
fn rates_are_kept() {
    let (server, _) = serve(false, Duration::ZERO);
    let text = pipeline("", 5).split("  harvest:").next().unwrap().to_owned();
    let project = project(&server, "requests_per_minute = 1200\n", &text);
    project.ok(&["run", "-q", "--upto", "toolwoz", "p.yaml"]);
    let begin = Instant::now();
    project.ok(&["run", "-q", "p.yaml"]);
    let calls = server.requests().len() as u32;
    assert!(
        calls > 5 && begin.elapsed() >= (calls - 1) * Duration::from_millis(50),
        "{calls} in {:?}",
        begin.elapsed()
    );
}

#[test]
fn a_full_context_is_the_agents_failure_and_is_recorded_as_such() {
    let asked = Arc::new(Mutex::new(0));
    let ours = asked.clone();
    let server = Server::start(move |request, _| {
        *ours.lock().unwrap() += 1;
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let full = r#"{"error":{"message":"Requested tokens (99) exceed context window of 64","code":"context_length_exceeded"}}"#;
        let long = body["messages"].as_array().unwrap().len() > 4;
        if long { Answer::json(400, full) } else { Answer::json(200, completion(request)) }
    });
    let text = pipeline("", 8).split("  harvest:").next().unwrap().to_owned();
    let project = project(&server, "", &text);
    let found = figures(&project, &[], "episodes");
    assert_eq!((found["rows.broken"], found["paid.failures"]), (0.0, 0.0));
    let shown = project.ok(&["show", "--json", "p.yaml", "episodes.episodes"]);
    assert!(shown.contains("Requested tokens (99) exceed context window of 64"), "{shown}");
    let before = (*asked.lock().unwrap(), std::fs::read(project.result("p.yaml", "episodes.episodes")).unwrap());
    let (head, stage) = text.split_once("  episodes:\n").unwrap();
    let again = stage.replace("world: toolwoz.world", "world: toolwoz.world, calls: first.calls");
    let again = again.replace("model: paid", "model: paid, replay: only");
    project.write("p.yaml", &format!("{head}  first:\n{stage}  episodes:\n{again}"));
    project.ok(&["run", "-q", "p.yaml"]);
    let after = (*asked.lock().unwrap(), std::fs::read(project.result("p.yaml", "episodes.episodes")).unwrap());
    assert!(before == after);
}
