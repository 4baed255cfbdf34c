//! Rotary position embedding, in the layout of Hugging Face's Llama: the first half of a head turns with the second.

use burn::tensor::{Device, Tensor, TensorData};

use super::architecture::Rope;

/// The angles of every position, as a table on the host.
#[derive(Clone, Debug)]
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// The angles of positions `0..positions`.
    pub fn new(positions: usize, rope: &Rope) -> Self {
        let angles: Vec<f64> = (0..positions)
            .flat_map(|position| rope.frequencies.iter().map(move |frequency| position as f64 * frequency))
            .collect();
        Self {
            half: rope.frequencies.len(),
            cos: angles.iter().map(|a| (a.cos() * rope.magnitude) as f32).collect(),
            sin: angles.iter().map(|a| (a.sin() * rope.magnitude) as f32).collect(),
        }
    }

    /// The cosines and sines of a position's angles. The position must lie inside the table.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// The rotation of `rows` rows of `columns` positions each, row by row. Positions must lie inside the table.
    pub fn rotation(&self, positions: &[usize], rows: usize, device: &Device) -> Rotation {
        let columns = positions.len() / rows.max(1);
        let mut cos = Vec::with_capacity(positions.len() * self.half * 2);
        let mut sin = Vec::with_capacity(positions.len() * self.half * 2);
        for &position in positions {
            let range = position * self.half..(position + 1) * self.half;
            cos.extend_from_slice(&self.cos[range.clone()]);
            cos.extend_from_slice(&self.cos[range.clone()]);
            sin.extend(self.sin[range.clone()].iter().map(|x| -x));
            sin.extend_from_slice(&self.sin[range]);
        }
        let shape = [rows, columns, 1, self.half * 2];
        let tensor = |values| Tensor::from_data(TensorData::new(values, shape), device);
        Rotation { cos: tensor(cos), sin: tensor(sin) }
    }
}

/// The cosines and signed sines of a batch of positions.
#[derive(Clone, Debug)]
pub struct Rotation {
    cos: Tensor<4>, // [rows, columns, 1, head], each angle twice
    sin: Tensor<4>, // the same, the first half negated
}

impl Rotation {
    /// Turns every head by its position.
    pub fn apply(&self, heads: Tensor<4>) -> Tensor<4> {
        // [batch, seq, heads, head]
        let half = heads.dims()[3] / 2;
        let swapped = Tensor::cat(vec![heads.clone().narrow(3, half, half), heads.clone().narrow(3, 0, half)], 3);
        heads * self.cos.clone() + swapped * self.sin.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_the_first_half_with_the_second() {
        let device = Device::flex();
        let table = RopeTable::new(8, &Rope::plain(4, 10_000.0));
        let heads = Tensor::<4>::from_data([[[[1.0, 2.0, 3.0, 4.0]]]], &device);
        let turned: Vec<f32> = table.rotation(&[3], 1, &device).apply(heads).try_into_vec_as().unwrap();
        let (a, b) = (3.0_f64, 0.03_f64); // the angles: 3 * 10000^0 and 3 * 10000^(-1/2)
        let expected = [
            a.cos() - 3.0 * a.sin(),
            2.0 * b.cos() - 4.0 * b.sin(),
            3.0 * a.cos() + a.sin(),
            4.0 * b.cos() + 2.0 * b.sin(),
        ];
        for (found, expected) in turned.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
