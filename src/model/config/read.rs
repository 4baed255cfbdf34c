//! The many ways in which published `config.json` files say the same, brought to one.

use serde_json::{Map, Value};

use super::family::{FULL, Family, SLIDING};
use super::{ConfigError, ModelConfig};

type Object = Map<String, Value>;

/// Settings that we compute for one value only, and that value; absent and null mean it too.
const ONLY: &[(&str, &str)] = &[
    ("final_logit_softcapping", "null"),
    ("attn_logit_softcapping", "null"),
    ("use_bidirectional_attention", "false"),
    ("partial_rotary_factor", "1.0"),
    ("quantization_config", "null"),
    ("num_experts", "0"),
    ("num_local_experts", "0"),
];

/// Reads a `config.json`.
pub(super) fn read(text: &str) -> Result<ModelConfig, ConfigError> {
    let syntax = |error: serde_json::Error| ConfigError::Syntax(error.to_string());
    let mut object: Object = serde_json::from_str(text).map_err(syntax)?;
    take_text_part(&mut object);
    let model_type = match object.get("model_type") {
        Some(Value::String(name)) => name.clone(),
        _ => return Err(ConfigError::Syntax("missing field `model_type`".to_owned())),
    };
    let family = Family::of(&model_type)?;
    for &(name, only) in ONLY {
        refuse(&object, name, only)?;
    }
    if family != Family::Llama && family != Family::Gemma3 {
        refuse(&object, "mlp_bias", "false")?;
    }
    flatten_ropes(&mut object, family)?;
    for (name, value) in family.defaults() {
        object.entry(name).or_insert(value);
    }
    rename(&mut object, family.activation_key(), "hidden_act");
    tidy(&mut object);
    let config: ModelConfig = serde_json::from_value(Value::Object(object)).map_err(syntax)?;
    config.check()?;
    Ok(config)
}

/// Writes a `config.json`.
pub(super) fn write(config: &ModelConfig) -> String {
    let mut value = serde_json::to_value(config).expect("numbers and strings have a JSON form");
    if let (Some(object), Ok(family)) = (value.as_object_mut(), Family::of(&config.model_type)) {
        rename(object, "hidden_act", family.activation_key());
    }
    format!("{value:#}\n")
}

/// Gives a setting another name, in its place.
fn rename(object: &mut Object, from: &str, to: &str) {
    if from != to && object.contains_key(from) {
        object.remove(to);
        *object = std::mem::take(object)
            .into_iter()
            .map(|(name, value)| (if name == from { to.to_owned() } else { name }, value))
            .collect();
    }
}

/// Gemma 3 with eyes: the settings of its text part stand below `text_config`.
fn take_text_part(object: &mut Object) {
    if object.get("model_type").and_then(Value::as_str) != Some("gemma3") {
        return;
    }
    let mut text = match object.remove("text_config") {
        Some(Value::Object(text)) => text,
        _ => Object::new(),
    };
    for name in ["bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "torch_dtype", "dtype"] {
        if let Some(value) = object.remove(name) {
            text.entry(name).or_insert(value);
        }
    }
    text.insert("model_type".to_owned(), Family::Gemma3.model_type().into());
    text.insert("architectures".to_owned(), vec![Family::Gemma3.class()].into());
    *object = text;
}

/// Brings transformers 5's `rope_parameters`, one for all layers or one for each kind of layer, to the older flat names, which every
/// reader knows.
fn flatten_ropes(object: &mut Object, family: Family) -> Result<(), ConfigError> {
    let Some(Value::Object(mut ropes)) = object.remove("rope_parameters") else { return Ok(()) };
    // Where both are there, transformers takes the older name.
    let scaled = matches!(object.get("rope_scaling"), Some(Value::Object(_)));
    if let Some(local) = ropes.remove(SLIDING) {
        let Value::Object(mut local) = local else { return Err(odd_rope(&local)) };
        let theta = local.remove("rope_theta");
        if family == Family::Gemma3 {
            if !matches!(local.get("rope_type").and_then(Value::as_str), None | Some("default")) {
                return Err(odd_rope(&Value::Object(local)));
            }
            put(object, "rope_local_base_freq", theta);
        } else if ropes.get(FULL).is_some_and(|full| full.get("rope_theta") != theta.as_ref()) {
            return Err(odd_rope(&Value::Object(local)));
        }
    }
    let mut full = match ropes.remove(FULL) {
        Some(Value::Object(full)) => full,
        Some(Value::Null) | None => ropes,
        Some(other) => return Err(odd_rope(&other)),
    };
    put(object, "rope_theta", full.remove("rope_theta"));
    refuse(&full, "partial_rotary_factor", "1.0")?;
    full.remove("partial_rotary_factor");
    let plain = matches!(full.get("rope_type").and_then(Value::as_str), None | Some("default"));
    if !scaled && !plain {
        object.insert("rope_scaling".to_owned(), Value::Object(full));
    }
    Ok(())
}

fn odd_rope(found: &Value) -> ConfigError {
    ConfigError::Unsupported {
        name: "rope_parameters",
        found: found.to_string(),
        supported: "one for all layers, or an unscaled one for sliding layers of gemma3_text",
    }
}

fn put(object: &mut Object, name: &str, value: Option<Value>) {
    if let Some(value) = value.filter(|value| !value.is_null()) {
        object.insert(name.to_owned(), value);
    }
}

/// Takes out what says nothing: nulls, padding tokens of -1, and code that is not ours.
fn tidy(object: &mut Object) {
    object.retain(|_, value| !value.is_null());
    object.remove("auto_map");
    if object.get("pad_token_id").and_then(Value::as_i64) == Some(-1) {
        object.remove("pad_token_id");
    }
}

/// Refuses another value than `only`, which is JSON; `1` is as good as `1.0`.
fn refuse(object: &Object, name: &'static str, only: &'static str) -> Result<(), ConfigError> {
    let Some(found) = object.get(name).filter(|found| !found.is_null()) else { return Ok(()) };
    let wanted: Option<Value> = serde_json::from_str(only).ok();
    let same_number = found.as_f64().zip(wanted.as_ref().and_then(Value::as_f64)).is_some_and(|(x, y)| x == y);
    if same_number || wanted.as_ref() == Some(found) {
        return Ok(());
    }
    Err(ConfigError::Unsupported { name, found: found.to_string(), supported: only })
}
