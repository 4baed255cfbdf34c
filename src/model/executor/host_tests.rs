//! What follows a token is what the forward pass says, and the same to the bit however the tokens come.

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;

use super::*;
use crate::model::ModelConfig;
use crate::model::config::tests::tiny;
use crate::model::lora::{ALL, LoraConfig};

/// Small models that between them have every option of an architecture.
pub(crate) fn models() -> Vec<(&'static str, Decoder)> {
    let base = ModelConfig { num_hidden_layers: 3, max_position_embeddings: 128, vocab_size: 40, ..tiny() };
    let scaling = json!({
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    let configs = [
        ("tied", base.clone()),
        (
            "biases, scaled rope, own head",
            ModelConfig {
                attention_bias: true,
                mlp_bias: true,
                tie_word_embeddings: false,
                rope_scaling: scaling.as_object().cloned(),
                ..base.clone()
            },
        ),
        (
            "qwen2, sliding behind the first layer, yarn",
            ModelConfig {
                model_type: "qwen2".into(),
                use_sliding_window: true,
                sliding_window: Some(19),
                max_window_layers: Some(1),
                rope_scaling: yarn.as_object().cloned(),
                ..base.clone()
            },
        ),
        ("qwen3", ModelConfig { model_type: "qwen3".into(), head_dim: Some(20), ..base.clone() }),
        (
            "gemma",
            ModelConfig {
                model_type: "gemma3_text".into(),
                head_dim: Some(6),
                hidden_act: "gelu_pytorch_tanh".into(),
                sliding_window: Some(7),
                sliding_window_pattern: Some(2),
                rope_local_base_freq: Some(100.0),
                query_pre_attn_scalar: Some(9.0),
                ..base.clone()
            },
        ),
    ];
    let init = |(name, config)| (name, restless(&Decoder::init(&config, 5, &Device::flex()).unwrap()));
    let mut all: Vec<_> = configs.into_iter().map(init).collect();
    let lora = LoraConfig { rank: 3, alpha: 6.0, rank_stabilised: false, dropout: 0.5, targets: vec![ALL.to_owned()] };
    all.push(("adapted", restless(&all[3].1.adapt(&lora, 9).unwrap())));
    all
}

/// The same decoder with every parameter moved, so that no norm is one, no bias and no adapter zero.
fn restless(decoder: &Decoder) -> Decoder {
    struct Move(u32);
    impl burn::module::ModuleMapper for Move {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            param.map(|tensor| {
                let (shape, device) = (tensor.shape(), tensor.device());
                self.0 += 1;
                let noise = |index: usize| {
                    ((index as u32).wrapping_mul(2_654_435_761).wrapping_add(self.0 * 977) >> 8) as f32
                        / (1 << 24) as f32
                };
                let values: Vec<f32> = (0..shape.num_elements()).map(|index| noise(index) - 0.5).collect();
                tensor + Tensor::<D>::from_data(TensorData::new(values, shape), &device) * 0.3
            })
        }
    }
    decoder.clone().map(&mut Move(0))
}

fn forward(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    let tokens: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [1, ids.len()]), &Device::flex());
    let all: Vec<f32> = decoder.forward(tokens).try_into_vec_as().unwrap();
    all[all.len() - decoder.architecture().vocab..].to_vec()
}

/// The logits behind some tokens that come in parts, beside others that all come in the first part and grow by one token
/// with each further one.
fn in_parts(executor: &mut HostExecutor, ids: &[u32], cuts: &[usize], beside: &[Vec<u32>]) -> Vec<f32> {
    let each = ids.len().max(beside.iter().map(Vec::len).max().unwrap_or(0)) + cuts.len();
    let each = each.div_ceil(PAGE) as u32;
    // Pages in no order.
    let pages = |row: u32| -> Vec<u32> { (0..each).rev().map(|page| page * (beside.len() as u32 + 1) + row).collect() };
    let tables: Vec<Vec<u32>> = (0..=beside.len() as u32).map(pages).collect();
    let mut last = Vec::new();
    for (part, (start, end)) in [0].iter().chain(cuts).zip(cuts.iter().chain([&ids.len()])).enumerate() {
        let mut rows =
            vec![Row { slot: 0, pages: &tables[0], past: *start, tokens: &ids[*start..*end], want: Want::Logits }];
        for (index, others) in beside.iter().enumerate() {
            let begun = others.len() - cuts.len();
            let (past, tokens) = if part == 0 {
                (0, &others[..begun])
            } else {
                (begun + part - 1, &others[begun + part - 1..begun + part])
            };
            rows.insert(0, Row { slot: index + 1, pages: &tables[index + 1], past, tokens, want: Want::Logits });
        }
        let mut answers = executor.run(&rows).unwrap();
        let Some(Answer::Logits(logits)) = answers.pop() else { panic!("{answers:?}") };
        last = logits;
    }
    last
}

