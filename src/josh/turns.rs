//! Which turns of a tree's agents were good and which were bad, as soundly as the tree can tell (quirk Q36).

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extraction::{golden_path, tells_of_error};
use super::forest::{Forest, Point};
use super::paths::Harvest;
use crate::chat::Role;
use crate::compat::Rules;

/// Which turns are good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Good {
    /// Those of the longest golden path.
    #[default]
    Golden,
    /// Those of every path that led to a reward, also where the search went on from another one.
    Successful,
}

/// The turns of one tree; a turn is the point behind the agent's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Those that led to rewards, each once, in the order in which they were recorded.
    pub good: Vec<Point>,
    /// Those with which failed paths left the ones that led to rewards, each once, in the order of recording.
    pub bad: Vec<Point>,
    /// Failed paths of which every word was also said on the way to a success: no turn of theirs can be blamed.
    pub undecided: usize,
}

/// The agent's turns on the way to a point.
pub fn agent_turns(forest: &Forest, end: Point) -> impl Iterator<Item = Point> {
    let agents = |point: &Point| forest.message(*point).is_some_and(|message| message.role == Role::Assistant);
    forest.path(end).into_iter().filter(agents)
}

/// Judges the turns of a tree.
///
/// A turn is bad when a failed path leaves with it, on the prompt of a path that may be good, every path that succeeded: so a
/// successful sibling is never blamed, and neither is an agent whose dialogue went astray through the user's next words. The
/// error messages that the harness itself writes are no turns.
pub fn judge(forest: &Forest, harvest: &Harvest, good: Good) -> Judged {
    let mut judged = Judged { good: good_turns(forest, harvest, good), ..Judged::default() };
    let succeeded: HashSet<Point> =
        harvest.records.iter().filter(|record| !record.failed()).flat_map(|record| forest.path(record.end)).collect();
    let followed =
        harvest.records.iter().filter(|record| record.golden || (good == Good::Successful && record.success));
    let prompts: HashSet<Point> =
        followed.flat_map(|record| clean_turns(forest, record.end)).map(|turn| forest.before(turn)).collect();
    let (mut blamed, mut unblamed) = (HashSet::new(), HashSet::new());
    for record in harvest.records.iter().filter(|record| record.failed()) {
        let Some(left) = forest.path(record.end).into_iter().find(|point| !succeeded.contains(point)) else {
            judged.undecided += usize::from(unblamed.insert(record.end));
            continue;
        };
        let turn = forest.message(left).is_some_and(|said| said.role == Role::Assistant && !tells_of_error(said));
        if turn && prompts.contains(&forest.before(left)) && blamed.insert(left) {
            judged.bad.push(left);
        }
    }
    judged
}

fn good_turns(forest: &Forest, harvest: &Harvest, good: Good) -> Vec<Point> {
    let golden = golden_path(forest, harvest, &Rules::default());
    let mut seen = HashSet::new();
    let mut turns: Vec<Point> = golden.into_iter().flat_map(|end| agent_turns(forest, end)).collect();
    seen.extend(turns.iter().copied());
    if good == Good::Successful {
        for record in harvest.records.iter().filter(|record| !record.failed()) {
            if !forest.messages(record.end).any(tells_of_error) {
                turns.extend(agent_turns(forest, record.end).filter(|turn| seen.insert(*turn)));
            }
        }
    }
    turns
}

/// The agent's turns up to the first message that tells of an error.
fn clean_turns(forest: &Forest, end: Point) -> impl Iterator<Item = Point> {
    let clean = |point: &Point| !forest.message(*point).is_some_and(tells_of_error);
    let path: Vec<Point> = forest.path(end).into_iter().take_while(clean).collect();
    path.into_iter().filter(|point| forest.message(*point).is_some_and(|said| said.role == Role::Assistant))
}
