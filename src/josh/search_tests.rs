//! Laws of the search under our own rules, over dialogues made up by chance.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::search::{Settings, search};
use super::simulation::{AgentError, AgentTurn, Broken, GoalIndex, Simulation, UserTurn};
use super::tree::{Outcome, Tree};
use crate::chat::{Chat, Message, Role};
use crate::compat::{Compat, Quirk, Rules};
use crate::seed::derive;

/// A dialogue whose every turn is drawn from the step's seed and the messages before it.
pub struct Chance {
    /// Steps that suspend before they answer, and so finish in another order.
    pub suspends: bool,
    /// How many in a hundred steps break.
    pub breaks: u64,
    /// Rounds that an agent needs for a turn, at most.
    pub rounds: u64,
}

async fn suspend(times: u64) {
    let left = Cell::new(times);
    poll_fn(|context| {
        if left.get() == 0 {
            return Poll::Ready(());
        }
        left.set(left.get() - 1);
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Chance {
    async fn draw(&self, state: &Chat, seed: u64) -> u64 {
        let said: Vec<&str> = state.messages().into_iter().map(|message| message.content.as_str()).collect();
        let drawn = derive(seed, &said);
        if self.suspends {
            suspend(drawn % 5).await;
        }
        drawn
    }
}

impl Simulation for Chance {
    type State = Chat;

    async fn user_step(&self, state: &mut Chat, seed: u64) -> Result<UserTurn, Broken> {
        let drawn = self.draw(state, seed).await;
        state.push(Message::user(format!("u{}", drawn % 1000)));
        match drawn / 1000 % 100 {
            dice if dice < self.breaks => Err(Broken("no user".to_owned())),
            90..95 => Ok(UserTurn::EndsAfterAnswer),
            95.. => Ok(UserTurn::Over),
            _ => Ok(UserTurn::GoesOn),
        }
    }

    async fn agent_step(&self, state: &mut Chat, left: &[GoalIndex], seed: u64) -> Result<AgentTurn, AgentError> {
        let drawn = self.draw(state, seed).await;
        let dice = drawn / 1000 % 100;
        if dice < self.breaks {
            return Err(Broken("no model".to_owned()).into());
        }
        if dice > 90 {
            return Err(AgentError::Raised { reason: "as drawn".to_owned(), hits: left.to_vec() });
        }
        state.push(Message::assistant(format!("a{}", drawn % 1000)));
        let hits = left.iter().copied().filter(|goal| derive(drawn, &[&goal.to_string()]).is_multiple_of(8)).collect();
        Ok(AgentTurn { finished: (drawn / 100_000).is_multiple_of(self.rounds), hits })
    }

    fn out_of_tries(&self, state: &mut Chat) {
        state.push(Message::assistant("out of tries"));
    }

    fn chat<'s>(&self, state: &'s Chat) -> &'s Chat {
        state
    }
}

/// Searches to the end.
pub fn grow(simulation: &Chance, goals: usize, settings: &Settings) -> Tree {
    let mut running = Box::pin(search(simulation, "MUL0001.json", Chat::new(), goals, settings));
    loop {
        if let Some(tree) = (&mut running).now_or_never() {
            return tree;
        }
    }
}

proptest! {
    #[test]
    fn the_order_in_which_steps_finish_does_not_show(seed: u64, goals in 1usize..5, beam in 1usize..9, rounds in 1u64..4) {
        let settings = Settings { beam, seed, ..Settings::default() };
        let at_once = grow(&Chance { suspends: false, breaks: 0, rounds }, goals, &settings);
        let mixed = grow(&Chance { suspends: true, breaks: 0, rounds }, goals, &settings);
        prop_assert_eq!(at_once, mixed);
    }

    #[test]
    fn what_is_recorded_is_marked_consistently(seed: u64, goals in 1usize..5, beam in 1usize..9, rounds in 1u64..4) {
        let settings = Settings { beam, seed, ..Settings::default() };
        let tree = grow(&Chance { suspends: false, breaks: 0, rounds }, goals, &settings);
        for record in &tree.records {
            prop_assert_eq!(tree.forest.message(record.end).map(|message| message.role), Some(Role::Assistant));
            let whole = tree.forest.path(tree.nodes[record.node].end);
            prop_assert!(whole.contains(&record.end), "an example is a beginning of its node's dialogue");
            prop_assert!(record.success || !record.golden, "a golden node is successful");
        }
        prop_assert_eq!(tree.outcome() == Outcome::Empty, !tree.records.iter().any(|record| record.golden));
        prop_assert_eq!(tree.outcome() == Outcome::Complete, tree.golden_leaf.is_some());
        prop_assert!(tree.leaves().len() <= beam.max(1));
        let reached = goals - tree.left.len();
        prop_assert_eq!(tree.reward.unwrap_or(0.0), reached as f64 / goals as f64);
    }

    #[test]
    fn the_survivors_path_earned_every_goal_that_is_not_left(seed: u64, goals in 1usize..5, rounds in 1u64..4) {
        let settings = Settings { seed, ..Settings::default() };
        let tree = grow(&Chance { suspends: false, breaks: 0, rounds }, goals, &settings);
        let mut earned = std::collections::BTreeSet::new();
        let mut here = Some(tree.root);
        while let Some(node) = here {
            earned.extend(tree.nodes[node].steps.iter().flat_map(|step| step.hits.iter().copied()));
            here = tree.nodes[node].parent;
        }
        earned.extend(&tree.left);
        prop_assert_eq!(earned.len(), goals);
    }

    #[test]
    fn one_broken_step_breaks_the_tree(seed: u64, goals in 1usize..5) {
        let settings = Settings { seed, ..Settings::default() };
        let tree = grow(&Chance { suspends: true, breaks: 100, rounds: 1 }, goals, &settings);
        prop_assert_eq!(tree.outcome(), Outcome::Broken);
        prop_assert_eq!(tree.broken.as_deref(), Some("no user"));
    }

    #[test]
    fn no_two_steps_share_a_seed(seed: u64, rounds in 1u64..4) {
        let settings = Settings { seed, ..Settings::default() };
        let tree = grow(&Chance { suspends: false, breaks: 0, rounds }, 4, &settings);
        let mut seeds: Vec<u64> = tree.nodes.iter().flat_map(|node| node.steps.iter().map(|step| step.seed)).collect();
        let steps = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        prop_assert_eq!(seeds.len(), steps);
    }
}

/// A dialogue whose agent does the same thing in every turn.
struct Fixed {
    first_user: UserTurn,
    turn: Result<AgentTurn, AgentError>,
}

impl Simulation for Fixed {
    type State = Chat;

    async fn user_step(&self, state: &mut Chat, _: u64) -> Result<UserTurn, Broken> {
        state.push(Message::user("u"));
        Ok(if state.len() == 1 { self.first_user } else { UserTurn::GoesOn })
    }

    async fn agent_step(&self, state: &mut Chat, _: &[GoalIndex], _: u64) -> Result<AgentTurn, AgentError> {
        state.push(Message::assistant("a"));
        self.turn.clone()
    }

    fn out_of_tries(&self, state: &mut Chat) {
        state.push(Message::assistant("out of tries"));
    }

    fn chat<'s>(&self, state: &'s Chat) -> &'s Chat {
        state
    }
}

