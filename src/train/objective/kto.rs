//! The loss of single completions, desirable or not: KTO (arXiv 2402.01306) and its anchored relative.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Term, sigmoid};

/// Which loss KTO training minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KtoLoss {
    /// Kahneman-Tversky optimisation with the KL estimate from mismatched pairs.
    #[default]
    Kto,
    /// The unpaired anchored variant: the same formula with a KL of 0, and no mismatched pairs.
    ApoZeroUnpaired,
}

/// The constants of the KTO loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KtoConstants {
    /// How steeply the loss follows the log ratio.
    pub beta: f64,
    /// The weight of a desirable row.
    pub desirable: f64,
    /// The weight of an undesirable row.
    pub undesirable: f64,
}

/// `kl = max(mean_b(policy[b] - reference[b]), 0)` over the mismatched pairs of one batch: the mean first, then the clamp.
/// 0 for an empty batch.
pub fn kl_estimate(policy: &[f64], reference: &[f64]) -> f64 {
    let total: f64 = policy.iter().zip(reference).map(|(policy, reference)| policy - reference).sum();
    // `f64::max` would turn a NaN into 0 and hide a model that has diverged; so would a 0 for an infinity.
    let mean = total / policy.len().max(1) as f64;
    if mean.is_finite() && mean < 0.0 { 0.0 } else { mean }
}

/// `w * (1 - sigmoid(beta * s * (policy - reference - kl)))`, with `s = 1` and `w = desirable` for a desirable row, `s = -1`
/// and `w = undesirable` for another one. The KL estimate is held fixed. The anchored variant is the same with a `kl` of 0.
///
/// A batch's loss is the plain mean over its rows: the weights are not renormalised.
pub fn kto(policy: f64, reference: f64, desirable: bool, kl: f64, constants: &KtoConstants) -> Term<1> {
    let (weight, beta) = match desirable {
        true => (constants.desirable, constants.beta),
        false => (constants.undesirable, -constants.beta),
    };
    let x = beta * (policy - reference - kl);
    let other = sigmoid(-x);
    Term { loss: weight * other, slopes: [-weight * beta * other * sigmoid(x)] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::super::reward;
    use super::super::tests::{close, has_slope};
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        #[serde(default)]
        kto: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[expect(non_snake_case, reason = "the names of the golden file")]
    struct Case {
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
        expect: Expected,
    }

    #[derive(Deserialize)]
    struct Expected {
        kl: f64,
        loss: f64,
        chosen_rewards: Vec<f64>,
        rejected_rewards: Vec<f64>,
        grad_policy_logps: Vec<f64>,
    }

    #[test]
    fn golden_losses_with_their_slopes() {
        let cases: Vec<Case> =
            crate::golden::read::<Golden>("kto_sft").into_iter().flat_map(|(_, file)| file.kto).collect();
        assert!(cases.len() >= 5);
        for case in cases {
            let kl = match case.loss_type.as_str() {
                "kto" => kl_estimate(&case.policy_KL_logps, &case.ref_KL_logps),
                _ => 0.0,
            };
            close(&[kl], &[case.expect.kl], 1e-12, &case.name);
            let (desirable, undesirable) = (case.desirable_weight, case.undesirable_weight);
            let constants = KtoConstants { beta: case.beta, desirable, undesirable };
            let rows = || case.policy_logps.iter().zip(&case.ref_logps).zip(&case.label);
            let terms: Vec<Term<1>> = rows()
                .map(|((policy, reference), label)| kto(*policy, *reference, *label == 1, kl, &constants))
                .map(|term| term.scaled(1.0 / case.label.len() as f64))
                .collect();
            close(&[terms.iter().map(|term| term.loss).sum()], &[case.expect.loss], 1e-12, &case.name);
            let slopes: Vec<f64> = terms.iter().map(|term| term.slopes[0]).collect();
            close(&slopes, &case.expect.grad_policy_logps, 1e-12, &case.name);
            let side = |side: u8| -> Vec<f64> {
                let rows = rows().filter(|(_, label)| **label == side);
                rows.map(|((policy, reference), _)| reward(*policy, *reference, case.beta)).collect()
            };
            close(&side(1), &case.expect.chosen_rewards, 1e-12, &case.name);
            close(&side(0), &case.expect.rejected_rewards, 1e-12, &case.name);
        }
    }

    #[test]
    fn a_diverged_kl_is_no_zero() {
        assert!(kl_estimate(&[f64::NAN, 1.0], &[0.0, 0.0]).is_nan());
        assert_eq!(kl_estimate(&[f64::NEG_INFINITY, 1.0], &[0.0, 0.0]), f64::NEG_INFINITY);
        assert_eq!((kl_estimate(&[-2.0], &[1.0]), kl_estimate(&[], &[])), (0.0, 0.0));
    }

    proptest! {
        #[test]
        fn slopes_are_derivatives_and_point_the_right_way(
            policy in -80.0..0.0_f64, reference in -80.0..0.0_f64, desirable: bool, kl in 0.0..5.0_f64, beta in 0.01..1.0_f64,
        ) {
            let constants = KtoConstants { beta, desirable: 1.3, undesirable: 0.7 };
            let of = |[policy]: [f64; 1]| kto(policy, reference, desirable, kl, &constants);
            has_slope([policy], of).map_err(TestCaseError::fail)?;
            let Term { loss, slopes: [slope] } = of([policy]);
            let likelier = if desirable { -slope } else { slope };
            prop_assert!(likelier >= 0.0);
            prop_assert!((0.0..=1.3).contains(&loss));
        }
    }
}