fn sequence(length: usize, vocab: usize) -> Vec<u32> {
    (0..length).map(|index| ((index * index + 31 * index + 3) % vocab) as u32).collect()
}

#[test]
fn every_architecture_gives_the_logits_of_the_forward_pass_to_the_bit_however_tokens_come() {
    for (name, decoder) in models() {
        let mut executor = HostExecutor::new(&decoder, 1 << 20).unwrap();
        let ids = sequence(70, 40);
        let right = forward(&decoder, &ids);
        let whole = in_parts(&mut executor, &ids, &[], &[]);
        assert!(right.iter().any(|logit| logit.abs() > 0.5), "{name}: {right:?}");
        for (found, right) in whole.iter().zip(&right) {
            assert!((found - right).abs() < 2e-4 * right.abs().max(1.0), "{name}: {found} {right}");
        }
        for cuts in [&[1][..], &[16, 17, 48], &[15, 33], &[67, 68, 69]] {
            assert_eq!(in_parts(&mut executor, &ids, cuts, &[]), whole, "{name}, cut at {cuts:?}");
            let beside = [sequence(90, 39), sequence(5, 20), sequence(33, 7)];
            assert_eq!(in_parts(&mut executor, &ids, cuts, &beside), whole, "{name}, cut at {cuts:?}, in company");
        }
    }
}

#[test]
fn a_wide_model_is_the_same_to_the_bit_on_any_threads() {
    let config = ModelConfig {
        hidden_size: 528,
        intermediate_size: 1_100,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: Some(3),
        vocab_size: 300,
        max_position_embeddings: 768,
        ..tiny()
    };
    let decoder = Decoder::init(&config, 1, &Device::flex()).unwrap();
    let ids = sequence(400, 300);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            in_parts(&mut HostExecutor::new(&decoder, 1 << 24).unwrap(), &ids, &[100, 399], &[sequence(50, 8)])
        })
    };
    let (one, three) = (with(1), with(3));
    assert_eq!(one, three);
    for (found, right) in one.iter().zip(forward(&decoder, &ids)) {
        assert!((found - right).abs() < 2e-4 * right.abs().max(1.0), "{found} {right}");
    }
}

#[test]
fn a_row_may_begin_with_what_another_row_of_the_same_call_computes() {
    for (name, decoder) in models() {
        let mut executor = HostExecutor::new(&decoder, 1 << 20).unwrap();
        let ids = sequence(50, 40);
        let whole = in_parts(&mut executor, &ids, &[], &[]);
        let (first, second) = ([7, 9, 8, 6], [7, 9, 3, 4]);
        let rows = [
            Row { slot: 0, pages: &first, past: 0, tokens: &ids[..40], want: Want::Nothing },
            Row { slot: 1, pages: &second, past: 32, tokens: &ids[32..], want: Want::Logits },
        ];
        assert_eq!(executor.run(&rows).unwrap(), [Answer::Nothing, Answer::Logits(whole)], "{name}");
    }
}

#[test]
fn what_there_is_not_is_refused() {
    let (_, decoder) = models().remove(0);
    let mut executor = HostExecutor::new(&decoder, 0).unwrap();
    assert_eq!(executor.layout().pages, 128 / PAGE);
    let fine = Row { slot: 0, pages: &[0], past: 0, tokens: &[1], want: Want::Logits };
    assert!(executor.run(&[fine]).is_ok());
    let uniforms = &[0.5];
    let wants = Want::Tokens { draw: Draw::default(), uniforms, seed: 0, logprobs: false };
    for wrong in [
        Row { pages: &[8], ..fine },
        Row { pages: &[], ..fine },
        Row { tokens: &[], ..fine },
        Row { tokens: &[40], ..fine },
        Row { past: 16, ..fine },
        Row { want: wants, ..fine },
    ] {
        assert!(executor.run(&[wrong]).is_err(), "{wrong:?}");
    }
}
