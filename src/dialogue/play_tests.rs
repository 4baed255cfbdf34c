//! Whole dialogues: users, agents and the environment together.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::agent::{ChatAgent, OUT_OF_RETRIES, Style, Turn};
use super::agent_rule::RuleAgent;
use super::agent_tools::schemas;
use super::convert::{Converter, Splits, world_items};
use super::corpus::Corpus;
use super::episode::{Cast, Episode, EpisodeRow, MESSAGE_LIMIT, Outcome};
use super::lexicon::Lexicon;
use super::multiwoz::Outline;
use super::source::{Source, Sources};
use super::synth::Synthesizer;
use super::synth_goal::GoalMix;
use super::synth_world::databases;
use super::task::{Task, WorldItem};
use super::template::{GOAL_USER, GOAL_VARIABLES, GUIDE_USER, GUIDE_VARIABLES, Template};
use super::tools::DOMAINS;
use super::user::User;
use super::user_agenda::END;
use super::user_goal::GoalUser;
use super::user_guide::GuideUser;
use super::world::World;
use crate::chat::Role;
use crate::compat::Rules;
use crate::llm::scripted::{Line, Scripted};
use crate::llm::{ChatModel, ModelError, Sampling};

struct Town {
    world: Arc<World>,
    lexicon: Arc<Lexicon>,
    tasks: Vec<Arc<Task>>,
}

impl Town {
    fn new(items: Vec<WorldItem>, tasks: Vec<Task>) -> Self {
        let world = Arc::new(World::from_items(items).unwrap());
        let lexicon = Arc::new(Lexicon::new(&world));
        Self { world, lexicon, tasks: tasks.into_iter().map(Arc::new).collect() }
    }

    fn synthetic(seed: u64, count: usize) -> Self {
        let mix = GoalMix { domains: DOMAINS.map(str::to_owned).to_vec(), max_domains: 2, failing: 0.2 };
        let mut synthesizer = Synthesizer::new(seed, mix).unwrap();
        let items = world_items(&databases(seed), &Rules::default());
        let mut converter = Converter::new(&items, Splits::default(), Rules::default()).unwrap();
        let tasks = (0..count).map(|index| {
            let made = synthesizer.dialogue(index).unwrap();
            let state = made.dialogue.log.last().unwrap().metadata.clone();
            converter.convert(&made.name, &Outline { goal: made.dialogue.goal, state }).unwrap().unwrap()
        });
        let tasks = tasks.collect();
        Self::new(items, tasks)
    }

    /// The real goals among the golden files.
    fn multiwoz() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/multiwoz");
        let corpus = Corpus::open(folder).unwrap();
        let items = world_items(&corpus.databases().unwrap(), &Rules::default());
        let mut converter = Converter::new(&items, corpus.splits().unwrap(), Rules::default()).unwrap();
        let mut tasks = Vec::new();
        let convert = |name: String, outline: Outline| {
            tasks.extend(converter.convert(&name, &outline)?);
            Ok::<(), super::convert::ConvertError>(())
        };
        corpus.for_each_dialogue(convert).unwrap();
        Self::new(items, tasks)
    }

    fn cast(&self, model: Rc<dyn ChatModel>) -> Cast {
        let style = Style::React;
        let agent = ChatAgent { model, system: None, sampling: sampling(), seed: None, tries: 3, style };
        Cast { user: User::Agenda { lexicon: self.lexicon.clone(), patience: 4 }, agent }
    }

    /// An agent that calls natively what a script says.
    fn native(&self, script: &Rc<Scripted>) -> Cast {
        let mut cast = self.cast(script.clone());
        cast.agent.style = Style::Tools(schemas(&self.world));
        cast
    }

    fn rule(&self, noise: f64) -> Cast {
        self.cast(Rc::new(RuleAgent::new(self.lexicon.clone(), noise)))
    }

    fn play(&self, cast: &Cast, task: usize, seed: u64) -> EpisodeRow {
        let mut episode = Episode::begin(cast, self.world.clone(), self.tasks[task].clone(), Rules::default()).unwrap();
        let played = episode.play(cast, MESSAGE_LIMIT, seed).now_or_never().expect("nobody waits here");
        episode.row(played.err().as_ref())
    }

    fn mean_reward(&self, cast: &Cast, seed: u64) -> f64 {
        let rewards = (0..self.tasks.len()).map(|task| self.play(cast, task, seed).reward);
        rewards.sum::<f64>() / self.tasks.len() as f64
    }
}

