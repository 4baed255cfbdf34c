//! What a task comes to must not depend on the tasks beside it: else a journal would change results.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::dialogue::episode::EpisodeRow;
use crate::engine::stage::Stage;
use crate::josh::node::NodeRow;
use crate::stages::bench::Bench;
use crate::stages::demonstrations_build::DemonstrationsBuild;
use crate::stages::dialogue_simulate::DialogueSimulate;
use crate::stages::josh_harvest::JoshHarvest;
use crate::stages::model_init::ModelInit;
use crate::stages::multiwoz_synthesize::MultiwozSynthesize;
use crate::stages::toolwoz_convert::ToolwozConvert;
use crate::table;

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
