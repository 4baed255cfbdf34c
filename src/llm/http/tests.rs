//! Against a server of our own on 127.0.0.1.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::chat::Message;
use crate::llm::Sampling;
use crate::llm::drive::drive_here;
use crate::llm::drive::tests::Queued;
use crate::server::{Answer, Server};

const SECRET: &str = "sk-very-secret-0123456789";

fn good(text: &str) -> Answer {
    let body = serde_json::json!({
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    });
    Answer::json(200, body.to_string())
}

fn settings(url: String) -> HttpSettings {
    HttpSettings {
        url,
        model: "small".to_owned(),
        key_env: None,
        gate: gate(Limits { in_flight: 4, ..Limits::default() }),
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
        retries: 2,
        prices: None,
        dialect: Dialect::default(),
    }
}

fn gate(limits: Limits) -> Arc<Gate> {
    Arc::new(Gate::new(limits))
}

fn model(server: &Server) -> HttpModel {
    model_with(&settings(server.url("/v1")))
}

fn model_with(settings: &HttpSettings) -> HttpModel {
    let key = ("THE_KEY", Some(format!("{SECRET}\n")));
    let mut model = HttpModel::with_key("agent", settings, Some(key)).unwrap();
    model.waits = (Duration::from_millis(2), Duration::from_millis(8));
    model
}

fn request(seed: u64) -> ChatRequest {
    let sampling = Sampling { temperature: 1.0, max_tokens: 16, ..Sampling::default() };
    ChatRequest {
        system: None,
        chat: [Message::user("héllo \u{1F30D}")].into_iter().collect(),
        tools: None,
        sampling,
        seed,
    }
}

fn ask(model: &HttpModel) -> Result<Reply, ModelError> {
    let mut replies = Vec::new();
    let stop = AtomicBool::new(false);
    let jobs = std::iter::once(model.complete(request(1)));
    drive_here(&[model], 1, jobs, |_, reply| replies.push(reply), &stop).unwrap();
    replies.remove(0)
}

const COMPLETION: &str =
    r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1000000,"completion_tokens":200000}}"#;

fn error_of(answer: Answer) -> String {
    let server = Server::answering(vec![answer]);
    ask(&model(&server)).unwrap_err().to_string()
}

