//! What a GGUF file's metadata says of the model's shape.

use serde_json::{Map, Value, json};

use super::{Gguf, GgufError, Meta};
use crate::model::architecture::Rope;
use crate::model::config::{FULL, Family, ModelConfig, SLIDING, TokenIds};
use crate::model::weights::Source;

/// Reads the shape of a model.
pub(super) fn of(gguf: &Gguf) -> Result<ModelConfig, GgufError> {
    let reader = Reader { gguf, arch: gguf.text("general.architecture").unwrap_or_default() };
    let family = reader.family()?;
    reader.refuse_what_we_do_not_compute()?;
    let vocab_size = match gguf.shape("model.embed_tokens.weight").as_deref() {
        Some([rows, _]) => *rows,
        _ => return Err(reader.unsupported("no tensor `token_embd.weight`".to_owned())),
    };
    let heads = reader.number("attention.head_count")?;
    let token = |name: &str| {
        let id = gguf.number(&format!("tokenizer.ggml.{name}_token_id")).filter(|&id| id < vocab_size);
        id.and_then(|id| u32::try_from(id).ok())
    };
    let bias = |part: &str| gguf.shape(&format!("model.layers.0.{part}.bias")).is_some();
    let mut config = ModelConfig {
        architectures: vec![family.class().to_owned()],
        model_type: family.model_type().to_owned(),
        hidden_size: reader.number("embedding_length")?,
        intermediate_size: reader.number("feed_forward_length")?,
        num_hidden_layers: reader.number("block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: Some(if reader.has("attention.head_count_kv") {
            reader.number("attention.head_count_kv")?
        } else {
            heads
        }),
        head_dim: gguf.number(&reader.key("attention.key_length")),
        vocab_size,
        max_position_embeddings: reader.number("context_length")?,
        rope_theta: reader.shortest("rope.freq_base").unwrap_or(10_000.0),
        rms_norm_eps: reader
            .shortest("attention.layer_norm_rms_epsilon")
            .ok_or_else(|| reader.missing("attention.layer_norm_rms_epsilon", "a number"))?,
        tie_word_embeddings: gguf.shape("lm_head.weight").is_none(),
        hidden_act: family.activation().to_owned(),
        bos_token_id: token("bos"),
        eos_token_id: token("eos").map(TokenIds::One),
        pad_token_id: token("padding"),
        attention_bias: family != Family::Qwen2 && bias("self_attn.q_proj"),
        mlp_bias: family == Family::Llama && bias("mlp.gate_proj"),
        ..ModelConfig::default()
    };
    if family == Family::Gemma3 {
        reader.gemma(&mut config)?;
    }
    config.rope_scaling = reader.scaling(&config)?;
    let wrong = |source| GgufError::Config { path: gguf.path(), source };
    config.check().map_err(wrong)?;
    reader.check_heads(&config)?;
    Ok(config)
}

struct Reader<'a> {
    gguf: &'a Gguf,
    arch: &'a str,
}

