//! What can be said of a model without reading its weights.

use std::path::Path;

use serde_json::{Value, json};

use super::architecture::{Activation, Architecture};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::config::ModelConfig;
use super::peft::{ADAPTER_CONFIG, PeftAdapter};

/// One thing to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Its key in JSON, words joined by underscores.
    pub name: &'static str,
    /// What is the case.
    pub value: Value,
}

impl Fact {
    /// The name for people.
    pub fn label(&self) -> String {
        self.name.replace('_', " ")
    }

    /// The value for people: large numbers in groups of three, lists with commas.
    pub fn text(&self) -> String {
        said(&self.value)
    }
}

fn said(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        Value::Array(values) => values.iter().map(said).collect::<Vec<_>>().join(", "),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| format!("{name} {}", said(value))).collect::<Vec<_>>().join(", ")
        }
    }
}

/// 134515008 as `134,515,008`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Why a model cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is no model, or a damaged one.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// It is a damaged adapter.
    #[error(transparent)]
    Adapter(#[from] super::peft::PeftError),
}

/// What there is to say of a model's folder, a GGUF file, or an adapter's folder.
///
/// # Errors
/// When it cannot be opened.
pub fn facts(path: &Path) -> Result<Vec<Fact>, InspectError> {
    if path.join(ADAPTER_CONFIG).is_file() {
        return Ok(of_adapter(&PeftAdapter::open(path)?));
    }
    Ok(of_model(&Checkpoint::open(path)?))
}

fn of_adapter(adapter: &PeftAdapter) -> Vec<Fact> {
    let fact = |name, value| Fact { name, value };
    vec![
        fact("kind", json!("LoRA adapter")),
        fact("base", json!(adapter.base)),
        fact("parameters", json!(adapter.parameters())),
        fact("formats", formats(adapter.formats())),
        fact("rank", json!(adapter.config.rank)),
        fact("alpha", json!(adapter.config.alpha)),
        fact("scale", json!(adapter.config.scale())),
        fact("dropout", json!(adapter.config.dropout)),
        fact("targets", json!(adapter.config.targets)),
    ]
}

fn of_model(checkpoint: &Checkpoint) -> Vec<Fact> {
    let fact = |name, value| Fact { name, value };
    let config = checkpoint.config();
    let shape = config.architecture();
    let kind = if checkpoint.gguf().is_some() { "GGUF file" } else { "folder of Hugging Face" };
    let mut facts = vec![
        fact("kind", json!(kind)),
        fact("family", json!(config.model_type)),
        fact("parameters", json!(shape.parameters())),
        fact("formats", formats(checkpoint.formats())),
        fact("vocabulary", json!(shape.vocab)),
        fact("context", json!(shape.context)),
        fact("layers", json!(shape.layers.len())),
        fact("hidden_size", json!(shape.hidden)),
        fact("inner_size", json!(shape.inner)),
        fact("heads", json!(shape.heads)),
        fact("key_value_heads", json!(shape.kv_heads)),
        fact("head_size", json!(shape.head)),
        fact("activation", json!(if shape.activation == Activation::Silu { "SwiGLU" } else { "GeGLU" })),
        fact("tied_embeddings", json!(shape.tied)),
        fact("biases", biases(&shape)),
        fact("normed_heads", json!(shape.qk_norm)),
        fact("rotary_embedding", rotary(config)),
    ];
    let windows: Vec<usize> = shape.layers.iter().filter_map(|layer| layer.window).collect();
    if let Some(window) = windows.first() {
        facts.push(fact("sliding_window", json!({"tokens": window, "layers": windows.len()})));
    }
    let ends = config.eos_token_id.as_ref().map(|ids| ids.all());
    facts.push(fact("end_tokens", json!(ends.unwrap_or_default())));
    facts
}

fn formats(counts: Vec<(String, usize)>) -> Value {
    Value::Object(counts.into_iter().map(|(name, count)| (name, json!(count))).collect())
}

fn biases(shape: &Architecture) -> Value {
    let parts = [
        (shape.qkv_bias, "queries, keys and values"),
        (shape.out_bias, "out of attention"),
        (shape.mlp_bias, "feed-forward"),
    ];
    let named: Vec<&str> = parts.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect();
    if named.is_empty() { Value::Null } else { json!(named) }
}

fn rotary(config: &ModelConfig) -> Value {
    let mut said = json!({"theta": config.rope_theta});
    if let (Some(scaling), Some(object)) = (&config.rope_scaling, said.as_object_mut()) {
        object.extend(scaling.clone());
    }
    if let Some(local) = config.rope_local_base_freq {
        said["local_theta"] = json!(local);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parity_tests;
    use burn::tensor::Device;

    #[test]
    fn parameters_are_counted_without_the_weights() {
        for case in parity_tests::cases() {
            let decoder = parity_tests::decoder(&case.config, &Device::flex());
            assert_eq!(case.config.architecture().parameters(), decoder.parameters(), "{}", case.name);
        }
    }

    #[test]
    fn large_numbers_come_in_groups() {
        assert_eq!([1, 999, 1_000, 134_515_008].map(grouped), ["1", "999", "1,000", "134,515,008"]);
    }
}
