//! The host learner against automatic differentiation.

use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::model::architecture::{Activation, Architecture, LayerKind, Rope};
use crate::train::plain::PlainLearner;
use crate::train::tests::{adapted, decoder};

fn settings(checkpointing: bool) -> LearnerSettings {
    LearnerSettings { checkpointing, ..LearnerSettings::default() }
}

/// Numbers in [-scale, scale] that follow from a name.
fn numbers(name: &str, count: usize, scale: f32) -> Vec<f32> {
    let mut state = name
        .bytes()
        .fold(0x9E37_79B9_u32, |state, byte| state.rotate_left(5) ^ u32::from(byte).wrapping_mul(0x85EB_CA6B));
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) as f32 * scale
    };
    (0..count).map(|_| next()).collect()
}

/// A decoder with all numbers drawn, none of them special.
fn drawn(architecture: &Architecture) -> Decoder {
    let device = Device::flex();
    let matrix = |name: &str, shape: [usize; 2]| -> Result<Tensor<2>, ()> {
        let scale = if name.contains("embed") { 0.5 } else { 1.7 * (shape[0] as f32).powf(-0.5) };
        Ok(Tensor::from_data(TensorData::new(numbers(name, shape[0] * shape[1], scale), shape), &device))
    };
    let vector = |name: &str, size: usize| -> Result<Tensor<1>, ()> {
        let middle = if name.ends_with(".bias") || architecture.unit_offset { 0.0 } else { 1.0 };
        let values = numbers(name, size, 0.3).into_iter().map(|value| value + middle).collect();
        Ok(Tensor::from_data(TensorData::new(values, [size]), &device))
    };
    Decoder::assemble(decoder().config(), architecture.clone(), matrix, vector).unwrap()
}

/// What a plain Llama computes, with uneven sizes.
fn plain() -> Architecture {
    Architecture {
        vocab: 37,
        context: 300,
        hidden: 20,
        inner: 44,
        heads: 4,
        kv_heads: 2,
        head: 6,
        epsilon: 1e-5,
        unit_offset: false,
        activation: Activation::Silu,
        query_scale: 0.4,
        embed_scale: None,
        tied: false,
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        qk_norm: false,
        post_norms: false,
        ropes: vec![Rope::plain(6, 10_000.0)],
        layers: vec![LayerKind { window: None, rope: 0 }; 2],
    }
}

/// Every option on.
fn rich() -> Architecture {
    Architecture {
        unit_offset: true,
        activation: Activation::GeluTanh,
        embed_scale: Some(20.0_f64.sqrt()),
        tied: true,
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        qk_norm: true,
        post_norms: true,
        kv_heads: 1,
        ropes: vec![Rope { magnitude: 1.1, ..Rope::plain(6, 10_000.0) }, Rope::plain(6, 100.0)],
        layers: vec![LayerKind { window: Some(9), rope: 1 }, LayerKind { window: None, rope: 0 }],
        ..plain()
    }
}

/// Sequences of many lengths, among them those that end at and beyond a block of queries.
fn sequences() -> Vec<Sequence> {
    let one = |(index, length): (usize, usize)| Sequence {
        dialogue: format!("d{index}"),
        ids: (0..length).map(|place| ((place * place + 3 * index + place / 5) % 37) as u32).collect(),
        scored: (0..length).map(|place| place % 3 != 1).collect(),
    };
    [5, 48, 49, 1, 97, 30, 2, 130].into_iter().enumerate().map(one).collect()
}

/// A slope that differs from sequence to sequence and depends on the log-probabilities of its group.
fn slope(first: usize, values: &[f64]) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    values
        .iter()
        .enumerate()
        .map(|(place, value)| 0.01 * (first + place) as f64 - 0.03 + (sum + value) * 1e-4)
        .collect()
}

