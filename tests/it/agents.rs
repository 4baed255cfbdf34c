//! Agents that call tools natively and users that follow dialogues, through real endpoints.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use thresh::chat::{Chat, Message, Role};
use thresh::dialogue::agent_rule::RuleAgent;
use thresh::dialogue::command::{Command, parse};
use thresh::dialogue::episode::{EpisodeRow, Outcome};
use thresh::dialogue::lexicon::Lexicon;
use thresh::dialogue::react::observed;
use thresh::dialogue::task::WorldItem;
use thresh::dialogue::world::World;
use thresh::examples::SftExample;
use thresh::table;

use crate::project::Project;
use crate::server::{Answer, Request, Server};

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

/// A chat completion of this message.
fn says(message: &Value) -> Answer {
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 3});
    Answer::json(200, json!({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).to_string())
}

fn profile(project: &Project, endpoints: &[(&str, &Server)]) {
    let endpoint = |(name, server): &(&str, &Server)| {
        format!("[endpoints.{name}]\nurl = \"{}\"\nretries = 0\ntimeout = 20.0\n", server.url("/v1"))
    };
    let endpoints: String = endpoints.iter().map(endpoint).collect();
    project.write("thresh.toml", &format!("jobs = 2\n{endpoints}"));
}

/// The rule agent behind an endpoint that knows function calls. Greedy, it answers the first request of a turn by the right call
/// beside two that are none, all under the same id.
struct Native {
    rules: Mutex<RuleAgent>,
    faults: Mutex<Vec<String>>,
}

impl Native {
    fn answer(&self, request: &Value) -> Answer {
        let messages = request["messages"].as_array().unwrap();
        if let Some(fault) = fault(request) {
            self.faults.lock().unwrap().push(fault.clone());
            return Answer::json(400, json!({"error": {"message": fault}}).to_string());
        }
        let reply = self.rules.lock().unwrap().reply(&as_react(messages), 1);
        let commands = parse(&reply);
        let sloppy = request["temperature"] == 0.0 && messages.last().unwrap()["role"] == "user";
        let call = |name: &str, arguments: &str| json!({"id": "x", "type": "function", "function": {"name": name, "arguments": arguments}});
        let message = match commands.last().unwrap() {
            Command::Speak(said) => json!({"role": "assistant", "content": said}),
            Command::Call { api, arguments } if sloppy => {
                let calls = [call(api, "{\"name\": "), call("fly", "{}"), call(api, &arguments.to_string())];
                json!({"role": "assistant", "content": "One moment.", "tool_calls": calls})
            }
            Command::Call { api, arguments } => {
                json!({"role": "assistant", "content": null, "tool_calls": [call(api, &arguments.to_string())]})
            }
            other => panic!("{other:?}"),
        };
        says(&message)
    }
}

/// What a strict server would not bear: it reads arguments as JSON objects, and wants each call answered once and at once.
fn fault(request: &Value) -> Option<String> {
    if request["tools"].as_array().is_none_or(|tools| tools.len() != 8) {
        return Some("no tools".to_owned());
    }
    let mut open: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for message in request["messages"].as_array().unwrap() {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            if open.is_empty() || open.remove(0) != id {
                return Some(format!("`{id}` answers no call"));
            }
        } else if !open.is_empty() {
            return Some(format!("calls without an answer: {open:?}"));
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let arguments = serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap());
            let id = call["id"].as_str().unwrap().to_owned();
            if !arguments.is_ok_and(|arguments| arguments.is_object()) || !seen.insert(id.clone()) {
                return Some(format!("a call that is none: {call}"));
            }
            open.push(id);
        }
    }
    None
}

/// A native chat as a ReAct agent would see it, without the calls that were none.
fn as_react(messages: &[Value]) -> Chat {
    let mut chat = Chat::new();
    let mut calls: Vec<(String, Value)> = Vec::new();
    for message in messages {
        let content = message["content"].as_str().unwrap_or_default();
        match message["role"].as_str().unwrap() {
            "user" => chat.push(Message::user(content)),
            "assistant" => match message["tool_calls"].as_array() {
                None => chat.push(Message::assistant(Command::Speak(content.to_owned()).text())),
                Some(made) => calls.extend(made.iter().map(|call| {
                    let function = &call["function"];
                    let arguments = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
                    (function["name"].as_str().unwrap().to_owned(), arguments)
                })),
            },
            "tool" => {
                let (api, arguments) = calls.remove(0);
                if !content.starts_with("ERROR:") && !content.contains("ERROR: INVALID API CALL") {
                    chat.push(Message::assistant(Command::Call { api, arguments }.text()));
                    chat.push(observed(content));
                }
            }
            _ => {}
        }
    }
    chat
}

