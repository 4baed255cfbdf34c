//! Our logits against those of transformers, on tiny models of every family. `tests/record/logits.py` recorded them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::Value;

use super::numbers::{Format, transpose};
use super::peft::{ADAPTER_CONFIG, ADAPTER_MODEL, PeftAdapter};
use super::weights::WeightsError;
use super::{Decoder, ModelConfig, peft};
use crate::fs;

/// A recorded model.
pub(crate) struct Case {
    pub name: String,
    pub config: ModelConfig,
    pub tokens: Vec<u32>,
    /// Some positions, each with its logits.
    pub logits: Vec<(usize, Vec<f32>)>,
}

/// Every recorded model.
pub(crate) fn cases() -> Vec<Case> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/logits"));
    let read = |path: PathBuf| {
        let case: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let positions: Vec<usize> = serde_json::from_value(case["positions"].clone()).unwrap();
        let logits: Vec<Vec<f32>> = serde_json::from_value(case["logits"].clone()).unwrap();
        Case {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            config: ModelConfig::parse(&case["config"].to_string()).unwrap(),
            tokens: serde_json::from_value(case["tokens"].clone()).unwrap(),
            logits: positions.into_iter().zip(logits).collect(),
        }
    };
    fs::list(folder).unwrap().into_iter().map(read).collect()
}

/// The decoder of a recorded model: its weights are a formula of their names and places.
pub(crate) fn decoder(config: &ModelConfig, device: &Device) -> Decoder {
    let offset = if config.architecture().unit_offset { 0.0 } else { 1.0 };
    let matrix = |name: &str, shape: [usize; 2]| -> Result<_, WeightsError> {
        let values = fill(name, shape[0] * shape[1]);
        let values = if name.contains("embed_tokens") { values } else { transpose(&values, [shape[1], shape[0]]) };
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    };
    let vector = |name: &str, size: usize| {
        let offset = if name.ends_with("norm.weight") { offset } else { 0.0 };
        let values: Vec<f32> = fill(name, size).into_iter().map(|value| value + offset).collect();
        Ok(Tensor::from_data(TensorData::new(values, [size]), device))
    };
    Decoder::build(config, matrix, vector).unwrap()
}

/// The formula: see `fill` in `tests/record/logits.py`.
fn fill(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    let one = |place: u32| {
        let mut x = place.wrapping_mul(2_654_435_761).wrapping_add(seed);
        for _ in 0..2 {
            x = (x ^ (x >> 16)).wrapping_mul(0x45D_9F3B);
        }
        x ^= x >> 16;
        ((f64::from(x >> 8) / f64::from(1 << 24) - 0.5) / 2.0) as f32
    };
    (0..count as u32).map(one).collect()
}

fn largest_difference(case: &Case, config: &ModelConfig) -> f32 {
    distance(&decoder(config, &Device::flex()), &case.tokens, &case.logits)
}

/// The largest difference between a decoder's logits and the recorded ones.
fn distance(decoder: &Decoder, tokens: &[u32], logits: &[(usize, Vec<f32>)]) -> f32 {
    let ids: Vec<i32> = tokens.iter().map(|&id| id as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, tokens.len()]), &Device::flex());
    let found: Vec<f32> = decoder.forward(ids).try_into_vec_as().unwrap();
    let rows = logits.iter().map(|(position, row)| (&found[position * row.len()..(position + 1) * row.len()], row));
    rows.flat_map(|(found, row)| found.iter().zip(row)).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

/// An adapter's folder as PEFT wrote it, its numbers by the formula: see `tests/record/adapter.py`.
#[test]
fn adapted_logits_are_those_of_peft() {
    let recorded: Value = crate::golden::read("adapter").remove(0).1;
    let read = |key: &str| recorded[key].clone();
    let tensors: BTreeMap<String, Vec<usize>> = serde_json::from_value(read("tensors")).unwrap();
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(name, shape)| Format::F32.encode(&fill(name, shape.iter().product())).unwrap()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| (name, TensorView::new(Format::F32.dtype(), shape.clone(), bytes).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    fs::write_whole(folder.path().join(ADAPTER_CONFIG), read("settings").to_string().as_bytes()).unwrap();
    fs::write_whole(folder.path().join(ADAPTER_MODEL), &safetensors::serialize(views, None).unwrap()).unwrap();
    let base = cases().into_iter().find(|case| case.name == "llama_biases").unwrap();
    let positions: Vec<usize> = serde_json::from_value(read("positions")).unwrap();
    let logits: Vec<Vec<f32>> = serde_json::from_value(read("logits")).unwrap();
    let logits: Vec<_> = positions.into_iter().zip(logits).collect();
    let plain = decoder(&base.config, &Device::flex());
    let adapted = PeftAdapter::open(folder.path()).unwrap().attach(&plain).unwrap();
    assert!(distance(&plain, &base.tokens, &logits) > 0.1);
    assert!(distance(&adapted, &base.tokens, &logits) < 1e-5);
    assert!(distance(&adapted.merged(), &base.tokens, &logits) < 1e-5);
    // What we write has the names and shapes that PEFT gave.
    let again = tempfile::tempdir().unwrap();
    peft::save(&adapted, again.path(), None).unwrap();
    let file = fs::read(again.path().join(ADAPTER_MODEL)).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let written = file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec()));
    assert_eq!(written.collect::<BTreeMap<_, _>>(), tensors);
}

#[test]
fn logits_are_those_of_transformers() {
    let cases = cases();
    assert_eq!(cases.len(), 13);
    for case in &cases {
        let difference = largest_difference(case, &case.config);
        println!("{}: {difference:e}", case.name);
        assert!(difference < 1e-4, "{}: {difference}", case.name);
    }
}

/// The recorded numbers would notice if a setting were passed over.
#[test]
fn every_setting_shows_in_the_logits() {
    type Change = fn(&mut ModelConfig);
    let changes: [(&str, Change); 10] = [
        ("llama_rope_llama3", |c| c.rope_scaling = None),
        ("llama_rope_linear", |c| c.rope_scaling = None),
        ("llama_rope_yarn", |c| c.rope_scaling = None),
        ("llama_rope_yarn_mscale", |c| drop(c.rope_scaling.as_mut().unwrap().remove("mscale"))),
        ("llama_rope_yarn_mscale", |c| drop(c.rope_scaling.as_mut().unwrap().remove("truncate"))),
        ("qwen2_window", |c| c.sliding_window = Some(6)),
        ("qwen3_biases_window", |c| c.layer_types.as_mut().unwrap().swap(0, 1)),
        ("gemma3", |c| c.sliding_window = Some(7)),
        ("gemma3", |c| c.query_pre_attn_scalar = None),
        ("gemma3", |c| c.rope_local_base_freq = Some(2000.0)),
    ];
    let cases = cases();
    for (name, change) in changes {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        let mut config = case.config.clone();
        change(&mut config);
        config.check().unwrap();
        assert!(largest_difference(case, &config) > 1e-3, "{name}");
    }
}
