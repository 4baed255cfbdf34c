//! The sign-flip permutation test: if two agents were alike, each pair's difference might as well have the other sign.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use super::bootstrap::TOLERANCE;

/// Up to this many pairs that differ, all signs are tried instead of some.
const EXACT: usize = 14;

/// The two-sided p value of paired differences against none; `None` of no differences.
///
/// Pairs that do not differ have no sign to flip. With few that do, p is exact; else the observed signs count as one of the
/// samples, so that p is never 0.
pub fn sign_flip_p(differences: &[f64], samples: usize, seed: u64) -> Option<f64> {
    if differences.is_empty() {
        return None;
    }
    let differing: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    let observed = differing.iter().sum::<f64>().abs() - TOLERANCE;
    let flipped = |signs: &[u64]| {
        let sign = |place: usize| if signs[place / 64] >> (place % 64) & 1 == 1 { -1.0 } else { 1.0 };
        differing.iter().enumerate().map(|(place, difference)| sign(place) * difference).sum::<f64>().abs() >= observed
    };
    if differing.len() <= EXACT {
        let all = 1_u64 << differing.len();
        let extreme = (0..all).filter(|&signs| flipped(&[signs])).count();
        return Some(extreme as f64 / all as f64);
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut signs = vec![0; differing.len().div_ceil(64)];
    let extreme = (0..samples).filter(|_| {
        signs.fill_with(|| random.next_u64());
        flipped(&signs)
    });
    Some((extreme.count() + 1) as f64 / (samples + 1) as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_pairs_are_tried_in_all_ways() {
        // Of 16 ways to sign four equal differences two are as extreme as the observed one.
        assert_eq!(sign_flip_p(&[0.5; 4], 10, 0), Some(2.0 / 16.0));
        assert_eq!(sign_flip_p(&[1.0, 2.0, 3.0], 10, 0), Some(2.0 / 8.0));
        assert_eq!(sign_flip_p(&[0.0; 30], 10, 0), Some(1.0));
        assert_eq!(sign_flip_p(&[1.0, -1.0], 10, 0), Some(1.0));
        assert_eq!(sign_flip_p(&[], 10, 0), None);
    }

    #[test]
    fn many_pairs_agree_with_the_exact_answer() {
        // 40 pairs of +1 and 20 of -1: P(|40 - 20|) of a fair coin, 2 * P(X >= 40 | n = 60) = 0.01349...
        let differences: Vec<f64> = (0..60).map(|pair| if pair < 40 { 1.0 } else { -1.0 }).collect();
        let p = sign_flip_p(&differences, 50_000, 7).unwrap();
        assert!((p - 0.0135).abs() < 0.002, "{p}");
    }

    proptest! {
        #[test]
        fn p_is_a_probability_and_knows_no_direction(
            differences in proptest::collection::vec(-1.0..1.0_f64, 1..40), seed: u64,
        ) {
            let p = sign_flip_p(&differences, 200, seed).unwrap();
            prop_assert!(p > 0.0 && p <= 1.0);
            let turned: Vec<f64> = differences.iter().map(|difference| -difference).collect();
            prop_assert_eq!(sign_flip_p(&turned, 200, seed).unwrap(), p);
        }
    }
}
