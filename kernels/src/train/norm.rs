//! Root mean square norms (arXiv 1910.07467), forward and backward, row by row.

use crate::train::level::leveled;

/// Sums of this many numbers run side by side, whatever the processor's lanes.
const LANES: usize = 16;

/// `sum_i value(i)` over the row's places, in sixteen sums that are added at the end.
#[inline(always)]
fn sum(count: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let whole = count / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += value(start + lane);
        }
    }
    let rest: f32 = (whole..count).map(&value).sum();
    sums.iter().sum::<f32>() + rest
}

leveled! {
    /// `out = x / sqrt(mean(x^2) + epsilon) * scale` for every row of as many numbers as `scale` has.
    pub fn forward(out: &mut [f32], x: &[f32], scale: &[f32], epsilon: f32) {
        let size = scale.len();
        for (out, x) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
            let mean = sum(size, |i| x[i] * x[i]) / size as f32;
            let inverse = 1.0 / (mean + epsilon).sqrt();
            for ((out, x), scale) in out.iter_mut().zip(x).zip(scale) {
                *out = x * inverse * scale;
            }
        }
    }
}

leveled! {
    /// The way back: adds the slopes along `x` to `sums`, those along the scale to `scale_slope`, which may be empty where
    /// nobody asks. `slope` are those along the result.
    pub fn backward_add(sums: &mut [f32], scale_slope: &mut [f32], x: &[f32], scale: &[f32], epsilon: f32, slope: &[f32]) {
        let size = scale.len();
        let rows = sums.chunks_exact_mut(size).zip(x.chunks_exact(size)).zip(slope.chunks_exact(size));
        for ((sums, x), slope) in rows {
            let (sums, x, slope) = (&mut sums[..size], &x[..size], &slope[..size]);
            let mean = sum(size, |i| x[i] * x[i]) / size as f32;
            let inverse = 1.0 / (mean + epsilon).sqrt();
            let along = sum(size, |i| x[i] * scale[i] * slope[i]) * inverse * inverse * inverse / size as f32;
            for i in 0..size {
                sums[i] += slope[i] * scale[i] * inverse - x[i] * along;
            }
            for ((sum, x), slope) in scale_slope.iter_mut().zip(x).zip(slope) {
                *sum += x * inverse * slope;
            }
        }
    }
}
