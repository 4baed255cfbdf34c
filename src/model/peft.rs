//! LoRA adapters as folders in the layout of the Python package PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use serde_json::{Map, Value, json};

use super::decoder::Decoder;
use super::lora::{ALL, LoraConfig, LoraError, TARGETS};
use super::numbers::{Format, transpose};
use super::weights::{Shards, Source, WeightsError, write};
use crate::fs;

/// What says that a folder is an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The numbers of an adapter.
pub const ADAPTER_MODEL: &str = "adapter_model.safetensors";

/// What PEFT puts before the names of a model's parts.
const PREFIX: &str = "base_model.model.";

/// Why an adapter could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fs::PathError),
    /// The file of settings is wrong.
    #[error("`{path}` is no adapter configuration: {reason}")]
    Config { path: String, reason: String },
    /// A setting that needs a computation that we do not have.
    #[error("`{name}` in `{path}` is `{found}`; only {supported} is supported")]
    Unsupported { path: String, name: &'static str, found: String, supported: &'static str },
    /// The numbers are wrong.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Settings that do not fit together, or do not fit the model.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// A model without adapters.
    #[error("the model has no adapters to write")]
    None,
}

/// An opened adapter: its settings are known, its numbers are not yet read.
#[derive(Debug)]
pub struct PeftAdapter {
    /// The settings that we compute with.
    pub config: LoraConfig,
    /// The model that it belongs to, as its maker called it.
    pub base: Option<String>,
    shards: Shards,
}

/// Settings that have one meaning for us, and that meaning; absent and null mean it too.
const ONLY: &[(&str, &[&str], &str)] = &[
    ("peft_type", &["\"LORA\""], "`LORA`"),
    ("bias", &["\"none\""], "`none`"),
    ("use_dora", &["false"], "`false`"),
    ("fan_in_fan_out", &["false"], "`false`"),
    ("lora_bias", &["false"], "`false`"),
    ("modules_to_save", &["[]"], "none"),
    ("rank_pattern", &["{}"], "an empty one"),
    ("alpha_pattern", &["{}"], "an empty one"),
    ("layers_to_transform", &["[]"], "none"),
    ("layer_replication", &["[]"], "none"),
    ("target_parameters", &["[]"], "none"),
    ("trainable_token_indices", &["[]", "{}"], "none"),
    ("exclude_modules", &["[]"], "none"),
    // Beginnings that change the base's weights too: such an adapter does not fit the base as it was published.
    (
        "init_lora_weights",
        &["true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\""],
        "one that leaves the base as it is",
    ),
    ("alora_invocation_tokens", &[], "none"),
    ("arrow_config", &[], "none"),
    ("kasa_config", &[], "none"),
    ("monteclora_config", &[], "none"),
    ("use_bdlora", &["false"], "`false`"),
    ("use_qalora", &["false"], "`false`"),
];