#[test]
fn a_served_model_calls_tools_natively_in_the_pipeline_that_shows_it() {
    let project = Project::new();
    let tree = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/tools.yaml");
    project.write("tools.yaml", &std::fs::read_to_string(tree).unwrap());
    let small = ["tools.yaml", "--set", "corpus.dialogues=80", "--set", "params.tasks=6"];
    project.ok(&[&["run", "-q", "--upto", "toolwoz"][..], &small].concat());
    let path = |output: &str| project.ok(&[&["path"][..], &small, &[output]].concat()).trim().to_owned();
    let items: Vec<WorldItem> = table::read(path("toolwoz.world").as_ref()).unwrap();
    let world = World::from_items(items).unwrap();
    let rules = RuleAgent::new(Arc::new(Lexicon::new(&world)), 0.0);
    let native = Arc::new(Native { rules: Mutex::new(rules), faults: Mutex::default() });
    let model = native.clone();
    let server = Server::start(move |request, _| model.answer(&body(request)));
    profile(&project, &[("agent", &server)]);
    let event = project.run(&small);
    assert_eq!(event["failed"].as_u64(), Some(0), "{event}");
    assert_eq!(*native.faults.lock().unwrap(), [""; 0]);
    let episodes: Vec<EpisodeRow> = table::read(path("episodes.episodes").as_ref()).unwrap();
    assert_eq!(episodes.len(), 6);
    assert!(episodes.iter().all(|episode| episode.outcome == Outcome::Success), "an agent without errors of its own");
    for episode in &episodes {
        let called: usize = episode.internal.iter().map(|message| message.tool_calls.len()).sum();
        let answers = episode.internal.iter().filter(|message| message.role == Role::Tool).count();
        let wrong = episode.internal.iter().filter(|message| message.content.contains("INVALID ARGUMENTS")).count();
        assert_eq!((called, episode.calls.len()), (answers, called - wrong));
        assert!(wrong > 0 && episode.internal.iter().any(|message| message.content == "One moment."));
        let unknown = episode.calls.iter().filter(|call| call.api == "fly");
        assert_eq!(unknown.filter(|call| call.observation.contains("IMPROPER API NAME")).count(), wrong);
    }
    let scripted: Vec<EpisodeRow> = table::read(path("scripted.episodes").as_ref()).unwrap();
    assert!(scripted.iter().all(|episode| episode.outcome != Outcome::Broken));
    let examples: Vec<SftExample> = table::read(path("sft_data.examples").as_ref()).unwrap();
    assert!(!examples.is_empty(), "trees whose every goal was reached without a fault");
    for example in &examples {
        let (first, last) = (&example.messages[0], example.messages.last().unwrap());
        assert_eq!((first.role, last.role), (Role::System, Role::Assistant));
        assert!(example.messages.iter().any(|message| message.role == Role::Tool));
    }
    assert_eq!(project.run(&small)["computed"], 0);
}

const FOLLOWED: &str = "name: p
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 40, domains: [restaurant, hotel], seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  sources: {kind: multiwoz.transcribe, in: {corpus: corpus.corpus}}
  script:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world, sources: sources.sources}
    with: {agent: {kind: rule}, user: {kind: script}, tasks: {split: test}}
  guide:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world, sources: sources.sources}
    with:
      agent: {kind: rule}
      user: {kind: guide, model: customer, prompt: guide.j2, temperature: 0.5, max_tokens: 99}
      tasks: {split: test}
";

