//! The arithmetic of the two losses, each function with its formula (reference, sections 2 to 4).
//!
//! Everything that carries a gradient is a tensor and works in the tensor's own precision; what is detached (the KL
//! estimate, metrics) is `f64` on the host.

use burn::tensor::activation::{log_softmax, sigmoid};
use burn::tensor::{Int, Tensor, TensorData};

use super::objective::KtoConstants;

/// `lp[i] = log_softmax(logits[i, :])[targets[i]]`, temperature 1.
///
/// `logits` is `[n, vocab]`: row `i` is the prediction made one position before token `targets[i]`.
pub fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1)
}

/// `logps[b] = sum_i membership[b, i] * lp[i]`: the sum over a sequence's scored tokens, never a mean.
///
/// `membership` is `[rows, n]`, 1 where token `i` belongs to row `b` and 0 elsewhere.
pub fn sequence_log_probs(tokens: Tensor<1>, membership: Tensor<2>) -> Tensor<1> {
    membership.matmul(tokens.unsqueeze_dim(1)).squeeze_dim(1)
}

/// `loss = -sum_i weights[i] * lp[i] / max(total, 1)`, as a tensor of one element.
///
/// `weights` is 1 on scored tokens and 0 on padding. `total` counts the scored tokens of the whole optimiser step, so the
/// losses of all its parts add up to the token-weighted mean.
pub fn sft_nll(tokens: Tensor<1>, weights: Tensor<1>, total: usize) -> Tensor<1> {
    (tokens * weights).sum().mul_scalar(-1.0 / total.max(1) as f64)
}

/// `loss = sum_b w[b] * (1 - sigmoid(beta * s[b] * (policy[b] - reference[b] - kl))) / batch`, as a tensor of one element,
/// with `s = 1` and `w = desirable` on desirable rows, `s = -1` and `w = undesirable` on the others.
///
/// `policy` is `[rows]` and carries the gradient. `batch` is the number of rows of the whole batch: the weights are not
/// renormalised, and the losses of a batch's parts add up.
pub fn kto_loss(
    policy: Tensor<1>,
    reference: &[f64],
    desirable: &[bool],
    kl: f64,
    constants: &KtoConstants,
    batch: usize,
) -> Tensor<1> {
    let slope: Vec<f64> = desirable.iter().map(|label| if *label { constants.beta } else { -constants.beta }).collect();
    let weight: Vec<f64> = desirable
        .iter()
        .map(|label| if *label { constants.desirable } else { constants.undesirable } / batch.max(1) as f64)
        .collect();
    let shift: Vec<f64> = reference.iter().map(|reference| reference + kl).collect();
    let shift = like(&policy, shift);
    let (slope, weight) = (like(&policy, slope), like(&policy, weight));
    let value = sigmoid((policy - shift) * slope);
    (value.neg().add_scalar(1.0) * weight).sum()
}

/// Host numbers as a tensor of the precision and on the device of `other`.
fn like(other: &Tensor<1>, values: Vec<f64>) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (&other.device(), other.dtype()))
}

