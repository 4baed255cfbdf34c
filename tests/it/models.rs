//! `thresh model`: what it says of models, and that what it writes is the same model.

use std::path::Path;

use serde_json::Value;
use thresh::model::device::device;
use thresh::model::lora::LoraConfig;
use thresh::model::numbers::Format;
use thresh::model::tokenizer::files::TextFiles;
use thresh::model::{Decoder, ModelConfig, export, peft};

use crate::project::Project;

const GEMMA: &str = r#"{"model_type": "gemma3_text", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 7,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 30, "max_position_embeddings": 2048,
    "sliding_window": 4, "eos_token_id": [1, 5], "rope_scaling": {"rope_type": "linear", "factor": 8.0}}"#;

fn model(project: &Project, name: &str) -> Decoder {
    let decoder = Decoder::init(&ModelConfig::parse(GEMMA).unwrap(), 3, &device("cpu").unwrap()).unwrap();
    let texts = TextFiles::default().with("chat_template.jinja", "{{ messages }}");
    export::export(&decoder, &texts, &project.path().join(name), Format::F32).unwrap();
    decoder
}

fn logits(project: &Project, path: &str) -> Vec<f64> {
    let said: Value =
        serde_json::from_str(&project.ok(&["model", "logits", path, "--tokens", "1,5,9,2,7,29", "--json"])).unwrap();
    assert_eq!(said["tokens"], serde_json::json!([1, 5, 9, 2, 7, 29]));
    said["logits"].as_array().unwrap().iter().map(|logit| logit.as_f64().unwrap()).collect()
}

fn distance(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}

#[test]
fn a_model_is_described_without_reading_its_weights() {
    let project = Project::new();
    let decoder = model(&project, "gemma");
    let said = project.ok(&["model", "inspect", "gemma"]);
    assert!(said.contains("family            gemma3_text\n"), "{said}");
    assert!(said.contains("sliding window    tokens 4, layers 6\n"), "{said}");
    assert!(said.contains("context           2,048\n"), "{said}");
    let facts: Value = serde_json::from_str(&project.ok(&["model", "inspect", "gemma", "--json"])).unwrap();
    assert_eq!(facts["parameters"], decoder.parameters());
    assert_eq!(facts["formats"]["f32"], decoder.parameters());
    assert_eq!(facts["end_tokens"], serde_json::json!([1, 5]));
    assert_eq!(facts["rotary_embedding"]["local_theta"], 10_000.0);
}

#[test]
fn the_likeliest_tokens_come_first() {
    let project = Project::new();
    model(&project, "gemma");
    let all = logits(&project, "gemma");
    assert_eq!(all.len(), 30);
    let said = project.ok(&["model", "logits", "gemma", "--tokens", "1,5,9,2,7,29", "--top", "3"]);
    let first: Vec<&str> = said.lines().next().unwrap().split_whitespace().collect();
    let best = all.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(said.lines().count(), 3);
    assert!((all[first[0].parse::<usize>().unwrap()] - best).abs() < 1e-9);
}

#[test]
fn converted_models_are_the_same_in_other_numbers() {
    let project = Project::new();
    model(&project, "gemma");
    let plain = logits(&project, "gemma");
    project.ok(&["model", "convert", "gemma", "again"]);
    assert_eq!(logits(&project, "again"), plain);
    let bytes = |name: &str, file: &str| std::fs::read(project.path().join(name).join(file)).unwrap();
    for file in ["config.json", "model.safetensors", "chat_template.jinja"] {
        assert_eq!(bytes("again", file), bytes("gemma", file), "{file}");
    }
    for (format, torch, bound) in [("bf16", "bfloat16", 0.2), ("f16", "float16", 0.02)] {
        project.ok(&["model", "convert", "gemma", format, "--dtype", format]);
        let difference = distance(&logits(&project, format), &plain);
        assert!(difference > 0.0 && difference < bound, "{format}: {difference}");
        let config: Value = serde_json::from_slice(&bytes(format, "config.json")).unwrap();
        assert_eq!(config["torch_dtype"], torch);
        let facts: Value = serde_json::from_str(&project.ok(&["model", "inspect", format, "--json"])).unwrap();
        assert_eq!(facts["formats"].as_object().unwrap().keys().collect::<Vec<_>>(), [format]);
    }
}

#[test]
fn an_adapter_can_be_worked_into_the_weights() {
    let project = Project::new();
    let decoder = model(&project, "gemma");
    let targets = vec!["v_proj".to_owned(), "gate_proj".to_owned()];
    let lora = LoraConfig { rank: 2, alpha: 4.0, rank_stabilised: true, dropout: 0.0, targets };
    let adapted = decoder.adapt(&lora, 1).unwrap();
    peft::save(&adapted, &project.path().join("fresh"), Some("gemma")).unwrap();
    project.ok(&["model", "convert", "gemma", "merged", "--merge", "fresh"]);
    assert_eq!(logits(&project, "merged"), logits(&project, "gemma"), "a fresh adapter changes nothing");
    let said = project.ok(&["model", "inspect", "fresh"]);
    assert!(said.starts_with("kind        LoRA adapter\nbase        gemma\n"), "{said}");
    assert!(said.contains("targets     gate_proj, v_proj\n"), "{said}");
}

#[test]
fn says_what_is_wrong() {
    let project = Project::new();
    model(&project, "gemma");
    project.write("text.txt", "no model");
    let error = |code: i32, arguments: &[&str]| {
        let ran = project.thresh(&[&["model"], arguments].concat());
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stdout.is_empty());
        ran.stderr
    };
    assert_eq!(error(2, &["inspect", "nowhere"]), "error: `nowhere` is not there\n");
    assert!(error(1, &["inspect", "text.txt"]).contains("is no model: expected a folder with `config.json`"));
    assert_eq!(
        error(2, &["logits", "gemma", "--tokens", "3,30"]),
        "error: there is no token 30: the vocabulary has 30\n"
    );
    assert!(error(2, &["logits", "gemma", "--tokens", "3", "--device", "gpu"]).contains("unknown device `gpu`"));
    assert!(error(2, &["convert", "gemma", "gemma"]).contains("`gemma` is there already"));
    std::fs::remove_file(project.path().join("gemma/model.safetensors")).unwrap();
    assert!(error(1, &["convert", "gemma", "out"]).contains("model.safetensors"));
    assert!(!Path::new(&project.path().join("out")).exists());
}