#[test]
fn a_reply_with_its_usage() {
    let server = Server::answering(vec![good("grüß dich 🌍\n\"ok\"")]);
    let model = model(&server);
    let reply = ask(&model).unwrap();
    assert_eq!(reply.text, "grüß dich 🌍\n\"ok\"");
    assert_eq!((reply.prompt_tokens, reply.completion_tokens, reply.cut_off), (11, 3, false));
    let account = model.account();
    assert_eq!((account.replies, account.prompt_tokens, account.completion_tokens), (1, 11, 3));
    assert!(account.slowest > 0.0 && account.cost == 0.0);
    let asked = &server.requests()[0];
    assert_eq!(asked.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(asked.header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
    let body: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!((body["model"].as_str(), body["seed"].as_u64()), (Some("small"), Some(1)));
    assert_eq!(body["messages"][0]["content"], "héllo \u{1F30D}");
}

#[test]
fn passing_troubles_are_tried_again() {
    let busy = Answer::json(429, r#"{"error":{"message":"busy"}}"#);
    for trouble in [
        busy.clone(),
        busy.header("retry-after", "0"),
        Answer::new(500, "text/plain", "oh"),
        Answer::new(503, "text/html", "<html>"),
        good("lost").cut_after(20),
        Answer::new(408, "text/plain", ""),
        Answer::json(425, "{}"),
        Answer::json(200, r#"{"choices":[{"mess"#),
        Answer::json(200, r#"{"choices":[]}"#),
        Answer::json(200, r#"{"error":{"message":"upstream is busy","code":502}}"#),
        Answer::new(200, "text/html", "<p>log in</p>"),
        Answer::json(200, vec![b' '; LARGEST_BODY + 1]),
    ] {
        let server = Server::answering(vec![trouble.clone(), trouble, good("at last")]);
        let model = model(&server);
        assert_eq!(ask(&model).unwrap().text, "at last");
        assert_eq!(model.account().retries, 2);
    }
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let busy = Answer::json(429, "{}").header("retry-after", "1");
    let server = Server::answering(vec![busy, good("rested")]);
    let begin = std::time::Instant::now();
    assert_eq!(ask(&model(&server)).unwrap().text, "rested");
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[test]
fn retries_end() {
    let server = Server::answering(vec![Answer::json(429, r#"{"error":{"message":"no quota left"}}"#)]);
    let model = model(&server);
    let error = ask(&model).unwrap_err().to_string();
    assert_eq!(error, "endpoint `agent` answered 429: no quota left");
    assert_eq!(server.requests().len(), 3);
    assert_eq!(model.account(), Account { failures: 1, retries: 2, ..Account::default() });
}

#[test]
fn a_reply_is_one_whatever_its_content_type() {
    let server = Server::answering(vec![Answer::new(200, "text/plain", COMPLETION)]);
    assert_eq!(ask(&model(&server)).unwrap().text, "hi");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn calls_cost_what_the_server_counts_and_end_with_the_budget() {
    let cached = COMPLETION
        .replace("\"completion_tokens\"", "\"prompt_tokens_details\":{\"cached_tokens\":400000},\"completion_tokens\"");
    let server = Server::answering(vec![Answer::json(200, cached)]);
    let settings = HttpSettings {
        gate: gate(Limits { in_flight: 4, budget: Some(5.0), ..Limits::default() }),
        prices: Some(Prices { prompt: 2.0, completion: 10.0, cached: 0.5 }),
        ..settings(server.url("/v1"))
    };
    let first = model_with(&settings);
    ask(&first).unwrap();
    assert_eq!((first.account().cost, first.account().cached_tokens), (3.4, 400_000));
    // Another stage of the same run: what all have spent counts.
    let second = model_with(&settings);
    ask(&second).unwrap();
    let error = ask(&second).unwrap_err().to_string();
    assert_eq!(error, "endpoint `agent`: the budget of 5 is used up (6.8000 spent)");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_server_that_refuses_log_probabilities_is_asked_without() {
    let refuses = Server::start(|request, _| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        match body.contains("logprobs") {
            true => Answer::json(400, r#"{"error":{"message":"Unrecognized request argument: logprobs"}}"#),
            false => good("without"),
        }
    });
    let model = model(&refuses);
    let stop = AtomicBool::new(false);
    let (first, second) = (request(1), request(2));
    let jobs = [&first, &second].into_iter().map(|request| model.call(request, true));
    let mut said = Vec::new();
    drive_here(&[&model], 1, jobs, |_, completion| said.push(completion.unwrap().reply.text), &stop).unwrap();
    assert_eq!(said, ["without", "without"]);
    assert_eq!((refuses.requests().len(), model.account().retries), (3, 0));
}

#[test]
fn what_was_left_to_pay_with_does_not_come_back() {
    let answer = Answer::json(429, r#"{"error":{"message":"no quota","code":"insufficient_quota"}}"#);
    let server = Server::answering(vec![answer]);
    assert!(ask(&model(&server)).is_err());
    assert_eq!(server.requests().len(), 1);
    for status in [400, 401, 404, 501] {
        let server = Server::answering(vec![Answer::json(status, "{}")]);
        assert!(ask(&model(&server)).is_err());
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[test]
fn lasting_troubles_are_said_at_once() {
    let server = Server::answering(vec![Answer::json(400, r#"{"error":{"message":"max_tokens is too large"}}"#)]);
    let error = ask(&model(&server)).unwrap_err().to_string();
    assert_eq!(error, "endpoint `agent` answered 400: max_tokens is too large");
    assert_eq!(server.requests().len(), 1);
    let page = format!("<html>\n  <h1>Not here</h1>{}", "x".repeat(500));
    let error = error_of(Answer::new(404, "text/html", page));
    assert!(error.starts_with("endpoint `agent` answered 404: <html> <h1>Not here</h1>xxx"), "{error}");
    assert!(error.ends_with('…') && error.chars().count() < 250, "{error}");
    assert_eq!(
        error_of(Answer::new(307, "text/plain", "").header("location", "http://127.0.0.1:1/")),
        "endpoint `agent` answered 307: "
    );
}

#[test]
fn what_is_no_completion_is_an_error() {
    assert_eq!(
        error_of(Answer::new(200, "text/html", "<p>log in</p>")),
        "endpoint `agent` sent no chat completion: content type `text/html`, body `<p>log in</p>`"
    );
    assert_eq!(
        error_of(Answer::json(200, r#"{"choices":[{"message":{"conte"#)),
        r#"endpoint `agent` sent no chat completion: the JSON ends early: `{"choices":[{"message":{"conte`"#
    );
    assert_eq!(
        error_of(Answer::json(200, r#"{"object":"list"}"#)),
        r#"endpoint `agent` sent no chat completion: `choices` is missing in `{"object":"list"}`"#
    );
    assert_eq!(
        error_of(Answer::json(200, vec![b' '; LARGEST_BODY + 1])),
        "endpoint `agent` sent no chat completion: the body is larger than 8 MiB"
    );
}

#[test]
fn a_slow_server_is_given_up() {
    let server = Server::answering(vec![good("too late").slow(Duration::from_millis(400))]);
    let slow = HttpSettings { timeout: Duration::from_millis(50), ..settings(server.url("/v1")) };
    let error = ask(&model_with(&slow)).unwrap_err().to_string();
    assert_eq!(error, "endpoint `agent` did not answer: no answer in time");
    assert_eq!(server.requests().len(), 2, "it may only have been stuck");
}

#[test]
fn a_closed_port_is_named_as_such() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = HttpSettings { retries: 0, ..settings(format!("http://{closed}/v1")) };
    let error = ask(&HttpModel::new("agent", &nobody).unwrap()).unwrap_err();
    let ModelError::Unreachable { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.starts_with("no connection: ") && reason.contains("refused"), "{reason}");
}

#[test]
fn no_more_calls_in_flight_than_allowed() {
    let server = Server::start(|_, place| good(&place.to_string()).slow(Duration::from_millis(15)));
    let model = model(&server);
    let mut replies = 0;
    let jobs = (0..24).map(|seed| model.complete(request(seed)));
    let stop = AtomicBool::new(false);
    drive_here(&[&model], 24, jobs, |_, reply| replies += usize::from(reply.is_ok()), &stop).unwrap();
    assert_eq!(replies, 24);
    assert!((2..=4).contains(&server.most_at_once()), "{}", server.most_at_once());
}

#[test]
fn a_served_user_and_an_agent_of_our_own() {
    let server = Server::start(|_, place| good(&place.to_string()).slow(Duration::from_millis(place as u64 % 5)));
    let (agent, user) = (Queued::default(), model(&server));
    let models: [&dyn ChatModel; 2] = [&agent, &user];
    let jobs = (0..20).map(|seed| {
        let (agent, user) = (&agent, &user);
        async move {
            for _ in 0..3 {
                agent.complete(request(seed)).await?;
                user.complete(request(seed)).await?;
            }
            Ok::<(), ModelError>(())
        }
    });
    let mut done = 0;
    let stop = AtomicBool::new(false);
    drive_here(&models, 8, jobs, |_, result| done += usize::from(result.is_ok()), &stop).unwrap();
    assert_eq!((done, server.requests().len()), (20, 60));
    assert_eq!(agent.batches.borrow().iter().flatten().count(), 60);
    // All eight stand at the agent's first turn; later batches depend on when the server answers.
    assert_eq!(agent.batches.borrow()[0], [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn the_key_is_never_shown() {
    let echo = format!("your key {SECRET} is wrong");
    for answer in [
        Answer::new(401, "text/plain", echo.clone()),
        Answer::json(401, serde_json::json!({"error": {"message": echo.clone()}}).to_string()),
        Answer::new(200, "text/plain", echo.clone()),
        Answer::json(200, serde_json::json!({"choices": echo.clone()}).to_string()),
        // The key lies across the place where the text is cut.
        Answer::new(401, "text/plain", format!("{}{SECRET}", "x".repeat(190))),
    ] {
        let error = error_of(answer);
        assert!(!error.contains("sk-very") && error.contains("[key"), "{error}");
    }
    let server = Server::answering(vec![good(&echo)]);
    let model = model(&server);
    assert_eq!(ask(&model).unwrap().text, "your key [key] is wrong");
    assert!(!format!("{model:?}").contains("sk-very"));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let error = |settings: &HttpSettings, key| HttpModel::with_key("user", settings, key).unwrap_err().to_string();
    let fine = settings("http://127.0.0.1:9/v1/".to_owned());
    assert_eq!(
        HttpModel::with_key("user", &fine, None).unwrap().url.as_str(),
        "http://127.0.0.1:9/v1/chat/completions"
    );
    assert_eq!(
        error(&fine, Some(("MY_KEY", None))),
        "endpoint `user`: the environment variable `MY_KEY` is not set; it should hold the key"
    );
    let bad = error(&fine, Some(("MY_KEY", Some("se\ncret".to_owned()))));
    assert_eq!(bad, "endpoint `user`: the key in `MY_KEY` holds characters that a key cannot have");
    assert!(error(&settings("localhost:80/v1".to_owned()), None).contains("should start with http://"));
    assert!(error(&settings("no address".to_owned()), None).contains("`no address` is not an address"));
    let with_password = settings("http://me:hidden@127.0.0.1/v1".to_owned());
    assert!(!error(&with_password, None).contains("hidden"));
    let limits = Limits { in_flight: 1, ..Limits::default() };
    let prices = Prices { prompt: 1.0, completion: 1.0, cached: 1.0 };
    for (limits, prices, expected) in [
        (Limits { in_flight: 0, ..limits }, None, "`in_flight` must be at least 1"),
        (Limits { requests_per_minute: Some(0.0), ..limits }, None, "`requests_per_minute` must be more than 0"),
        (Limits { tokens_per_minute: Some(f64::NAN), ..limits }, None, "`tokens_per_minute` must be more than 0"),
        (Limits { budget: Some(1.0), ..limits }, None, "a `budget` needs `price_per_million"),
        (Limits { budget: Some(-1.0), ..limits }, Some(prices), "`budget` must be 0 or more"),
        (limits, Some(Prices { cached: -1.0, ..prices }), "prices must be 0 or more"),
    ] {
        let found = error(&HttpSettings { gate: gate(limits), prices, ..fine.clone() }, None);
        assert!(found.contains(expected), "{found}");
    }
}