/// Compares log-probabilities, gradients and an update of both learners.
fn agrees(model: &Decoder, checkpointing: bool) {
    let sequences = sequences();
    let rows: Vec<&Sequence> = sequences.iter().collect();
    let mut oracle = PlainLearner::new(model.clone(), settings(false)).unwrap();
    let mut learner = HostLearner::with_threads(model.clone(), settings(checkpointing), 2).unwrap();
    for under in [Under::Policy, Under::Reference] {
        let (found, expected) = (learner.log_probs(&rows, under).unwrap(), oracle.log_probs(&rows, under).unwrap());
        close("log-probabilities", &found, &expected, 2e-5);
    }
    let expected = oracle.accumulate(&rows, 2, &slope, 1).unwrap();
    close("log-probabilities", &learner.accumulate(&rows, 2, &slope, 1).unwrap(), &expected, 2e-5);
    let gradients = oracle.gradients();
    assert_eq!(gradients.len(), learner.gradients().len());
    for (place, (found, expected)) in learner.gradients().iter().zip(gradients).enumerate() {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        close(&format!("gradient {place}"), &wide(found), &wide(&expected.unwrap_or_default()), 5e-5);
    }
    let (norm, expected) = (learner.gradient_norm().unwrap(), oracle.gradient_norm().unwrap());
    assert!((norm / expected - 1.0).abs() < 1e-5, "{norm} {expected}");
    learner.update(1e-3, 0.5).unwrap();
    oracle.update(1e-3, 0.5).unwrap();
    let (found, expected) = (learner.state().unwrap(), oracle.state().unwrap());
    assert_eq!(found.step, expected.step);
    for (found, expected) in found.parameters.iter().zip(&expected.parameters) {
        // A gradient of nearly zero may have either sign, and a first step is as large for it as for any other.
        let near = found.iter().zip(expected).filter(|(found, expected)| (*found - *expected).abs() < 2e-5).count();
        assert!(near * 100 >= found.len() * 98, "{near} of {}", found.len());
    }
}

/// Whether numbers agree in relation to the greatest of them.
fn close(what: &str, found: &[f64], expected: &[f64], within: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let most = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= within * most,
            "{what} at {place}: {found} instead of {expected}, most {most}"
        );
    }
}

#[test]
fn a_llama_agrees() {
    agrees(&drawn(&plain()), false);
    agrees(&drawn(&plain()), true);
}

#[test]
fn every_option_at_once_agrees() {
    agrees(&drawn(&rich()), false);
    agrees(&drawn(&rich()), true);
}

#[test]
fn every_option_alone_agrees() {
    let options: [fn(&mut Architecture); 11] = [
        |one| one.unit_offset = true,
        |one| one.activation = Activation::GeluTanh,
        |one| one.embed_scale = Some(3.0),
        |one| one.tied = true,
        |one| one.qkv_bias = true,
        |one| one.out_bias = true,
        |one| one.mlp_bias = true,
        |one| one.qk_norm = true,
        |one| one.post_norms = true,
        |one| one.kv_heads = 4,
        |one| one.layers[1].window = Some(50),
    ];
    for option in options {
        let mut architecture = plain();
        option(&mut architecture);
        agrees(&drawn(&architecture), false);
    }
}

#[test]
fn adapters_agree() {
    agrees(&adapted(drawn(&plain()), 3, 0.0), false);
    agrees(&adapted(drawn(&rich()), 5, 0.0), true);
}

#[test]
fn the_number_of_threads_does_not_touch_a_bit() {
    let sequences = sequences();
    let rows: Vec<&Sequence> = sequences.iter().cycle().take(40).collect();
    let run = |threads: usize, model: Decoder| {
        let mut learner = HostLearner::with_threads(model, settings(false), threads).unwrap();
        let values = learner.accumulate(&rows, 1, &slope, 3).unwrap();
        learner.update(1e-2, 1.0).unwrap();
        let bits: Vec<u64> = values.into_iter().map(f64::to_bits).collect();
        (bits, learner.state().unwrap())
    };
    for model in [drawn(&rich()), adapted(drawn(&plain()), 3, 0.2)] {
        let alone = run(1, model.clone());
        for threads in [2, 5] {
            assert_eq!(run(threads, model.clone()), alone, "{threads} threads");
        }
    }
}

