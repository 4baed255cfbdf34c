//! The losses of pairs, a chosen completion and a rejected one of the same prompt.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Term, log_sigmoid, reward, sigmoid};

/// Which loss training on pairs minimises. `x` is the difference of the two implied rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairLoss {
    /// Direct preference optimisation: `-log sigmoid(x)`; with label smoothing `e` the conservative form
    /// `-(1 - e) log sigmoid(x) - e log sigmoid(-x)`.
    #[default]
    Dpo,
    /// Self-play fine-tuning: the same loss, its chosen side what people said and its rejected side what the base model says.
    Spin,
    /// Self-exploring: that of `dpo`, plus `alpha` times the mean implied reward of the two sides, both of which the base
    /// model said: so the model leaves what it already says in search of better.
    Selm,
}

/// The constants of the pair losses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairConstants {
    /// How steeply the loss follows the log ratios.
    pub beta: f64,
    /// The share of pairs that are taken to be the wrong way round, in [0, 0.5); 0 for `spin`.
    pub label_smoothing: f64,
    /// The weight of optimism; only `selm` has it.
    pub alpha: f64,
}

/// The loss of one pair, `policy` and `reference` being the log-probabilities of its chosen and its rejected side.
///
/// With `x = beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]))`:
/// - DPO (arXiv 2305.18290, eq. 7; TRL's `sigmoid`): `-log sigmoid(x)`. Label smoothing is that of conservative DPO
///   (Mitchell 2023, a note on DPO with noisy preferences), which TRL 1.16.0 has in its `aot` losses only.
/// - SPIN (arXiv 2401.01335, eq. 4.7 with the logistic loss, as its authors' trainer computes it): the same.
/// - SELM (arXiv 2405.19332): DPO's `+ alpha * beta * (log pi(y) - log pi_ref(y))` with `y` drawn from the reference. Its
///   authors' trainer takes one further reply for `y`; here both sides of a pair were drawn from the reference, so the term is
///   their mean.
pub fn pair(loss: PairLoss, policy: [f64; 2], reference: [f64; 2], constants: &PairConstants) -> Term<2> {
    let PairConstants { beta, label_smoothing: smoothing, alpha } = *constants;
    let rewards = [0, 1].map(|side| reward(policy[side], reference[side], beta));
    let x = rewards[0] - rewards[1];
    let contrast = -(1.0 - smoothing) * log_sigmoid(x) - smoothing * log_sigmoid(-x);
    let slope = beta * (smoothing * sigmoid(x) - (1.0 - smoothing) * sigmoid(-x));
    let optimism = if loss == PairLoss::Selm { alpha / 2.0 } else { 0.0 };
    Term {
        loss: contrast + optimism * (rewards[0] + rewards[1]),
        slopes: [slope + optimism * beta, optimism * beta - slope],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::super::tests::{close, has_slope};
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        loss: PairLoss,
        beta: f64,
        label_smoothing: f64,
        alpha: f64,
        policy: [Vec<f64>; 2],
        reference: [Vec<f64>; 2],
        expect: Expected,
    }

    #[derive(Deserialize)]
    struct Expected {
        loss: f64,
        slopes: [Vec<f64>; 2],
        rewards: [f64; 2],
    }

    #[test]
    fn golden_losses_with_their_slopes() {
        let cases: Vec<Case> =
            crate::golden::read::<Golden>("pair_losses").into_iter().flat_map(|(_, file)| file.cases).collect();
        for loss in [PairLoss::Dpo, PairLoss::Spin, PairLoss::Selm] {
            assert!(cases.iter().any(|case| case.loss == loss), "{loss:?}");
        }
        for case in cases {
            let Case { beta, label_smoothing, alpha, .. } = case;
            let constants = PairConstants { beta, label_smoothing, alpha };
            let rows = case.policy[0].len();
            let of = |sides: &[Vec<f64>; 2], row: usize| [sides[0][row], sides[1][row]];
            let terms: Vec<Term<2>> = (0..rows)
                .map(|row| pair(case.loss, of(&case.policy, row), of(&case.reference, row), &constants))
                .map(|term| term.scaled(1.0 / rows as f64))
                .collect();
            close(&[terms.iter().map(|term| term.loss).sum()], &[case.expect.loss], 1e-12, &case.name);
            for side in [0, 1] {
                let slopes: Vec<f64> = terms.iter().map(|term| term.slopes[side]).collect();
                close(&slopes, &case.expect.slopes[side], 1e-12, &case.name);
                let pairs = case.policy[side].iter().zip(&case.reference[side]);
                let mean = pairs.map(|(policy, base)| reward(*policy, *base, beta)).sum::<f64>() / rows as f64;
                close(&[mean], &[case.expect.rewards[side]], 1e-12, &case.name);
            }
        }
    }

    #[test]
    fn an_untrained_model_is_at_the_logarithm_of_two() {
        let constants = PairConstants { beta: 0.1, label_smoothing: 0.0, alpha: 0.5 };
        let even = [-20.0, -30.0];
        for loss in [PairLoss::Dpo, PairLoss::Spin, PairLoss::Selm] {
            let term = pair(loss, even, even, &constants);
            assert!((term.loss - 2_f64.ln()).abs() < 1e-15, "{loss:?}");
        }
        close(&pair(PairLoss::Dpo, even, even, &constants).slopes, &[-0.05, 0.05], 1e-15, "dpo");
        close(&pair(PairLoss::Selm, even, even, &constants).slopes, &[-0.025, 0.075], 1e-15, "selm");
        assert!(pair(PairLoss::Dpo, [f64::NAN, 0.0], even, &constants).loss.is_nan());
    }

    proptest! {
        #[test]
        fn slopes_are_derivatives(
            policy: [u16; 2], reference: [u16; 2], beta in 0.01..1.0_f64, label_smoothing in 0.0..0.5_f64, alpha in 0.0..1.0_f64,
        ) {
            let [policy, reference] = [policy, reference].map(|pair| pair.map(|number| -f64::from(number) / 1000.0));
            let constants = PairConstants { beta, label_smoothing, alpha };
            for loss in [PairLoss::Dpo, PairLoss::Spin, PairLoss::Selm] {
                has_slope(policy, |policy| pair(loss, policy, reference, &constants)).map_err(TestCaseError::fail)?;
            }
            // Without optimism only the difference of the two sides counts.
            let [chosen, rejected] = pair(PairLoss::Dpo, policy, reference, &constants).slopes;
            prop_assert_eq!(chosen, -rejected);
        }
    }
}
