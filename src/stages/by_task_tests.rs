//! What a task comes to must not depend on the tasks beside it: else a journal would change results.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{FromTask, by_task};
use crate::compat::Rules;
use crate::dialogue::episode::EpisodeRow;
use crate::dialogue::task::Task;
use crate::dialogue::world::World;
use crate::engine::port::Port;
use crate::engine::stage::{Context, Stage};
use crate::josh::node::NodeRow;
use crate::stages::bench::Bench;
use crate::stages::casting::{Agent, AgentKind, UserSpec, casting};
use crate::stages::demonstrations_build::DemonstrationsBuild;
use crate::stages::dialogue_simulate::DialogueSimulate;
use crate::stages::josh_harvest::JoshHarvest;
use crate::stages::model_init::ModelInit;
use crate::stages::multiwoz_synthesize::MultiwozSynthesize;
use crate::stages::selection::Selection;
use crate::stages::toolwoz_convert::ToolwozConvert;
use crate::table::{self, Row};

/// Tasks, their world and a policy that babbles, so that its dialogues grow long.
struct Town {
    bench: Bench,
    tasks: PathBuf,
    world: PathBuf,
    policy: PathBuf,
}

fn stage<S: Stage>(parameters: Value) -> S {
    serde_json::from_value(parameters).unwrap()
}

impl Town {
    fn new() -> Self {
        let bench = Bench::new();
        let corpus = json!({"dialogues": 40, "domains": ["restaurant", "attraction"], "max_domains": 2});
        bench.run(&stage::<MultiwozSynthesize>(corpus), &[]).unwrap();
        let corpus = bench.aside("corpus");
        bench.run(&stage::<ToolwozConvert>(json!({})), &[("corpus", &corpus)]).unwrap();
        let [tasks, world] = ["tasks.parquet", "world.parquet"].map(|name| bench.aside(name));
        let inputs = [("corpus", &*corpus), ("tasks", &*tasks), ("world", &*world)];
        bench.run(&stage::<DemonstrationsBuild>(json!({})), &inputs).unwrap();
        let examples = bench.aside("examples.parquet");
        let model = json!({
            "layers": 2, "hidden_size": 64, "heads": 4, "kv_heads": 2, "intermediate_size": 600, "context": 1600, "seed": 1,
        });
        bench.run(&stage::<ModelInit>(model), &[("examples", &examples)]).unwrap();
        let policy = bench.aside("model");
        Self { bench, tasks, world, policy }
    }

    fn inputs(&self) -> [(&str, &std::path::Path); 3] {
        [("tasks", &self.tasks), ("world", &self.world), ("policy", &self.policy)]
    }

    fn episodes(&self, agent: &Value, skip: usize, limit: usize, width: usize) -> Vec<EpisodeRow> {
        let tasks = json!({"split": "train", "skip": skip, "limit": limit});
        let stage: DialogueSimulate = stage(json!({"agent": agent, "tasks": tasks, "seed": 5}));
        self.bench.run_with(&self.inputs(), |context| stage.simulate(context, width)).unwrap();
        table::read(&self.bench.out("episodes.parquet")).unwrap()
    }

    fn trees(&self, skip: usize, limit: usize) -> Vec<NodeRow> {
        let tasks = json!({"split": "train", "skip": skip, "limit": limit});
        let agent = json!({"temperature": 1.0, "max_tokens": 24});
        let stage: JoshHarvest = stage(json!({"agent": agent, "tasks": tasks, "beam": 4, "max_steps": 4, "seed": 5}));
        self.bench.run(&stage, &self.inputs()).unwrap();
        table::read(&self.bench.out("trees.parquet")).unwrap()
    }
}

#[test]
fn a_policys_dialogues_are_the_same_whole_in_halves_and_one_by_one() {
    let town = Town::new();
    for agent in [json!({"max_tokens": 48}), json!({"temperature": 1.0, "top_p": 0.95, "max_tokens": 48})] {
        let whole = town.episodes(&agent, 0, 8, 256);
        assert!(whole.iter().any(|row| row.agent_prompt_tokens / row.messages.len() as u64 > 512), "short dialogues");
        assert_eq!(whole, town.episodes(&agent, 0, 8, 1));
        assert_eq!(whole[..4], town.episodes(&agent, 0, 4, 256));
        assert_eq!(whole[4..], town.episodes(&agent, 4, 4, 256));
        for (place, row) in whole.iter().enumerate() {
            assert_eq!([row.clone()][..], town.episodes(&agent, place, 1, 256));
        }
    }
}

