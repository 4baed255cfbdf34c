//! Trees to chats worth imitating: the golden path of each dialogue that went well.

use super::extraction::{Trees, golden_path};
use super::forest::Forest;
use super::frame::Frame;
use super::paths::Harvest;
use crate::compat::Rules;
use crate::examples::SftExample;

/// A tree's chat to imitate.
pub fn sft_example(
    forest: &Forest,
    harvest: &Harvest,
    trees: Trees,
    rules: &Rules,
    frame: &Frame,
) -> Option<SftExample> {
    let end = trees.take(harvest.outcome).then(|| golden_path(forest, harvest, rules))??;
    let messages = frame.chat(forest.messages(end));
    let tools = frame.tools_of(messages.iter());
    Some(SftExample { dialogue: harvest.dialogue.clone(), messages, tools })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, ToolCall};
    use crate::compat::{Compat, Quirk};
    use crate::josh::paths::Harvests;
    use crate::josh::short::{golden_records, harvests};
    use crate::josh::tree::Outcome;

    /// The chat that a tree of such golden records gives.
    fn chat(records: &[&str], rules: &Rules, frame: &Frame) -> Option<String> {
        let Harvests { forest, trees } = harvests(&[("A", Outcome::Complete, &golden_records(records))]);
        let example = sft_example(&forest, &trees[0], Trees::Complete, rules, frame)?;
        let texts: Vec<String> = example.messages.into_iter().map(|message| message.content).collect();
        Some(texts.join(" "))
    }

    #[test]
    fn the_first_longest_golden_path_is_taken_except_in_the_newer_script() {
        let frame = Frame { system: Some(Message::system("s")), tools: None };
        let records = ["", "u", "u a", "u b u1 c", "u d u1 e", "u f"];
        for compat in [Compat::Paper, Compat::Fixed] {
            assert_eq!(chat(&records, &compat.into(), &frame).unwrap(), "s u b u1 c");
        }
        for compat in [Compat::RepoHead, Compat::Pypi014] {
            assert_eq!(chat(&records, &compat.into(), &frame).unwrap(), "s u f");
        }
        let mended = Rules::of(Compat::RepoHead).with(Quirk::Q29, Compat::Fixed);
        assert_eq!(chat(&records, &mended, &frame).unwrap(), "s u b u1 c");
        // A single message is longer than an empty list, but not than a dictionary.
        let last = |records: &[&str]| chat(records, &Compat::RepoHead.into(), &Frame::default());
        assert_eq!(last(&["u a", "u"]).as_deref(), Some("u a"));
        assert_eq!(last(&["", "u", "v", ""]).as_deref(), Some("u"));
    }

    #[test]
    fn errors_and_silent_agents_give_nothing() {
        let taken = |records: &[&str], compat: Compat| chat(records, &compat.into(), &Frame::default()).is_some();
        for compat in [Compat::Paper, Compat::RepoHead, Compat::Fixed] {
            for text in ["ERROR:no a", "u Error:no", "u FAILURE", "u aAPIRETURN"] {
                assert!(!taken(&[text], compat), "{text} in {compat:?}");
            }
            assert!(taken(&["r a"], compat));
            assert_eq!(taken(&["u"], compat), compat != Compat::Fixed);
        }
    }

    #[test]
    fn broken_trees_give_nothing() {
        for (outcome, complete, rewarded) in [
            (Outcome::Complete, true, true),
            (Outcome::Partial, false, true),
            (Outcome::Empty, false, false),
            (Outcome::Broken, false, false),
        ] {
            let Harvests { forest, trees } = harvests(&[("A", outcome, &golden_records(&["u a"]))]);
            let taken = |which| sft_example(&forest, &trees[0], which, &Rules::default(), &Frame::default()).is_some();
            assert_eq!((taken(Trees::Complete), taken(Trees::Rewarded)), (complete, rewarded), "{outcome:?}");
        }
    }

    #[test]
    fn only_chats_that_call_functions_show_them() {
        let mut harvests = Harvests::default();
        let call = Message { tool_calls: vec![ToolCall::new("1", "search_hotel", "{}")], ..Message::assistant("") };
        let messages = [Message::user("u"), call];
        let place = messages
            .into_iter()
            .fold(crate::josh::forest::Point::START, |place, message| harvests.forest.after(place, message));
        let frame = Frame { system: None, tools: Some("[]".to_owned()) };
        assert_eq!(frame.tools_of(harvests.forest.messages(place)).as_deref(), Some("[]"));
        assert_eq!(frame.tools_of([Message::assistant("search_hotel")].iter()), None);
    }
}
