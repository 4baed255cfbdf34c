//! What is done number by number, or row by row.

use rayon::prelude::*;

use crate::lanes::{Kernel, LANES, Lanes, dispatch};

/// Below so many numbers a second thread is not worth it.
const SMALL: usize = 1 << 15;

/// How many rows a thread takes at a time; what a row gives does not depend on it.
const ROWS: usize = 8;

/// `out` is `x` divided by its root mean square and multiplied by `scale`, row by row; rows are as long as `scale`.
///
/// # Panics
/// When the slices do not hold equally many whole rows.
pub fn norm(x: &[f32], scale: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(scale.len().max(1)), "rows of another size");
    if scale.is_empty() {
        return;
    }
    let some = ROWS * scale.len();
    let part = |(x, out)| dispatch(Norm { x, scale, epsilon, out });
    if x.len() < SMALL { part((x, out)) } else { x.par_chunks(some).zip(out.par_chunks_mut(some)).for_each(part) }
}

/// [`norm`] in place.
///
/// # Panics
/// As [`norm`].
pub fn norm_here(x: &mut [f32], scale: &[f32], epsilon: f32) {
    let mut out = vec![0.0; x.len()];
    norm(x, scale, epsilon, &mut out);
    x.copy_from_slice(&out);
}

struct Norm<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let size = self.scale.len();
        for (x, out) in self.x.chunks_exact(size).zip(self.out.chunks_exact_mut(size)) {
            let (wide, rest) = x.as_chunks();
            let mut sum = L::splat(0.0);
            for x in wide {
                let x = L::load(x);
                sum = x.fma(x, sum);
            }
            let sum = rest.iter().fold(sum.sum(), |sum, x| x.mul_add(*x, sum));
            let factor = 1.0 / (sum / size as f32 + self.epsilon).sqrt();
            for ((out, x), scale) in out.iter_mut().zip(x).zip(self.scale) {
                *out = *x * factor * *scale;
            }
        }
    }
}

/// Turns heads by their position, in the layout of Hugging Face's Llama: the first half of a head turns with the second. Then
/// multiplies them by `factor`. `cos` and `sin` are half as long as a head.
///
/// # Panics
/// When the slices do not fit together.
pub fn rotate(heads: &mut [f32], cos: &[f32], sin: &[f32], factor: f32) {
    let half = cos.len();
    assert!(sin.len() == half && heads.len().is_multiple_of(2 * half), "heads of another size");
    for head in heads.chunks_exact_mut((2 * half).max(1)) {
        let (first, second) = head.split_at_mut(half);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
            (*a, *b) = ((*a * cos - *b * sin) * factor, (*b * cos + *a * sin) * factor);
        }
    }
}

/// The activation of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// GELU by its tanh approximation.
    GeluTanh,
}

/// `out = activation(gate) * up`, from rows that hold the gate and then what it lets through.
///
/// # Panics
/// When `rows` is not twice as long as `out`, or rows are no whole ones.
pub fn gate(rows: &[f32], inner: usize, activation: Activation, out: &mut [f32]) {
    assert!(rows.len() == 2 * out.len() && out.len().is_multiple_of(inner), "rows of another size");
    if inner == 0 {
        return;
    }
    let some = ROWS * inner;
    let part = |(rows, out)| dispatch(Gate { rows, inner, activation, out });
    if out.len() < SMALL {
        part((rows, out))
    } else {
        rows.par_chunks(2 * some).zip(out.par_chunks_mut(some)).for_each(part)
    }
}

struct Gate<'a> {
    rows: &'a [f32],
    inner: usize,
    activation: Activation,
    out: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        for (row, out) in self.rows.chunks_exact(2 * self.inner).zip(self.out.chunks_exact_mut(self.inner)) {
            let (gates, ups) = row.split_at(self.inner);
            for ((gates, ups), out) in gates.chunks(LANES).zip(ups.chunks(LANES)).zip(out.chunks_mut(LANES)) {
                let mut wide = [0.0; LANES];
                wide[..gates.len()].copy_from_slice(gates);
                activate(L::load(&wide), self.activation).store(&mut wide);
                for ((out, gate), up) in out.iter_mut().zip(wide).zip(ups) {
                    *out = gate * up;
                }
            }
        }
    }
}

