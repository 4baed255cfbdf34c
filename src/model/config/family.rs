//! The families of models: what their `config.json` leaves out, and what it says of the computation.

use serde_json::{Value, json};

use super::{ConfigError, ModelConfig};
use crate::model::architecture::{Activation, Architecture, LayerKind, Rope};

/// A family of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, SmolLM2, and what else is written as a Llama.
    Llama,
    /// Qwen 2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: normed heads.
    Qwen3,
    /// The text part of Gemma 3: norms by 1 + weight, also behind the blocks; GeGLU; local and global layers.
    Gemma3,
}

/// Every family.
pub const FAMILIES: [Family; 4] = [Family::Llama, Family::Qwen2, Family::Qwen3, Family::Gemma3];

/// A layer that sees all before it, as `layer_types` names it.
pub const FULL: &str = "full_attention";
/// A layer that sees a window, as `layer_types` names it.
pub const SLIDING: &str = "sliding_attention";

impl Family {
    /// The family of a `model_type`.
    ///
    /// # Errors
    /// When it is none that we compute.
    pub fn of(model_type: &str) -> Result<Self, ConfigError> {
        let found = FAMILIES.into_iter().find(|family| family.model_type() == model_type);
        found.ok_or_else(|| ConfigError::Family(model_type.to_owned()))
    }

    /// The `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3_text",
        }
    }

    /// The class that Hugging Face loads the weights into.
    pub fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
        }
    }

    /// The name that `config.json` has for the activation.
    pub(super) fn activation_key(self) -> &'static str {
        if self == Self::Gemma3 { "hidden_activation" } else { "hidden_act" }
    }

    /// The one activation of the family.
    pub fn activation(self) -> &'static str {
        if self == Self::Gemma3 { "gelu_pytorch_tanh" } else { "silu" }
    }

    /// What the family's class in transformers takes where `config.json` says nothing. Files of published models rely on it.
    pub(super) fn defaults(self) -> Vec<(&'static str, Value)> {
        let mut defaults = vec![
            ("architectures", json!([self.class()])),
            ("rms_norm_eps", json!(1e-6)),
            ("rope_theta", json!(if self == Self::Gemma3 { 1e6 } else { 1e4 })),
            ("tie_word_embeddings", json!(self == Self::Gemma3)),
            (self.activation_key(), json!(self.activation())),
        ];
        let numbers: &[(&'static str, u64)] = match self {
            Self::Llama => &[("max_position_embeddings", 2_048)],
            Self::Qwen2 => &[("max_position_embeddings", 32_768), ("num_key_value_heads", 32)],
            Self::Qwen3 => &[("max_position_embeddings", 32_768), ("num_key_value_heads", 32), ("head_dim", 128)],
            Self::Gemma3 => &[
                ("vocab_size", 262_208),
                ("hidden_size", 2_304),
                ("intermediate_size", 9_216),
                ("num_hidden_layers", 26),
                ("num_attention_heads", 8),
                ("num_key_value_heads", 4),
                ("head_dim", 256),
                ("max_position_embeddings", 131_072),
                ("query_pre_attn_scalar", 256),
                ("sliding_window", 4_096),
                ("bos_token_id", 2),
                ("eos_token_id", 1),
                ("pad_token_id", 0),
            ],
        };
        defaults.extend(numbers.iter().map(|&(name, number)| (name, json!(number))));
        if self == Self::Gemma3 {
            defaults.push(("rope_local_base_freq", json!(1e4)));
        }
        defaults
    }

    /// The biases that the settings ask for: on queries, keys and values; out of attention; in the feed-forward block.
    fn biases(self, config: &ModelConfig) -> [bool; 3] {
        match self {
            Self::Llama => [config.attention_bias, config.attention_bias, config.mlp_bias],
            Self::Qwen2 => [true, false, false],
            Self::Qwen3 | Self::Gemma3 => [config.attention_bias, config.attention_bias, false],
        }
    }

    /// How far each layer sees, `None` for all before it.
    ///
    /// # Errors
    /// When `layer_types` does not fit the layers, or asks for a window that is nowhere given.
    pub(super) fn windows(self, config: &ModelConfig) -> Result<Vec<Option<usize>>, ConfigError> {
        let layers = config.num_hidden_layers;
        let window = match self {
            Self::Llama => return Ok(vec![None; layers]),
            Self::Qwen2 | Self::Qwen3 => config.sliding_window.filter(|_| config.use_sliding_window),
            Self::Gemma3 => config.sliding_window,
        };
        let Some(types) = &config.layer_types else {
            let slides = |layer: usize| match self {
                Self::Gemma3 => !(layer + 1).is_multiple_of(config.sliding_window_pattern.unwrap_or(PATTERN).max(1)),
                _ => layer >= config.max_window_layers.unwrap_or(WINDOW_LAYERS),
            };
            return Ok((0..layers).map(|layer| window.filter(|_| slides(layer))).collect());
        };
        if types.len() != layers {
            return Err(ConfigError::LayerTypes { found: types.len(), expected: layers });
        }
        let kind = |name: &String| match name.as_str() {
            FULL => Ok(None),
            SLIDING if window.is_some() => Ok(window),
            SLIDING => Err(ConfigError::NoWindow),
            _ => Err(ConfigError::Unsupported {
                name: "layer_types",
                found: name.clone(),
                supported: "full_attention` and `sliding_attention",
            }),
        };
        types.iter().map(kind).collect()
    }

    /// What a decoder of these settings computes.
    ///
    /// # Errors
    /// When layers or rotary embedding are not such as we compute.
    pub(super) fn architecture(self, config: &ModelConfig) -> Result<Architecture, ConfigError> {
        let (head, gemma) = (config.head_size(), self == Self::Gemma3);
        let [qkv_bias, out_bias, mlp_bias] = self.biases(config);
        let mut ropes = vec![config.rope()?];
        if let Some(theta) = config.rope_local_base_freq.filter(|_| gemma) {
            ropes.push(Rope::plain(head, theta));
        }
        let local = ropes.len() - 1;
        let layers = self.windows(config)?.into_iter();
        let scalar = config.query_pre_attn_scalar.filter(|_| gemma).unwrap_or(head as f64);
        Ok(Architecture {
            vocab: config.vocab_size,
            context: config.max_position_embeddings,
            hidden: config.hidden_size,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            kv_heads: config.kv_heads(),
            head,
            epsilon: config.rms_norm_eps,
            unit_offset: gemma,
            activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
            query_scale: scalar.powf(-0.5),
            // The weights' type is f32 here, and transformers multiplies by the root in the weights' type.
            embed_scale: gemma.then(|| f64::from((config.hidden_size as f64).sqrt() as f32)),
            tied: config.tie_word_embeddings,
            qkv_bias,
            out_bias,
            mlp_bias,
            qk_norm: matches!(self, Self::Qwen3 | Self::Gemma3),
            post_norms: gemma,
            ropes,
            layers: layers.map(|window| LayerKind { window, rope: if window.is_some() { local } else { 0 } }).collect(),
        })
    }
}

/// Every how many layers Gemma 3 has a global one.
const PATTERN: usize = 6;
/// How many layers of Qwen see everything before a window begins to count.
const WINDOW_LAYERS: usize = 28;
