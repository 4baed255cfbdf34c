//! Rotary position embedding, in the layout of Hugging Face's Llama: the first half of a head turns with the second.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor, TensorData};

use super::architecture::Rope;

/// Positions whose angles are computed together.
const BLOCK: usize = 1_024;

/// The cosines and sines of every position, as a table on the host. They are computed when a position nearby is first asked for:
/// models with contexts of 128 thousand tokens are mostly used for short ones.
#[derive(Clone, Debug)]
pub struct RopeTable {
    rope: Rope,
    blocks: Arc<[OnceLock<Block>]>,
}

#[derive(Debug)]
struct Block {
    cos: Vec<f32>, // [BLOCK, half]
    sin: Vec<f32>,
}

impl RopeTable {
    /// The table of positions `0..positions`.
    pub fn new(positions: usize, rope: &Rope) -> Self {
        let blocks = (0..positions.div_ceil(BLOCK)).map(|_| OnceLock::new()).collect();
        Self { rope: rope.clone(), blocks }
    }

    /// The cosines and sines of a position's angles, half as many as a head is wide; YaRN's magnitude is in them.
    ///
    /// # Panics
    /// When the position lies beyond the table.
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let (index, place) = (position / BLOCK, position % BLOCK);
        let block = self.blocks[index].get_or_init(|| self.block(index * BLOCK));
        let half = self.rope.frequencies.len();
        let range = place * half..(place + 1) * half;
        (&block.cos[range.clone()], &block.sin[range])
    }

    fn block(&self, first: usize) -> Block {
        let Rope { frequencies, magnitude } = &self.rope;
        let angles: Vec<f64> = (first..first + BLOCK)
            .flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency))
            .collect();
        Block {
            cos: angles.iter().map(|a| (a.cos() * magnitude) as f32).collect(),
            sin: angles.iter().map(|a| (a.sin() * magnitude) as f32).collect(),
        }
    }

    /// The rotation of `rows` rows of `columns` positions each, row by row. Positions must lie inside the table.
    pub fn rotation(&self, positions: &[usize], rows: usize, device: &Device) -> Rotation {
        let columns = positions.len() / rows.max(1);
        let head = self.rope.frequencies.len() * 2;
        let mut cos = Vec::with_capacity(positions.len() * head);
        let mut sin = Vec::with_capacity(positions.len() * head);
        for &position in positions {
            let (row_cos, row_sin) = self.at(position);
            cos.extend_from_slice(row_cos);
            cos.extend_from_slice(row_cos);
            sin.extend(row_sin.iter().map(|x| -x));
            sin.extend_from_slice(row_sin);
        }
        let shape = [rows, columns, 1, head];
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

    #[test]
    fn a_row_is_the_same_whatever_was_asked_for_before() {
        let rope = Rope { frequencies: vec![1.0, 0.25], magnitude: 1.5 };
        let table = RopeTable::new(3_000, &rope);
        for position in [2_999, 0, 1_024, 1_023, 2_999] {
            let (cos, sin) = table.at(position);
            for (pair, frequency) in rope.frequencies.iter().enumerate() {
                let angle = position as f64 * frequency;
                assert_eq!((cos[pair], sin[pair]), ((angle.cos() * 1.5) as f32, (angle.sin() * 1.5) as f32));
            }
        }
    }
}
