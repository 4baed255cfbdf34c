//! What drawing a token asks of a row of logits.

use crate::lanes::{Kernel, LANES, Lanes, dispatch};

/// The largest logit that is a number; negative infinity where there is none.
pub fn largest(logits: &[f32]) -> f32 {
    let mut found = f32::NEG_INFINITY;
    dispatch(Largest { logits, found: &mut found });
    found
}

struct Largest<'a> {
    logits: &'a [f32],
    found: &'a mut f32,
}

impl Kernel for Largest<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (wide, rest) = self.logits.as_chunks();
        let mut top = L::splat(f32::NEG_INFINITY);
        for x in wide {
            top = L::load(x).max(top); // the second where the first is no number
        }
        *self.found = rest.iter().fold(top.largest(), |top, x| if *x > top { *x } else { top });
    }
}

/// `exp((logit - top) * scale)` of every logit; 0 where a logit is no number or so small that its share is below 1e-37.
///
/// # Panics
/// When `weights` has another length.
pub fn weigh(logits: &[f32], top: f32, scale: f32, weights: &mut [f32]) {
    assert!(logits.len() == weights.len(), "rows of another size");
    dispatch(Weigh { logits, top, scale, weights });
}

struct Weigh<'a> {
    logits: &'a [f32],
    top: f32,
    scale: f32,
    weights: &'a mut [f32],
}

impl Kernel for Weigh<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let (top, scale) = (L::splat(self.top), L::splat(self.scale));
        for (logits, weights) in self.logits.chunks(LANES).zip(self.weights.chunks_mut(LANES)) {
            let mut exponents = [f32::NEG_INFINITY; LANES];
            exponents[..logits.len()].copy_from_slice(logits);
            L::load(&exponents).sub(top).mul(scale).store(&mut exponents);
            let mut found = [0.0; LANES];
            L::load(&exponents).exp().store(&mut found);
            for ((weight, found), exponent) in weights.iter_mut().zip(found).zip(exponents) {
                *weight = if exponent > -85.0 { found } else { 0.0 };
            }
        }
    }
}

/// The sum of weights, one after the other.
pub fn total(weights: &[f32]) -> f64 {
    weights.iter().map(|weight| f64::from(*weight)).sum()
}

/// Where a running sum of weights first exceeds `target`: the last weight above 0 where it never does; `None` where all
/// are 0.
pub fn place(weights: &[f32], target: f64) -> Option<usize> {
    let mut sum = 0.0;
    let mut last = None;
    for (place, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            sum += f64::from(*weight);
            last = Some(place);
            if sum > target {
                break;
            }
        }
    }
    last
}

/// Sets weights below a bound to 0.
pub fn cut(weights: &mut [f32], bound: f32) {
    weights.iter_mut().filter(|weight| **weight < bound).for_each(|weight| *weight = 0.0);
}

/// The smallest weight of the fewest largest ones that together reach a share of all; weights lie between 0 and 1.
///
/// The bits of positive numbers are ordered as the numbers are: so they are first counted by their upper bits, and only those
/// of one place are sorted.
pub fn reaching(weights: &[f32], share: f64) -> f32 {
    const FINE: u32 = 19;
    let place = |weight: f32| (weight.to_bits() >> FINE) as usize;
    let mut sums = vec![0.0_f64; place(1.0) + 1];
    for weight in weights {
        sums[place(weight.clamp(0.0, 1.0))] += f64::from(*weight);
    }
    let enough = share * sums.iter().sum::<f64>();
    let mut sum = 0.0;
    let Some(found) = (1..sums.len()).rev().find(|&place| {
        sum += sums[place];
        sum >= enough && sums[place] > 0.0
    }) else {
        return 0.0;
    };
    sum -= sums[found];
    let mut here: Vec<f32> = weights.iter().copied().filter(|weight| place(*weight) == found).collect();
    here.sort_unstable_by(|a, b| b.total_cmp(a));
    let last = here.last().copied().unwrap_or(0.0);
    let reached = here.into_iter().find(|weight| {
        sum += f64::from(*weight);
        sum >= enough
    });
    reached.unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::tests::numbers;

    #[test]
    fn the_largest_is_found_wherever_it_stands() {
        for length in [1, 5, 16, 17, 40] {
            for place in 0..length {
                let mut logits = numbers(length, 1);
                logits[place] = 3.0;
                logits[(place + 1) % length] = if length > 1 { f32::NAN } else { 3.0 };
                assert_eq!(largest(&logits), 3.0);
            }
        }
        assert_eq!(largest(&[f32::NAN, f32::NAN]), f32::NEG_INFINITY);
    }

    #[test]
    fn weights_are_exponentials_and_what_is_impossible_weighs_nothing() {
        let logits = [1.0, 0.0, -200.0, f32::NAN, f32::NEG_INFINITY];
        let mut weights = [9.0; 5];
        weigh(&logits, 1.0, 2.0, &mut weights);
        assert_eq!(weights[0], 1.0);
        assert!((weights[1] - (-2.0_f32).exp()).abs() < 1e-7);
        assert_eq!(weights[2..], [0.0; 3]);
    }

    #[test]
    fn the_largest_weights_that_reach_a_share_are_those_of_a_sort() {
        for seed in 0..40 {
            let weights: Vec<f32> = numbers(300, seed).iter().map(|x| (x * 12.0 - 12.0).exp()).collect();
            let mut sorted = weights.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let whole = total(&weights);
            for share in [0.0, 0.1, 0.5, 0.9, 0.999] {
                let mut sum = 0.0;
                let right = sorted.iter().find(|weight| {
                    sum += f64::from(**weight);
                    sum >= share * whole
                });
                assert_eq!(reaching(&weights, share), *right.unwrap(), "{seed} {share}");
            }
        }
        assert_eq!(reaching(&[], 0.5), 0.0);
        assert_eq!(reaching(&[0.0, 0.0], 0.5), 0.0);
    }

    #[test]
    fn places_share_what_there_is_in_order() {
        assert_eq!(place(&[0.0, 1.0, 0.0, 2.0], 0.0), Some(1));
        assert_eq!(place(&[0.0, 1.0, 0.0, 2.0], 1.0), Some(3));
        assert_eq!(place(&[0.0, 1.0, 0.0], 5.0), Some(1));
        assert_eq!(place(&[0.0], 0.0), None);
    }
}
