//! The softmax over a vocabulary, for rows of logits.

use crate::train::exp::exp;
use crate::train::level::leveled;

const LANES: usize = 16;

leveled! {
    /// The greatest of the numbers, NaN where one is.
    pub(crate) fn greatest(row: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let mut blocks = row.chunks_exact(LANES);
        for block in &mut blocks {
            for (most, value) in lanes.iter_mut().zip(block) {
                *most = if *value <= *most { *most } else { *value };
            }
        }
        let mut most = f32::NEG_INFINITY;
        for value in lanes {
            most = if value <= most || most.is_nan() { most } else { value };
        }
        for value in blocks.remainder() {
            most = if *value <= most || most.is_nan() { most } else { *value };
        }
        most
    }
}

leveled! {
    /// `row = e^(scale * row - shift)`; gives the sum.
    pub(crate) fn exponentials(row: &mut [f32], scale: f32, shift: f32) -> f32 {
        let mut sums = [0.0_f32; LANES];
        let mut blocks = row.chunks_exact_mut(LANES);
        for block in &mut blocks {
            for (sum, value) in sums.iter_mut().zip(block) {
                *value = exp(value.mul_add(scale, -shift));
                *sum += *value;
            }
        }
        let mut sum = 0.0;
        for value in blocks.into_remainder() {
            *value = exp(value.mul_add(scale, -shift));
            sum += *value;
        }
        sum + sums.iter().sum::<f32>()
    }
}

leveled! {
    fn exponential_sum(row: &[f32], shift: f32) -> f32 {
        let mut sums = [0.0_f32; LANES];
        let blocks = row.chunks_exact(LANES);
        let rest: f32 = blocks.remainder().iter().map(|value| exp(value - shift)).sum();
        for block in blocks {
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum += exp(value - shift);
            }
        }
        rest + sums.iter().sum::<f32>()
    }
}

/// The logarithm of the sum of the exponentials of a row of logits.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let most = greatest(row);
    f64::from(most) + f64::from(exponential_sum(row, most)).ln()
}

leveled! {
    fn softmax_slopes(row: &mut [f32], log_sum: f32, slope: f32) {
        row.iter_mut().for_each(|value| *value = -slope * exp(*value - log_sum));
    }
}

/// Replaces a row of logits by the slopes of `slope * log_softmax(row)[target]`; `log_sum` is the row's [`log_sum_exp`]. Where
/// the row is only a part of all logits, `target` is `None` in the parts that it does not lie in.
pub fn log_softmax_back(row: &mut [f32], target: Option<usize>, log_sum: f64, slope: f32) {
    softmax_slopes(row, log_sum as f32, slope);
    if let Some(target) = target {
        row[target] += slope;
    }
}
