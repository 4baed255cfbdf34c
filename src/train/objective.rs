//! The losses, each a function of sequences' log-probabilities on the host, in `f64`, with its slope.
//!
//! A log-probability here is the sum over a sequence's scored tokens, never a mean. Arithmetic as TRL 1.16.0 does it; where a
//! loss is not in TRL its function says whose it is. What a device does with a slope is [`super::learner`]'s affair.

mod kto;
mod pair;

pub use kto::{KtoConstants, KtoLoss, kl_estimate, kto};
pub use pair::{PairConstants, PairLoss, pair};

/// A loss of `N` sequences, and how it changes with each one's log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term<const N: usize> {
    /// The loss.
    pub loss: f64,
    /// Its derivative by each log-probability.
    pub slopes: [f64; N],
}

impl<const N: usize> Term<N> {
    /// The same loss with a weight before it.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { loss: self.loss * factor, slopes: self.slopes.map(|slope| slope * factor) }
    }
}

/// A sequence's share of the negative log-likelihood a token: `-log_prob / max(total, 1)`.
///
/// `total` counts the scored tokens of the whole optimiser step, so that the shares add up to the token-weighted mean
/// (TRL's `nll`, with `num_items_in_batch` over all batches that are accumulated).
pub fn nll(log_prob: f64, total: usize) -> Term<1> {
    let share = 1.0 / total.max(1) as f64;
    Term { loss: -log_prob * share, slopes: [-share] }
}

/// The reward that a policy implies: `beta * (policy - reference)`.
pub fn reward(policy: f64, reference: f64, beta: f64) -> f64 {
    beta * (policy - reference)
}

/// `1 / (1 + exp(-x))`, without overflow on either side.
fn sigmoid(x: f64) -> f64 {
    if x < 0.0 {
        let small = x.exp();
        small / (1.0 + small)
    } else {
        1.0 / (1.0 + (-x).exp())
    }
}

/// `log(sigmoid(x))`, exact where `sigmoid(x)` is 0 or 1 in `f64`.
fn log_sigmoid(x: f64) -> f64 {
    if x < 0.0 { x - x.exp().ln_1p() } else { -(-x).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a slope is the loss's difference quotient, with room for rounding.
    pub(super) fn has_slope<const N: usize>(at: [f64; N], of: impl Fn([f64; N]) -> Term<N>) -> Result<(), String> {
        let step = 1e-4;
        let term = of(at);
        for place in 0..N {
            let moved = |by: f64| {
                let mut moved = at;
                moved[place] += by;
                of(moved).loss
            };
            let quotient = (moved(step) - moved(-step)) / (2.0 * step);
            let difference = (quotient - term.slopes[place]).abs();
            if difference > 1e-6 * quotient.abs().max(1.0) {
                return Err(format!("slope {place} of {at:?} is {}, not {quotient}", term.slopes[place]));
            }
        }
        Ok(())
    }

    pub(super) fn close(found: &[f64], expected: &[f64], within: f64, what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= within, "{what}: {found} instead of {expected}");
        }
    }

    #[test]
    fn sigmoids_hold_at_both_ends() {
        assert_eq!((sigmoid(-800.0), sigmoid(800.0), sigmoid(0.0)), (0.0, 1.0, 0.5));
        assert_eq!((log_sigmoid(-800.0), log_sigmoid(800.0)), (-800.0, 0.0));
        assert!(log_sigmoid(f64::NAN).is_nan() && sigmoid(f64::NAN).is_nan());
        assert_eq!(log_sigmoid(f64::NEG_INFINITY), f64::NEG_INFINITY);
    }

    #[test]
    fn shares_of_the_likelihood_add_up_to_the_mean_over_tokens() {
        let log_probs = [-3.0, -4.5, -0.5];
        let loss: f64 = log_probs.iter().map(|log_prob| nll(*log_prob, 16).loss).sum();
        assert_eq!((loss, nll(-3.0, 16).slopes), (0.5, [-0.0625]));
        assert_eq!(nll(-3.0, 0), Term { loss: 3.0, slopes: [-1.0] });
    }

    proptest! {
        #[test]
        fn the_slope_of_the_likelihood_is_its_derivative(log_prob in -200.0..0.0_f64, total in 1_usize..500) {
            has_slope([log_prob], |[log_prob]| nll(log_prob, total)).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn the_logarithm_of_the_sigmoid_is_that(x in -30.0..30.0_f64) {
            prop_assert!((log_sigmoid(x) - sigmoid(x).ln()).abs() < 1e-12);
            prop_assert!((sigmoid(x) + sigmoid(-x) - 1.0).abs() < 1e-15);
        }
    }
}