fn sampling() -> Sampling {
    Sampling { max_tokens: 64, ..Sampling::default() }
}

#[test]
fn the_rule_agent_reaches_synthetic_goals_with_words_it_never_heard() {
    let town = Town::synthetic(31, 80);
    // Another seed than the corpus' own: the same goals in other words.
    let reward = town.mean_reward(&town.rule(0.0), 99);
    assert!(reward >= 0.97, "{reward}");
    let spoilt = town.mean_reward(&town.rule(0.5), 99);
    assert!(spoilt < reward - 0.05, "{spoilt} with noise, {reward} without");
}

#[test]
fn the_rule_agent_reaches_most_real_goals() {
    let town = Town::multiwoz();
    assert!(town.tasks.len() >= 20);
    let reward = town.mean_reward(&town.rule(0.0), 1);
    assert!(reward >= 0.85, "{reward}");
}

#[test]
fn an_episode_repeats_from_its_seed() {
    let town = Town::synthetic(3, 6);
    let cast = town.rule(0.3);
    for task in 0..6 {
        assert_eq!(town.play(&cast, task, 8), town.play(&cast, task, 8));
    }
    assert!((0..6).any(|task| town.play(&cast, task, 8).internal != town.play(&cast, task, 9).internal));
}

#[test]
fn a_silent_agent_loses_and_a_broken_model_does_not() {
    let town = Town::synthetic(3, 1);
    let silent = town.play(&town.cast(Rc::new(Scripted::new(vec!["hello"; 60]))), 0, 1);
    assert_eq!((silent.outcome, silent.reward), (Outcome::Failure, 0.0));
    assert!(silent.messages.iter().any(|message| message.content == OUT_OF_RETRIES));
    assert!(silent.ended && silent.messages.last().unwrap().content.ends_with(END));
    let broken = town.play(&town.cast(Rc::new(Scripted::new(["PLAN wait <COMMAND_END>"]))), 0, 1);
    assert_eq!(broken.outcome, Outcome::Broken);
    assert!(broken.reason.unwrap().contains("script ends") && !broken.success);
}

#[test]
fn calls_are_told_with_what_they_reach() {
    let town = Town::synthetic(31, 20);
    for task in 0..20 {
        let row = town.play(&town.rule(0.0), task, 99);
        let reached: std::collections::BTreeSet<u32> =
            row.calls.iter().flat_map(|call| call.goals_hit.iter().copied()).collect();
        assert_eq!(reached.into_iter().collect::<Vec<_>>(), row.goals_hit);
        assert!(row.calls.iter().all(|call| call.observation.starts_with(['[', '{'])));
    }
}

#[test]
fn the_goal_user_speaks_through_its_model() {
    let town = Town::synthetic(3, 1);
    let script = Rc::new(Scripted::with_errors([
        Ok("i need a train.".to_owned()),
        Ok(format!("thanks. {END}")),
        Err(ModelError::Failed("gone".to_owned())),
    ]));
    let prompt = Template::new("goal", GOAL_USER, GOAL_VARIABLES).unwrap();
    let user = GoalUser::new(script.clone(), sampling(), prompt).unwrap();
    let cast = Cast { user: User::Goal(Rc::new(user)), ..town.rule(0.0) };
    let row = town.play(&cast, 0, 1);
    assert!(row.ended && row.messages.len() == 3 && row.user_completion_tokens > 0);
    let requests = script.requests();
    assert!(requests.iter().all(|request| request.messages()[0].role == Role::System));
    assert!(!requests[0].messages()[0].content.contains("<span"));
    // The customer is the assistant of its own model: its first words come back in that role.
    assert_eq!(requests[1].messages()[2].role, Role::Assistant);
    assert_eq!(requests[1].messages().last().unwrap().role, Role::User);
    assert_eq!(town.play(&cast, 0, 1).outcome, Outcome::Broken);
}