impl Reader<'_> {
    fn family(&self) -> Result<Family, GgufError> {
        match self.arch {
            "llama" => Ok(Family::Llama),
            "qwen2" => Ok(Family::Qwen2),
            "qwen3" => Ok(Family::Qwen3),
            "gemma3" => Ok(Family::Gemma3),
            other => Err(GgufError::Unsupported {
                path: self.gguf.path(),
                found: format!("a model of the architecture `{other}`"),
                supported: "`llama`, `qwen2`, `qwen3` and `gemma3` are supported".to_owned(),
            }),
        }
    }

    fn refuse_what_we_do_not_compute(&self) -> Result<(), GgufError> {
        let scaled = ["attention.scale", "logit_scale", "embedding_scale", "residual_scale"];
        let capped = ["attn_logit_softcapping", "final_logit_softcapping"];
        for part in scaled.into_iter().chain(capped).chain(["expert_count"]) {
            let found = self.gguf.float(&self.key(part)).filter(|&number| number != 0.0);
            if let Some(number) = found {
                return Err(self.unsupported(format!("`{}` = {number}", self.key(part))));
            }
        }
        Ok(())
    }

    fn gemma(&self, config: &mut ModelConfig) -> Result<(), GgufError> {
        config.sliding_window = Some(self.number("attention.sliding_window")?);
        config.rope_local_base_freq = Some(self.shortest("rope.freq_base_swa").unwrap_or(10_000.0));
        config.rope_theta = self.shortest("rope.freq_base").unwrap_or(1e6);
        // Of the released sizes only 27B, known by its layers, divides by another number than the head's size; llama.cpp goes by that too.
        let size = if config.num_hidden_layers == 62 {
            config.hidden_size / config.num_attention_heads.max(1)
        } else {
            config.head_size()
        };
        config.query_pre_attn_scalar = Some(size as f64);
        match self.gguf.metadata().get(&self.key("attention.sliding_window_pattern")) {
            Some(Meta::List(slides)) => {
                let kind = |slides: &Meta| (if *slides == Meta::Flag(false) { FULL } else { SLIDING }).to_owned();
                config.layer_types = Some(slides.iter().map(kind).collect());
            }
            Some(pattern) => config.sliding_window_pattern = pattern.float().map(|pattern| pattern as usize),
            None => {}
        }
        Ok(())
    }

    /// How the rotary embedding is stretched.
    fn scaling(&self, config: &ModelConfig) -> Result<Option<Map<String, Value>>, GgufError> {
        let factors = self.gguf.numbers("rope_freqs.weight").map_err(|error| self.unsupported(error.to_string()))?;
        if let Some(factors) = factors {
            return self.llama3(config, &factors);
        }
        let factor = self.shortest("rope.scaling.factor").or_else(|| self.shortest("rope.scale_linear"));
        let kind = self.gguf.text(&self.key("rope.scaling.type"));
        let scaling = match (kind, factor) {
            (Some("none"), _) | (_, None) => return Ok(None),
            (None, Some(1.0)) => return Ok(None),
            (None | Some("linear"), Some(factor)) => json!({"rope_type": "linear", "factor": factor}),
            (Some("yarn"), Some(factor)) => {
                let original = self.number("rope.scaling.original_context_length")?;
                let mut scaling =
                    json!({"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original});
                if let Some(by) = self.shortest("rope.scaling.attn_factor").filter(|&by| by != 1.0) {
                    scaling["attention_factor"] = json!(by * (0.1 * factor.ln() + 1.0));
                }
                for (key, name) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                    if let Some(beta) = self.shortest(&format!("rope.scaling.{key}")) {
                        scaling[name] = json!(beta);
                    }
                }
                scaling
            }
            (Some(other), _) => return Err(self.unsupported(format!("rotary embeddings scaled by `{other}`"))),
        };
        Ok(scaling.as_object().cloned())
    }

    /// Llama 3.1's scaling, which files only hold as a divisor for each pair. All released models differ in the factor alone.
    fn llama3(&self, config: &ModelConfig, divisors: &[f32]) -> Result<Option<Map<String, Value>>, GgufError> {
        let factor = f64::from(divisors.iter().copied().fold(1.0_f32, f32::max));
        if factor == 1.0 {
            return Ok(None);
        }
        let scaling = json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        let scaled = ModelConfig { rope_scaling: scaling.as_object().cloned(), ..config.clone() };
        let wrong = |source| GgufError::Config { path: self.gguf.path(), source };
        scaled.check().map_err(wrong)?;
        let expected = &scaled.architecture().ropes[0].frequencies;
        let plain = Rope::plain(config.head_size(), config.rope_theta).frequencies;
        let close =
            |((plain, scaled), &found): ((&f64, &f64), &f32)| (plain / scaled / f64::from(found) - 1.0).abs() < 1e-3;
        if expected.len() == divisors.len() && plain.iter().zip(expected).zip(divisors).all(close) {
            return Ok(scaled.rope_scaling);
        }
        Err(self.unsupported("`rope_freqs.weight` with other divisors than those of Llama 3.1".to_owned()))
    }

    /// Heads all of one size, turned as a whole.
    fn check_heads(&self, config: &ModelConfig) -> Result<(), GgufError> {
        for part in ["attention.value_length", "rope.dimension_count"] {
            let size = self.gguf.number(&self.key(part)).filter(|&size| size != config.head_size());
            if let Some(size) = size {
                return Err(self.unsupported(format!(
                    "`{}` = {size} and heads of {}",
                    self.key(part),
                    config.head_size()
                )));
            }
        }
        Ok(())
    }

    fn key(&self, part: &str) -> String {
        format!("{}.{part}", self.arch)
    }

    fn has(&self, part: &str) -> bool {
        self.gguf.metadata().contains_key(&self.key(part))
    }

    fn number(&self, part: &str) -> Result<usize, GgufError> {
        self.gguf.number(&self.key(part)).ok_or_else(|| self.missing(part, "one natural number"))
    }

    /// A number that the file holds in 32 bits, as the shortest decimal number that means it: 1e-5 is not 9.99999974e-6.
    fn shortest(&self, part: &str) -> Option<f64> {
        let number = self.gguf.float(&self.key(part))?;
        let narrow = number as f32;
        Some(if f64::from(narrow) == number { narrow.to_string().parse().unwrap_or(number) } else { number })
    }

    fn missing(&self, part: &str, kind: &'static str) -> GgufError {
        GgufError::Missing { path: self.gguf.path(), key: self.key(part), kind }
    }

    fn unsupported(&self, found: String) -> GgufError {
        let supported = "that is not supported".to_owned();
        GgufError::Unsupported { path: self.gguf.path(), found, supported }
    }
}