/// The implied rewards of a batch: `beta * (policy[b] - reference[b])`.
pub fn rewards(policy: &[f64], reference: &[f64], beta: f64) -> Vec<f64> {
    policy.iter().zip(reference).map(|(policy, reference)| beta * (policy - reference)).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};
    use serde::Deserialize;

    use super::*;
    use crate::train::objective::kl_estimate;

    #[derive(Deserialize)]
    struct Golden {
        #[serde(default)]
        kto: Vec<KtoCase>,
        sft: Option<SftCase>,
    }

    #[derive(Deserialize)]
    #[expect(non_snake_case, reason = "the names of the golden file")]
    struct KtoCase {
        name: String,
        loss_type: String,
        label: Vec<u8>,
        beta: f64,
        desirable_weight: f64,
        undesirable_weight: f64,
        policy_logps: Vec<f64>,
        ref_logps: Vec<f64>,
        policy_KL_logps: Vec<f64>,
        ref_KL_logps: Vec<f64>,
        expect: KtoExpect,
    }

    #[derive(Deserialize)]
    struct KtoExpect {
        kl: f64,
        loss: f64,
        chosen_rewards: Vec<f64>,
        rejected_rewards: Vec<f64>,
        grad_policy_logps: Vec<f64>,
    }

    #[derive(Deserialize)]
    struct SftCase {
        logits: Vec<Vec<Vec<f64>>>,
        input_ids: Vec<Vec<i64>>,
        loss_mask: Vec<Vec<u8>>,
        expect: SftExpect,
    }

    #[derive(Deserialize)]
    struct SftExpect {
        per_token_logps: Vec<Vec<f64>>,
        sum_logps: Vec<f64>,
        num_tokens: usize,
        nll: f64,
        grad_logits: Vec<Vec<Vec<f64>>>,
    }

    fn golden() -> Vec<(String, Golden)> {
        crate::golden::read("kto_sft")
    }

    fn device() -> Device {
        Device::flex().autodiff()
    }

    fn leaf<const D: usize>(values: Vec<f64>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), (&device(), DType::F64)).require_grad()
    }

    fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().convert::<f64>().try_to_vec().unwrap()
    }

    fn close(found: &[f64], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-12, "{what}: {found} instead of {expected}");
        }
    }

    #[test]
    fn golden_kto_losses_with_their_gradients() {
        let cases: Vec<KtoCase> = golden().into_iter().flat_map(|(_, file)| file.kto).collect();
        assert!(!cases.is_empty());
        for case in cases {
            let desirable: Vec<bool> = case.label.iter().map(|label| *label == 1).collect();
            let kl = match case.loss_type.as_str() {
                "kto" => kl_estimate(&case.policy_KL_logps, &case.ref_KL_logps),
                _ => 0.0,
            };
            close(&[kl], &[case.expect.kl], &case.name);
            let constants = KtoConstants {
                beta: case.beta,
                desirable: case.desirable_weight,
                undesirable: case.undesirable_weight,
            };
            let count = desirable.len();
            let policy = leaf(case.policy_logps.clone(), [count]);
            let loss = kto_loss(policy.clone(), &case.ref_logps, &desirable, kl, &constants, count);
            let grads = loss.backward();
            close(&host(loss), &[case.expect.loss], &case.name);
            close(&host(policy.grad(&grads).unwrap()), &case.expect.grad_policy_logps, &case.name);
            let all = rewards(&case.policy_logps, &case.ref_logps, case.beta);
            let side = |side: bool| -> Vec<f64> {
                all.iter().zip(&desirable).filter(|(_, label)| **label == side).map(|(reward, _)| *reward).collect()
            };
            close(&side(true), &case.expect.chosen_rewards, &case.name);
            close(&side(false), &case.expect.rejected_rewards, &case.name);
        }
    }

    #[test]
    fn golden_sft_losses_with_their_gradients() {
        let cases: Vec<SftCase> = golden().into_iter().filter_map(|(_, file)| file.sft).collect();
        assert!(!cases.is_empty());
        cases.into_iter().for_each(sft_matches);
    }

    fn sft_matches(case: SftCase) {
        let (rows, width, vocab) = (case.logits.len(), case.logits[0].len(), case.logits[0][0].len());
        let flat: Vec<f64> = case.logits.iter().flatten().flatten().copied().collect();
        let logits = leaf(flat, [rows * width, vocab]);
        let (mut at, mut targets, mut membership) = (Vec::new(), Vec::new(), vec![Vec::new(); rows]);
        for (row, mask) in case.loss_mask.iter().enumerate() {
            for place in (1..width).filter(|place| mask[*place] == 1) {
                at.push((row * width + place - 1) as i64);
                targets.push(case.input_ids[row][place]);
                for (other, members) in membership.iter_mut().enumerate() {
                    members.push(if other == row { 1.0 } else { 0.0 });
                }
            }
        }
        let count = at.len();
        assert_eq!(count, case.expect.num_tokens);
        let ints = |values: Vec<i64>| Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device());
        let tokens = token_log_probs(logits.clone().select(0, ints(at)), ints(targets));
        let expected: Vec<f64> =
            case.expect.per_token_logps.iter().flatten().copied().filter(|value| *value != 0.0).collect();
        close(&host(tokens.clone()), &expected, "per token");
        let members = leaf(membership.concat(), [rows, count]);
        close(&host(sequence_log_probs(tokens.clone(), members)), &case.expect.sum_logps, "per sequence");
        let loss = sft_nll(tokens, leaf(vec![1.0; count], [count]), count);
        let grads = loss.backward();
        close(&host(loss), &[case.expect.nll], "nll");
        let expected: Vec<f64> = case.expect.grad_logits.iter().flatten().flatten().copied().collect();
        close(&host(logits.grad(&grads).unwrap()), &expected, "gradient");
    }
}