fn run(simulation: &Fixed, goals: usize, rules: Rules) -> Tree {
    let settings = Settings { rules, max_steps: 4, ..Settings::default() };
    search(simulation, "d", Chat::new(), goals, &settings).now_or_never().expect("it never waits")
}

#[test]
fn the_last_two_goals_at_once_complete_a_task_except_in_the_repository() {
    let turn = Ok(AgentTurn { finished: true, hits: vec![0, 1] });
    let simulation = Fixed { first_user: UserTurn::GoesOn, turn };
    assert_eq!(run(&simulation, 2, Rules::of(Compat::RepoHead)).golden_leaf, None);
    assert!(run(&simulation, 2, Rules::of(Compat::Pypi014)).golden_leaf.is_some());
    assert!(run(&simulation, 2, Rules::of(Compat::Fixed)).golden_leaf.is_some());
}

#[test]
fn a_raised_step_earns_nothing_under_our_rules() {
    let turn = Err(AgentError::Raised { reason: "bad arguments".to_owned(), hits: vec![0] });
    let simulation = Fixed { first_user: UserTurn::GoesOn, turn };
    assert_eq!(run(&simulation, 1, Rules::of(Compat::RepoHead)).outcome(), Outcome::Complete);
    assert_eq!(run(&simulation, 1, Rules::of(Compat::Fixed)).outcome(), Outcome::Empty);
}

/// A dialogue whose agent reaches the goal in every turn, and raises after every other one.
struct Stumbling;

impl Simulation for Stumbling {
    type State = Chat;

