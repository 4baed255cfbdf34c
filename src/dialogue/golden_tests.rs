//! The environment against recordings of the reference, and against what was measured on the real corpus.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::convert::{Converter, Report, world_items};
use super::corpus::Corpus;
use super::multiwoz::Outline;
use super::oracle::reachable;
use super::python_json::dumps;
use super::reward::{hits, reward};
use super::server::Session;
use super::task::Task;
use super::world::World;
use crate::compat::{Compat, Quirk, Rules};
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

fn convert(folder: &Path, rules: Rules) -> Converted {
    let corpus = Corpus::open(folder).unwrap();
    let items = world_items(&corpus.databases().unwrap(), &rules);
    let mut converter = Converter::new(&items, corpus.splits().unwrap(), rules).unwrap();
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
    let converted = convert(corpus, rules);
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

/// The parts of the corpus as the reference counts them (its section 1.2), and what is in each.
const PARTS: [(&str, Part); 5] = [
    (
        "train",
        Part {
            tasks: 6_251,
            goals: [1277, 2232, 2045, 697],
            single: 2121,
            per_task: [2.346, 1.661, 0.685],
            log: 13.38,
        },
    ),
    ("val", Part { tasks: 793, goals: [68, 254, 349, 122], single: 147, per_task: [2.662, 1.815, 0.847], log: 14.49 }),
    (
        "full_test",
        Part { tasks: 805, goals: [73, 293, 336, 103], single: 174, per_task: [2.583, 1.784, 0.799], log: 14.46 },
    ),
    ("test", Part { tasks: 450, goals: [0, 137, 235, 78], single: 0, per_task: [2.869, 2.0, 0.869], log: 15.71 }),
    (
        "train926",
        Part { tasks: 926, goals: [111, 430, 312, 73], single: 249, per_task: [2.375, 1.731, 0.644], log: 13.81 },
    ),
];

struct Part {
    tasks: usize,
    /// Tasks with 1, 2, 3 and 4 goals.
    goals: [usize; 4],
    /// Tasks of one domain; all others are of two.
    single: usize,
    /// Goals, searches and bookings a task, to three digits.
    per_task: [f64; 3],
    /// Utterances a dialogue, to two digits.
    log: f64,
}

/// The tasks of a part, in the order of their names.
fn part<'c>(converted: &'c Converted, corpus: &Path, name: &str) -> Vec<&'c Arc<Task>> {
    let split = if name.ends_with("test") {
        "test"
    } else if name == "val" {
        name
    } else {
        "train"
    };
    let listed = (name == "train926").then(|| {
        let text = crate::fs::read_to_string(corpus.join("josh_train/training_fnames.json")).unwrap();
        serde_json::from_str::<BTreeSet<String>>(&text).unwrap()
    });
    let mut tasks: Vec<&Arc<Task>> = converted.tasks.iter().filter(|task| task.split == split).collect();
    tasks.retain(|task| listed.as_ref().is_none_or(|listed| listed.contains(&task.dialogue)));
    tasks.sort_by(|one, other| one.dialogue.cmp(&other.dialogue));
    tasks.truncate(if name == "test" { 450 } else { usize::MAX });
    tasks
}

/// How many utterances each dialogue has.
fn lengths(corpus: &Path) -> BTreeMap<String, usize> {
    #[derive(Deserialize)]
    struct Log {
        log: Vec<serde::de::IgnoredAny>,
    }
    let mut lengths = BTreeMap::new();
    let each = |name, log: Log| {
        lengths.insert(name, log.log.len());
        Ok::<(), String>(())
    };
    Corpus::open(corpus).unwrap().for_each_dialogue(each).unwrap();
    lengths
}

#[test]
fn golden_statistics_of_the_real_corpus() {
    let Some(folder) = real_corpus() else { return };
    let (converted, lengths) = (convert(&folder, Rules::of(Compat::RepoHead)), lengths(&folder));
    assert_eq!((converted.report.dialogues, converted.report.tasks), (10_438, 7_849));
    assert_eq!(converted.report.untooled, [2_057, 245, 287]);
    assert_eq!(converted.report.unrecorded_bookings, [175, 0, 173, 106]);
    let close = |found: f64, expected: f64, unit: f64| (found - expected).abs() <= unit / 2.0 + 1e-9;
    for (name, expected) in PARTS {
        let tasks = part(&converted, &folder, name);
        assert_eq!(tasks.len(), expected.tasks, "{name}");
        let with = |count: usize| tasks.iter().filter(|task| task.goals.len() == count).count();
        assert_eq!([1, 2, 3, 4].map(with), expected.goals, "{name}");
        let of_domains = |count: usize| tasks.iter().filter(|task| task.domains.len() == count).count();
        assert_eq!((of_domains(1), of_domains(2)), (expected.single, tasks.len() - expected.single), "{name}");
        let per_task = ["", "search", "book"].map(|action| {
            let goals = tasks.iter().flat_map(|task| &task.goals).filter(|goal| goal.api.starts_with(action));
            goals.count() as f64 / tasks.len() as f64
        });
        assert!(
            per_task.iter().zip(expected.per_task).all(|(found, told)| close(*found, told, 1e-3)),
            "{name} {per_task:?}"
        );
        let log = tasks.iter().map(|task| lengths[&task.dialogue]).sum::<usize>() as f64 / tasks.len() as f64;
        assert!(close(log, expected.log, 1e-2), "{name} {log}");
    }
    let test = part(&converted, &folder, "test");
    assert_eq!((test[0].dialogue.as_str(), test[449].dialogue.as_str()), ("MUL0003.json", "PMUL2380.json"));
    let goals = [
        "search_train",
        "search_restaurant",
        "search_attraction",
        "book_train",
        "search_hotel",
        "book_restaurant",
        "book_hotel",
    ];
    let counts = goals.map(|api| test.iter().flat_map(|task| &task.goals).filter(|goal| goal.api == api).count());
    assert_eq!(counts, [350, 194, 187, 174, 169, 127, 90]);
    let full = part(&converted, &folder, "full_test");
    assert_eq!(full.iter().position(|task| task.dialogue.starts_with("SNG")), Some(634));
    let failing = |domain: &str| {
        let goals = converted.tasks.iter().flat_map(|task| &task.domains);
        goals.filter(|goal| goal.domain == domain && !goal.fail_info.is_empty()).count()
    };
    assert_eq!(["restaurant", "hotel", "attraction"].map(failing), [1_054, 1_061, 899]);
}

