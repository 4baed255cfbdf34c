//! Times single API calls: for `toolwoz.py`, which runs the reference beside it.
//!
//! usage: api_calls TASKS.parquet WORLD.parquet CALLS.jsonl COMPAT
//!
//! Every line of CALLS is `{"dialogue", "api", "args"}`. Prints one JSON object: `nanos`, the mean CPU time of each call in
//! order, and `digest`, a hash over what the agent sees of all of them.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thresh::compat::{Compat, Rules};
use thresh::dialogue::server::Session;
use thresh::dialogue::task::{Task, WorldItem};
use thresh::dialogue::world::World;
use thresh::table;

#[derive(Deserialize)]
struct Recorded {
    dialogue: String,
    api: String,
    args: Value,
}

/// Each call is made so often, and the whole list in so many rounds.
const TIMES: u32 = 20;
const ROUNDS: usize = 5;

/// What this thread took so far.
fn cpu() -> nix::Result<TimeSpec> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [tasks, world, calls, compat] = arguments.as_slice() else {
        return Err("usage: api_calls TASKS.parquet WORLD.parquet CALLS.jsonl COMPAT".into());
    };
    let rules = Rules::of(serde_json::from_value::<Compat>(json!(compat))?);
    let items: Vec<WorldItem> = table::read(Path::new(world))?;
    let world = Arc::new(World::from_items(items)?);
    let tasks: Vec<Task> = table::read(Path::new(tasks))?;
    let tasks: HashMap<String, Arc<Task>> =
        tasks.into_iter().map(|task| (task.dialogue.clone(), Arc::new(task))).collect();
    let mut prepared = Vec::new();
    for line in std::fs::read_to_string(calls)?.lines() {
        let call: Recorded = serde_json::from_str(line)?;
        let task = tasks.get(&call.dialogue).ok_or_else(|| format!("no task `{}`", call.dialogue))?;
        prepared.push((Session::new(world.clone(), task.clone(), rules)?, call));
    }
    let mut nanos = vec![0.0; prepared.len()];
    for _ in 0..ROUNDS {
        for ((session, call), nanos) in prepared.iter().zip(&mut nanos) {
            let began = cpu()?;
            for _ in 0..TIMES {
                black_box(session.clone().call(black_box(&call.api), black_box(&call.args)));
            }
            *nanos += (cpu()? - began).num_nanoseconds() as f64 / f64::from(TIMES) / ROUNDS as f64;
        }
    }
    let mut seen = Sha256::new();
    for (session, call) in &prepared {
        seen.update(session.clone().call(&call.api, &call.args).text + "\n");
    }
    let digest: String = seen.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{}", json!({ "nanos": nanos, "digest": digest }));
    Ok(())
}
