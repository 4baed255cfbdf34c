//! Rotary position embedding: the first half of a head turns with the second.

use crate::train::level::leveled;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// By the position's angles.
    Forward,
    /// The way back of a gradient: by the transposed rotation.
    Back,
}

leveled! {
    /// Turns every head of one token's row; `cos` and `sin` have half as many numbers as a head.
    pub fn turn(row: &mut [f32], cos: &[f32], sin: &[f32], way: Turn) {
        let half = cos.len();
        let sign = if way == Turn::Forward { 1.0_f32 } else { -1.0 };
        for head in row.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                let sin = sign * sin;
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}