/// A customer that says what the next line of its source is: it reads the two dialogues in its prompt.
fn follows(request: &Value) -> Answer {
    let messages = request["messages"].as_array().unwrap();
    let text = messages[0]["content"].as_str().unwrap();
    if messages.len() != 1 || messages[0]["role"] != "user" || request["max_tokens"] != 99 {
        return Answer::json(400, r#"{"error":{"message":"asked in another way"}}"#);
    }
    let (source, transcript) = text.split_once("\n===\n").unwrap();
    let lines =
        |text: &str| text.lines().filter_map(|line| line.strip_prefix("customer: ")).map(str::to_owned).collect();
    let (source, said): (Vec<String>, Vec<String>) = (lines(source), lines(transcript));
    assert_eq!(said, source[..said.len()], "the customer's own words stand under its own name");
    let quote = source.get(said.len()).map_or("END_CONVERSATION", String::as_str);
    says(&json!({"role": "assistant", "content": format!("Let me see. Suggested quote:\n\"{quote}\"")}))
}

#[test]
fn guide_and_script_users_follow_the_dialogues_that_tasks_were_made_of() {
    let project = Project::new();
    project.write("p.yaml", FOLLOWED);
    project.write("guide.j2", "{{ source }}\n===\n{{ transcript }}\n.");
    let server = Server::start(|request, _| follows(&body(request)));
    profile(&project, &[("customer", &server)]);
    assert_eq!(project.run(&["p.yaml"])["failed"].as_u64(), Some(0));
    let read = |output: &str| table::read::<EpisodeRow>(&project.result("p.yaml", output)).unwrap();
    let (script, guide) = (read("script.episodes"), read("guide.episodes"));
    assert_eq!(script.len(), 8);
    for (script, guide) in script.iter().zip(&guide) {
        assert_eq!((&script.dialogue, &script.messages, script.ended), (&guide.dialogue, &guide.messages, guide.ended));
        assert!(guide.user_prompt_tokens > 0);
    }
    assert!(script.iter().any(|episode| episode.ended && episode.success));
    // Another prompt is another stage; a wrong one is told before anything runs.
    project.write("guide.j2", "{{ source }}\n===\n{{ transcript }}\n{{ goal }}");
    assert_eq!(project.run(&["p.yaml"])["computed"], 1);
    let asked = server.requests().len();
    project.write("guide.j2", "{{ sauce }}");
    let ran = project.thresh(&["run", "p.yaml"]);
    assert_ne!(ran.code, Some(0));
    let message = "template `guide.j2` names `sauce`; there are `goal`, `source`, `transcript`, `end`";
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
    assert_eq!(server.requests().len(), asked);
}

#[test]
fn a_corpus_that_is_another_has_no_sources_for_the_tasks() {
    let project = Project::new();
    let other = FOLLOWED.replace(
        "  sources: {kind: multiwoz.transcribe, in: {corpus: corpus.corpus}}",
        "  other: {kind: multiwoz.synthesize, with: {dialogues: 1}}
  sources: {kind: multiwoz.transcribe, in: {corpus: other.corpus}}",
    );
    project.write("p.yaml", &other);
    let ran = project.thresh(&["run", "p.yaml", "--upto", "script"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("is not in input `sources`"), "{}", ran.stderr);
}

#[test]
fn a_dialogue_that_outgrows_a_served_model_is_lost_and_not_broken() {
    let project = Project::new();
    project.write("system.j2", "Mine: {{ tools }}");
    project.write(
        "p.yaml",
        "name: p
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 20, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with:
      agent: {kind: served, model: small, system_prompt: system.j2, stop: [APIRETURN], seed: 42}
      tasks: {split: test}
",
    );
    let limit = Arc::new(Mutex::new(3));
    let most = limit.clone();
    let server = Server::start(move |request, _| {
        let asked = body(request);
        let messages = asked["messages"].as_array().unwrap();
        let system = messages[0]["content"].as_str().unwrap();
        let mine = system.starts_with("Mine: [\n  {") && asked["stop"][0] == "APIRETURN" && asked["seed"] == 42;
        if !mine || messages.len() > *most.lock().unwrap() {
            let code = if mine { "context_length_exceeded" } else { "invalid" };
            return Answer::json(400, json!({"error": {"message": "too much", "code": code}}).to_string());
        }
        says(&json!({"role": "assistant", "content": "SPEAK Which one? <COMMAND_END>"}))
    });
    profile(&project, &[("small", &server)]);
    project.run(&["p.yaml"]);
    let rows: Vec<EpisodeRow> = table::read(&project.result("p.yaml", "episodes.episodes")).unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|row| row.outcome == Outcome::Failure && row.messages.len() == 3));
    let reason = rows[0].reason.as_deref().unwrap_or_default();
    assert_eq!(reason, "endpoint `small`: the chat does not fit the model's context: too much");
    // A context that takes in no first message says nothing of the agent.
    *limit.lock().unwrap() = 1;
    let ran = project.thresh(&["run", "p.yaml", "--force", "episodes"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("it cannot take in the first message: endpoint `small`"), "{}", ran.stderr);
}