    async fn user_step(&self, state: &mut Chat, _: u64) -> Result<UserTurn, Broken> {
        state.push(Message::user("u"));
        Ok(UserTurn::GoesOn)
    }

    async fn agent_step(&self, state: &mut Chat, _: &[GoalIndex], seed: u64) -> Result<AgentTurn, AgentError> {
        state.push(Message::assistant(format!("a{seed}")));
        if seed.is_multiple_of(2) {
            return Err(AgentError::Raised { reason: "context full".to_owned(), hits: vec![0] });
        }
        Ok(AgentTurn { finished: true, hits: vec![0] })
    }

    fn out_of_tries(&self, _: &mut Chat) {}

    fn chat<'s>(&self, state: &'s Chat) -> &'s Chat {
        state
    }
}

#[test]
fn a_step_that_reached_something_and_then_raised_is_not_blamed() {
    let mut raised = 0;
    for seed in 0..20 {
        let settings = Settings { seed, ..Settings::default() };
        let tree = search(&Stumbling, "d", Chat::new(), 1, &settings).now_or_never().expect("it never waits");
        raised += tree.nodes.iter().filter(|node| node.reached).count();
        assert!(tree.records.iter().all(|record| record.success), "what reached the goal is no failure");
        assert!(tree.nodes.iter().all(|node| !(node.reached && node.golden)), "what raised is not gone on from");
    }
    assert!(raised > 0);
}

#[test]
fn a_user_who_ends_at_once_gets_one_answer() {
    let simulation =
        |hits| Fixed { first_user: UserTurn::EndsAfterAnswer, turn: Ok(AgentTurn { finished: true, hits }) };
    assert_eq!(run(&simulation(vec![0]), 1, Rules::of(Compat::Fixed)).outcome(), Outcome::Complete);
    let tree = run(&simulation(Vec::new()), 1, Rules::of(Compat::Fixed));
    assert!(tree.nodes.iter().all(|node| node.steps.len() < 2), "nobody speaks after the answer");
    assert_eq!(tree.nodes.len(), 3);
    assert!(run(&simulation(Vec::new()), 1, Rules::of(Compat::RepoHead)).nodes.len() > 3, "the reference goes on");
}

#[test]
fn only_unfinished_turns_are_told_that_tries_ran_out() {
    let simulation =
        |finished| Fixed { first_user: UserTurn::GoesOn, turn: Ok(AgentTurn { finished, hits: Vec::new() }) };
    let told =
        |tree: Tree| (0..tree.nodes.len()).flat_map(|node| tree.dialogue(node)).any(|m| m.content == "out of tries");
    assert!(told(run(&simulation(false), 1, Rules::of(Compat::Fixed))));
    assert!(!told(run(&simulation(true), 1, Rules::of(Compat::Fixed))));
    assert!(told(run(&simulation(false), 1, Rules::of(Compat::Pypi014))));
}

/// Two leaves of which each reaches a goal of its own in the first step, and then nothing.
struct Rivals;

impl Simulation for Rivals {
    type State = Chat;

    async fn user_step(&self, state: &mut Chat, _: u64) -> Result<UserTurn, Broken> {
        state.push(Message::user("u"));
        Ok(if state.len() == 3 { UserTurn::Over } else { UserTurn::GoesOn })
    }

    async fn agent_step(&self, state: &mut Chat, left: &[GoalIndex], seed: u64) -> Result<AgentTurn, AgentError> {
        state.push(Message::assistant(seed.to_string()));
        let goal = usize::from(seed.is_multiple_of(2));
        let hits =
            if state.len() == 2 { left.iter().copied().filter(|hit| *hit == goal).collect() } else { Vec::new() };
        Ok(AgentTurn { finished: true, hits })
    }

    fn out_of_tries(&self, _: &mut Chat) {}

    fn chat<'s>(&self, state: &'s Chat) -> &'s Chat {
        state
    }
}

