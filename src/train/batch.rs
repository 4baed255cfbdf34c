//! Examples to padded batches: which rows go together, in which order, and how a batch is cut into parts for the workers.
//!
//! Nothing here depends on the machine: the same examples, seed and sizes give the same batches and the same parts, and so
//! the same sums, whatever the number of cores.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;
use rand::{SeedableRng, seq::SliceRandom};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Widths are rounded up to a multiple of this, so that few shapes occur.
const WIDTH_STEP: usize = 32;

/// Numbers of scored tokens are rounded up to a multiple of this, for the same reason.
const SCORED_STEP: usize = 64;

/// Batches that are sorted by length together unless something else is asked for: enough that rows of a batch are of like
/// length, and few enough that the shuffle still decides which rows meet.
pub const BUCKETING: usize = 16;

/// What happens to an example that is longer than the limit. Nothing is ever cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// Training does not begin.
    #[default]
    Error,
    /// It is left out and counted.
    Drop,
}

/// A tokenised sequence with the tokens that carry a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The dialogue that it comes from: what an error names.
    pub dialogue: String,
    /// The token ids.
    pub ids: Vec<u32>,
    /// Whether each token is scored; as long as `ids`. The first token is never scored: nothing predicts it.
    pub scored: Vec<bool>,
}

impl Sequence {
    /// How many tokens carry a loss.
    pub fn scored_tokens(&self) -> usize {
        self.scored.iter().skip(1).filter(|scored| **scored).count()
    }
}

/// Rows of one batch that are run together: padded on the right to one width.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The rows' places in the batch.
    pub rows: Vec<usize>,
    width: usize,
    tokens: Vec<i32>,
    /// Of each scored token: the row within the part, the place in the flattened part that predicts it, its id.
    scored: Vec<(usize, usize, i32)>,
}

/// A part on the device.
pub struct PartTensors {
    /// Token ids, [rows, width].
    pub tokens: Tensor<2, Int>,
    /// Where the predictions of the scored tokens stand in [rows * width], padded with 0: [n].
    pub places: Tensor<1, Int>,
    /// The scored tokens' ids, padded with 0: [n].
    pub targets: Tensor<1, Int>,
}

/// How large a part may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens with padding; a longer row is a part of its own.
    pub tokens: usize,
    /// The greatest width: what the model takes.
    pub width: usize,
}

impl Limits {
    /// The width that a row of so many tokens is padded to; a row that is longer than the model takes keeps its length.
    fn padded(&self, length: usize) -> usize {
        length.next_multiple_of(WIDTH_STEP).max(WIDTH_STEP).min(self.width).max(length)
    }
}

impl Part {
    fn new(batch: &[&Sequence], rows: Vec<usize>, limits: Limits) -> Self {
        let longest = rows.iter().map(|row| batch[*row].ids.len()).max().unwrap_or(0);
        let width = limits.padded(longest);
        let mut tokens = vec![0; rows.len() * width];
        let mut scored = Vec::new();
        for (row, place) in rows.iter().enumerate() {
            let Sequence { ids, scored: mask, .. } = batch[*place];
            for (column, (id, is_scored)) in ids.iter().zip(mask).enumerate() {
                tokens[row * width + column] = *id as i32;
                if *is_scored && column > 0 {
                    scored.push((row, row * width + column - 1, *id as i32));
                }
            }
        }
        Self { rows, width, tokens, scored }
    }

    /// The row within the part of each scored token.
    pub fn scored_rows(&self) -> impl Iterator<Item = usize> {
        self.scored.iter().map(|(row, _, _)| *row)
    }

    /// How many scored tokens the tensors hold, with padding.
    pub fn padded_scored(&self) -> usize {
        self.scored.len().next_multiple_of(SCORED_STEP).max(SCORED_STEP)
    }

    /// The part as tensors; padding is token 0, which nothing looks at.
    pub fn tensors(&self, device: &Device) -> PartTensors {
        let (rows, count) = (self.rows.len(), self.padded_scored());
        let (mut places, mut targets) = (vec![0_i32; count], vec![0_i32; count]);
        for (index, (_, place, id)) in self.scored.iter().enumerate() {
            (places[index], targets[index]) = (*place as i32, *id);
        }
        PartTensors {
            tokens: Tensor::from_data(TensorData::new(self.tokens.clone(), [rows, self.width]), device),
            places: Tensor::from_data(TensorData::new(places, [count]), device),
            targets: Tensor::from_data(TensorData::new(targets, [count]), device),
        }
    }
}

/// Cuts a batch into parts within the limits, longest rows first. `group` consecutive rows of the batch stay side by side in
/// one part.
pub fn parts(batch: &[&Sequence], group: usize, limits: Limits) -> Vec<Part> {
    let longest = |first: &usize| batch[*first..*first + group].iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let mut order: Vec<usize> = (0..batch.len()).step_by(group).collect();
    order.sort_by_key(|first| std::cmp::Reverse(longest(first)));
    let mut rest = order.as_slice();
    let mut parts = Vec::new();
    while let Some(first) = rest.first() {
        let width = limits.padded(longest(first)) * group;
        let (firsts, others) = rest.split_at((limits.tokens / width).clamp(1, rest.len()));
        let rows = firsts.iter().flat_map(|first| *first..*first + group).collect();
        parts.push(Part::new(batch, rows, limits));
        rest = others;
    }
    parts
}

