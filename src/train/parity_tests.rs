//! Whole optimiser steps beside TRL's own trainers (`tests/record/trl_step.py`): full training and adapters, two batches a step.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;
use serde_json::Value;

use super::batch::Sequence;
use super::dpo::{PairRow, PairSettings};
use super::kto::{KtoRow, KtoSettings};
use super::learner::LearnerSettings;
use super::objective::{KtoConstants, KtoLoss, PairConstants, PairLoss};
use super::optimise::{AdamWConfig, parameters, with_parameters};
use super::schedule::{Schedule, Warmup};
use super::sft::SftSettings;
use super::tests::Listener;
use super::{Evaluation, Examples, Settings, TrainError, TrainLog, Trained, dpo, kto, sft};
use crate::model::lora::LoraConfig;
use crate::model::{Decoder, ModelConfig};

#[derive(Deserialize)]
struct Golden {
    config: Value,
    lora: Lora,
    prompts: Vec<Vec<u32>>,
    chosen: Vec<Vec<u32>>,
    rejected: Vec<Vec<u32>>,
    labels: Vec<bool>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Lora {
    r: usize,
    lora_alpha: f64,
    target_modules: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    kind: String,
    lora: bool,
    steps: Vec<BTreeMap<String, f64>>,
    /// Sum, norm, norm of the change, and the first, a middle and the last number.
    parameters: BTreeMap<String, [f64; 6]>,
}

/// The formula of the recording: numbers between -0.5 and 0.5, another sequence for each name.
fn numbers(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().zip(1_u64..).map(|(letter, place)| place * u64::from(letter)).sum::<u64>() % 97;
    let one = |i: u64| ((i * i * 31 + i * (2 * seed + 7) + seed * 13) % 101) as f64 / 101.0 - 0.5;
    (0..count as u64).map(one).collect()
}

/// The names of the parameters in the order in which a decoder's are visited.
fn names(golden: &Golden, lora: bool) -> Vec<String> {
    let mut names = vec!["model.embed_tokens.weight".to_owned()];
    for layer in 0..golden.config["num_hidden_layers"].as_u64().unwrap() {
        let mut add = |part: String| names.push(format!("model.layers.{layer}.{part}.weight"));
        let mut map = |block: &str, map: &str| {
            add(format!("{block}.{map}"));
            if lora && golden.lora.target_modules.iter().any(|target| target == map) {
                ["lora_A", "lora_B"].into_iter().for_each(|part| add(format!("{block}.{map}.{part}")));
            }
        };
        ["q_proj", "k_proj", "v_proj", "o_proj"].into_iter().for_each(|part| map("self_attn", part));
        ["gate_proj", "up_proj", "down_proj"].into_iter().for_each(|part| map("mlp", part));
        let first = names.len() - names.iter().filter(|name| name.contains(&format!("layers.{layer}."))).count();
        let behind = names.iter().position(|name| name.contains(&format!("layers.{layer}.mlp"))).unwrap();
        names.insert(behind, format!("model.layers.{layer}.post_attention_layernorm.weight"));
        names.insert(first, format!("model.layers.{layer}.input_layernorm.weight"));
    }
    names.push("model.norm.weight".to_owned());
    names
}

/// [rows, columns] to [columns, rows].
fn turned(values: &[f64], rows: usize) -> Vec<f64> {
    let columns = values.len() / rows;
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// The rows of a parameter in memory, where files hold it turned.
fn rows_in_memory(model: &Decoder, name: &str) -> Option<usize> {
    if name.contains("norm") || name.contains("embed_tokens") {
        return None;
    }
    let parts = [".lora_A.weight", ".lora_B.weight", ".weight"];
    let part = *parts.iter().find(|part| name.ends_with(*part)).unwrap();
    let (_, map) = model.linears().into_iter().find(|(map, _)| *map == name.trim_end_matches(part)).unwrap();
    Some(if part == ".lora_B.weight" { map.adapter.as_ref().unwrap().b.dims()[0] } else { map.dims()[0] })
}

fn model(golden: &Golden, lora: bool) -> Decoder {
    let device = Device::flex();
    let plain = Decoder::init(&ModelConfig::parse(&golden.config.to_string()).unwrap(), 0, &device).unwrap();
    let Lora { r, lora_alpha, ref target_modules } = golden.lora;
    let targets = target_modules.clone();
    let config = LoraConfig { rank: r, alpha: lora_alpha, rank_stabilised: false, dropout: 0.0, targets };
    let model = if lora { plain.adapt(&config, 0).unwrap() } else { plain };
    let names = names(golden, lora);
    let tensors = parameters(&model);
    assert_eq!(tensors.len(), names.len());
    let filled = names.iter().zip(&tensors).map(|(name, tensor)| {
        let count = tensor.dims()[0];
        let numbers = numbers(name, count).into_iter();
        let values: Vec<f64> = numbers.map(|x| if name.contains("norm") { 1.0 + 0.2 * x } else { 0.5 * x }).collect();
        let values = match rows_in_memory(&model, name) {
            Some(rows) => turned(&values, count / rows),
            None => values,
        };
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        Tensor::from_data(TensorData::new(values, [count]), &device)
    });
    let filled = filled.collect();
    with_parameters(model, filled)
}

fn settings() -> Settings {
    let adam = AdamWConfig { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.1 };
    Settings {
        epochs: 3.0,
        max_steps: None,
        batch_size: 2,
        accumulation: 2,
        learning_rate: 1e-2,
        schedule: Schedule::Linear,
        warmup: Warmup::Steps(0),
        max_grad_norm: 1.0,
        seed: 1,
        checkpoint_every: 0,
        evaluation: Evaluation::default(),
        learner: LearnerSettings { adam, ..LearnerSettings::default() },
    }
}

fn sequence(prompt: &[u32], completion: &[u32]) -> Sequence {
    let ids = [prompt, completion].concat();
    let scored = (0..ids.len()).map(|place| place >= prompt.len()).collect();
    Sequence { dialogue: "d".to_owned(), ids, scored }
}

fn train(golden: &Golden, case: &Case) -> Result<Trained, TrainError> {
    let (base, settings, listener) = (model(golden, case.lora), settings(), Listener::default());
    let nowhere = Path::new("no such folder");
    let side = |side: &[Vec<u32>]| -> Vec<Sequence> {
        golden.prompts.iter().zip(side).map(|(prompt, completion)| sequence(prompt, completion)).collect()
    };
    let chosen = side(&golden.chosen);
    match case.kind.as_str() {
        "sft" => {
            let sft = SftSettings { bucketing: 1 };
            sft::train(base, Examples::all(&chosen), &settings, sft, nowhere, &listener)
        }
        "kto" => {
            let constants = KtoConstants { beta: 0.3, desirable: 1.0, undesirable: 1.5 };
            let kto = KtoSettings { loss: KtoLoss::Kto, constants, max_length: 64, shuffle: false };
            let labelled = chosen.into_iter().zip(&golden.labels).zip(&golden.prompts);
            let rows: Vec<KtoRow> = labelled
                .map(|((sequence, &desirable), prompt)| KtoRow { sequence, prompt: prompt.len(), desirable })
                .collect();
            kto::train(base, Examples::all(&rows), &settings, &kto, nowhere, &listener)
        }
        _ => {
            let constants = PairConstants { beta: 0.3, label_smoothing: 0.0, alpha: 0.0 };
            let pairs = PairSettings { loss: PairLoss::Dpo, constants };
            let pair = |(chosen, rejected)| PairRow { sides: [chosen, rejected] };
            let rows: Vec<PairRow> = chosen.into_iter().zip(side(&golden.rejected)).map(pair).collect();
            dpo::train(base, Examples::all(&rows), &settings, pairs, nowhere, &listener)
        }
    }
}

/// 1e-4 of the number, or of `scale` where that is more.
fn close(found: f64, expected: f64, scale: f64, what: &str) {
    let within = 1e-4 * expected.abs().max(scale);
    assert!((found - expected).abs() <= within, "{what}: {found} instead of {expected}");
}

fn steps_match(log: &[TrainLog], expected: &[BTreeMap<String, f64>], what: &str) {
    assert_eq!(log.len(), expected.len(), "{what}");
    for (row, expected) in log.iter().zip(expected) {
        // Where policy and reference are still one model, rounding decides which reward is higher.
        let even = expected.get("rewards/chosen") == expected.get("rewards/rejected");
        for (name, expected) in expected.iter().filter(|(name, _)| !even || *name != "rewards/accuracies") {
            let found = match name.as_str() {
                "loss" => row.loss,
                "grad_norm" => row.grad_norm,
                "learning_rate" => row.learning_rate,
                "kl" => row.kl.unwrap(),
                "rewards/chosen" => row.rewards_chosen.unwrap(),
                "rewards/rejected" => row.rewards_rejected.unwrap(),
                "rewards/accuracies" => row.rewards_accuracy.unwrap(),
                "logps/chosen" => row.logps_chosen.unwrap(),
                "logps/rejected" => row.logps_rejected.unwrap(),
                other => panic!("{other}"),
            };
            // Rewards are differences of log-probabilities, which are about 30 here.
            let scale = if name.starts_with("rewards") || name == "kl" { 0.3 } else { 0.0 };
            close(found, *expected, scale, &format!("{what}, step {}, {name}", row.step));
        }
    }
}

fn weights_match(golden: &Golden, case: &Case, trained: &Decoder, what: &str) {
    let before = parameters(&model(golden, case.lora));
    let names = names(golden, case.lora);
    let mut seen = 0;
    for ((name, before), after) in names.iter().zip(before).zip(parameters(trained)) {
        let [before, after] =
            [before, after].map(|tensor| tensor.into_data().convert::<f64>().iter::<f64>().collect::<Vec<f64>>());
        let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let change: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let Some(expected) = case.parameters.get(name) else {
            assert_eq!(norm(&change), 0.0, "{what}: {name} is not trained");
            continue;
        };
        seen += 1;
        let count = after.len();
        let after = match rows_in_memory(trained, name) {
            Some(rows) => turned(&after, rows),
            None => after,
        };
        let found = [after.iter().sum(), norm(&after), norm(&change), after[0], after[count / 3], after[count - 1]];
        let scales = [expected[1], 0.0, 0.0, 0.1, 0.1, 0.1];
        for ((found, expected), scale) in found.iter().zip(expected).zip(scales) {
            close(*found, *expected, scale, &format!("{what}, {name}"));
        }
    }
    assert_eq!(seen, case.parameters.len(), "{what}");
}

#[test]
fn three_steps_are_those_of_trl() {
    for (file, golden) in crate::golden::read::<Golden>("trl_step") {
        assert_eq!(golden.cases.len(), 6, "{file}");
        for case in &golden.cases {
            let what = format!("{}{}", case.kind, if case.lora { " with adapters" } else { "" });
            let trained = train(&golden, case).unwrap();
            steps_match(&trained.log, &case.steps, &what);
            weights_match(&golden, case, &trained.model, &what);
        }
    }
}