/// What the first customer of the synthetic town of seed 3 says for certain: whatever the agent does.
fn scripted_customer(town: &Town, lines: &[&str]) -> (User, Sources) {
    let turns: Vec<String> = lines.iter().map(|line| format!("{{\"text\": \"{line}\"}}")).collect();
    let spoken = serde_json::from_str(&format!("{{\"log\": [{}]}}", turns.join(","))).unwrap();
    let name = town.tasks[0].dialogue.clone();
    let sources: Sources = Arc::new([(name.clone(), Arc::new(Source::new(name, &spoken)))].into_iter().collect());
    (User::Script(sources.clone()), sources)
}

#[test]
fn a_raw_chat_keeps_replies_as_they_were_generated() {
    let town = Town::synthetic(3, 1);
    let call = r#"Hm. APICALL {"name": "search_hotel", "parameters": {"area": "north"}} <COMMAND_END>"#;
    let replies = [
        format!("{call} APICALL broken <COMMAND_END>\n\nPlease wait"),
        "no command".to_owned(),
        format!("{call} SPEAK here <COMMAND_END> {call}"),
    ];
    let (user, _) = scripted_customer(&town, &["a hotel in the north"]);
    let mut cast = Cast { user, ..town.cast(Rc::new(Scripted::new(replies.clone()))) };
    cast.agent.style = Style::Raw;
    let row = town.play(&cast, 0, 1);
    let [_, first, found, failed, second, third, again, ..] = &row.internal[..] else { panic!("{:?}", row.internal) };
    assert_eq!([first, second, third].map(|message| message.content.clone()), replies);
    assert_eq!(failed.content, "APIRETURN FAILURE INCORRECTLY FORMATTED APICALL");
    assert!(found.content.starts_with("APIRETURN [{") && found == again);
    assert_eq!(
        (row.messages[1].content.as_str(), row.internal[7].role),
        ("here", Role::User),
        "speaking ends the turn"
    );
}

