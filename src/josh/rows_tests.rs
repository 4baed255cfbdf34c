//! Rows and trees say the same: of searches, and of records made by others.

use proptest::collection::vec;
use proptest::prelude::*;

use super::forest::Forest;
use super::import::{self, RecordedTree, dialogue_of};
use super::node::{NodeRow, rows};
use super::paths::{Harvest, PathError, ends, trees};
use super::search::Settings;
use super::search_tests::{Chance, grow};
use super::tree::Outcome;
use crate::chat::Message;
use crate::compat::{Compat, Rules};

fn only(rows: Vec<NodeRow>) -> Result<(Forest, Harvest), PathError> {
    let mut trees = trees(rows.into_iter().map(Ok::<_, PathError>));
    let tree = trees.next().expect("one tree")?;
    assert!(trees.next().is_none(), "rows of one dialogue are one tree");
    let mut forest = Forest::default();
    let harvest = Harvest::new(&mut forest, tree)?;
    Ok((forest, harvest))
}

/// A recorded example as it was given.
type Example = (Vec<Message>, bool, bool);

fn examples(forest: &Forest, harvest: &Harvest) -> Vec<Example> {
    let example = |at: &super::paths::Recorded| (forest.messages(at.end).cloned().collect(), at.success, at.golden);
    harvest.records.iter().map(example).collect()
}

/// Lists of few different messages, so that prefixes are often shared.
fn recorded() -> impl Strategy<Value = RecordedTree> {
    let message = (0..2u8, 0..2u8).prop_map(|(who, text)| {
        if who == 0 { Message::user(text.to_string()) } else { Message::assistant(text.to_string()) }
    });
    let path = (vec(message, 0..6), any::<bool>(), any::<bool>());
    (vec(path, 0..20), any::<bool>()).prop_map(|(training_paths, complete)| RecordedTree { training_paths, complete })
}

proptest! {
    #[test]
    fn an_imported_tree_gives_back_its_lists(tree in recorded()) {
        let (forest, harvest) = only(import::rows("MUL0001.json", &tree)).unwrap();
        prop_assert_eq!(examples(&forest, &harvest), tree.training_paths);
    }

    #[test]
    fn a_searched_tree_gives_back_its_records(
        seed: u64, goals in 1usize..5, beam in 1usize..9, rounds in 1u64..4, breaks in 0u64..3,
        rules in prop_oneof![Just(Rules::of(Compat::Paper)), Just(Rules::of(Compat::RepoHead)), Just(Rules::of(Compat::Pypi014)), Just(Rules::of(Compat::Fixed))],
    ) {
        let settings = Settings { beam, seed, rules, ..Settings::default() };
        let tree = grow(&Chance { suspends: false, breaks, rounds }, goals, &settings);
        let rows = rows("MUL0001.json", &tree);
        let (forest, harvest) = only(rows.clone()).unwrap();
        let found = examples(&forest, &harvest);
        let recorded = |end| tree.forest.messages(end).cloned().collect::<Vec<Message>>();
        let expected: Vec<_> =
            tree.records.iter().map(|at| (recorded(at.end), at.success, at.golden)).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(harvest.outcome, tree.outcome());
        let hits = |hits: Vec<usize>| { let mut hits = hits; hits.sort_unstable(); hits };
        prop_assert_eq!(
            hits(rows.iter().flat_map(|row| row.hits.iter().map(|&hit| hit as usize)).collect()),
            hits(tree.nodes.iter().flat_map(|node| node.steps.iter().flat_map(|step| step.hits.clone())).collect())
        );
        prop_assert_eq!(rows.iter().filter(|row| row.parent.is_none()).count(), 1, "one root");
        let mut forest = Forest::default();
        let ends = ends(&mut forest, rows).unwrap();
        let whole: Vec<Vec<Message>> = ends.into_iter().map(|end| forest.messages(end).cloned().collect()).collect();
        for leaf in tree.preorder(0).into_iter().filter(|&node| tree.nodes[node].children.is_empty()) {
            let dialogue = tree.dialogue(leaf);
            prop_assert!(whole.contains(&dialogue), "the end of leaf {} is lost", leaf);
        }
    }
}

#[test]
fn an_empty_tree_keeps_its_dialogue_and_outcome() {
    let (_, tree) = only(import::rows("A", &RecordedTree { training_paths: Vec::new(), complete: false })).unwrap();
    assert_eq!((tree.dialogue.as_str(), tree.outcome, tree.records.len()), ("A", Outcome::Empty, 0));
}

#[test]
fn rows_that_are_no_tree_are_refused() {
    let list = |count: usize| (vec![Message::user("u"); count], true, true);
    let tree = RecordedTree { training_paths: vec![list(1), list(2), list(3)], complete: true };
    let sound = import::rows("A", &tree);
    assert_eq!(sound.iter().map(|row| row.messages.len()).collect::<Vec<_>>(), [1, 1, 1]);
    let mut rows = sound.clone();
    rows[1].parent = Some(2);
    assert_eq!(only(rows).unwrap_err(), PathError::Parent { dialogue: "A".to_owned(), node: 1, parent: 2 });
    let mut rows = sound.clone();
    rows.remove(1);
    assert_eq!(only(rows).unwrap_err(), PathError::Number { dialogue: "A".to_owned(), expected: 1, found: 2 });
    let mut rows = sound;
    rows[2].order = Some(1);
    assert_eq!(only(rows).unwrap_err(), PathError::Order { dialogue: "A".to_owned(), missing: 2 });
}

#[test]
fn a_file_is_named_after_its_dialogue() {
    assert_eq!(dialogue_of("records/training_data_v2/sim_MUL0414.json").unwrap(), "MUL0414");
    for name in ["MUL0414.json", "sim_MUL0414.txt", "sim_.json", "a_b/c.json"] {
        assert_eq!(dialogue_of(name).unwrap_err().to_string(), format!("`{name}` is not named `…_DIALOGUE.json`"));
    }
}

#[test]
fn rows_come_back_from_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.parquet");
    let settings = Settings { seed: 3, ..Settings::default() };
    let tree = grow(&Chance { suspends: false, breaks: 0, rounds: 2 }, 3, &settings);
    let rows = rows("MUL0001.json", &tree);
    crate::table::write(&path, rows.clone()).unwrap();
    assert_eq!(crate::table::read::<NodeRow>(&path).unwrap(), rows);
}
