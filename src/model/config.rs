//! The shape of a model: the `config.json` of a Llama, as Hugging Face writes it.

use serde::{Deserialize, Serialize};

use super::architecture::{Activation, Architecture, LayerKind, Rope};

/// The hyperparameters of a decoder, under the names of `config.json` (`LlamaForCausalLM`).
///
/// Reading ignores names that it does not know, as files of published models carry many, but refuses those settings that
/// would need another computation than [`crate::model::Decoder`] does: see [`ModelConfig::parse`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The classes that Hugging Face loads the weights into.
    #[serde(default = "architectures")]
    pub architectures: Vec<String>,
    /// The family: `llama`.
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
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    /// The number that keeps the root mean square from zero.
    pub rms_norm_eps: f64,
    /// Whether the output head is the transposed embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The activation of the feed-forward block: `silu`.
    #[serde(default = "hidden_act")]
    pub hidden_act: String,
    /// The token that begins a text, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// The token that ends a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
    /// The token that fills a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
}

fn architectures() -> Vec<String> {
    vec!["LlamaForCausalLM".to_owned()]
}

fn rope_theta() -> f64 {
    10_000.0
}

fn hidden_act() -> String {
    "silu".to_owned()
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
    /// A setting that needs a computation that we do not have.
    #[error("`{name}` is `{found}`; only `{supported}` is supported")]
    Unsupported { name: &'static str, found: String, supported: &'static str },
}

impl ModelConfig {
    /// Reads a `config.json` and checks it.
    ///
    /// # Errors
    /// When it is no configuration, when its numbers do not fit together, and when it asks for what this decoder does not
    /// compute: another `model_type` or `hidden_act`, biases, scaled rotary embeddings.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| ConfigError::Syntax(e.to_string()))?;
        for name in ["attention_bias", "mlp_bias"] {
            refuse(&value, name, &serde_json::Value::Bool(false), "false")?;
        }
        refuse(&value, "rope_scaling", &serde_json::Value::Null, "null")?;
        let config: Self = serde_json::from_value(value).map_err(|e| ConfigError::Syntax(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// The text of a `config.json`: the same configuration always gives the same bytes.
    ///
    /// # Panics
    /// Never: a configuration always has a JSON form.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("numbers and strings have a JSON form");
        text.push('\n');
        text
    }

    /// The number of key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// The size of a head.
    pub fn head_size(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// What a decoder of this shape computes. The numbers must fit together: see [`ModelConfig::check`].
    pub fn architecture(&self) -> Architecture {
        let head = self.head_size();
        Architecture {
            vocab: self.vocab_size,
            context: self.max_position_embeddings,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            kv_heads: self.kv_heads(),
            head,
            epsilon: self.rms_norm_eps,
            unit_offset: false,
            activation: Activation::Silu,
            query_scale: (head as f64).powf(-0.5),
            embed_scale: None,
            tied: self.tie_word_embeddings,
            qkv_bias: false,
            out_bias: false,
            mlp_bias: false,
            qk_norm: false,
            post_norms: false,
            ropes: vec![Rope::plain(head, self.rope_theta)],
            layers: vec![LayerKind { window: None, rope: 0 }; self.num_hidden_layers],
        }
    }

    /// Checks that the numbers fit together; the first that does not is the error.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_counts()?;
        self.check_heads()?;
        for (name, value) in [("rope_theta", self.rope_theta), ("rms_norm_eps", self.rms_norm_eps)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::NotPositive { name, value });
            }
        }
        for (name, found, supported) in
            [("model_type", &self.model_type, "llama"), ("hidden_act", &self.hidden_act, "silu")]
        {
            if found != supported {
                return Err(ConfigError::Unsupported { name, found: found.clone(), supported });
            }
        }
        let tokens = [
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
            ("pad_token_id", self.pad_token_id),
        ];
        for (name, id) in tokens {
            if let Some(id) = id.filter(|&id| id as usize >= self.vocab_size) {
                return Err(ConfigError::TokenOutside { name, id, vocab_size: self.vocab_size });
            }
        }
        Ok(())
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
        ];
        match counts.into_iter().find(|&(_, count)| count == 0) {
            Some((name, _)) => Err(ConfigError::Zero(name)),
            None => Ok(()),
        }
    }

    fn check_heads(&self) -> Result<(), ConfigError> {
        let heads = ("num_attention_heads", self.num_attention_heads);
        if self.head_dim.is_none() {
            multiple(("hidden_size", self.hidden_size), heads)?;
        }
        multiple(heads, ("num_key_value_heads", self.kv_heads()))?;
        match self.head_size() {
            0 => Err(ConfigError::Zero("head_dim")),
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

fn refuse(
    value: &serde_json::Value,
    name: &'static str,
    only: &serde_json::Value,
    supported: &'static str,
) -> Result<(), ConfigError> {
    match value.get(name) {
        Some(found) if found != only => Err(ConfigError::Unsupported { name, found: found.to_string(), supported }),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A model small enough for tests: grouped heads, tied embeddings.
    pub(crate) fn tiny() -> ModelConfig {
        ModelConfig {
            architectures: architectures(),
            model_type: "llama".to_owned(),
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: Some(2),
            head_dim: None,
            vocab_size: 20,
            max_position_embeddings: 64,
            rope_theta: rope_theta(),
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            hidden_act: hidden_act(),
            bos_token_id: None,
            eos_token_id: Some(1),
            pad_token_id: Some(0),
        }
    }

    #[test]
    fn survives_its_own_json() {
        let config = tiny();
        assert_eq!(ModelConfig::parse(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn says_which_numbers_do_not_fit() {
        let error = |change: fn(&mut ModelConfig)| {
            let mut config = tiny();
            change(&mut config);
            ModelConfig::parse(&config.to_json()).unwrap_err().to_string()
        };
        assert_eq!(error(|c| c.num_hidden_layers = 0), "`num_hidden_layers` must be at least 1");
        assert_eq!(
            error(|c| c.hidden_size = 18),
            "`hidden_size` is 18, which is no multiple of `num_attention_heads`, 4"
        );
        assert_eq!(
            error(|c| c.num_key_value_heads = Some(3)),
            "`num_attention_heads` is 4, which is no multiple of `num_key_value_heads`, 3"
        );
        assert_eq!(error(|c| c.hidden_size = 12), "`head_dim` is 3, but must be even");
        assert_eq!(error(|c| c.rms_norm_eps = -1.0), "`rms_norm_eps` is -1, but must be positive");
        assert_eq!(error(|c| c.eos_token_id = Some(20)), "`eos_token_id` is 20, but `vocab_size` is 20");
        assert_eq!(error(|c| c.model_type = "gpt2".into()), "`model_type` is `gpt2`; only `llama` is supported");
    }

    #[test]
    fn refuses_what_it_would_compute_wrongly_and_ignores_the_rest() {
        let with = |extra: &str| {
            let text = tiny().to_json().replacen('{', &format!("{{{extra},"), 1);
            ModelConfig::parse(&text)
        };
        assert_eq!(
            with(r#""attention_bias": true"#).unwrap_err().to_string(),
            "`attention_bias` is `true`; only `false` is supported"
        );
        assert!(with(r#""rope_scaling": {"type": "linear"}"#).is_err());
        assert_eq!(with(r#""use_cache": true, "rope_scaling": null"#).unwrap(), tiny());
        assert!(ModelConfig::parse("[]").is_err());
    }
}