impl PeftAdapter {
    /// Opens an adapter's folder.
    ///
    /// # Errors
    /// When a file is missing or damaged, and when we would compute the adapter wrongly.
    pub fn open(folder: &Path) -> Result<Self, PeftError> {
        let path = folder.join(ADAPTER_CONFIG);
        let wrong = |reason: String| PeftError::Config { path: path.display().to_string(), reason };
        let object: Map<String, Value> =
            serde_json::from_str(&fs::read_to_string(&path)?).map_err(|e| wrong(e.to_string()))?;
        for &(name, values, supported) in ONLY {
            let found = object.get(name).filter(|value| !value.is_null()).map(Value::to_string);
            if let Some(found) = found.filter(|found| !values.contains(&found.as_str())) {
                return Err(PeftError::Unsupported { path: path.display().to_string(), name, found, supported });
            }
        }
        let number = |name: &str, default: f64| match object.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| wrong(format!("`{name}` is {value}, but must be a number"))),
        };
        let config = LoraConfig {
            rank: object.get("r").map_or(Some(8), Value::as_u64).unwrap_or(0) as usize,
            alpha: number("lora_alpha", 8.0)?,
            rank_stabilised: object.get("use_rslora").and_then(Value::as_bool).unwrap_or(false),
            dropout: number("lora_dropout", 0.0)?,
            targets: Vec::new(),
        };
        let base = object.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned);
        let shards = Shards::open(&folder.join(ADAPTER_MODEL))?;
        let mut adapter = Self { config, base, shards };
        // What `target_modules` means depends on the model; the tensors say what is adapted.
        let adapted: BTreeSet<String> = adapter.maps().into_iter().collect();
        let last = |name: &String| name.rsplit('.').next().unwrap_or_default().to_owned();
        let targets: BTreeSet<String> = adapted.iter().map(last).collect();
        adapter.config.targets = targets.into_iter().collect();
        adapter.config.check()?;
        Ok(adapter)
    }

    /// How many numbers it has.
    pub fn parameters(&self) -> usize {
        self.shards.formats().iter().map(|(_, count)| count).sum()
    }

    /// Each number format and how many numbers are in it.
    pub fn formats(&self) -> Vec<(String, usize)> {
        self.shards.formats()
    }

    /// The maps that have a tensor, as the decoder calls them.
    fn maps(&self) -> Vec<String> {
        let named = self.shards.names().into_iter().map(usual);
        named
            .map(|name| name.trim_end_matches(".lora_A.weight").trim_end_matches(".lora_B.weight").to_owned())
            .collect()
    }

    /// The decoder with this adapter on it.
    ///
    /// # Errors
    /// When the adapter does not fit the decoder, or this has adapters already.
    pub fn attach(&self, decoder: &Decoder) -> Result<Decoder, PeftError> {
        let device = decoder.embed_tokens.val().device();
        let known: BTreeSet<String> = decoder.linears().into_iter().map(|(name, _)| name).collect();
        if let Some(name) = self.maps().into_iter().find(|name| !known.contains(name)) {
            return Err(WeightsError::Unused { path: self.shards.path(), name }.into());
        }
        let read = |name: &str, shape: [usize; 2]| -> Result<Tensor<2>, PeftError> {
            let (path, turned) = (self.shards.path(), [shape[1], shape[0]]);
            let own = self.shards.names().into_iter().find(|own| usual(own) == name).map(str::to_owned);
            let Some(own) = own else { return Err(WeightsError::Missing { path, name: name.to_owned() }.into()) };
            let found = self.shards.shape(&own).unwrap_or_default();
            if found != turned {
                return Err(WeightsError::Shape { path, name: own, found, expected: turned.to_vec() }.into());
            }
            let values = transpose(&self.shards.read(&own)?, turned);
            Ok(Tensor::from_data(TensorData::new(values, shape), &device))
        };
        let rank = self.config.rank;
        decoder.with_adapters(&self.config, |name, [inputs, outputs]| {
            let a = read(&format!("{name}.lora_A.weight"), [inputs, rank])?;
            Ok((a, read(&format!("{name}.lora_B.weight"), [rank, outputs])?))
        })
    }
}

/// What stands before the decoder's layers in the names of files.
const DECODERS: [&str; 5] = ["", "model.", "model.model.", "language_model.model.", "model.language_model."];

/// A tensor's name as the decoder would have it: `model.layers.0.self_attn.q_proj.lora_A.weight`. PEFT's live models have the adapter's
/// name in it too, and models that see have the decoder below another.
fn usual(own: &str) -> String {
    let name = own.strip_prefix(PREFIX).unwrap_or(own).replace(".default.weight", ".weight");
    // Only what the decoder's own layers are called: a model that sees has layers in other parts too.
    match name.split_once("layers.") {
        Some((before, rest)) if DECODERS.contains(&before) => format!("model.layers.{rest}"),
        _ => name,
    }
}

