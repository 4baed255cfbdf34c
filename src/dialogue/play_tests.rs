//! Whole dialogues: users, agents and the environment together.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::agent_rule::RuleAgent;
use super::convert::{Converter, Splits, world_items};
use super::corpus::Corpus;
use super::episode::{Cast, Episode, EpisodeRow, MESSAGE_LIMIT, Outcome};
use super::lexicon::Lexicon;
use super::multiwoz::Outline;
use super::react::{OUT_OF_RETRIES, ReactAgent};
use super::synth::Synthesizer;
use super::synth_goal::GoalMix;
use super::synth_world::databases;
use super::task::{Task, WorldItem};
use super::tools::DOMAINS;
use super::user::User;
use super::user_agenda::END;
use super::user_model::{GOAL_PROMPT, GoalUser};
use super::world::World;
use crate::chat::Role;
use crate::compat::Rules;
use crate::llm::scripted::Scripted;
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
        let agent = ReactAgent { model, system: None, sampling: sampling(), tries: 3 };
        Cast { user: User::Agenda { lexicon: self.lexicon.clone(), patience: 4 }, agent }
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
    Sampling { temperature: 0.0, top_k: None, top_p: 1.0, max_tokens: 64, stop: Vec::new() }
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
    let user = GoalUser::new(script.clone(), sampling(), GOAL_PROMPT).unwrap();
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