#[test]
fn dropout_is_the_same_however_often_it_is_computed_and_another_for_another_seed() {
    let sequences = sequences();
    let rows: Vec<&Sequence> = sequences.iter().collect();
    let model = adapted(drawn(&plain()), 3, 0.3);
    let run = |checkpointing: bool, seed: u64| {
        let mut learner = HostLearner::with_threads(model.clone(), settings(checkpointing), 2).unwrap();
        let values = learner.accumulate(&rows, 1, &slope, seed).unwrap();
        (values, learner.gradients().to_vec())
    };
    assert_eq!(run(false, 1), run(true, 1));
    assert_ne!(run(false, 1), run(false, 2));
    let mut learner = HostLearner::with_threads(model.clone(), settings(false), 2).unwrap();
    let still = learner.log_probs(&rows, Under::Policy).unwrap();
    assert_ne!(run(false, 1).0, still);
    // On average dropout changes nothing.
    let mut mean = vec![0.0; rows.len()];
    (0..60).for_each(|seed| run(false, seed).0.iter().zip(&mut mean).for_each(|(value, mean)| *mean += value / 60.0));
    let (found, expected): (f64, f64) = (mean.iter().sum(), still.iter().sum());
    assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
}

/// With dropout there is no oracle, but the slope along one number of an adapter is a difference quotient.
#[test]
fn gradients_under_dropout_are_difference_quotients() {
    let sequences = sequences();
    let rows: Vec<&Sequence> = sequences.iter().collect();
    let mut learner = HostLearner::with_threads(adapted(drawn(&plain()), 3, 0.3), settings(false), 2).unwrap();
    let ones = |_: usize, values: &[f64]| vec![1.0; values.len()];
    learner.accumulate(&rows, 1, &ones, 9).unwrap();
    let gradients = learner.gradients().to_vec();
    let state = learner.state().unwrap();
    let places: Vec<usize> = learner.weights.trained().collect();
    for (index, place) in places.into_iter().enumerate() {
        let number = gradients[place].len() / 2;
        let mut at = |by: f32| -> f64 {
            let mut moved = state.clone();
            moved.parameters[index][number] += by;
            learner.restore(moved).unwrap();
            learner.accumulate(&rows, 1, &ones, 9).unwrap().iter().sum()
        };
        let (step, expected) = (1e-2, f64::from(gradients[place][number]));
        let quotient = (at(step) - at(-step)) / (2.0 * f64::from(step));
        assert!((quotient - expected).abs() < 0.02 * expected.abs().max(1.0), "{place}: {quotient} {expected}");
    }
}

#[test]
fn many_passes_are_one() {
    let sequences: Vec<Sequence> = sequences().into_iter().cycle().take(60).collect();
    let rows: Vec<&Sequence> = sequences.iter().collect();
    assert!(batches(&rows, 2).len() > 1);
    let mut learner = HostLearner::with_threads(drawn(&plain()), settings(false), 2).unwrap();
    let together = learner.accumulate(&rows, 2, &slope, 0).unwrap();
    let gradients = learner.gradients().to_vec();
    let mut apart = HostLearner::with_threads(drawn(&plain()), settings(false), 2).unwrap();
    let mut values = Vec::new();
    for first in (0..60).step_by(2) {
        let shifted = |_: usize, values: &[f64]| slope(first, values);
        values.extend(apart.accumulate(&rows[first..first + 2], 2, &shifted, 0).unwrap());
    }
    assert_eq!(together, values, "a sequence's log-probability does not depend on its company");
    for (found, expected) in gradients.iter().zip(apart.gradients()) {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        close("gradient", &wide(found), &wide(expected), 1e-5);
    }
}

#[test]
fn a_token_beyond_the_vocabulary_is_refused() {
    let mut learner = HostLearner::with_threads(drawn(&plain()), settings(false), 1).unwrap();
    let foreign = Sequence { dialogue: "d".to_owned(), ids: vec![1, 37], scored: vec![false, true] };
    let error = learner.log_probs(&[&foreign], Under::Policy).unwrap_err().to_string();
    assert_eq!(error, "dialogue `d` has the token 37, but the model's vocabulary has 37");
}
