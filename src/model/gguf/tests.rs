//! Numbers against the Python package `gguf`, whole models against the folders that they come from, and damaged files.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::Decoder;
use crate::model::checkpoint::Checkpoint;
use crate::model::numbers::transpose;
use crate::model::parity_tests::{Case, cases, decoder};

fn unhex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn blocks_give_the_numbers_of_the_python_package_to_the_bit() {
    let cases: Vec<Value> = crate::golden::read("gguf_blocks").remove(0).1;
    assert_eq!(cases.len(), 10);
    for case in cases {
        let quant = Quant(case["number"].as_u64().unwrap() as u32);
        assert_eq!(case["name"], quant.name());
        let (bytes, expected) = (unhex(&case["bytes"]), unhex(&case["values"]));
        assert_eq!(quant.bytes(&[expected.len() / 4]), Some(bytes.len()));
        let values: Vec<u8> = quant.dequantise(&bytes).unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(values, expected, "{}", quant.name());
    }
}

/// A GGUF file in the making.
#[derive(Clone, Default)]
struct Writer {
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Writer {
    fn value(&mut self, key: &str, value: &Value) {
        let bytes = match value {
            Value::String(value) => [&8_u32.to_le_bytes()[..], &text(value)].concat(),
            Value::Number(number) if number.is_u64() => {
                [4_u32.to_le_bytes(), (number.as_u64().unwrap() as u32).to_le_bytes()].concat()
            }
            Value::Number(number) => [6_u32.to_le_bytes(), (number.as_f64().unwrap() as f32).to_le_bytes()].concat(),
            Value::Array(flags) => {
                let head =
                    [&9_u32.to_le_bytes()[..], &7_u32.to_le_bytes(), &(flags.len() as u64).to_le_bytes()].concat();
                head.into_iter().chain(flags.iter().map(|flag| u8::from(flag.as_bool().unwrap()))).collect()
            }
            other => panic!("{other}"),
        };
        self.entries.retain(|(name, _)| name != key);
        self.entries.push((key.to_owned(), bytes));
    }

    fn tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), 0, bytes));
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            file.extend(text(key));
            file.extend(value);
        }
        let mut data: Vec<u8> = Vec::new();
        for (name, shape, kind, bytes) in &self.tensors {
            file.extend(text(name));
            file.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|&side| file.extend((side as u64).to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        file.resize(file.len().next_multiple_of(32), 0);
        [file, data].concat()
    }

    fn open(&self, folder: &Path) -> Result<Checkpoint, crate::model::checkpoint::CheckpointError> {
        let path = folder.join("model.gguf");
        fs::write_whole(&path, &self.bytes()).unwrap();
        Checkpoint::open(&path)
    }
}

