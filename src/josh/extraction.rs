//! What the making of training data asks of the rules: one question per quirk (reference, sections 2.8 and 2.9).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forest::{Forest, Point};
use super::paths::Harvest;
use super::tree::Outcome;
use crate::chat::{Message, Role};
use crate::compat::{Compat, Quirk, Rules};

/// The quirks that the making of chats to imitate asks about.
pub const CHATS: &[Quirk] = &[Quirk::Q19, Quirk::Q28, Quirk::Q29, Quirk::Q30];

/// The quirks that the making of labelled turns asks about.
pub const TURNS: &[Quirk] = &[Quirk::Q28, Quirk::Q36];

/// The seed with which the reference shuffles (section 2.8).
pub const SHUFFLE_SEED: u64 = 42;

impl Rules {
    /// Whether the longest golden path is the first of the longest; otherwise it is the last of any length beyond one message
    /// (Q29: the reference compares with the length of a dictionary).
    pub fn takes_longest_path(&self) -> bool {
        matches!(self.mode(Quirk::Q29), Compat::Paper | Compat::Fixed)
    }

    /// Whether chats get the system message that is asked for (Q30).
    pub fn adds_system_message(&self) -> bool {
        matches!(self.mode(Quirk::Q30), Compat::Paper | Compat::Fixed)
    }

    /// Whether a chat without a message of the agent is left out (Q19).
    pub fn leaves_out_unanswered(&self) -> bool {
        self.mends(Quirk::Q19)
    }

    /// Whether examples of function calling show the functions (Q28).
    pub fn attaches_tools(&self) -> bool {
        self.mends(Quirk::Q28)
    }

    /// Whether the whole file is shuffled, as the reference's newer script does.
    pub fn shuffles_chats(&self) -> bool {
        matches!(self.compat(), Compat::RepoHead | Compat::Pypi014)
    }

    /// Whether turns are labelled as ours are (Q36).
    pub fn labels_soundly(&self) -> bool {
        self.mends(Quirk::Q36)
    }
}

/// Which trees give examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trees {
    /// Those that reached every goal.
    #[default]
    Complete,
    /// Those that reached any goal.
    Rewarded,
}

impl Trees {
    /// Whether a tree that ended like this gives examples. A broken one never does.
    pub fn take(self, outcome: Outcome) -> bool {
        outcome == Outcome::Complete || (self == Self::Rewarded && outcome == Outcome::Partial)
    }
}

/// Whether a message tells of a failed call or of an agent that lost its form; a call whose arguments were no JSON stands there
/// in a form that no model wrote.
pub fn tells_of_error(message: &Message) -> bool {
    ["ERROR:", "Error:", "FAILURE"].iter().any(|mark| message.content.contains(mark))
        || (message.role == Role::Assistant && message.content.contains("APIRETURN"))
        || message.tool_calls.iter().any(|call| call.function.is_wrapped())
}

/// The end of the tree's longest golden path, unless a message on it tells of an error.
pub fn golden_path(forest: &Forest, harvest: &Harvest, rules: &Rules) -> Option<Point> {
    let mut golden = harvest.records.iter().filter(|record| record.golden).map(|record| record.end);
    let longest = if rules.takes_longest_path() {
        golden.rev().max_by_key(|&end| forest.length(end))?
    } else {
        // The first one is compared with an empty list, each later one with a dictionary of one entry.
        let first = golden.find(|&end| forest.length(end) > 0)?;
        golden.rfind(|&end| forest.length(end) > 1).unwrap_or(first)
    };
    let answered = || forest.messages(longest).any(|message| message.role == Role::Assistant);
    let taken = !rules.leaves_out_unanswered() || answered();
    (taken && !forest.messages(longest).any(tells_of_error)).then_some(longest)
}

/// Whether a message belongs to native function calling.
pub fn calls_functions(message: &Message) -> bool {
    message.role == Role::Tool || !message.tool_calls.is_empty()
}
