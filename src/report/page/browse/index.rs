//! The columns that the list of dialogues is drawn from: small, and there before the first paint.

use std::collections::HashMap;

use serde::Serialize;

use super::texts::Texts;
use crate::chat::Role;
use crate::dialogue::episode::Outcome;
use crate::josh::tree::Outcome as TreeOutcome;
use crate::report::talk::{Goal, Step, Talk, Tree, Turn};

/// The lines of all dialogues and trees. What repeats stands once and is named by its place.
#[derive(Debug, Default, Serialize)]
pub(super) struct Index {
    /// The names of dialogues.
    names: Vec<String>,
    /// The splits of tasks.
    splits: Vec<String>,
    /// The tools of goals.
    tools: Vec<String>,
    /// Lists of goals, as places in `tools`.
    goals: Vec<Vec<u32>>,
    /// Rewards.
    rewards: Vec<f64>,
    /// The tables, in the order of their rows.
    sets: Vec<Set>,
    #[serde(skip)]
    known: Known,
}

/// The places of what stands once.
#[derive(Debug, Default)]
struct Known {
    names: HashMap<String, u32>,
    splits: HashMap<String, u32>,
    tools: HashMap<String, u32>,
    goals: HashMap<Vec<u32>, u32>,
    rewards: HashMap<u64, u32>,
}

/// The rows of one table, column by column.
#[derive(Debug, Default, Serialize)]
struct Set {
    /// Whether the rows are trees.
    trees: bool,
    /// `[run, stage, port]` of all outputs that are this table.
    places: Vec<(usize, String, String)>,
    /// Places in `names`.
    name: Vec<u32>,
    /// Of dialogues `s`, `f` or `b`; of trees `c`, `p`, `e` or `b`: the first letters of their outcomes.
    outcome: String,
    /// Places in `rewards`; −1 where there is none.
    reward: Vec<i64>,
    /// Places in `splits`; −1 where it is not known.
    split: Vec<i64>,
    /// Places in `goals`.
    goals: Vec<u32>,
    /// The goals that were reached, of the first 31: a bit each.
    reached: Vec<u32>,
    /// How many turns a dialogue has, how many nodes a tree.
    length: Vec<u32>,
    /// How many calls a dialogue has, how many recorded examples a tree.
    calls: Vec<u32>,
    /// The number of the text that the customer opened with; −1 where it said nothing.
    opening: Vec<i64>,
}

/// The place of a value in a list of different ones.
fn place<K: std::hash::Hash + Eq + Clone, V>(known: &mut HashMap<K, u32>, list: &mut Vec<V>, key: K, value: V) -> u32 {
    *known.entry(key).or_insert_with(|| {
        list.push(value);
        list.len() as u32 - 1
    })
}

impl Index {
    /// Begins a table, which several outputs may be: `[run, stage, port]`.
    pub fn begin(&mut self, trees: bool, places: Vec<(usize, String, String)>) {
        self.sets.push(Set { trees, places, ..Set::default() });
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.sets.iter().map(|set| set.name.len()).sum()
    }

    /// Adds a dialogue to the table that was begun last.
    pub fn talk(&mut self, texts: &mut Texts, talk: &Talk) {
        let outcome = match talk.outcome {
            Outcome::Success => 's',
            Outcome::Failure => 'f',
            Outcome::Broken => 'b',
        };
        let split = (!talk.split.is_empty()).then(|| {
            i64::from(place(&mut self.known.splits, &mut self.splits, talk.split.clone(), talk.split.clone()))
        });
        let calls = talk.turns.iter().map(|turn| turn.calls().count()).sum::<usize>();
        let (length, calls) = (talk.turns.len() as u32, calls as u32);
        let Some(set) = self.shared(&talk.dialogue, talk.reward, &talk.goals) else { return };
        set.outcome.push(outcome);
        set.split.push(split.unwrap_or(-1));
        set.length.push(length);
        set.calls.push(calls);
        set.opening.push(texts.or_none(opening(&talk.turns)));
    }

    /// Adds a tree to the table that was begun last.
    pub fn tree(&mut self, texts: &mut Texts, tree: &Tree) {
        let outcome = match tree.outcome {
            TreeOutcome::Complete => 'c',
            TreeOutcome::Partial => 'p',
            TreeOutcome::Empty => 'e',
            TreeOutcome::Broken => 'b',
        };
        let examples = tree.nodes.iter().filter(|node| node.order.is_some()).count();
        let Some(set) = self.shared(&tree.dialogue, tree.reward, &tree.goals) else { return };
        set.outcome.push(outcome);
        set.split.push(-1);
        set.length.push(tree.nodes.len() as u32);
        set.calls.push(examples as u32);
        set.opening.push(texts.or_none(tree.nodes.iter().find_map(|node| opening(&node.turns))));
    }

    /// The columns that dialogues and trees have alike; gives the table for the others.
    fn shared(&mut self, dialogue: &str, reward: Option<f64>, goals: &[Goal]) -> Option<&mut Set> {
        let known = &mut self.known;
        let name = place(&mut known.names, &mut self.names, dialogue.to_owned(), dialogue.to_owned());
        let mut tool = |goal: &Goal| place(&mut known.tools, &mut self.tools, goal.api.clone(), goal.api.clone());
        let tools: Vec<u32> = goals.iter().map(&mut tool).collect();
        let list = place(&mut known.goals, &mut self.goals, tools.clone(), tools);
        let reward = reward.map(|reward| place(&mut known.rewards, &mut self.rewards, reward.to_bits(), reward));
        let bits = goals.iter().take(31).enumerate().filter(|(_, goal)| goal.reached);
        let set = self.sets.last_mut()?;
        set.name.push(name);
        set.reward.push(reward.map_or(-1, i64::from));
        set.goals.push(list);
        set.reached.push(bits.map(|(place, _)| 1 << place).sum());
        Some(set)
    }
}

/// What the customer said first.
fn opening(turns: &[Turn]) -> Option<&str> {
    let steps = turns.iter().filter(|turn| turn.role == Role::User).flat_map(|turn| &turn.steps);
    steps.into_iter().find_map(|step| match step {
        Step::Said { text } => Some(text.as_str()),
        _ => None,
    })
}