/// Hugging Face's name to llama.cpp's, written down apart from the reader's table.
fn own(name: &str, gemma: bool) -> String {
    let feed_forward = if gemma { "post_attention_norm" } else { "ffn_norm" };
    [
        ("model.layers.", "blk."),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", feed_forward),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
    ]
    .into_iter()
    .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// As llama.cpp's converter lays the rows of Llama's queries and keys: `reshape(heads, 2, head / 2, width).swapaxes(1, 2)`.
fn paired(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, half) = (values.len() / rows, rows / heads / 2);
    let mut laid = Vec::new();
    for head in 0..heads {
        for pair in 0..half {
            for side in 0..2 {
                let row = head * 2 * half + side * half + pair;
                laid.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    laid
}

/// A recorded model as llama.cpp's converter would write it.
fn written(case: &Case) -> Writer {
    let config = &case.config;
    let arch = config.model_type.trim_end_matches("_text");
    let gemma = arch == "gemma3";
    let mut writer = Writer::default();
    writer.value("general.architecture", &json!(arch));
    let mut set = |part: &str, value: Value| writer.value(&format!("{arch}.{part}"), &value);
    set("block_count", json!(config.num_hidden_layers));
    set("context_length", json!(config.max_position_embeddings));
    set("embedding_length", json!(config.hidden_size));
    set("feed_forward_length", json!(config.intermediate_size));
    set("attention.head_count", json!(config.num_attention_heads));
    set("attention.head_count_kv", json!(config.kv_heads()));
    set("attention.key_length", json!(config.head_size()));
    set("attention.value_length", json!(config.head_size()));
    set("attention.layer_norm_rms_epsilon", json!(config.rms_norm_eps));
    set("rope.freq_base", json!(config.rope_theta));
    if gemma {
        set("attention.sliding_window", json!(config.sliding_window.unwrap()));
        set("rope.freq_base_swa", json!(config.rope_local_base_freq.unwrap()));
        let slides = config.layer_types.as_ref().unwrap().iter().map(|kind| json!(kind == "sliding_attention"));
        set("attention.sliding_window_pattern", slides.collect());
    }
    if let Some(scaling) = &config.rope_scaling {
        set("rope.scaling.type", scaling["rope_type"].clone());
        set("rope.scaling.factor", scaling["factor"].clone());
        if let Some(original) = scaling.get("original_max_position_embeddings") {
            set("rope.scaling.original_context_length", original.clone());
        }
    }
    let model = decoder(config, &Device::flex());
    for (name, param) in model.matrices() {
        let [rows, columns] = param.val().dims();
        let values: Vec<f32> = param.val().try_into_vec_as().unwrap();
        if name.contains("embed") {
            writer.tensor(&own(&name, gemma), &[rows, columns], &values);
            continue;
        }
        let values = transpose(&values, [rows, columns]);
        writer.tensor(&own(&name, gemma), &[columns, rows], &laid(&name, values, columns, config));
    }
    for (name, param) in model.vectors() {
        let mut values: Vec<f32> = param.val().try_into_vec_as().unwrap();
        if gemma && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        let size = values.len();
        writer.tensor(&own(&name, gemma), &[size], &laid(&name, values, size, config));
    }
    writer
}

fn laid(name: &str, values: Vec<f32>, rows: usize, config: &ModelConfig) -> Vec<f32> {
    match name {
        _ if config.model_type != "llama" => values,
        _ if name.contains("q_proj") => paired(&values, rows, config.num_attention_heads),
        _ if name.contains("k_proj") => paired(&values, rows, config.kv_heads()),
        _ => values,
    }
}

fn logits(model: &Decoder, tokens: &[u32]) -> Vec<f32> {
    let ids: Vec<i32> = tokens.iter().map(|&id| id as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, tokens.len()]), &Device::flex());
    model.forward(ids).try_into_vec_as().unwrap()
}

#[test]
fn files_of_every_family_compute_what_their_folders_do() {
    let skipped = [
        "llama_rope_llama3",      // its divisors are not those of a released model
        "llama_rope_yarn_mscale", // what metadata cannot say
        "qwen2_window",           // llama.cpp knows no windows there
        "qwen3_biases_window",
        "gemma3", // what queries are divided by is not written down
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for mut case in cases() {
        if case.name.starts_with("gemma3") {
            case.config.query_pre_attn_scalar = Some(case.config.head_size() as f64);
        } else if skipped.contains(&case.name.as_str()) {
            continue;
        }
        let opened = written(&case).open(folder.path()).unwrap();
        let (found, expected) = (opened.config().architecture(), case.config.architecture());
        assert_eq!(found.layers, expected.layers, "{}", case.name);
        assert_eq!(found, expected, "{}", case.name);
        let found = logits(&opened.decoder(&Device::flex()).unwrap(), &case.tokens);
        let expected = logits(&decoder(&case.config, &Device::flex()), &case.tokens);
        let difference = found.iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-5, "{}: {difference}", case.name);
        count += 1;
    }
    assert_eq!(count, 9);
}

fn llama() -> Writer {
    written(&cases().into_iter().find(|case| case.name == "llama").unwrap())
}

#[test]
fn llama_3s_divisors_become_its_scaling() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = llama();
    writer.value("llama.rope.freq_base", &json!(500_000.0));
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let plain = ModelConfig { rope_theta: 500_000.0, rope_scaling: None, ..cases()[2].config.clone() };
    let scaled = ModelConfig { rope_scaling: scaling.as_object().cloned(), ..plain.clone() };
    let frequencies = |config: &ModelConfig| config.architecture().ropes[0].frequencies.clone();
    let pairs = frequencies(&plain).into_iter().zip(frequencies(&scaled));
    let divisors: Vec<f32> = pairs.map(|(plain, scaled)| (plain / scaled) as f32).collect();
    assert_eq!(divisors.last(), Some(&8.0));
    writer.tensor("rope_freqs.weight", &[divisors.len()], &divisors);
    let opened = writer.open(folder.path()).unwrap();
    assert_eq!(opened.config().rope_scaling, scaled.rope_scaling);
    opened.decoder(&Device::flex()).unwrap();
    let other: Vec<f32> = divisors.iter().map(|divisor| divisor.sqrt()).collect();
    writer.tensors.pop();
    writer.tensor("rope_freqs.weight", &[other.len()], &other);
    assert!(writer.open(folder.path()).unwrap_err().to_string().contains("other divisors than those of Llama 3.1"));
}

