//! Times steps of training on the processor: for `train_cpu.py`, which runs PyTorch beside it.
//!
//! usage: train_cpu CONFIG.json ROWS LENGTH RANK MODE FOLDER
//!
//! CONFIG.json is a model's configuration; its random weights are written to FOLDER/model.safetensors, adapters of rank RANK
//! (0: none) begin at zero. MODE is `plain` (burn's automatic differentiation), `host` or `checkpointing`. Every line on standard
//! input asks for one step over ROWS sequences of LENGTH tokens, all of which are scored; the answer is a JSON object with the
//! loss, wall and CPU seconds and the peak of resident memory in megabytes.

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;
use thresh::model::lora::LoraConfig;
use thresh::model::{Decoder, ModelConfig, weights};
use thresh::train::batch::Sequence;
use thresh::train::host::HostLearner;
use thresh::train::learner::{Learner, LearnerSettings};
use thresh::train::plain::PlainLearner;

/// The learning rate that both sides use.
const RATE: f64 = 1e-3;

/// Token `place` of sequence `row`: both sides compute it.
fn token(row: usize, place: usize, vocab: usize) -> u32 {
    ((row * 7919 + place * place * 31 + place * 17) % vocab) as u32
}

fn learner(mode: &str, model: Decoder) -> Box<dyn Learner> {
    let settings = LearnerSettings { checkpointing: mode == "checkpointing", ..LearnerSettings::default() };
    match mode {
        "plain" => Box::new(PlainLearner::new(model, settings).expect("threads start")),
        _ => Box::new(HostLearner::new(model, settings).expect("threads start")),
    }
}

fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process knows itself");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [config, rows, length, rank, mode, folder] = &arguments[..] else {
        // `cargo test --benches` runs this without arguments.
        return eprintln!("usage: train_cpu CONFIG.json ROWS LENGTH RANK MODE FOLDER");
    };
    let number = |text: &String| text.parse::<usize>().expect("sizes are numbers");
    let (rows, length, rank) = (number(rows), number(length), number(rank));
    let text = std::fs::read_to_string(config).expect("the configuration is a file");
    let config = ModelConfig::parse(&text).expect("the configuration is a model's");
    let mut model = Decoder::init(&config, 1, &Device::flex()).expect("the configuration fits together");
    weights::save(&model, &Path::new(folder).join("model.safetensors")).expect("the folder can be written");
    if rank > 0 {
        let targets = vec!["all-linear".to_owned()];
        let lora = LoraConfig { rank, alpha: rank as f64, rank_stabilised: false, dropout: 0.0, targets };
        model = model.adapt(&lora, 1).expect("the adapters fit");
    }
    let vocab = model.architecture().vocab;
    let mut learner = learner(mode, model);
    let sequence = |row: usize| Sequence {
        dialogue: row.to_string(),
        ids: (0..length).map(|place| token(row, place, vocab)).collect(),
        scored: vec![true; length],
    };
    let sequences: Vec<Sequence> = (0..rows).map(sequence).collect();
    let batch: Vec<&Sequence> = sequences.iter().collect();
    let scored = (rows * (length - 1)) as f64;
    let slope = |_: usize, values: &[f64]| vec![-1.0 / scored; values.len()];
    for _ in std::io::stdin().lock().lines() {
        let (start, before) = (Instant::now(), cpu());
        let values = learner.accumulate(&batch, 1, &slope, 0).expect("the processor answers");
        let norm = learner.gradient_norm().expect("the processor answers");
        learner.update(RATE, (1.0 / (norm + 1e-6)).min(1.0)).expect("the processor answers");
        let peak = getrusage(UsageWho::RUSAGE_SELF).expect("a process knows itself").max_rss() as f64 * 1024.0 / 1e6;
        let loss = -values.iter().sum::<f64>() / scored;
        println!(
            "{}",
            json!({"loss": loss, "wall": start.elapsed().as_secs_f64(), "cpu": cpu() - before, "peak": peak})
        );
    }
}
