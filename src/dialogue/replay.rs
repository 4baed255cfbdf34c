//! Recorded calls answered and judged once more.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::episode::{EpisodeRow, Outcome};
use super::reward::{hits, share};
use super::server::{Session, TaskError};
use super::task::Task;
use super::world::World;
use crate::compat::Rules;
use crate::table::Row;

/// A call as a file of calls has it, one JSON object a line; further fields of the line are left alone.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RecordedCall {
    /// The dialogue in which it was made.
    pub dialogue: String,
    /// The tool.
    pub api: String,
    /// The arguments, of any form: a server refuses what is no object.
    pub args: Value,
}

/// What came of a recorded call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutcomeRow {
    /// The dialogue.
    pub dialogue: String,
    /// The call's number among those of its dialogue, from 0.
    pub index: u32,
    /// The tool.
    pub api: String,
    /// What an agent sees of it: the exact JSON text.
    pub observation: String,
    /// The share of the task's goals that this call reaches by itself, 0 to 1.
    pub reward: f64,
    /// The tools of these goals, in the task's order.
    pub goals_hit: Vec<String>,
    /// The share that it and the dialogue's calls before it reach: behind the last call the dialogue's reward.
    pub reward_so_far: f64,
    /// The tools of these goals.
    pub goals_so_far: Vec<String>,
}

impl Row for OutcomeRow {
    const TYPE: &'static str = "toolwoz.outcome/v1";
}

/// One dialogue whose calls are made again.
#[derive(Debug)]
pub struct Replay {
    /// Never called itself: every call gets a server without calls.
    fresh: Session,
    reached: BTreeSet<usize>,
    calls: u32,
}

impl Replay {
    /// A dialogue without calls.
    ///
    /// # Errors
    /// When the task is none of this environment.
    pub fn new(world: Arc<World>, task: Arc<Task>, rules: Rules) -> Result<Self, TaskError> {
        Ok(Self { fresh: Session::new(world, task, rules)?, reached: BTreeSet::new(), calls: 0 })
    }

    /// Makes a call. What a server answers depends on the call alone, and never on those before it.
    pub fn call(&mut self, api: &str, arguments: &Value) -> OutcomeRow {
        self.judged(api, arguments).0
    }

    /// What comes of a call, and the positions of the goals that it reaches.
    fn judged(&mut self, api: &str, arguments: &Value) -> (OutcomeRow, Vec<usize>) {
        let mut session = self.fresh.clone();
        let observation = session.call(api, arguments).text;
        let hit = hits(session.task(), session.calls(), session.rules());
        self.reached.extend(&hit);
        let index = self.calls;
        self.calls += 1;
        let task = session.task();
        let outcome = OutcomeRow {
            dialogue: task.dialogue.clone(),
            index,
            api: api.to_owned(),
            observation,
            reward: share(hit.len(), task),
            goals_hit: names(&hit, task),
            reward_so_far: self.reward(),
            goals_so_far: names(&self.reached, task),
        };
        (outcome, hit)
    }

    /// The share of goals that the calls so far reach.
    pub fn reward(&self) -> f64 {
        share(self.reached.len(), self.fresh.task())
    }

    /// An episode with its calls made again, judged by these rules: calls, reward and outcome are new. What was said stays as it
    /// was said, and a broken episode broken.
    ///
    /// # Errors
    /// When the arguments of a call are no JSON.
    pub fn episode(mut self, mut episode: EpisodeRow) -> serde_json::Result<(EpisodeRow, Vec<OutcomeRow>)> {
        let mut outcomes = Vec::new();
        for call in &mut episode.calls {
            let (outcome, hit) = self.judged(&call.api, &serde_json::from_str(&call.arguments)?);
            call.observation.clone_from(&outcome.observation);
            call.goals_hit = hit.into_iter().map(|goal| goal as u32).collect();
            outcomes.push(outcome);
        }
        let task = self.fresh.task();
        episode.reward = self.reward();
        episode.goals = task.goals.iter().map(|goal| goal.api.clone()).collect();
        episode.goals_hit = self.reached.iter().map(|goal| *goal as u32).collect();
        let all = !task.goals.is_empty() && self.reached.len() == task.goals.len();
        episode.outcome = match (episode.outcome, all) {
            (Outcome::Broken, _) => Outcome::Broken,
            (_, true) => Outcome::Success,
            (_, false) => Outcome::Failure,
        };
        episode.success = episode.outcome == Outcome::Success;
        Ok((episode, outcomes))
    }
}

fn names<'p>(places: impl IntoIterator<Item = &'p usize>, task: &Task) -> Vec<String> {
    places.into_iter().map(|place| task.goals[*place].api.clone()).collect()
}