/// Writes a decoder's adapters; `base` is the name or path of the model that they belong to. The same adapters always give the same bytes.
///
/// # Errors
/// When there are none, the device fails, or a file cannot be written.
pub fn save(decoder: &Decoder, folder: &Path, base: Option<&str>) -> Result<(), PeftError> {
    let config = decoder.lora().ok_or(PeftError::None)?;
    fs::create_dir_all(folder)?;
    let mut entries = Vec::new();
    for (name, map) in decoder.linears() {
        if let Some(adapter) = &map.adapter {
            entries.push(write::turned_entry(format!("{PREFIX}{name}.lora_A.weight"), adapter.a.val()));
            entries.push(write::turned_entry(format!("{PREFIX}{name}.lora_B.weight"), adapter.b.val()));
        }
    }
    write::write(&entries, &folder.join(ADAPTER_MODEL), Format::F32)?;
    let all = config.targets.iter().any(|target| target == ALL);
    let targets: Vec<&str> = TARGETS.into_iter().filter(|name| all || config.adapts(name)).collect();
    let settings = json!({
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": if config.alpha.fract() == 0.0 { json!(config.alpha as u64) } else { json!(config.alpha) },
        "lora_dropout": config.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.rank_stabilised,
    });
    Ok(fs::write_whole(folder.join(ADAPTER_CONFIG), format!("{settings:#}\n").as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::tests::tiny;
    use crate::model::lora::tests::{adapted, logits};
    use burn::tensor::Device;

    #[test]
    fn an_adapter_survives_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let model = adapted(&Device::flex());
        save(&model, folder.path(), Some("maker/model")).unwrap();
        let adapter = PeftAdapter::open(folder.path()).unwrap();
        assert_eq!(adapter.base.as_deref(), Some("maker/model"));
        assert_eq!(adapter.parameters(), 2 * (3 * (16 + 16) + 3 * (24 + 16)));
        let plain = Decoder::init(&tiny(), 1, &Device::flex()).unwrap();
        let again = adapter.attach(&plain).unwrap();
        assert_eq!(logits(&again), logits(&model));
        let second = tempfile::tempdir().unwrap();
        save(&again, second.path(), Some("maker/model")).unwrap();
        for file in [ADAPTER_CONFIG, ADAPTER_MODEL] {
            assert_eq!(fs::read(folder.path().join(file)).unwrap(), fs::read(second.path().join(file)).unwrap());
        }
        assert!(matches!(adapter.attach(&again), Err(PeftError::Lora(LoraError::Adapted))));
        assert!(matches!(save(&plain, second.path(), None), Err(PeftError::None)));
    }

    #[test]
    fn says_what_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        save(&adapted(&Device::flex()), folder.path(), None).unwrap();
        let path = folder.path().join(ADAPTER_CONFIG);
        let whole = fs::read_to_string(&path).unwrap();
        let error = |from: &str, to: &str| {
            assert!(whole.contains(from), "{from}");
            fs::write_whole(&path, whole.replace(from, to).as_bytes()).unwrap();
            let plain = Decoder::init(&tiny(), 1, &Device::flex()).unwrap();
            let result = PeftAdapter::open(folder.path()).and_then(|adapter| adapter.attach(&plain));
            result.unwrap_err().to_string()
        };
        assert!(error(r#""use_dora": false"#, r#""use_dora": true"#).contains("`use_dora`"));
        assert!(error(r#""bias": "none""#, r#""bias": "all""#).ends_with("is `\"all\"`; only `none` is supported"));
        assert!(error(r#""r": 3"#, r#""r": 4"#).contains("has shape [3, 16], the configuration asks for [4, 16]"));
        assert!(error(r#""r": 3"#, r#""r": -1"#).contains("the rank of an adapter must be at least 1"));
        assert!(error("{", "[").contains("is no adapter configuration"));
        fs::write_whole(&path, whole.as_bytes()).unwrap();
        let small = crate::model::ModelConfig { num_hidden_layers: 1, ..tiny() };
        let small = Decoder::init(&small, 1, &Device::flex()).unwrap();
        let error = PeftAdapter::open(folder.path()).unwrap().attach(&small).unwrap_err().to_string();
        assert!(error.contains("`model.layers.1.mlp.down_proj`"), "{error}");
    }
}
