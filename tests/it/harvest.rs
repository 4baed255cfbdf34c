//! `josh.harvest` through the binary: how much branching brings, and the search of the paper's era.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use thresh::chat::{Message, Role};
use thresh::josh::NodeRow;
use thresh::table;

use crate::project::Project;
use crate::server::{Answer, Server};

/// A pipeline with one harvest.
fn pipeline(with: &str) -> String {
    format!(
        "name: p
stages:
  corpus: {{kind: multiwoz.synthesize, with: {{dialogues: 320, domains: [restaurant, hotel], max_domains: 2, seed: 3}}}}
  toolwoz: {{kind: toolwoz.convert, in: {{corpus: corpus.corpus}}}}
  harvest:
    kind: josh.harvest
    in: {{tasks: toolwoz.tasks, world: toolwoz.world}}
    with: {{{with}, seed: 4}}
"
    )
}

/// What a run says of its harvest: figures and warnings.
fn run(project: &Project, arguments: &[&str]) -> (BTreeMap<String, f64>, Vec<String>) {
    let lines = project.ok(&[&["run", "--json", "p.yaml"], arguments].concat());
    let (mut figures, mut warnings) = (BTreeMap::new(), Vec::new());
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        match event["event"].as_str() {
            Some("warning") if event["stage"] == "harvest" => warnings.push(event["text"].as_str().unwrap().to_owned()),
            Some("stage_finished") if event["stage"] == "harvest" => {
                figures = serde_json::from_value(event["figures"].clone()).unwrap();
            }
            _ => {}
        }
    }
    (figures, warnings)
}

fn harvested(project: &Project) -> Vec<NodeRow> {
    table::read(&project.result("p.yaml", "harvest.trees")).unwrap()
}

#[test]
fn siblings_that_say_the_same_are_counted_and_warned_of() {
    let project = Project::new();
    let with = "agent: {kind: rule}, tasks: {split: train, limit: 6}, beam: 4";
    project.write("p.yaml", &pipeline(with));
    let (figures, warnings) = run(&project, &[]);
    let siblings = figures["siblings"];
    assert!(siblings >= 6.0, "{figures:?}");
    let (identical, share) = (figures["siblings.identical"], figures["siblings.identical_share"]);
    assert!(identical > siblings / 2.0 && share == identical / siblings, "{figures:?}");
    let percent = (100.0 * share).round();
    let expected = format!(
        "{identical} of {siblings} siblings ({percent} %) say word for word what another one says, so that branching brings \
         little: the rule agent has no `noise`, and so its branches differ in their words at most"
    );
    assert_eq!(warnings, [expected]);

    project.write("p.yaml", &pipeline(&with.replace("{kind: rule}", "{kind: rule, noise: 0.6}")));
    let (figures, warnings) = run(&project, &["--set", "harvest.tasks.limit=3"]);
    assert!(figures["siblings"] > 2.0 * figures["siblings.identical"], "{figures:?}");
    assert!(warnings.is_empty(), "{warnings:?}");
    // What was journalled counts as what was computed.
    let (together, _) = run(&project, &[]);
    assert_eq!(together["rows.journalled"], 3.0);
    let (alone, _) = run(&project, &["--force", "harvest"]);
    assert_eq!(alone["rows.journalled"], 0.0);
    for name in ["siblings", "siblings.identical", "siblings.identical_share"] {
        assert_eq!(together[name], alone[name], "{name}");
    }
}

/// A served agent that always says the same.
fn served(project: &Project, reply: &'static str) -> Server {
    let server = Server::start(move |_, _| {
        let message = json!({"role": "assistant", "content": reply});
        Answer::json(200, json!({"choices": [{"message": message, "finish_reason": "stop"}]}).to_string())
    });
    project.write("thresh.toml", &format!("[endpoints.agent]\nurl = \"{}\"\n", server.url("/v1")));
    server
}

#[test]
fn the_likely_cause_is_named() {
    let project = Project::new();
    let _server = served(&project, "SPEAK Which area? <COMMAND_END>");
    let cause = |agent: &str, rest: &str| {
        let tasks = "tasks: {split: train, limit: 4}, beam: 2, max_steps: 2";
        project.write("p.yaml", &pipeline(&format!("agent: {{kind: served, model: agent, {agent}}}, {tasks}{rest}")));
        run(&project, &[]).1.join("\n")
    };
    assert!(cause("temperature: 0", "").contains("`temperature` is 0"));
    assert!(cause("temperature: 1.0", "").contains("it seems to ignore `temperature` or `seed`"));
    assert!(cause("temperature: 1.0, seed: 42", "").contains("`agent.seed` asks for every reply with one seed"));
    let quirk = cause("temperature: 1.0", ", compat: repo-head");
    assert!(quirk.contains("in `repo-head` all branches have one seed (quirk Q16)"), "{quirk}");
    assert!(cause("temperature: 1.0", ", compat: repo-head, quirks: {Q16: fixed}").contains("it seems to ignore"));
}

#[test]
fn in_the_papers_era_a_round_is_one_reply_and_lost_tries_are_a_system_message() {
    let project = Project::new();
    let _server = served(&project, "Well. PLAN I think <COMMAND_END>");
    let with = "agent: {kind: served, model: agent}, tasks: {split: train, limit: 2}, beam: 1";
    let agents_turns = |compat: &str| {
        project.write("p.yaml", &pipeline(&format!("{with}, compat: {compat}, max_steps: 1")));
        run(&project, &[]);
        let rows = harvested(&project);
        assert_eq!(rows.len(), 2, "a root for each of two dialogues");
        let said = rows[0].messages.iter().skip(1);
        said.take_while(|message| message.role != Role::User || message.content.starts_with("APIRETURN"))
            .cloned()
            .collect()
    };
    let count = |messages: &[Message], role: Role| messages.iter().filter(|message| message.role == role).count();
    let paper: Vec<Message> = agents_turns("paper");
    assert_eq!((count(&paper, Role::Assistant), count(&paper, Role::System)), (3, 1), "{paper:?}");
    assert!(paper.iter().take(3).all(|message| message.content == "Well. PLAN I think <COMMAND_END>"), "{paper:?}");
    assert_eq!(paper.last(), Some(&Message::system("Error: Agent ran out of retries.")));
    let newer: Vec<Message> = agents_turns("repo-head");
    assert_eq!((count(&newer, Role::Assistant), count(&newer, Role::System)), (4, 0), "{newer:?}");
}

#[test]
fn trees_of_the_papers_era_have_the_shape_of_the_published_ones() {
    let project = Project::new();
    let with = "agent: {kind: rule, noise: 0.3}, tasks: {split: train, limit: 30}, beam: 8, compat: paper";
    project.write("p.yaml", &pipeline(&format!("{with}, quirks: {{Q16: fixed}}")));
    let (figures, _) = run(&project, &[]);
    assert!(figures["complete"] > 0.0, "{figures:?}");
    let rows = harvested(&project);
    let first: Vec<&NodeRow> = rows.iter().filter(|row| row.order == Some(0)).collect();
    assert!(
        !first.is_empty() && first.iter().all(|row| row.golden && row.messages.is_empty()),
        "roots are recorded empty"
    );
    for row in rows.iter().filter(|row| row.order.is_some()) {
        let plain = |message: &Message| message.role == Role::User && !message.content.starts_with("APIRETURN");
        let last = row.messages.last();
        assert!(!last.is_some_and(|last| plain(last) && !last.content.contains("END_CONVERSATION")), "{last:?}");
    }
}
