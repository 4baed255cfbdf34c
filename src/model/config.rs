//! The shape of a model: the `config.json` of its family, as Hugging Face writes it.

mod family;
mod read;
mod scaling;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::architecture::{Architecture, Rope};
pub use family::{FAMILIES, FULL, Family, SLIDING};
use scaling::Scaling;

/// The hyperparameters of a decoder, under the names of `config.json`.
///
/// Files of published models say the same in several ways; reading brings them to the flat names that every release of transformers
/// knows. Names that it does not know are kept, but settings that would need another computation than
/// [`crate::model::Decoder`] does are refused: see [`ModelConfig::parse`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The classes that Hugging Face loads the weights into.
    pub architectures: Vec<String>,
    /// The family: `llama`, `qwen2`, `qwen3` or `gemma3_text`.
    pub model_type: String,
    /// The size of a token's vector.
    pub hidden_size: usize,
    /// The inner size of the feed-forward block.
    pub intermediate_size: usize,
    /// The number of layers.
    pub num_hidden_layers: usize,
    /// The number of query heads.
    pub num_attention_heads: usize,
    /// The number of key and value heads; each serves as many query heads as divide evenly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// The size of a head; absent, the hidden size divided by the number of heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// The number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// The longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// The base of the rotary position embedding.
    pub rope_theta: f64,
    /// The number that keeps the root mean square from zero.
    pub rms_norm_eps: f64,
    /// Whether the output head is the transposed embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The activation of the feed-forward block: `silu`, or `gelu_pytorch_tanh` for Gemma, whose files call it `hidden_activation`.
    pub hidden_act: String,
    /// The token that begins a text, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// The tokens that end a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<TokenIds>,
    /// The token that fills a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    /// Whether the projections of attention have biases (Qwen 2 has some whatever this says).
    #[serde(default, skip_serializing_if = "is_false")]
    pub attention_bias: bool,
    /// Whether the projections of the feed-forward block have biases (Llama).
    #[serde(default, skip_serializing_if = "is_false")]
    pub mlp_bias: bool,
    /// How the rotary embedding is stretched: `rope_type` and its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Map<String, Value>>,
    /// The base of the rotary embedding of sliding layers, which is never stretched (Gemma 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_local_base_freq: Option<f64>,
    /// Queries are divided by its root; absent, by the root of the head's size (Gemma 3).
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "whole")]
    pub query_pre_attn_scalar: Option<f64>,
    /// Whether `sliding_window` counts (Qwen).
    #[serde(default, skip_serializing_if = "is_false")]
    pub use_sliding_window: bool,
    /// How many tokens a query of a sliding layer sees, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// How many layers see everything before the first sliding one, where `layer_types` does not say it (Qwen).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_window_layers: Option<usize>,
    /// Every how many layers one sees everything, where `layer_types` does not say it (Gemma 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window_pattern: Option<usize>,
    /// [`FULL`] or [`SLIDING`] for each layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// What else stood in the file.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One token or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// One.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

impl TokenIds {
    /// All of them.
    pub fn all(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A whole number without a point: transformers 5 takes no other there.
#[expect(clippy::ref_option, reason = "serde hands over a reference")]
fn whole<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) if value.fract() == 0.0 && value.abs() < 1e15 => serializer.serialize_i64(*value as i64),
        value => value.serialize(serializer),
    }
}