#[test]
fn in_the_papers_era_the_goals_of_all_leaves_of_a_step_were_deleted() {
    // Some seed gives the two leaves an odd and an even number; `Q16: fixed` lets them differ.
    let grown = |compat: Compat, q22: Compat, seed: u64| {
        let rules = Rules::of(compat).with(Quirk::Q16, Compat::Fixed).with(Quirk::Q22, q22);
        let settings = Settings { seed, rules, ..Settings::default() };
        search(&Rivals, "d", Chat::new(), 2, &settings).now_or_never().expect("it never waits")
    };
    let seed = (0..64).find(|&seed| grown(Compat::Paper, Compat::Paper, seed).outcome() == Outcome::Complete);
    let seed = seed.expect("siblings differ under some seed");
    let tree = grown(Compat::Paper, Compat::Paper, seed);
    let hits = |tree: &Tree, node: usize| tree.nodes[node].steps.iter().flat_map(|step| step.hits.clone()).count();
    assert_eq!(
        (hits(&tree, 1), hits(&tree, 2), tree.root),
        (1, 1, 1),
        "the first leaf survives with one goal of its own"
    );
    let marks: Vec<_> = tree.records.iter().map(|record| (record.success, record.golden)).collect();
    assert_eq!(marks, [(true, true), (true, true), (true, false)]);
    let fixed = grown(Compat::Paper, Compat::Fixed, seed);
    assert_eq!((fixed.outcome(), fixed.left.len()), (Outcome::Partial, 1));
    assert_eq!(grown(Compat::RepoHead, Compat::RepoHead, seed).left.len(), 1);
    assert_eq!(grown(Compat::RepoHead, Compat::Paper, seed).outcome(), Outcome::Complete);
}

#[test]
fn in_the_papers_era_a_root_is_recorded_empty_and_an_end_with_its_message() {
    let turn = Ok(AgentTurn { finished: true, hits: Vec::new() });
    let simulation = Fixed { first_user: UserTurn::GoesOn, turn };
    let tree = run(&simulation, 1, Rules::of(Compat::Paper));
    assert!(tree.records.is_empty() && tree.outcome() == Outcome::Empty);
    // The survivor's user ends the dialogue at once; the search ends when its next step begins.
    let rules = Rules::of(Compat::Paper).with(Quirk::Q16, Compat::Fixed).with(Quirk::Q22, Compat::Fixed);
    let settings = Settings { rules, ..Settings::default() };
    let tree = search(&Rivals, "d", Chat::new(), 2, &settings).now_or_never().expect("it never waits");
    assert_eq!(tree.records[0].end, super::forest::Point::START, "the root has no answer");
    assert!(tree.nodes[tree.root].ending && tree.nodes[tree.root].over && tree.leaves().is_empty());
    assert_eq!(rules.recorded(&tree.forest, &tree.nodes[tree.root]), Some(tree.nodes[tree.root].end));
}

#[test]
fn a_task_without_goals_is_empty_and_takes_no_step() {
    let simulation = Fixed { first_user: UserTurn::GoesOn, turn: Ok(AgentTurn { finished: true, hits: Vec::new() }) };
    let tree = run(&simulation, 0, Rules::of(Compat::Fixed));
    assert_eq!((tree.outcome(), tree.nodes.len()), (Outcome::Empty, 1));
}

/// A dialogue without an end, in which every tenth turn of the agent earns something.
struct Endless;

impl Simulation for Endless {
    type State = Chat;

    async fn user_step(&self, state: &mut Chat, _: u64) -> Result<UserTurn, Broken> {
        state.push(Message::user(format!("{:300}", state.len())));
        Ok(UserTurn::GoesOn)
    }

    async fn agent_step(&self, state: &mut Chat, left: &[GoalIndex], seed: u64) -> Result<AgentTurn, AgentError> {
        state.push(Message::assistant(format!("{seed:300}")));
        let hits =
            if state.len().is_multiple_of(20) { left.first().copied().into_iter().collect() } else { Vec::new() };
        Ok(AgentTurn { finished: true, hits })
    }

    fn out_of_tries(&self, _: &mut Chat) {}

    fn chat<'s>(&self, state: &'s Chat) -> &'s Chat {
        state
    }
}

#[test]
fn an_endless_dialogue_costs_what_is_new_in_it() {
    let grown = |steps: usize| {
        let settings = Settings { max_steps: steps, ..Settings::default() };
        let tree = search(&Endless, "d", Chat::new(), 1000, &settings).now_or_never().expect("it never waits");
        let rows = super::node::rows("d", &tree);
        let told: usize = rows.iter().map(|row| row.messages.len()).sum();
        let mut forest = super::forest::Forest::default();
        super::paths::Harvest::new(&mut forest, rows).unwrap();
        // Rows tell each branch's own messages, also where siblings said the same.
        assert!(
            forest.len() <= told && told < 2 * tree.forest.len(),
            "{told} messages in rows of {}",
            tree.forest.len()
        );
        tree.forest.len()
    };
    let (short, long) = (grown(100), grown(400));
    assert!((3 * short..5 * short).contains(&long), "four times the turns: {short} messages became {long}");
}