#[inline(always)]
fn activate<L: Lanes>(x: L, activation: Activation) -> L {
    let one = L::splat(1.0);
    // GELU is x * (1 + tanh(u)) / 2, which is x * sigmoid(2 u).
    let steep = match activation {
        Activation::Silu => x,
        Activation::GeluTanh => {
            let root = 0.797_884_6; // sqrt(2 / pi)
            x.mul(L::splat(2.0 * root)).mul(x.mul(x).fma(L::splat(0.044_715), one))
        }
    };
    x.div(one.add(L::splat(0.0).sub(steep).exp()))
}

/// Adds `y` to `x`.
///
/// # Panics
/// When they are not of one length.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert!(x.len() == y.len(), "rows of another size");
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Multiplies all of `x` by a factor.
pub fn scale(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::tests::Which;
    use crate::matrix::tests::numbers;

    #[test]
    fn norms_have_a_root_mean_square_of_their_scale() {
        for size in [1, 15, 16, 40, 129] {
            let (x, scale) = (numbers(size * 600, 1), numbers(size, 2));
            let mut out = vec![0.0; x.len()];
            norm(&x, &scale, 1e-5, &mut out);
            for (row, found) in x.chunks(size).zip(out.chunks(size)) {
                let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / size as f64;
                for ((x, scale), found) in row.iter().zip(&scale).zip(found) {
                    let right = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*scale);
                    assert!((f64::from(*found) - right).abs() < 3e-6, "{found} {right}");
                }
            }
            for which in [Which::Plain, Which::Avx2, Which::Avx512] {
                let mut other = vec![0.0; x.len()];
                assert!(!which.run(Norm { x: &x, scale: &scale, epsilon: 1e-5, out: &mut other }) || other == out);
            }
        }
    }

    #[test]
    fn gates_let_through_what_their_activation_says() {
        for inner in [3, 16, 50] {
            let rows: Vec<f32> = numbers(inner * 2 * 700, 3).iter().map(|x| x * 9.0).collect();
            for activation in [Activation::Silu, Activation::GeluTanh] {
                let mut out = vec![0.0; inner * 700];
                gate(&rows, inner, activation, &mut out);
                for (row, found) in rows.chunks(2 * inner).zip(out.chunks(inner)) {
                    for place in 0..inner {
                        let (x, up) = (f64::from(row[place]), f64::from(row[inner + place]));
                        let right = up
                            * match activation {
                                Activation::Silu => x / (1.0 + (-x).exp()),
                                Activation::GeluTanh => {
                                    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                                    0.5 * x * (1.0 + u.tanh())
                                }
                            };
                        assert!((f64::from(found[place]) - right).abs() < 4e-6 * right.abs().max(1.0), "{x} {right}");
                    }
                }
                for which in [Which::Plain, Which::Avx2, Which::Avx512] {
                    let mut other = vec![0.0; out.len()];
                    assert!(!which.run(Gate { rows: &rows, inner, activation, out: &mut other }) || other == out);
                }
            }
        }
    }

    #[test]
    fn rotation_turns_the_first_half_with_the_second() {
        let mut heads = [1.0, 2.0, 3.0, 4.0];
        rotate(&mut heads, &[0.6, 1.0], &[0.8, 0.0], 2.0);
        for (found, right) in heads.into_iter().zip([2.0 * (0.6 - 2.4), 4.0, 2.0 * (1.8 + 0.8), 8.0]) {
            assert!((found - right).abs() < 1e-6_f32, "{found} {right}");
        }
    }
}
