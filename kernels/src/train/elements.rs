//! Arithmetic on numbers one by one: sums, gates, dropout, rows of an embedding.

use crate::train::exp::sigmoid;
use crate::train::level::leveled;

leveled! {
    /// `sums += values`.
    pub fn add(sums: &mut [f32], values: &[f32]) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
}

leveled! {
    /// `sums += factor * values`.
    pub fn add_scaled(sums: &mut [f32], values: &[f32], factor: f32) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = value.mul_add(factor, *sum));
    }
}

leveled! {
    /// `values *= factor`.
    pub fn scale(values: &mut [f32], factor: f32) {
        values.iter_mut().for_each(|value| *value *= factor);
    }
}

/// Adds `row` to every row of `rows`.
pub fn add_to_rows(rows: &mut [f32], row: &[f32]) {
    rows.chunks_exact_mut(row.len()).for_each(|one| add(one, row));
}

/// Adds every row of `rows` to `sum`, first to last.
pub fn add_rows(sum: &mut [f32], rows: &[f32]) {
    rows.chunks_exact(sum.len()).for_each(|one| add(sum, one));
}

/// The activation of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by its tanh approximation, `x * sigmoid(2 u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
    GeluTanh,
}

const SQRT_8_BY_PI: f32 = 1.595_769;
const CUBE: f32 = 0.044_715;

leveled! {
    /// `out = silu(gate) * up`.
    fn silu(out: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }
}

leveled! {
    /// `out = gelu(gate) * up`.
    fn gelu(out: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            let inner = SQRT_8_BY_PI * gate * (CUBE * gate).mul_add(*gate, 1.0);
            *out = gate * sigmoid(inner) * up;
        }
    }
}

leveled! {
    fn silu_back(out: &mut [f32], gate: &mut [f32], up: &mut [f32], slope: &[f32]) {
        for (((out, gate), up), slope) in out.iter_mut().zip(gate).zip(up).zip(slope) {
            let share = sigmoid(*gate);
            let active = *gate * share;
            *out = active * *up;
            *gate = slope * *up * share * (*gate - active + 1.0);
            *up = slope * active;
        }
    }
}

leveled! {
    fn gelu_back(out: &mut [f32], gate: &mut [f32], up: &mut [f32], slope: &[f32]) {
        for (((out, gate), up), slope) in out.iter_mut().zip(gate).zip(up).zip(slope) {
            let square = *gate * *gate;
            let share = sigmoid(SQRT_8_BY_PI * *gate * CUBE.mul_add(square, 1.0));
            let steep = SQRT_8_BY_PI * (3.0 * CUBE).mul_add(square, 1.0);
            let active = *gate * share;
            *out = active * *up;
            *gate = slope * *up * (active * (1.0 - share)).mul_add(steep, share);
            *up = slope * active;
        }
    }
}

/// `out = activation(gate) * up`, number by number.
pub fn gated(kind: Gate, out: &mut [f32], gate: &[f32], up: &[f32]) {
    match kind {
        Gate::Silu => silu(out, gate, up),
        Gate::GeluTanh => gelu(out, gate, up),
    }
}

/// The way back through [`gated`]: `out` gets its value again, `gate` and `up` are replaced by the loss's slopes along them.
pub fn gated_back(kind: Gate, out: &mut [f32], gate: &mut [f32], up: &mut [f32], slope: &[f32]) {
    match kind {
        Gate::Silu => silu_back(out, gate, up, slope),
        Gate::GeluTanh => gelu_back(out, gate, up, slope),
    }
}

leveled! {
    /// Drops numbers and scales the rest by `1 / (1 - share)`. Number `i` is dropped where the `first + i`-th number of the
    /// stream `key` (SplitMix64) lies below `share`, so that the same places are dropped however often it is asked, and in
    /// whatever pieces.
    pub fn drop_out(values: &mut [f32], key: u64, first: u64, share: f64) {
        let bound = (share * 4_294_967_296.0) as u64;
        let kept = (1.0 / (1.0 - share)) as f32;
        for (index, value) in values.iter_mut().enumerate() {
            let mut z = key.wrapping_add((first + index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            *value *= if (z >> 32) < bound { 0.0 } else { kept };
        }
    }
}