/// SHA-256 of all goals in order, one line `[dialogue, api, [[parameter, value], …], unique id or null, what a booking returns or
/// null]` each, as Python's `json.dumps` writes it; the booking's return is a text of JSON, a unique id that is no text its JSON.
fn digest_of_goals(converted: &Converted) -> String {
    let mut hash = Sha256::new();
    for task in &converted.tasks {
        for goal in &task.goals {
            let parameters: Vec<[&str; 2]> = goal.parameters.iter().map(|slot| [&*slot.name, &*slot.value]).collect();
            let line = json!([task.dialogue, goal.api, parameters, goal.unique_id, goal.returns]);
            hash.update(dumps(&line) + "\n");
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first digest was made with the reference: its own `create_apis` was run on its own data (package 0.1.4, pandas 3.1), and
/// the goals under `success` written as [`digest_of_goals`] tells, 18,854 lines of 7,849 dialogues. The reference's state of the
/// paper cannot be run, since its SQLite files are not published; the second digest is of the same lines with the four bookings
/// that differ (quirk Q1) as the reference's description names them: TR1144 in MUL0800, express by holiday inn cambridge in
/// MUL0744, acorn guest house in MUL0023, the varsity restaurant in MUL0986.
#[test]
fn golden_goals_of_the_real_corpus_are_those_of_the_reference() {
    let Some(folder) = real_corpus() else { return };
    for (compat, expected) in [
        (Compat::RepoHead, "53111656bded49649789ff33450984e6a4069b928faf3f8faac555078eb2fd10"),
        (Compat::Pypi014, "53111656bded49649789ff33450984e6a4069b928faf3f8faac555078eb2fd10"),
        (Compat::Paper, "1fedb06ea2a82f3f9e66eef6e00e61ab41127e71465b6bea877bce39121e9642"),
    ] {
        let converted = convert(&folder, Rules::of(compat));
        assert_eq!(converted.tasks.iter().map(|task| task.goals.len()).sum::<usize>(), 18_854);
        assert_eq!(digest_of_goals(&converted), expected, "{compat:?}");
    }
}

/// Mean reward and share of full success that are within reach.
fn ceiling(converted: &Converted, tasks: &[&Arc<Task>], rules: Rules) -> (f64, f64) {
    let share = |task: &Arc<Task>| {
        let reached = reachable(&converted.world, task, rules).unwrap();
        reached.len() as f64 / task.goals.len() as f64
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let shares: Vec<f64> = std::thread::scope(|scope| {
        let parts = tasks.chunks(tasks.len().div_ceil(threads));
        let running: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(|task| share(task)).collect::<Vec<f64>>())).collect();
        running.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    let full = shares.iter().filter(|share| **share == 1.0).count();
    (shares.iter().sum::<f64>() / shares.len() as f64, full as f64 / shares.len() as f64)
}

/// Compares the ceilings of parts with those that the reference's description measured (its section 1.3), and with ours, which
/// must be higher. The last pair of a part is of the paper's data without the deletion of quirk Q3.
fn compare_ceilings(told: &[(&str, [(f64, f64); 3])]) {
    let Some(folder) = real_corpus() else { return };
    let paper = Rules::of(Compat::Paper);
    let columns = [Rules::of(Compat::RepoHead), paper, paper.with(Quirk::Q3, Compat::RepoHead)];
    for (column, rules) in columns.into_iter().enumerate() {
        let converted = convert(&folder, rules);
        for (name, expected) in told {
            let (mean, full) = ceiling(&converted, &part(&converted, &folder, name), rules);
            let (told_mean, told_full) = expected[column];
            assert!((mean - told_mean).abs() < 5.1e-5 && (full - told_full).abs() < 5.1e-5, "{name}: {mean} {full}");
        }
    }
    let converted = convert(&folder, Rules::default());
    for (name, expected) in told {
        let (mean, full) = ceiling(&converted, &part(&converted, &folder, name), Rules::default());
        eprintln!("fixed, {name}: {mean:.4}, {full:.4}");
        assert!(
            expected.iter().all(|(other, other_full)| mean > *other && full > *other_full),
            "{name}: {mean} {full}"
        );
    }
}

#[test]
fn golden_ceilings_of_the_real_corpus() {
    compare_ceilings(&[
        ("test", [(0.9806, 0.94), (0.978, 0.9378), (0.9844, 0.9533)]),
        ("full_test", [(0.9793, 0.9416), (0.9754, 0.9354), (0.9825, 0.9516)]),
        ("val", [(0.9831, 0.9533), (0.9808, 0.9483), (0.9841, 0.9571)]),
        ("train926", [(0.9726, 0.9233), (0.9682, 0.9147), (0.9736, 0.9266)]),
    ]);
}

#[test]
fn golden_ceilings_of_all_training_tasks() {
    compare_ceilings(&[("train", [(0.9627, 0.901), (0.9599, 0.8952), (0.9638, 0.9034)])]);
}
