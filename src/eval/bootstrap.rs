//! The bootstrap: how far a mean could have been another, and whether a difference could have been none.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::mean;
use super::mersenne::Mersenne;

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The means of `samples` resamples with replacement, sorted.
fn resampled_means(values: &[f64], samples: usize, seed: u64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = values.len() as u32;
    let mut resample = || values.iter().map(|_| values[random.random_range(0..count) as usize]).sum::<f64>();
    let mut means: Vec<f64> = (0..samples).map(|_| resample() / values.len() as f64).collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The percentile bootstrap interval of a mean, `None` of no values or no samples.
///
/// `confidence` lies between 0 and 1. Percentiles between two resampled means are interpolated.
pub fn percentile_interval(values: &[f64], samples: usize, confidence: f64, seed: u64) -> Option<Interval> {
    if values.is_empty() || samples == 0 {
        return None;
    }
    Some(percentiles(&resampled_means(values, samples, seed), confidence))
}

/// The percentile bootstrap interval of the sum of `values` over the sum of `weights`, pairs resampled together: as
/// [`percentile_interval`] where all weights are 1. `None` of no values or no samples, or of lists that differ in length.
pub fn ratio_interval(values: &[f64], weights: &[f64], samples: usize, confidence: f64, seed: u64) -> Option<Interval> {
    if values.is_empty() || samples == 0 || values.len() != weights.len() {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = values.len() as u32;
    let mut resample = || {
        let places = values.iter().map(|_| random.random_range(0..count) as usize);
        let (value, weight) = places.fold((0.0, 0.0), |sum, at| (sum.0 + values[at], sum.1 + weights[at]));
        value / weight
    };
    let mut ratios: Vec<f64> = (0..samples).map(|_| resample()).collect();
    ratios.sort_by(f64::total_cmp);
    Some(percentiles(&ratios, confidence))
}

/// The ends between which the middle `confidence` of sorted values lie, interpolated.
fn percentiles(sorted: &[f64], confidence: f64) -> Interval {
    let percentile = |share: f64| {
        let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    let tail = (1.0 - confidence) / 2.0;
    Interval { low: percentile(tail), high: percentile(1.0 - tail) }
}

/// The two-sided p value of a mean difference against none, by the paired bootstrap: the differences are shifted to mean 0
/// and resampled. `None` of no differences.
///
/// The observed sample counts as one of the resamples, so that p is never 0.
pub fn paired_p(differences: &[f64], samples: usize, seed: u64) -> Option<f64> {
    let observed = mean(differences)?;
    let shifted: Vec<f64> = differences.iter().map(|difference| difference - observed).collect();
    let means = resampled_means(&shifted, samples, seed);
    let extreme = means.iter().filter(|mean| mean.abs() >= observed.abs() - TOLERANCE).count();
    Some((extreme + 1) as f64 / (samples + 1) as f64)
}

/// Sums of the same rewards in another order differ by rounding only; such a difference is none.
pub(super) const TOLERANCE: f64 = 1e-12;

/// The standardised mean difference of pairs (Cohen's d_z): the mean over the standard deviation of the differences.
/// `None` where that is not defined: fewer than two pairs, or all differences equal.
pub fn effect_size(differences: &[f64]) -> Option<f64> {
    let mean = mean(differences)?;
    let squares: f64 = differences.iter().map(|difference| (difference - mean).powi(2)).sum();
    let deviation = (squares / (differences.len() as f64 - 1.0)).sqrt();
    (deviation.is_finite() && deviation > TOLERANCE).then(|| mean / deviation)
}

/// The reference's p value: one-sided, and unpaired although it is called paired (quirk Q40).
///
/// The share of `samples` resamples whose mean difference is at least twice the observed one; sample `i` is drawn by the
/// generator seeded with `seed + i`, first the values of `a`, then those of `b`. It means nothing where `a` is worse than `b`.
/// `None` of no values or no samples, or of lists that differ in length, which the reference refuses.
pub fn reference_p(a: &[f64], b: &[f64], samples: u32, seed: u32) -> Option<f64> {
    let count = a.len();
    if count != b.len() || count == 0 || samples == 0 {
        return None;
    }
    let observed = pairwise_sum(a) / count as f64 - pairwise_sum(b) / count as f64;
    let draw = |values: &[f64], generator: &mut Mersenne| -> Vec<f64> {
        values.iter().map(|_| values[generator.below(count as u32) as usize]).collect()
    };
    let extreme = (1..=samples).filter(|sample| {
        let mut generator = Mersenne::new(seed.wrapping_add(*sample));
        let mut differences = draw(a, &mut generator);
        for (difference, value) in differences.iter_mut().zip(draw(b, &mut generator)) {
            *difference -= value;
        }
        pairwise_sum(&differences) / count as f64 >= 2.0 * observed
    });
    Some(extreme.count() as f64 / f64::from(samples))
}

/// A sum in the order in which numpy adds: rewards are thirds and quarters, so that resamples often tie with twice the
/// observed difference, and then the last bit decides.
fn pairwise_sum(values: &[f64]) -> f64 {
    const LANES: usize = 8;
    const BLOCK: usize = 128;
    match values.len() {
        0..LANES => values.iter().sum(),
        LANES..=BLOCK => {
            let mut lanes = [0.0; LANES];
            let chunks = values.chunks_exact(LANES);
            let rest = chunks.remainder();
            for chunk in chunks {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane += value;
                }
            }
            let [a, b, c, d, e, f, g, h] = lanes;
            rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, value| sum + value)
        }
        length => {
            let half = length / 2 - length / 2 % LANES;
            pairwise_sum(&values[..half]) + pairwise_sum(&values[half..])
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        a: Vec<f64>,
        b: Vec<f64>,
        tests: Vec<GoldenTest>,
    }

    #[derive(Deserialize)]
    struct GoldenTest {
        r#fn: String,
        seed: u32,
        num_samples: Option<u32>,
        p: Option<f64>,
    }

    #[test]
    fn a_ratio_with_equal_weights_is_a_mean() {
        let values = [1.0, 4.0, 2.5, 7.0];
        let mean = percentile_interval(&values, 500, 0.9, 3).unwrap();
        let ratio = ratio_interval(&values, &[1.0; 4], 500, 0.9, 3).unwrap();
        assert!((mean.low - ratio.low).abs() < 1e-12 && (mean.high - ratio.high).abs() < 1e-12);
        assert!(ratio_interval(&values, &[1.0; 3], 500, 0.9, 3).is_none());
    }

    #[test]
    fn golden_p_of_the_reference() {
        let mut count = 0;
        for (file, golden) in crate::golden::read::<Golden>("significance") {
            for test in golden.tests.iter().filter(|test| test.r#fn == "bootstrap_test") {
                let p = reference_p(&golden.a, &golden.b, test.num_samples.unwrap(), test.seed);
                assert_eq!(p, test.p, "{file}");
                count += 1;
            }
        }
        assert!(count > 0, "no golden file has a bootstrap test");
    }

    #[test]
    fn golden_values_give_the_p_that_numpy_gives() {
        // The recorded p is 0, which many wrong programs would also give. These are of parts of the recorded values, from the
        // same procedure written down with numpy 2.4.6.
        let own = crate::fs::read_to_string(crate::golden::own_folder().join("significance.json")).unwrap();
        let Golden { a, b, .. } = serde_json::from_str(&own).unwrap();
        for (part, expected) in [(0..7, 0.256), (0..30, 0.016), (30..60, 0.212), (60..100, 0.032), (250..400, 0.0)] {
            assert_eq!(reference_p(&a[part.clone()], &b[part.clone()], 500, 42), Some(expected), "{part:?}");
        }
        let slightly_worse =
            |(place, value): (usize, &f64)| if place % 9 == 0 { (value - 0.25).max(0.0) } else { *value };
        let worse: Vec<f64> = a.iter().enumerate().map(slightly_worse).collect();
        assert_eq!(reference_p(&a, &worse, 500, 42), Some(0.054));
        assert_eq!(reference_p(&b, &a, 500, 42), Some(1.0), "the test says nothing of a worse model");
    }

    #[test]
    fn unequal_or_empty_lists_have_no_p() {
        assert_eq!(reference_p(&[1.0], &[], 10, 42), None);
        assert_eq!(reference_p(&[], &[], 10, 42), None);
        assert_eq!(reference_p(&[1.0], &[1.0], 0, 42), None);
        assert_eq!(paired_p(&[], 10, 0), None);
        assert_eq!(percentile_interval(&[], 10, 0.95, 0), None);
        assert_eq!(percentile_interval(&[1.0], 0, 0.95, 0), None);
    }

    #[test]
    fn an_interval_is_as_wide_as_theory_says() {
        // 400 fair coins: the standard error of the mean is 0.025, and 95 % lie within 1.96 of them.
        let coins: Vec<f64> = (0..400).map(|coin| f64::from(coin % 2)).collect();
        let Interval { low, high } = percentile_interval(&coins, 4000, 0.95, 11).unwrap();
        assert!((low - 0.451).abs() < 0.004 && (high - 0.549).abs() < 0.004, "{low} {high}");
    }

    proptest! {
        #[test]
        fn an_interval_lies_within_the_values_and_widens_with_confidence(
            values in proptest::collection::vec(0.0..1.0_f64, 1..30), seed: u64,
        ) {
            let narrow = percentile_interval(&values, 100, 0.5, seed).unwrap();
            let wide = percentile_interval(&values, 100, 0.99, seed).unwrap();
            let least = values.iter().copied().fold(f64::INFINITY, f64::min) - 1e-9;
            let most = values.iter().copied().fold(0.0, f64::max) + 1e-9;
            prop_assert!(least <= wide.low && wide.low <= narrow.low);
            prop_assert!(narrow.low <= narrow.high && narrow.high <= wide.high && wide.high <= most);
        }
    }
}
