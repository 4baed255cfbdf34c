//! The search against traces of the reference's own search, driven by the same scripts.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::search::{Next, Search, Settings};
use super::simulation::{AgentError, AgentTurn, Broken, GoalIndex, Simulation, UserTurn};
use crate::chat::{Chat, Message, Role};
use crate::compat::{Compat, Rules};

#[derive(Deserialize)]
struct Case {
    scenario: Scenario,
    repo_head_2024_10: Option<Trace>,
    pypi_0_1_4: Option<Trace>,
}

#[derive(Deserialize)]
struct Scenario {
    rewards: Vec<String>,
    beam: usize,
    tries: usize,
    steps: usize,
    agent: Vec<ScriptedStep>,
    #[serde(default)]
    user_end: Vec<usize>,
}

#[derive(Clone, Default, Deserialize)]
struct ScriptedStep {
    actions: Option<Vec<String>>,
    done: Option<bool>,
    #[serde(default)]
    raise: bool,
}

#[derive(Deserialize)]
struct Trace {
    trace: Vec<TracedStep>,
    golden_agent_set: bool,
    examples: Vec<Example>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct TracedStep {
    step: usize,
    reward: Option<f64>,
    all_done: Option<bool>,
    exception: Option<String>,
    leaves: usize,
    agent_calls: usize,
    user_calls: usize,
    n_examples: usize,
    rewards_left: Vec<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Example {
    messages: Vec<String>,
    successful: bool,
    golden: bool,
}

#[derive(Clone, Default)]
struct Scripted {
    messages: Chat,
    recent: Vec<String>,
}

/// Plays a script: the nth call of all gets the nth line, which is why the reference's order of calls shows.
struct Script<'s> {
    scenario: &'s Scenario,
    agent_calls: RefCell<usize>,
    user_calls: RefCell<usize>,
}

fn count(calls: &RefCell<usize>) -> usize {
    calls.replace_with(|calls| *calls + 1)
}

impl Script<'_> {
    fn hits(&self, actions: &[String], left: &[GoalIndex]) -> Vec<GoalIndex> {
        let goal = |action: &String| left.iter().copied().find(|&goal| self.scenario.rewards[goal] == *action);
        actions.iter().filter_map(goal).collect()
    }
}

impl Simulation for Script<'_> {
    type State = Scripted;

    async fn user_step(&self, state: &mut Scripted, _seed: u64) -> Result<UserTurn, Broken> {
        let call = count(&self.user_calls);
        state.messages.push(Message::user(format!("u{call}")));
        Ok(if self.scenario.user_end.contains(&call) { UserTurn::Over } else { UserTurn::GoesOn })
    }

    async fn agent_step(&self, state: &mut Scripted, left: &[GoalIndex], _: u64) -> Result<AgentTurn, AgentError> {
        let call = count(&self.agent_calls);
        let line = self.scenario.agent.get(call).cloned().unwrap_or_default();
        if let Some(actions) = line.actions {
            state.recent = actions;
        }
        let hits = self.hits(&state.recent, left);
        if line.raise {
            return Err(AgentError::Raised { reason: "as scripted".to_owned(), hits });
        }
        state.messages.push(Message::assistant(format!("a{call}")));
        Ok(AgentTurn { finished: line.done.unwrap_or(true), hits })
    }

    fn out_of_tries(&self, state: &mut Scripted) {
        state.messages.push(Message::assistant("out of tries"));
    }

    fn chat<'s>(&self, state: &'s Scripted) -> &'s Chat {
        &state.messages
    }
}

fn spell(messages: &[Message]) -> Vec<String> {
    let letter = |role| if role == Role::User { 'u' } else { 'a' };
    messages.iter().map(|message| format!("{}:{}", letter(message.role), message.content)).collect()
}

/// Plays a scenario, and says of every step and at the end what the trace says.
fn play(scenario: &Scenario, rules: Rules) -> Trace {
    let script = Script { scenario, agent_calls: RefCell::new(0), user_calls: RefCell::new(0) };
    let settings = Settings {
        beam: scenario.beam,
        tries: scenario.tries,
        max_steps: scenario.steps,
        rules,
        ..Settings::default()
    };
    let root = Scripted { messages: [Message::user("u-root")].into_iter().collect(), recent: Vec::new() };
    let mut search = Search::new(&script, "scripted", root, scenario.rewards.len(), &settings);
    let mut trace = Vec::new();
    for step in 0..scenario.steps {
        let next = futures_util::FutureExt::now_or_never(search.step()).expect("a script never waits");
        let failed = search.tree.stopped.is_some();
        trace.push(TracedStep {
            step,
            reward: search.tree.reward.filter(|_| !failed),
            all_done: (!failed).then_some(next == Next::Stop),
            exception: failed.then(|| "ValueError: list.remove(x): x not in list".to_owned()),
            leaves: search.tree.leaves().len(),
            agent_calls: *script.agent_calls.borrow(),
            user_calls: *script.user_calls.borrow(),
            n_examples: search.tree.records.len(),
            rewards_left: search.tree.left.iter().map(|&goal| scenario.rewards[goal].clone()).collect(),
        });
        if next == Next::Stop {
            break;
        }
    }
    let tree = search.tree;
    let example = |record: &super::tree::Record| Example {
        messages: spell(&tree.forest.between(super::forest::Point::START, record.end)),
        successful: record.success,
        golden: record.golden,
    };
    Trace { trace, golden_agent_set: tree.golden_leaf.is_some(), examples: tree.records.iter().map(example).collect() }
}

/// All cases of all files, each named after its file and itself.
fn cases() -> BTreeMap<String, Case> {
    let files = crate::golden::read::<BTreeMap<String, Case>>("josh_traces");
    let named = |(file, cases): (String, BTreeMap<String, Case>)| {
        cases.into_iter().map(move |(name, case)| (format!("{file}: {name}"), case))
    };
    files.into_iter().flat_map(named).collect()
}

fn compare(name: &str, found: &Trace, expected: &Trace) {
    assert_eq!(found.trace, expected.trace, "steps of `{name}`");
    assert_eq!(found.golden_agent_set, expected.golden_agent_set, "golden agent of `{name}`");
    assert_eq!(found.examples, expected.examples, "examples of `{name}`");
}

/// Plays every case of which there is a trace; how many there are.
fn replay(rules: Rules, trace: impl Fn(&Case) -> &Option<Trace>) -> usize {
    let cases = cases();
    let traced = cases.iter().filter_map(|(name, case)| Some((name, case, trace(case).as_ref()?)));
    traced.map(|(name, case, expected)| compare(name, &play(&case.scenario, rules), expected)).count()
}

#[test]
fn golden_traces_of_the_repository() {
    assert!(replay(Rules::of(Compat::RepoHead), |case| &case.repo_head_2024_10) > 0);
}

#[test]
fn golden_traces_of_the_package() {
    assert!(replay(Rules::of(Compat::Pypi014), |case| &case.pypi_0_1_4) > 0);
}

#[test]
fn golden_scenario_with_a_goal_hit_twice_is_won_by_our_rules() {
    let own = crate::fs::read_to_string(crate::golden::own_folder().join("josh_traces.json")).unwrap();
    let cases: BTreeMap<String, Case> = serde_json::from_str(&own).unwrap();
    let ours = play(&cases["same_action_twice_in_turn_single_goal"].scenario, Rules::of(Compat::Fixed));
    assert_eq!(ours.trace[0].reward, Some(1.0));
    assert!(ours.golden_agent_set);
}