#[test]
fn a_policys_trees_are_the_same_whole_and_one_by_one() {
    let town = Town::new();
    let whole = town.trees(0, 4);
    let alone: Vec<NodeRow> = (0..4).flat_map(|place| town.trees(place, 1)).collect();
    assert!(whole.len() > 8);
    assert_eq!(whole, alone);
}

/// What came of a task whose name is its number; the larger number comes first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Echo {
    dialogue: String,
    broken: Option<String>,
}

impl Row for Echo {
    const TYPE: &'static str = "test.echo/v1";
}

impl FromTask for Echo {
    type Row = Self;

    const NAMES: [&'static str; 2] = ["echo", "echoes"];

    fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn score(&self) -> f64 {
        1.0
    }

    fn so_far(score: f64, count: u64) -> String {
        format!("{score} of {count}")
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("number", self.dialogue.parse().unwrap())]
    }

    fn rows(self) -> impl IntoIterator<Item = Self> {
        [self]
    }
}

const ECHOES: Port<Echo> = Port::new("echoes");

/// Tasks in an order that is not that of their names.
fn tasks(count: usize) -> impl Iterator<Item = Task> {
    (0..count).map(move |number| Task {
        dialogue: format!("{:04}", number * 7 % count),
        split: "train".into(),
        message: String::new(),
        domains: Vec::new(),
        goals: Vec::new(),
    })
}

/// Plays all tasks so that later ones end first; how often each was played again.
fn echo(context: &Context, disturb: impl Fn(usize), broken: fn(usize) -> bool) -> anyhow::Result<BTreeMap<usize, u32>> {
    let rule = Agent { kind: AgentKind::Rule, ..Agent::default() };
    let casting = casting(context, &rule, &UserSpec::default(), &Arc::new(World::default()))?;
    let played = RefCell::new(BTreeMap::new());
    let play = |task: Task| {
        let (played, disturb) = (&played, &disturb);
        async move {
            let number: usize = task.dialogue.parse()?;
            let times = *played.borrow_mut().entry(number).and_modify(|times| *times += 1).or_default();
            if times == 0 {
                tokio::time::sleep(Duration::from_millis(2 * 400_usize.saturating_sub(number) as u64)).await;
                disturb(number);
            }
            let broken = broken(number).then(|| format!("no answer to {number}"));
            Ok(Echo { dialogue: task.dialogue, broken })
        }
    };
    let tasks = Selection::train().choose(context, &Arc::new(World::default()), Rules::default())?;
    let sums = by_task(context, &ECHOES, 1000, &casting, tasks, play)?;
    let whole = (0..400).filter(|number| !broken(*number));
    assert_eq!(sums.score, whole.clone().count() as f64);
    assert_eq!(sums.counts, [("number", whole.map(|number| number as u64).sum())].into());
    Ok(played.into_inner())
}

#[test]
fn what_ends_in_any_order_is_written_in_the_tasks_order() {
    let bench = Bench::new();
    let path = bench.project().join("tasks.parquet");
    std::fs::create_dir_all(bench.project()).unwrap();
    table::write(&path, tasks(400)).unwrap();
    let inputs = [("tasks", &*path)];
    let journal = |context: &Context| std::fs::read_dir(&context.rows).unwrap().next().unwrap().unwrap().path();
    let written = || {
        let rows: Vec<Echo> = table::read(&bench.out("echoes.parquet")).unwrap();
        let names: Vec<String> = rows.iter().map(|row| row.dialogue.clone()).collect();
        assert_eq!(names, (0..400).map(|number| format!("{number:04}")).collect::<Vec<_>>());
        rows.iter().filter(|row| row.broken.is_some()).count()
    };
    // Undisturbed, with broken ones that no journal holds.
    bench
        .run_with(&inputs, |context| {
            let played = echo(context, |_| (), |number| number.is_multiple_of(9))?;
            assert!(played.values().all(|times| *times == 0) && played.len() == 400);
            Ok(())
        })
        .unwrap();
    assert_eq!(written(), 45);
    // The journal is lost on the way: what was neither held nor written is played once more.
    bench
        .run_with(&inputs, |context| {
            let disturb = |number| {
                if number == 100 {
                    std::fs::write(journal(context), "").unwrap()
                }
            };
            let played = echo(context, disturb, |_| false)?;
            let again = played.values().filter(|times| **times == 1).count();
            assert!((200..=300).contains(&again) && played.values().all(|times| *times < 2), "{again}");
            Ok(())
        })
        .unwrap();
    assert_eq!(written(), 0);
    // The first in the tasks' order tells why all are broken.
    let error = bench.run_with(&inputs, |context| echo(context, |_| (), |_| true).map(|_| ())).unwrap_err();
    assert_eq!(error.to_string(), "every echo is broken: no answer to 0");
}
