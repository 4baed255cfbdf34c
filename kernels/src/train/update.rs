//! The optimiser's step and the gradient's norm.

use crate::train::level::leveled;

/// The numbers of one step of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// Decay of the mean of gradients.
    pub beta_1: f32,
    /// Decay of the mean of their squares.
    pub beta_2: f32,
    /// `1 - beta_1`, taken in `f64`: in `f32` it would lose digits.
    pub rest_1: f32,
    /// `1 - beta_2`, likewise.
    pub rest_2: f32,
    /// Added to the root in the denominator.
    pub epsilon: f32,
    /// What the gradient is multiplied by first.
    pub factor: f32,
    /// What the parameter is multiplied by: 1 less learning rate times decay.
    pub keep: f32,
    /// The learning rate by `1 - beta_1^t`.
    pub rate: f32,
    /// 1 by the root of `1 - beta_2^t`.
    pub root: f32,
}

leveled! {
    /// One step: `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`, `p = keep p - rate m / (sqrt(v) root + epsilon)`.
    pub fn adam(values: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], adam: Adam) {
        let Adam { beta_1, beta_2, rest_1, rest_2, epsilon, factor, keep, rate, root } = adam;
        for (((value, first), second), gradient) in values.iter_mut().zip(first).zip(second).zip(gradient) {
            let gradient = gradient * factor;
            *first = *first * beta_1 + gradient * rest_1;
            *second = *second * beta_2 + gradient * gradient * rest_2;
            *value = *value * keep - rate * *first / (second.sqrt() * root + epsilon);
        }
    }
}

leveled! {
    /// The sum of the squares, in `f64`.
    pub fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0.0_f64; 16];
        let blocks = values.chunks_exact(16);
        let rest: f64 = blocks.remainder().iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
        for block in blocks {
            for (sum, value) in sums.iter_mut().zip(block) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
        rest + sums.iter().sum::<f64>()
    }
}
