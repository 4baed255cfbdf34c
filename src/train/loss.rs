//! Log-probabilities as tensors that carry a gradient (reference, section 2): what autodiff learners make losses of.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

/// `lp[i] = log_softmax(logits[i, :])[targets[i]]`, temperature 1.
///
/// `logits` is `[n, vocab]`: row `i` is the prediction made one position before token `targets[i]`.
pub fn token_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};
    use serde::Deserialize;

    use super::*;
    use crate::train::objective::nll;

    #[derive(Deserialize)]
    struct Golden {
        sft: Option<SftCase>,
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
        let sequences: Tensor<1> = members.matmul(tokens.unsqueeze_dim(1)).squeeze_dim(1);
        let found = host(sequences.clone());
        close(&found, &case.expect.sum_logps, "per sequence");
        let terms = || found.iter().map(|&log_prob| nll(log_prob, count));
        close(&[terms().map(|term| term.loss).sum()], &[case.expect.nll], "nll");
        let slopes = terms().map(|term| term.slopes[0]).collect();
        let grads = (sequences * leaf(slopes, [rows])).sum().backward();
        let expected: Vec<f64> = case.expect.grad_logits.iter().flatten().flatten().copied().collect();
        close(&host(logits.grad(&grads).unwrap()), &expected, "gradient");
    }
}