impl Default for ModelConfig {
    /// A Llama without sizes: what a literal begins from.
    fn default() -> Self {
        Self {
            architectures: vec![Family::Llama.class().to_owned()],
            model_type: Family::Llama.model_type().to_owned(),
            hidden_size: 0,
            intermediate_size: 0,
            num_hidden_layers: 0,
            num_attention_heads: 0,
            num_key_value_heads: None,
            head_dim: None,
            vocab_size: 0,
            max_position_embeddings: 0,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: false,
            hidden_act: Family::Llama.activation().to_owned(),
            bos_token_id: None,
            eos_token_id: None,
            pad_token_id: None,
            attention_bias: false,
            mlp_bias: false,
            rope_scaling: None,
            rope_local_base_freq: None,
            query_pre_attn_scalar: None,
            use_sliding_window: false,
            sliding_window: None,
            max_window_layers: None,
            sliding_window_pattern: None,
            layer_types: None,
            extra: Map::new(),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The text is no configuration.
    #[error("`config.json` is not a model configuration: {0}")]
    Syntax(String),
    /// A number that must be at least one is zero.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A number is no positive, finite number.
    #[error("`{name}` is {value}, but must be positive")]
    NotPositive { name: &'static str, value: f64 },
    /// One number must be a multiple of another.
    #[error("`{left}` is {left_value}, which is no multiple of `{right}`, {right_value}")]
    NotMultiple { left: &'static str, left_value: usize, right: &'static str, right_value: usize },
    /// The rotary embedding turns pairs, so a head needs an even size.
    #[error("`head_dim` is {0}, but must be even")]
    OddHead(usize),
    /// A special token that the vocabulary does not hold.
    #[error("`{name}` is {id}, but `vocab_size` is {vocab_size}")]
    TokenOutside { name: &'static str, id: u32, vocab_size: usize },
    /// A number so large that no model has it.
    #[error("`{name}` is {value}; at most {limit} is supported")]
    TooLarge { name: &'static str, value: usize, limit: usize },
    /// A family that we do not compute.
    #[error(
        "`model_type` is `{0}`; supported are `llama`, `qwen2`, `qwen3`, `gemma3_text`, and the text part of `gemma3`"
    )]
    Family(String),
    /// A number of `rope_scaling` that is missing or out of range.
    #[error("`{name}` of `rope_scaling` must be {problem}")]
    Scaling { name: &'static str, problem: &'static str },
    /// Not one kind for each layer.
    #[error("`layer_types` has {found} entries, but `num_hidden_layers` is {expected}")]
    LayerTypes { found: usize, expected: usize },
    /// Layers that see a window of no size.
    #[error("`layer_types` names `sliding_attention`, but no `sliding_window` is in force")]
    NoWindow,
    /// A setting that needs a computation that we do not have.
    #[error("`{name}` is `{found}`; only `{supported}` {} supported", if supported.contains('`') { "are" } else { "is" })]
    Unsupported { name: &'static str, found: String, supported: &'static str },
}

impl ModelConfig {
    /// Reads a `config.json` and checks it.
    ///
    /// # Errors
    /// When it is no configuration, when its numbers do not fit together, and when it asks for what this decoder does not
    /// compute: another family or activation, soft caps, experts, rotary embeddings that change with the length.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        read::read(text)
    }

    /// The text of a `config.json`: the same configuration always gives the same bytes.
    pub fn to_json(&self) -> String {
        read::write(self)
    }

    /// The family.
    ///
    /// # Errors
    /// When it is none that we compute.
    pub fn family(&self) -> Result<Family, ConfigError> {
        Family::of(&self.model_type)
    }

    /// The rotary embedding of the layers that see everything.
    fn rope(&self) -> Result<Rope, ConfigError> {
        match &self.rope_scaling {
            Some(scaling) => Scaling(scaling).rope(self.head_size(), self.rope_theta, self.max_position_embeddings),
            None => Ok(Rope::plain(self.head_size(), self.rope_theta)),
        }
    }

    /// The number of key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// The size of a head.
    pub fn head_size(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// What a decoder of this shape computes.
    ///
    /// # Panics
    /// When the configuration was made by hand and never passed [`ModelConfig::check`].
    pub fn architecture(&self) -> Architecture {
        self.family().and_then(|family| family.architecture(self)).expect("a checked configuration")
    }

    /// Checks that the numbers fit together; the first that does not is the error.
    ///
    /// # Errors
    /// See [`ModelConfig::parse`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let family = self.family()?;
        self.check_counts()?;
        self.check_heads()?;
        let numbers = [
            ("rope_theta", Some(self.rope_theta)),
            ("rms_norm_eps", Some(self.rms_norm_eps)),
            ("rope_local_base_freq", self.rope_local_base_freq),
            ("query_pre_attn_scalar", self.query_pre_attn_scalar),
        ];
        for (name, value) in numbers {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return Err(ConfigError::NotPositive { name, value });
            }
        }
        if self.hidden_act != family.activation() {
            let found = self.hidden_act.clone();
            return Err(ConfigError::Unsupported { name: "hidden_act", found, supported: family.activation() });
        }
        self.check_tokens()?;
        family.architecture(self).map(|_| ())
    }

    fn check_tokens(&self) -> Result<(), ConfigError> {
        let ends = self.eos_token_id.as_ref().map_or(&[][..], TokenIds::all);
        let tokens = ends.iter().map(|&id| ("eos_token_id", id));
        let tokens = tokens.chain(self.bos_token_id.map(|id| ("bos_token_id", id)));
        let mut tokens = tokens.chain(self.pad_token_id.map(|id| ("pad_token_id", id)));
        match tokens.find(|&(_, id)| id as usize >= self.vocab_size) {
            Some((name, id)) => Err(ConfigError::TokenOutside { name, id, vocab_size: self.vocab_size }),
            None => Ok(()),
        }
    }

    fn check_counts(&self) -> Result<(), ConfigError> {
        let counts = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("head_dim", self.head_dim.unwrap_or(1)),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ];
        for (name, value) in counts {
            let limit = match name {
                "num_hidden_layers" | "head_dim" => 1 << 16,
                "max_position_embeddings" => 1 << 24,
                _ => 1 << 30,
            };
            if value == 0 {
                return Err(ConfigError::Zero(name));
            }
            if value > limit {
                return Err(ConfigError::TooLarge { name, value, limit });
            }
        }
        Ok(())
    }

    fn check_heads(&self) -> Result<(), ConfigError> {
        let heads = ("num_attention_heads", self.num_attention_heads);
        if self.head_dim.is_none() {
            multiple(("hidden_size", self.hidden_size), heads)?;
        }
        multiple(heads, ("num_key_value_heads", self.kv_heads()))?;
        match self.head_size() {
            size if size > 1 << 16 => Err(ConfigError::TooLarge { name: "head_dim", value: size, limit: 1 << 16 }),
            size if size % 2 == 1 => Err(ConfigError::OddHead(size)),
            _ => Ok(()),
        }
    }
}

fn multiple(left: (&'static str, usize), right: (&'static str, usize)) -> Result<(), ConfigError> {
    if left.1.is_multiple_of(right.1) {
        return Ok(());
    }
    Err(ConfigError::NotMultiple { left: left.0, left_value: left.1, right: right.0, right_value: right.1 })
}

#[cfg(test)]
pub(crate) mod tests;