#[test]
fn native_calls_are_all_made_and_answered_in_order() {
    let town = Town::synthetic(3, 1);
    let search = r#"{"area": "north"}"#;
    let script = Rc::new(Scripted::new([
        Line::calling("let me look", &[("search_hotel", search), ("search_spaceship", "{}")]),
        Line::calling("", &[("search_hotel", "[1]"), ("search_hotel", "{\"area\": "), ("search_train", "{}")]),
        Line::from(" here you are. "),
        Line::from("bye"),
    ]));
    let (user, _) = scripted_customer(&town, &["a hotel in the north", "sure", "thanks"]);
    let row = town.play(&Cast { user, ..town.native(&script) }, 0, 1);
    assert_eq!((row.outcome, row.ended, row.messages.len()), (Outcome::Failure, true, 5));
    let shape: Vec<(Role, Vec<&str>, Option<&str>)> = row.internal.iter().map(shape).collect();
    let (user, agent, tool) = (Role::User, Role::Assistant, Role::Tool);
    assert_eq!(
        shape[..9],
        [
            (user, vec![], None),
            (agent, vec!["call00001", "call00002"], None),
            (tool, vec![], Some("call00001")),
            (tool, vec![], Some("call00002")),
            (agent, vec!["call00003", "call00004", "call00005"], None),
            (tool, vec![], Some("call00003")),
            (tool, vec![], Some("call00004")),
            (tool, vec![], Some("call00005")),
            (agent, vec![], None),
        ]
    );
    assert_eq!((row.internal[1].content.as_str(), row.internal[8].content.as_str()), ("let me look", "here you are."));
    // What was wrong is seen by the model, and what it wrote is kept in a form that servers take back.
    assert!(row.internal[3].content.contains("IMPROPER API NAME"), "{}", row.internal[3].content);
    assert_eq!(row.internal[5].content, "ERROR: INVALID ARGUMENTS: they are a list, expected an object");
    assert!(row.internal[6].content.starts_with("ERROR: INVALID ARGUMENTS: they are no JSON: EOF"));
    assert_eq!(row.internal[4].tool_calls[1].function.arguments, r#"{"INVALID_JSON":"{\"area\": "}"#);
    assert!(crate::josh::extraction::tells_of_error(&row.internal[4]));
    // The row tells the calls that the server took, each with what was seen of it.
    let calls: Vec<(&str, &str)> =
        row.calls.iter().map(|call| (call.api.as_str(), call.observation.as_str())).collect();
    let seen = |place: usize| row.internal[place].content.as_str();
    assert_eq!(calls, [("search_hotel", seen(2)), ("search_spaceship", seen(3)), ("search_train", seen(7))]);
    assert_eq!(row.calls[0].arguments, search);
    let requests = script.requests();
    assert!(requests.iter().all(|request| request.tools.as_ref().is_some_and(|tools| tools.len() == 8)));
    assert_eq!(requests[1].chat.len(), 4);
}

fn shape(message: &crate::chat::Message) -> (Role, Vec<&str>, Option<&str>) {
    let ids = message.tool_calls.iter().map(|call| call.id.as_str()).collect();
    (message.role, ids, message.tool_call_id.as_deref())
}

#[test]
fn empty_replies_and_endless_calls_use_up_the_tries_of_a_native_agent() {
    let town = Town::synthetic(3, 1);
    let call = || Line::calling("", &[("search_hotel", "{}")]);
    let script = Rc::new(Scripted::new([Line::from(" "), call(), Line::default(), Line::from("hello")]));
    let (user, _) = scripted_customer(&town, &["hi"]);
    let cast = Cast { user, ..town.native(&script) };
    let row = town.play(&cast, 0, 1);
    let texts: Vec<&str> = row.internal.iter().map(|message| message.content.as_str()).collect();
    assert_eq!((texts.len(), texts[0], texts[3], texts[4]), (5, "hi", OUT_OF_RETRIES, END));
    assert_eq!(row.messages[1].content, OUT_OF_RETRIES);
    assert!(row.internal.windows(2).all(|pair| pair[0].role != Role::User || pair[1].role != Role::User));
    // A reply at a time leaves it to the caller to count.
    let mut episode = Episode::begin(&cast, town.world.clone(), town.tasks[0].clone(), Rules::default()).unwrap();
    assert_eq!(episode.agent_reply(&cast, 1).now_or_never().unwrap().unwrap(), Turn::Spoke("hello".to_owned()));
}

#[test]
fn a_fixed_seed_is_that_of_every_reply() {
    let town = Town::synthetic(3, 1);
    let seeds = |seed: Option<u64>| {
        let script = Rc::new(Scripted::new(["", "", "SPEAK hi", "SPEAK hi"]));
        let (user, _) = scripted_customer(&town, &["hi", "x", "ho"]);
        let mut cast = Cast { user, ..town.cast(script.clone()) };
        cast.agent.seed = seed;
        town.play(&cast, 0, 1);
        script.requests().iter().map(|request| request.seed).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(seeds(Some(42)).into_iter().collect::<Vec<_>>(), [42]);
    assert_eq!(seeds(None).len(), 4);
}

#[test]
fn a_context_that_is_full_from_the_first_is_no_doing_of_the_agents() {
    let town = Town::synthetic(3, 1);
    let full = || ModelError::ContextFull { endpoint: "big".to_owned(), reason: "too many tokens".to_owned() };
    let play = |replies: Vec<Result<&str, ModelError>>| {
        let (user, _) = scripted_customer(&town, &["hi", "x", "ho"]);
        let cast = Cast { user, ..town.cast(Rc::new(Scripted::with_errors(replies))) };
        let mut episode = Episode::begin(&cast, town.world.clone(), town.tasks[0].clone(), Rules::default()).unwrap();
        episode.play(&cast, MESSAGE_LIMIT, 1).now_or_never().unwrap().unwrap_err()
    };
    assert!(play(vec![Ok("SPEAK hello"), Err(full())]).is_full());
    let error = play(vec![Err(full())]);
    assert!(!error.is_full() && error.to_string().contains("cannot take in the first message"), "{error}");
}

#[test]
fn a_script_needs_its_source() {
    let town = Town::synthetic(3, 2);
    let (user, sources) = scripted_customer(&town, &["one", "-", "two"]);
    let cast = Cast { user, ..town.rule(0.0) };
    let row = town.play(&cast, 0, 1);
    let said: Vec<&str> = row.messages.iter().step_by(2).map(|message| message.content.as_str()).collect();
    assert_eq!(said, ["one", "two", END]);
    let begin = |cast: &Cast, task: usize| {
        Episode::begin(cast, town.world.clone(), town.tasks[task].clone(), Rules::default()).unwrap_err().to_string()
    };
    assert!(begin(&cast, 1).contains("is not in input `sources`"));
    let silent: Sources = Arc::new(
        sources
            .iter()
            .map(|(name, source)| (name.clone(), Arc::new(Source { turns: vec![], ..(**source).clone() })))
            .collect(),
    );
    let cast = Cast { user: User::Script(silent), ..cast };
    assert!(begin(&cast, 0).contains("says nothing"));
}

#[test]
fn the_guide_user_is_told_both_dialogues_under_the_right_names() {
    let town = Town::synthetic(3, 1);
    let script = Rc::new(Scripted::new([
        "It wants a hotel.\nSuggested quote: \"hello there\"",
        "Suggested quote: what is the phone number?",
        "Suggested quote: book it END_CONVERSATION",
    ]));
    let (_, sources) = scripted_customer(&town, &["a room please", "which one?", "any"]);
    let prompt = Template::new("guide", GUIDE_USER, GUIDE_VARIABLES).unwrap();
    let user = User::Guide(Rc::new(GuideUser::new(script.clone(), sampling(), prompt).unwrap()), sources);
    let agent = Rc::new(Scripted::new(["SPEAK one", "SPEAK two", "SPEAK booked"]));
    let row = town.play(&Cast { user, ..town.cast(agent) }, 0, 1);
    let texts: Vec<&str> = row.messages.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(texts, ["hello there", "one", "what is the phone number?", "two", "book it", "booked"]);
    assert!(row.ended, "the last word was answered");
    let told: Vec<String> = script.requests().iter().map(|request| request.messages()[0].content.clone()).collect();
    assert!(told.iter().all(|text| text.contains("customer: a room please\nagent: which one?\ncustomer: any\n")));
    assert!(told.iter().all(|text| !text.contains("<span")) && !told[0].contains("hello there"));
    assert!(told[2].contains("customer: hello there\nagent: one\ncustomer: what is the phone number?\nagent: two\n"));
}

#[test]
fn a_customers_model_that_says_nothing_or_is_full_breaks_the_dialogue() {
    let town = Town::synthetic(3, 1);
    let full = ModelError::TooLong { tokens: 9, context: 8 };
    for (reply, said) in [(Ok(" "), "it said nothing"), (Err(full), "as the customer: the chat has 9 tokens")] {
        let prompt = Template::new("goal", GOAL_USER, GOAL_VARIABLES).unwrap();
        let user = GoalUser::new(Rc::new(Scripted::with_errors([reply])), sampling(), prompt).unwrap();
        let row = town.play(&Cast { user: User::Goal(Rc::new(user)), ..town.rule(0.0) }, 0, 1);
        assert_eq!(row.outcome, Outcome::Broken);
        assert!(row.reason.as_ref().unwrap().contains(said), "{:?}", row.reason);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_agenda_user_bears_any_agent(replies in proptest::collection::vec("(SPEAK )?[ -~]{0,60}", 1..12), seed: u64) {
        let town = Town::synthetic(3, 1);
        let script: Vec<String> = replies.iter().cycle().take(60).cloned().collect();
        let row = town.play(&town.cast(Rc::new(Scripted::new(script))), 0, seed);
        prop_assert!(row.messages.len() <= MESSAGE_LIMIT + 1);
        prop_assert!(row.messages.iter().step_by(2).all(|message| message.role == Role::User && !message.content.is_empty()));
    }
}
