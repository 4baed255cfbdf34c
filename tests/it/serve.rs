//! `thresh serve`: a policy behind OpenAI's API says what it says here, however many ask at once.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use thresh::chat::Message;
use thresh::josh::NodeRow;
use thresh::llm::record::{CallRow, requests};
use thresh::model::Tokenizer;
use thresh::model::chat::encode_prompt;
use thresh::model::executor::PAGE;
use thresh::table;

use crate::project::{Project, within};

const PIPELINE: &str = "name: p
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 320, domains: [restaurant, hotel], max_domains: 2, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  examples:
    kind: demonstrations.build
    in: {corpus: corpus.corpus, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {tasks: {split: train, limit: 40}}
  blank:
    kind: model.init
    in: {examples: examples.examples}
    with: {layers: 2, hidden_size: 32, heads: 2, kv_heads: 2, intermediate_size: 64, vocab_size: 600, context: 900, seed: 1}
  harvest:
    kind: josh.harvest
    in: {tasks: toolwoz.tasks, world: toolwoz.world, policy: blank.model}
    with:
      agent: {kind: policy, system_prompt: brief, temperature: 0.8, top_p: 0.95, min_p: 0.01, max_tokens: 24, stop: [xq]}
      tasks: {split: train, limit: 6}
      beam: 4
      max_steps: 3
      seed: 4
";

/// A running server, killed where a test fails.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(project: &Project, arguments: &[&str]) -> Self {
        let model = project.result("p.yaml", "blank.model");
        let mut all = vec!["serve", model.to_str().unwrap(), "--port", "0", "--name", "ours"];
        all.extend(arguments);
        let mut child = project.command(&all).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }

    /// Sends a request: the status and the body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = self.open(method, path, body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn open(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let host = self.url.strip_prefix("http://").unwrap().strip_suffix("/v1").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        stream
    }

    fn json(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.ask("POST", path, &body.to_string());
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The pieces of a streamed answer.
    fn pieces(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, text) = self.ask("POST", path, &body.to_string());
        assert_eq!(status, 200, "{text}");
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (last, pieces) = lines.split_last().unwrap();
        assert_eq!(*last, "[DONE]");
        pieces.iter().map(|piece| serde_json::from_str(piece).unwrap()).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn project() -> Project {
    let project = Project::new();
    project.write("p.yaml", PIPELINE);
    project.ok(&["run", "-q", "p.yaml"]);
    project
}

#[test]
fn a_served_policy_plays_the_dialogues_that_it_plays_here() {
    let project = project();
    let here: Vec<NodeRow> = table::read(&project.result("p.yaml", "harvest.trees")).unwrap();
    let served = Served::start(&project, &["--max-batch", "5"]);
    project.write("thresh.toml", &format!("jobs = 2\n[endpoints.ours]\nurl = \"{}\"\n", served.url));
    let pipeline =
        PIPELINE.replace("kind: policy,", "kind: served, model: ours,").replace(", policy: blank.model}", "}");
    project.write("served.yaml", &pipeline);
    project.ok(&["run", "-q", "served.yaml"]);
    let there: Vec<NodeRow> = table::read(&project.result("served.yaml", "harvest.trees")).unwrap();
    assert!(here.len() > 12);
    assert_eq!(here, there);
    no_prefix_was_encoded_twice(&project, &served);
    let doctor = project.thresh(&["doctor", "--endpoint", "ours"]);
    assert_eq!(doctor.code, Some(0), "{}\n{}", doctor.stdout, doctor.stderr);
}

/// What was encoded of prompts is whole pages, each once, and of every prompt what stands behind its last whole page.
fn no_prefix_was_encoded_twice(project: &Project, served: &Served) {
    let tokenizer = Tokenizer::load(&project.result("p.yaml", "blank.model")).unwrap();
    let calls: Vec<CallRow> = table::read(&project.result("served.yaml", "harvest.calls")).unwrap();
    let mut pages: HashSet<Vec<u32>> = HashSet::new();
    let (mut prompts, mut rests) = (0, 0);
    for calls in calls.chunk_by(|a, b| a.dialogue == b.dialogue) {
        for asked in requests(calls).unwrap() {
            let system = asked.system.as_ref().map(Message::system);
            let messages: Vec<&Message> = system.iter().chain(asked.messages.iter()).collect();
            let ids = encode_prompt(&tokenizer, &messages, &[]).unwrap();
            let whole = (ids.len() - 1) / PAGE;
            pages.extend((1..=whole).map(|count| ids[..count * PAGE].to_vec()));
            prompts += ids.len();
            rests += ids.len() - whole * PAGE;
        }
    }
    let health: Value = serde_json::from_str(&served.ask("GET", "/health", "").1).unwrap();
    let count = |name: &str| health[name].as_u64().unwrap() as usize;
    assert_eq!(count("prompt_tokens"), prompts);
    let encoded = prompts - count("reused_tokens");
    assert!(calls.len() > 40 && prompts > 4 * encoded, "{encoded} of {prompts} in {} calls", calls.len());
    assert!(encoded <= pages.len() * PAGE + rests, "{encoded} encoded, {} pages and {rests}", pages.len());
}

fn chat(extra: &Value) -> Value {
    let mut body = json!({"model": "ours", "messages": [{"role": "user", "content": "I want italian food."}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[test]
fn the_api_is_openais() {
    let project = project();
    let served = Served::start(&project, &["--max-tokens", "7"]);
    let (status, health) = served.ask("GET", "/health", "");
    assert!(status == 200 && health.contains("\"ok\""), "{health}");
    assert!(served.ask("GET", "/v1/models", "").1.contains("\"id\":\"ours\""));
    streams_say_what_whole_answers_say(&served);
    let text = json!({"model": "ours", "prompt": ["I want", "The"], "max_tokens": 5, "seed": 1, "logprobs": 1});
    let (status, answer) = served.json("/v1/completions", &text);
    assert!(
        status == 200 && answer["choices"][1]["text"].is_string() && answer["object"] == "text_completion",
        "{answer}"
    );
    let (_, answer) = served.json("/v1/chat/completions", &chat(&json!({"seed": 3})));
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() <= 7, "{answer}");
    wrong_requests_are_told_why(&served);
    hanging_up_and_stopping(served);
}

fn streams_say_what_whole_answers_say(served: &Served) {
    let ask = json!({"seed": 3, "n": 3, "max_tokens": 12, "logprobs": true, "temperature": 0.9});
    let (status, whole) = served.json("/v1/chat/completions", &chat(&ask));
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["object"], "chat.completion");
    let texts: Vec<&str> = (0..3).map(|n| whole["choices"][n]["message"]["content"].as_str().unwrap()).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
    let usage = &whole["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap())
    );
    let mut streamed = chat(&ask);
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let pieces = served.pieces("/v1/chat/completions", &streamed);
    for (n, text) in texts.iter().enumerate() {
        let own = pieces.iter().filter(|piece| piece["choices"][0]["index"] == n);
        let told: String = own.clone().filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(told, *text);
        let logprobs = whole["choices"][n]["logprobs"]["content"].as_array().unwrap();
        assert!(!logprobs.is_empty() && logprobs.iter().all(|token| token["logprob"].as_f64().unwrap() < 0.0));
        let told = own.clone().filter_map(|piece| piece["choices"][0]["logprobs"]["content"].as_array()).flatten();
        assert!(told.eq(logprobs), "{pieces:?}");
        assert_eq!(own.clone().filter(|piece| piece["choices"][0]["delta"]["role"] == "assistant").count(), 1);
        let end = own.clone().next_back().unwrap();
        assert_eq!(end["choices"][0]["finish_reason"], whole["choices"][n]["finish_reason"]);
    }
    assert_eq!(pieces.last().unwrap()["usage"], *usage);
    // A stop ends a reply and is no part of it.
    let stop: String = texts[0].chars().skip(3).take(2).collect();
    let stopped = chat(&json!({"seed": 3, "max_tokens": 12, "temperature": 0.9, "stop": stop}));
    let (_, answer) = served.json("/v1/chat/completions", &stopped);
    assert_eq!(answer["choices"][0]["message"]["content"], texts[0][..texts[0].find(&stop).unwrap()]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

fn wrong_requests_are_told_why(served: &Served) {
    let wrong = |extra: Value| served.json("/v1/chat/completions", &chat(&extra));
    for (extra, status, param) in [
        (json!({"model": "theirs"}), 404, json!("model")),
        (json!({"messages": []}), 400, json!("messages")),
        (json!({"temperature": -1}), 400, json!("temperature")),
        (json!({"top_p": 0}), 400, json!("top_p")),
        (json!({"n": 0}), 400, json!("n")),
        (json!({"stop": ["a", ""]}), 400, json!("stop")),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), 400, json!("messages[0].role")),
        (json!({"frequency_penalty": 0.5}), 400, json!("frequency_penalty")),
        (json!({"presence_penalty": -1}), 400, json!("presence_penalty")),
        (json!({"logit_bias": {"5": 3}}), 400, json!("logit_bias")),
        (json!({"best_of": 4}), 400, json!("best_of")),
        (json!({"response_format": {"type": "json_object"}}), 400, json!("response_format")),
    ] {
        let (found, body) = wrong(extra);
        assert_eq!((found, &body["error"]["param"]), (status, &param), "{body}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
    let neutral = json!({"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "best_of": 1, "max_tokens": 2,
        "response_format": {"type": "text"}});
    assert_eq!(wrong(neutral).0, 200);
    let (status, body) = wrong(json!({"stop": 5}));
    let message = body["error"]["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("`stop` must be a text or a list of texts"), "{message}");
    let many = json!({"prompt": vec!["I"; 9], "n": 128});
    assert_eq!(served.json("/v1/completions", &many).0, 400);
    let (status, body) = wrong(json!({"messages": [{"role": "user", "content": "food ".repeat(2_000)}]}));
    assert_eq!((status, &body["error"]["code"]), (400, &json!("context_length_exceeded")));
    assert_eq!(served.ask("POST", "/v1/chat/completions", "{").0, 400);
    assert_eq!(served.ask("GET", "/v1/nothing", "").0, 404);
    assert_eq!(served.ask("GET", "/v1/completions", "").0, 405);
}

/// One that hangs up is given up; a stop lets what runs end.
fn hanging_up_and_stopping(mut served: Served) {
    let long = chat(&json!({"stream": true, "max_tokens": 800}));
    drop(served.open("POST", "/v1/chat/completions", &long.to_string()));
    assert!(within(30, || served.ask("GET", "/health", "").1.contains("\"running\":0")));
    let mut running =
        served.open("POST", "/v1/completions", &json!({"prompt": "I", "max_tokens": 800, "n": 32}).to_string());
    assert!(within(30, || !served.ask("GET", "/health", "").1.contains("\"running\":0")));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(served.child.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    let mut answer = String::new();
    running.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("finish_reason"), "{answer}");
    assert!(within(30, || served.child.try_wait().unwrap().is_some_and(|status| status.success())));
}