#[test]
fn says_what_it_does_not_compute() {
    let folder = tempfile::tempdir().unwrap();
    let error = |change: &dyn Fn(&mut Writer)| {
        let mut writer = llama();
        change(&mut writer);
        let opened = writer.open(folder.path()).and_then(|opened| Ok(opened.decoder(&Device::flex())?));
        let text = opened.unwrap_err().to_string();
        text.replace(&folder.path().join("model.gguf").display().to_string(), "FILE")
    };
    let set = |key: &'static str, value: Value| move |writer: &mut Writer| writer.value(key, &value);
    assert_eq!(
        error(&set("general.architecture", json!("gpt2"))),
        "`FILE` holds a model of the architecture `gpt2`, but `llama`, `qwen2`, `qwen3` and `gemma3` are supported"
    );
    assert!(error(&set("llama.expert_count", json!(8))).contains("`llama.expert_count` = 8"));
    assert!(error(&set("llama.rope.dimension_count", json!(4))).contains("`llama.rope.dimension_count` = 4"));
    assert!(error(&set("llama.block_count", json!("two"))).contains("does not say `llama.block_count`"));
    assert!(error(&set("split.count", json!(3))).contains("one of 3 parts"));
    assert!(error(&|writer| drop(writer.tensors.remove(5))).contains("has no tensor `model.layers."));
    assert!(
        error(&|writer| writer.tensor("blk.0.ffn_gate_inp.weight", &[1], &[1.0])).contains("but its configuration")
    );
    let iq = error(&|writer| {
        let place = writer.tensors.iter().position(|(name, ..)| name == "output_norm.weight").unwrap();
        writer.tensors[place].2 = 24;
    });
    assert!(iq.contains("is quantised as i8; read are f32, f16, q4_0"), "{iq}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damaged_files_are_errors_or_other_numbers_never_panics(
        places in prop::collection::vec((0_usize..4_500, 0_u8..=255), 1..4), cut in prop::option::of(0_usize..60_000),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let mut bytes = llama().bytes();
        for (place, value) in places {
            bytes[place] = value;
        }
        let whole = bytes.len();
        bytes.truncate(cut.unwrap_or(usize::MAX));
        fs::write_whole(&path, &bytes).unwrap();
        let loaded = Checkpoint::open(&path).map(|opened| opened.decoder(&Device::flex()));
        prop_assert!(bytes.len() == whole || !matches!(loaded, Ok(Ok(_))));
    }
}