/// The batches of one epoch of SFT as places in `lengths`: shuffled by the seed and the epoch, then, `bucketing` batches at
/// once, gathered so that rows of a batch are of like length. Every place occurs once; only the last batch of all, before
/// batches change places, may be short.
pub fn shuffled_batches(lengths: &[usize], size: usize, bucketing: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::from_seed(key(seed, "order", epoch));
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.shuffle(&mut rng);
    let mut batches = Vec::new();
    for window in order.chunks_mut(size.saturating_mul(bucketing.max(1))) {
        if bucketing > 1 {
            window.sort_by_key(|place| lengths[*place]);
        }
        let mut sorted: Vec<Vec<usize>> = window.chunks(size).map(<[usize]>::to_vec).collect();
        sorted.shuffle(&mut rng);
        batches.extend(sorted);
    }
    batches
}

/// All places in an order that the seed and the epoch decide.
pub fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut ChaCha8Rng::from_seed(key(seed, "rows", epoch)));
    order
}

fn key(seed: u64, name: &str, number: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("thresh train batches");
    hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes()).update(name.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Whose completion each row meets for the KL estimate: within consecutive groups of `size` the completions move on by one,
/// `(x1, yn), (x2, y1), ...`. A last group of one meets its own.
pub fn rotation(count: usize, size: usize) -> Vec<usize> {
    let group = |start: usize| {
        let length = size.min(count - start);
        (0..length).map(move |row| start + (row + length - 1) % length)
    };
    (0..count).step_by(size).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(length: usize, scored: &[usize]) -> Sequence {
        Sequence {
            dialogue: "d".to_owned(),
            ids: (1..=length as u32).collect(),
            scored: (0..length).map(|place| scored.contains(&place)).collect(),
        }
    }

    #[test]
    fn a_scored_token_is_predicted_one_place_before() {
        let (long, short) = (sequence(40, &[0, 5, 39]), sequence(3, &[1, 2]));
        let parts = parts(&[&short, &long], 1, Limits { tokens: 1 << 20, width: 512 });
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].rows.as_slice(), parts[0].width), (&[1, 0][..], 64));
        assert_eq!(parts[0].scored, [(0, 4, 6), (0, 38, 40), (1, 64, 2), (1, 65, 3)]);
        assert_eq!((long.scored_tokens(), short.scored_tokens()), (2, 2));
    }

    #[test]
    fn tensors_hold_the_rows_and_their_tokens() {
        let (long, short) = (sequence(4, &[3]), sequence(3, &[1, 2]));
        let tensors = parts(&[&long, &short], 1, Limits { tokens: 64, width: 512 })[0].tensors(&Device::flex());
        assert_eq!(tensors.tokens.dims(), [2, 32]);
        let places: Vec<i64> = tensors.places.into_data().convert::<i64>().try_to_vec().unwrap();
        assert_eq!((places.len(), &places[..4]), (64, &[2, 32, 33, 0][..]));
        assert_eq!(tensors.targets.dims(), [64]);
    }

    #[test]
    fn completions_rotate_within_their_group() {
        assert_eq!(rotation(7, 3), [2, 0, 1, 5, 3, 4, 6]);
        assert_eq!(rotation(5, 3), [2, 0, 1, 4, 3]);
        assert!(rotation(0, 3).is_empty());
    }

    proptest! {
        #[test]
        fn an_epoch_visits_every_row_once(
            lengths in prop::collection::vec(1_usize..200, 0..300), size in 1_usize..20, bucketing in 1_usize..20,
            seed: u64, epoch in 0_u64..5,
        ) {
            let batches = shuffled_batches(&lengths, size, bucketing, seed, epoch);
            prop_assert_eq!(batches.len(), lengths.len().div_ceil(size));
            prop_assert!(batches.iter().all(|batch| !batch.is_empty() && batch.len() <= size));
            let mut places = batches.concat();
            places.sort_unstable();
            prop_assert_eq!(places, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert_eq!(batches, shuffled_batches(&lengths, size, bucketing, seed, epoch));
        }

        #[test]
        fn parts_hold_every_row_once_within_the_budget(
            lengths in prop::collection::vec(1_usize..300, 1..40), budget in 1_usize..4000,
        ) {
            let sequences: Vec<Sequence> = lengths.iter().map(|length| sequence(*length, &[])).collect();
            let batch: Vec<&Sequence> = sequences.iter().collect();
            let parts = parts(&batch, 1, Limits { tokens: budget, width: 280 });
            let mut rows: Vec<usize> = parts.iter().flat_map(|part| part.rows.clone()).collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert!(parts.iter().all(|part| part.rows.len() == 1 || part.tokens.len() <= budget));
            prop_assert!(parts.iter().all(|part| part.width <= 300 && (part.width % 32 == 0 || part.width >= 280)));
        }
    }
}
