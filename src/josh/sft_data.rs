//! Trees to chats worth imitating: the golden path of each dialogue that went well.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::paths::Harvest;
use super::tree::Outcome;
use crate::chat::{Message, Role};
use crate::examples::SftExample;

/// Whose recipe makes training data of trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// The paper's scripts, to the byte (reference, section 2.8).
    Paper,
    /// Ours: the quirks of the paper's scripts mended.
    #[default]
    Fixed,
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

/// Whether a message tells of a failed call or of an agent that lost its form.
pub fn tells_of_error(message: &Message) -> bool {
    ["ERROR:", "Error:", "FAILURE"].iter().any(|mark| message.content.contains(mark))
        || (message.role == Role::Assistant && message.content.contains("APIRETURN"))
}

/// The first of the longest golden paths (quirk Q29: the reference's newer script takes the last of any length), unless a
/// message on it tells of an error or the agent says nothing on it.
pub fn golden_path(harvest: &Harvest) -> Option<&[Message]> {
    let golden = harvest.records.iter().filter(|record| record.golden);
    let longest = golden.rev().max_by_key(|record| record.messages.len())?;
    let speaks = longest.messages.iter().any(|message| message.role == Role::Assistant);
    (speaks && !longest.messages.iter().any(tells_of_error)).then_some(&longest.messages)
}

/// A tree's chat to imitate, after the system message where there is one.
pub fn sft_example(harvest: &Harvest, trees: Trees, system: Option<&Message>) -> Option<SftExample> {
    let path = trees.take(harvest.outcome).then(|| golden_path(harvest))??;
    Some(SftExample { dialogue: harvest.dialogue.clone(), messages: system.into_iter().chain(path).cloned().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::josh::paths::Path;

    fn harvest(outcome: Outcome, records: &[(&[&str], bool)]) -> Harvest {
        let chat = |texts: &[&str]| {
            let message = |(place, text): (usize, &&str)| {
                if place % 2 == 0 { Message::user(*text) } else { Message::assistant(*text) }
            };
            texts.iter().enumerate().map(message).collect()
        };
        let path = |(order, (texts, golden)): (usize, &(&[&str], bool))| Path {
            messages: chat(texts),
            success: *golden,
            golden: *golden,
            order: Some(order as u32),
        };
        Harvest { dialogue: "A".to_owned(), outcome, records: records.iter().enumerate().map(path).collect() }
    }

    #[test]
    fn the_first_longest_golden_path_is_taken() {
        let records: &[(&[&str], bool)] =
            &[(&["u", "a"], true), (&["u", "b", "u", "c"], true), (&["u", "d", "u", "e"], true), (&["u"; 6], false)];
        let system = Message::system("s");
        let example = sft_example(&harvest(Outcome::Complete, records), Trees::Complete, Some(&system)).unwrap();
        let texts: Vec<_> = example.messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(texts, ["s", "u", "b", "u", "c"]);
    }

    #[test]
    fn broken_trees_and_errors_give_nothing() {
        let records: &[(&[&str], bool)] = &[(&["u", "a"], true)];
        for (outcome, complete, rewarded) in [
            (Outcome::Complete, true, true),
            (Outcome::Partial, false, true),
            (Outcome::Empty, false, false),
            (Outcome::Broken, false, false),
        ] {
            let harvest = harvest(outcome, records);
            assert_eq!(sft_example(&harvest, Trees::Complete, None).is_some(), complete);
            assert_eq!(sft_example(&harvest, Trees::Rewarded, None).is_some(), rewarded);
        }
        for texts in [["ERROR: no", "a"], ["u", "Error: no"], ["u", "APICALL FAILURE"], ["u", "APIRETURN {}"]] {
            assert_eq!(golden_path(&harvest(Outcome::Complete, &[(&texts, true)])), None);
        }
        assert!(golden_path(&harvest(Outcome::Complete, &[(&["APIRETURN {}", "a"], true)])).is_some());
        assert_eq!(golden_path(&harvest(Outcome::Complete, &[(&["u"], true)])), None);
    }
}
