//! The environment against recordings of the reference, and against what was measured on the real corpus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::convert::{Converter, Report, world_items};
use super::corpus::Corpus;
use super::multiwoz::Outline;
use super::oracle::reachable;
use super::reward::{hits, reward};
use super::server::Session;
use super::task::Task;
use super::world::World;
use crate::compat::{Compat, Rules};
use crate::golden;

/// One recorded call of the reference's server (state of `repo-head`).
#[derive(Deserialize)]
struct Vector {
    dialogue: String,
    api: String,
    args: Value,
    observation: String,
    reward_if_only_call: f64,
    goals_hit: Vec<String>,
}

struct Converted {
    world: Arc<World>,
    tasks: Vec<Arc<Task>>,
    report: Report,
}

/// The folder of the real corpus, where the machine has it.
fn real_corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("THRESH_MULTIWOZ").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: set THRESH_MULTIWOZ to a folder with the real corpus");
    }
    folder
}

fn convert(folder: &Path, compat: Compat) -> Converted {
    let corpus = Corpus::open(folder).unwrap();
    let items = world_items(&corpus.databases().unwrap(), &Rules::of(compat));
    let mut converter = Converter::new(&items, corpus.splits().unwrap(), Rules::of(compat)).unwrap();
    let mut tasks = Vec::new();
    let each = |name: String, outline: Outline| {
        converter.convert(&name, &outline).map(|task| tasks.extend(task.map(Arc::new)))
    };
    corpus.for_each_dialogue(each).unwrap();
    Converted { world: Arc::new(World::from_items(items).unwrap()), tasks, report: converter.report().clone() }
}

/// Every recorded call gives the recorded observation byte for byte, the recorded reward and the recorded goals; how many calls
/// were looked at. Where the corpus lacks a dialogue, the real one must be at hand.
fn compare_with_vectors(corpus: &Path) -> usize {
    let rules = Rules::of(Compat::RepoHead);
    let converted = convert(corpus, Compat::RepoHead);
    let tasks: BTreeMap<&str, &Arc<Task>> = converted.tasks.iter().map(|task| (task.dialogue.as_str(), task)).collect();
    let files = golden::texts("api_vectors", ".jsonl");
    let mut compared = 0;
    for line in files.iter().flat_map(|(_, text)| text.lines()).filter(|line| !line.is_empty()) {
        let vector: Vector = serde_json::from_str(line).unwrap();
        let Some(task) = tasks.get(vector.dialogue.as_str()) else {
            assert!(
                std::env::var_os("THRESH_MULTIWOZ").is_some(),
                "set THRESH_MULTIWOZ to check `{}`",
                vector.dialogue
            );
            continue;
        };
        let mut session = Session::new(Arc::clone(&converted.world), Arc::clone(task), rules).unwrap();
        assert_eq!(session.call(&vector.api, &vector.args).text, vector.observation, "{line}");
        let reached = hits(task, session.calls(), &rules);
        let names: Vec<&str> = reached.iter().map(|index| task.goals[*index].api.as_str()).collect();
        assert_eq!(names, vector.goals_hit, "{line}");
        assert!((reward(task, session.calls(), &rules) - vector.reward_if_only_call).abs() < 1e-12, "{line}");
        compared += 1;
    }
    compared
}

#[test]
fn golden_server_answers_as_the_reference() {
    compare_with_vectors(&golden::own_folder().join("multiwoz"));
}

#[test]
fn golden_server_answers_as_the_reference_on_the_real_corpus() {
    if let Some(folder) = real_corpus() {
        assert!(compare_with_vectors(&folder) > 0);
    }
}

/// Mean reward and share of full success that are within reach.
fn ceiling(converted: &Converted, tasks: &[&Arc<Task>], rules: Rules) -> (f64, f64) {
    let shares = tasks.iter().map(|task| {
        let reached = reachable(&converted.world, task, rules).unwrap();
        reached.len() as f64 / task.goals.len() as f64
    });
    let shares: Vec<f64> = shares.collect();
    let full = shares.iter().filter(|share| **share == 1.0).count();
    (shares.iter().sum::<f64>() / shares.len() as f64, full as f64 / shares.len() as f64)
}

#[test]
fn golden_counts_and_ceilings_of_the_real_corpus() {
    let Some(folder) = real_corpus() else { return };
    for (compat, mean, full) in [
        (Compat::RepoHead, Some(0.9806), Some(0.94)),
        (Compat::Paper, Some(0.978), Some(0.9378)),
        (Compat::Fixed, None, None),
    ] {
        let converted = convert(&folder, compat);
        assert_eq!((converted.report.dialogues, converted.report.tasks), (10_438, 7_849));
        assert_eq!(converted.report.untooled, [2_057, 245, 287]);
        assert_eq!(converted.report.unrecorded_bookings, [175, 0, 173, 106]);
        let of = |split: &str| converted.tasks.iter().filter(|task| task.split == split).collect::<Vec<_>>();
        assert_eq!([of("train").len(), of("val").len(), of("test").len()], [6_251, 793, 805]);
        let mut test = of("test");
        test.sort_by(|one, other| one.dialogue.cmp(&other.dialogue));
        test.truncate(450);
        assert_eq!((test[0].dialogue.as_str(), test[449].dialogue.as_str()), ("MUL0003.json", "PMUL2380.json"));
        assert_eq!(test.iter().map(|task| task.goals.len()).sum::<usize>(), 1_291);
        let (average, success) = ceiling(&converted, &test, Rules::of(compat));
        eprintln!("{compat:?}: ceiling of the 450: {average:.4}, {success:.4}");
        for (measured, expected) in [(average, mean), (success, full)] {
            assert!(expected.is_none_or(|expected: f64| (measured - expected).abs() < 5e-5), "{compat:?}: {measured}");
        }
    }
}
