//! What is read, what is refused, and what is computed of it.

use super::*;
use crate::model::architecture::LayerKind;

/// A model small enough for tests: grouped heads, tied embeddings.
pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: Some(2),
        head_dim: None,
        vocab_size: 20,
        max_position_embeddings: 64,
        tie_word_embeddings: true,
        eos_token_id: Some(TokenIds::One(1)),
        pad_token_id: Some(0),
        ..ModelConfig::default()
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
    assert_eq!(error(|c| c.hidden_size = 18), "`hidden_size` is 18, which is no multiple of `num_attention_heads`, 4");
    assert_eq!(
        error(|c| c.num_key_value_heads = Some(3)),
        "`num_attention_heads` is 4, which is no multiple of `num_key_value_heads`, 3"
    );
    assert_eq!(error(|c| c.hidden_size = 12), "`head_dim` is 3, but must be even");
    assert_eq!(error(|c| c.rms_norm_eps = -1.0), "`rms_norm_eps` is -1, but must be positive");
    assert_eq!(
        error(|c| c.eos_token_id = Some(TokenIds::Many(vec![1, 20]))),
        "`eos_token_id` is 20, but `vocab_size` is 20"
    );
    assert_eq!(
        error(|c| c.num_hidden_layers = 1 << 40),
        "`num_hidden_layers` is 1099511627776; at most 65536 is supported"
    );
    assert_eq!(
        error(|c| c.model_type = "gpt2".into()),
        "`model_type` is `gpt2`; supported are `llama`, `qwen2`, `qwen3`, `gemma3_text`, and the text part of `gemma3`"
    );
}

fn with(extra: &str) -> Result<ModelConfig, ConfigError> {
    ModelConfig::parse(&tiny().to_json().replacen('{', &format!("{{{extra},"), 1))
}

#[test]
fn refuses_what_it_would_compute_wrongly() {
    let error = |extra: &str| with(extra).unwrap_err().to_string();
    assert_eq!(
        error(r#""final_logit_softcapping": 30.0"#),
        "`final_logit_softcapping` is `30.0`; only `null` is supported"
    );
    assert_eq!(
        error(r#""rope_scaling": {"type": "dynamic", "factor": 2}"#),
        "`rope_type` is `dynamic`; only `default`, `linear`, `llama3` and `yarn` are supported"
    );
    assert_eq!(error(r#""rope_scaling": {"type": "linear"}"#), "`factor` of `rope_scaling` must be given");
    assert_eq!(
        error(r#""rope_scaling": {"type": "linear", "factor": 0}"#),
        "`factor` of `rope_scaling` must be a positive number"
    );
    assert_eq!(error(r#""num_local_experts": 8"#), "`num_local_experts` is `8`; only `0` is supported");
    assert!(error(r#""partial_rotary_factor": 0.5"#).contains("only `1.0` is supported"));
    assert!(error(r#""quantization_config": {"bits": 4}"#).contains("only `null` is supported"));
    assert!(ModelConfig::parse("[]").is_err());
    assert!(ModelConfig::parse("{}").unwrap_err().to_string().ends_with("missing field `model_type`"));
}

#[test]
fn keeps_what_it_does_not_know() {
    let config =
        with(r#""use_cache": true, "rope_scaling": null, "head_dim": null, "initializer_range": 0.02"#).unwrap();
    let mut plain = config.clone();
    assert_eq!(plain.extra.len(), 2);
    plain.extra.clear();
    assert_eq!(plain, tiny());
    assert_eq!(ModelConfig::parse(&config.to_json()).unwrap(), config);
}

#[test]
fn families_have_their_own_names_and_defaults() {
    let gemma = r#"{"model_type": "gemma3", "eos_token_id": [1, 106], "vision_config": {"hidden_size": 5}, "text_config":
        {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 12, "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}}"#;
    let config = ModelConfig::parse(gemma).unwrap();
    assert_eq!(config.eos_token_id.as_ref().unwrap().all(), [1, 106]);
    let written: Value = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(written["model_type"], "gemma3_text");
    assert_eq!(written["hidden_activation"], "gelu_pytorch_tanh");
    assert_eq!(written["query_pre_attn_scalar"].as_u64(), Some(256), "transformers takes no number with a point there");
    assert!(written.get("hidden_act").is_none() && written.get("vision_config").is_none());
    assert_eq!(ModelConfig::parse(&config.to_json()).unwrap(), config);
    let computed = config.architecture();
    let global = |layer: usize| computed.layers[layer] == LayerKind { window: None, rope: 0 };
    assert!(global(5) && global(11) && computed.layers[4] == LayerKind { window: Some(1024), rope: 1 });
    assert_eq!((computed.ropes[0].frequencies[0], computed.ropes[1].frequencies[0]), (0.125, 1.0));
    assert_eq!((computed.head, computed.query_scale, computed.tied), (256, 0.0625, true));
    assert_eq!(computed.embed_scale, Some(f64::from(2560_f32.sqrt())));
}

#[test]
fn both_spellings_of_rotary_embeddings_say_the_same() {
    let read = |rope: &str| {
        let sizes = r#""hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 32, "vocab_size": 9"#;
        ModelConfig::parse(&format!(r#"{{"model_type": "gemma3_text", {sizes}, {rope}}}"#))
    };
    let flat =
        r#""rope_theta": 2e6, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 4.0}"#;
    let nested = r#""rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 2e6}}"#;
    assert_eq!(read(flat).unwrap().architecture(), read(nested).unwrap().architecture());
    assert_eq!(read(flat).unwrap().to_json(), read(nested).unwrap().to_json());
    let odd = nested.replace(r#"{"rope_type": "default","#, r#"{"rope_type": "linear", "factor": 2,"#);
    assert!(read(&odd).unwrap_err().to_string().contains("an unscaled one for sliding layers"));
    let one = with(r#""rope_parameters": {"rope_theta": 7.0, "rope_type": "linear", "factor": 2.0}"#).unwrap();
    assert_eq!((one.rope_theta, one.architecture().ropes[0].frequencies[0]), (7.0, 0.5));
}

#[test]
fn windows_follow_the_family_and_layer_types() {
    let read = |extra: &str| {
        let sizes = r#""hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": 9"#;
        ModelConfig::parse(&format!(r#"{{"model_type": "qwen2", {sizes}, {extra}}}"#))
    };
    let windows =
        |extra: &str| -> Vec<_> { read(extra).unwrap().architecture().layers.iter().map(|kind| kind.window).collect() };
    assert_eq!(windows(r#""sliding_window": 4, "use_sliding_window": false, "max_window_layers": 1"#), [None; 3]);
    let by_count = windows(r#""sliding_window": 4, "use_sliding_window": true, "max_window_layers": 1"#);
    assert_eq!(by_count, [None, Some(4), Some(4)]);
    let types = r#""layer_types": ["sliding_attention", "full_attention", "sliding_attention"]"#;
    assert_eq!(
        windows(&format!(r#"{types}, "sliding_window": 4, "use_sliding_window": true"#)),
        [Some(4), None, Some(4)]
    );
    assert_eq!(read(types).unwrap_err(), ConfigError::NoWindow);
    let short = read(r#""layer_types": ["full_attention"]"#).unwrap_err();
    assert_eq!(short, ConfigError::LayerTypes { found: 1, expected: 3 });
    let computed = read(r#""rope_theta": 1e6"#).unwrap().architecture();
    assert!(computed.qkv_bias && !computed.out_bias && !computed.qk_norm && computed.epsilon == 1e-6);
}
