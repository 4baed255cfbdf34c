//! Sequences as the device reads them: one behind the other without padding, and where each token stands.

use super::CudaError;
use super::driver::{Address, Gpu};
use super::network::Room;

/// A sequence of tokens, some of them scored.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// The token ids.
    pub ids: &'a [u32],
    /// Whether each token carries a loss; the first never does.
    pub scored: &'a [bool],
}

/// Packed sequences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Token ids, padded at the end by a sequence that nobody scores.
    pub ids: Vec<i32>,
    /// Each token's place in its sequence.
    pub positions: Vec<i32>,
    /// Of each sequence: first query, queries, first key, keys.
    pub bounds: Vec<[i32; 4]>,
    /// The tokens that predict a scored token, padded by one that predicts none.
    pub places: Vec<i32>,
    /// What they should predict.
    pub targets: Vec<i32>,
    /// The sequence of each scored token, without padding.
    pub owners: Vec<usize>,
    /// The longest sequence.
    pub longest: usize,
}

/// Tokens are padded to a multiple of this at least.
pub const TOKEN_STEP: usize = 128;

/// What a count of rows is padded to, so that products of few different shapes occur: for each shape cuBLASLt is asked anew, which
/// takes longer than the product of a small model. At most a thirty-second is padding, or what is missing to [`TOKEN_STEP`].
pub fn padded(count: usize) -> usize {
    count.next_multiple_of((count.next_power_of_two() / 64).max(TOKEN_STEP))
}

impl Packed {
    /// Packs sequences, with every scored token's place.
    pub fn new(sequences: &[Scored]) -> Self {
        let mut packed = Self::default();
        for (owner, Scored { ids, scored }) in sequences.iter().enumerate() {
            let start = packed.push(ids);
            for (place, (id, _)) in ids.iter().zip(*scored).enumerate().skip(1).filter(|(_, (_, scored))| **scored) {
                packed.places.push((start + place - 1) as i32);
                packed.targets.push(*id as i32);
                packed.owners.push(owner);
            }
        }
        packed.pad_scored();
        packed.pad();
        packed
    }

    fn push(&mut self, ids: &[u32]) -> usize {
        let start = self.ids.len();
        self.ids.extend(ids.iter().map(|id| *id as i32));
        self.positions.extend(0..ids.len() as i32);
        self.bounds.push([start as i32, ids.len() as i32, start as i32, ids.len() as i32]);
        self.longest = self.longest.max(ids.len());
        start
    }

    /// The last token of a sequence predicts nothing, so whatever is computed for it, with a slope of zero, harms nobody.
    fn pad_scored(&mut self) {
        let Some([start, count, ..]) = self.bounds.first() else { return };
        let (spare, scored) = (start + count - 1, padded(self.scored()));
        self.places.resize(scored, spare);
        self.targets.resize(scored, 0);
    }

    /// A last sequence of token 0. Its positions are all 0: it may be longer than the model's context.
    fn pad(&mut self) {
        let (start, end) = (self.ids.len(), padded(self.ids.len()));
        if end > start {
            self.ids.resize(end, 0);
            self.positions.resize(end, 0);
            self.bounds.push([start as i32, (end - start) as i32, start as i32, (end - start) as i32]);
            self.longest = self.longest.max(end - start);
        }
    }

    /// Tokens with padding.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Scored tokens, without padding.
    pub fn scored(&self) -> usize {
        self.owners.len()
    }

    /// Scored tokens with padding.
    pub fn rows(&self) -> usize {
        self.places.len()
    }

    /// Which tokens share an id: an order of the tokens, where each id's begin in it (and the end), and the ids.
    pub fn by_id(&self) -> [Vec<i32>; 3] {
        let mut keyed: Vec<u64> =
            self.ids.iter().enumerate().map(|(place, id)| (*id as u64) << 32 | place as u64).collect();
        keyed.sort_unstable();
        let [mut order, mut starts, mut which] = [const { Vec::<i32>::new() }; 3];
        for (index, key) in keyed.iter().enumerate() {
            let id = (key >> 32) as i32;
            if which.last() != Some(&id) {
                starts.push(index as i32);
                which.push(id);
            }
            order.push((key & 0xffff_ffff) as i32);
        }
        starts.push(order.len() as i32);
        [order, starts, which]
    }
}

/// Packed sequences on the device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Placed {
    /// Tokens.
    pub tokens: usize,
    /// Sequences, with the padding one.
    pub sequences: usize,
    /// The longest of them.
    pub longest: usize,
    /// Scored tokens, with padding.
    pub scored: usize,
    pub ids: Address,
    pub positions: Address,
    pub bounds: Address,
    pub places: Address,
    pub targets: Address,
    /// Order, starts and ids of [`Packed::by_id`].
    pub by_id: [Address; 3],
}

impl Placed {
    /// Room for sequences.
    pub fn lay(packed: &Packed, room: &mut Room) -> Self {
        let (tokens, scored, sequences) = (packed.tokens(), packed.rows(), packed.bounds.len());
        let mut numbers = |count: usize| room.take(count * 4);
        Self {
            tokens,
            sequences,
            longest: packed.longest,
            scored,
            ids: numbers(tokens),
            positions: numbers(tokens),
            bounds: numbers(sequences * 4),
            places: numbers(scored),
            targets: numbers(scored),
            by_id: [numbers(tokens), numbers(tokens + 1), numbers(tokens)],
        }
    }

    /// Sends the sequences to their room.
    pub fn upload(&self, packed: &Packed, gpu: &Gpu) -> Result<(), CudaError> {
        gpu.upload(self.ids, &packed.ids)?;
        gpu.upload(self.positions, &packed.positions)?;
        gpu.upload(self.bounds, packed.bounds.as_flattened())?;
        gpu.upload(self.places, &packed.places)?;
        gpu.upload(self.targets, &packed.targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scored_tokens_are_predicted_by_the_token_before_them() {
        let first = Scored { ids: &[7, 8, 9], scored: &[false, false, true] };
        let second = Scored { ids: &[8, 7], scored: &[true, true] };
        let packed = Packed::new(&[first, second]);
        assert_eq!(packed.tokens(), TOKEN_STEP);
        assert_eq!((&packed.places[..3], &packed.targets[..3]), ([1, 3, 2].as_slice(), [9, 7, 0].as_slice()));
        assert_eq!((packed.rows(), packed.targets.len(), packed.places[TOKEN_STEP - 1]), (TOKEN_STEP, TOKEN_STEP, 2));
        assert_eq!((packed.scored(), packed.owners.as_slice()), (2, [0, 1].as_slice()));
        let pad = TOKEN_STEP as i32 - 5;
        assert_eq!(packed.bounds, [[0, 3, 0, 3], [3, 2, 3, 2], [5, pad, 5, pad]]);
        assert_eq!(packed.positions[..6], [0, 1, 2, 0, 1, 0]);
    }

    #[test]
    fn few_counts_remain_and_little_is_padding() {
        assert_eq!([0, 1, 128, 129, 8192, 32_768].map(padded), [0, 128, 128, 256, 8192, 32_768]);
        let counts: std::collections::BTreeSet<usize> = (16_000..20_000).map(padded).collect();
        assert!(counts.len() < 12, "{counts:?}");
        assert!((8192..70_000).all(|count| padded(count) >= count && padded(count) - count <= count / 32));
    }

    #[test]
    fn tokens_are_gathered_by_id() {
        let packed = Packed { ids: vec![5, 3, 5, 5, 3], ..Packed::default() };
        assert_eq!(packed.by_id(), [vec![1, 4, 0, 2, 3], vec![0, 2, 5], vec![3, 5]]);
    }
}
