//! Sequences one after the other, without padding: what one pass runs over.

use crate::train::batch::Sequence;

/// Tokens of one pass, unless one group of sequences has more: enough that weights are laid out for many rows, few enough that
/// what is kept for the way back stays small. It must not depend on the number of threads.
pub(super) const TOKENS: usize = 2048;

/// The sequences of one pass.
#[derive(Debug)]
pub(super) struct Batch {
    /// The place of the first of them.
    pub first: usize,
    /// Tokens before them in the call: where their dropout begins.
    pub before: usize,
    pub ids: Vec<usize>,
    /// Each token's place in its sequence.
    pub positions: Vec<usize>,
    pub lengths: Vec<usize>,
    /// The rows that predict scored tokens.
    pub places: Vec<usize>,
    /// The scored tokens.
    pub targets: Vec<usize>,
    /// The sequence of each scored token, within the batch.
    pub owners: Vec<usize>,
}

impl Batch {
    fn new(sequences: &[&Sequence], first: usize, before: usize) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|one| one.ids.len()).collect();
        let ids = sequences.iter().flat_map(|one| one.ids.iter().map(|id| *id as usize)).collect();
        let positions = lengths.iter().flat_map(|length| 0..*length).collect();
        let (mut places, mut targets, mut owners, mut start) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (owner, one) in sequences.iter().enumerate() {
            for (place, _) in one.scored.iter().enumerate().skip(1).filter(|(_, scored)| **scored) {
                places.push(start + place - 1);
                targets.push(one.ids[place] as usize);
                owners.push(owner);
            }
            start += one.ids.len();
        }
        Self { first, before, ids, positions, lengths, places, targets, owners }
    }

    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Each sequence's sum over its scored tokens.
    pub fn sums(&self, log_probs: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.lengths.len()];
        self.owners.iter().zip(log_probs).for_each(|(owner, value)| sums[*owner] += value);
        sums
    }
}

/// Cuts sequences into passes, in their order; groups stay together.
pub(super) fn batches(sequences: &[&Sequence], group: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut first, mut end, mut tokens, mut before) = (0, 0, 0, 0);
    for (index, one) in sequences.chunks(group).enumerate() {
        let more: usize = one.iter().map(|one| one.ids.len()).sum();
        if end > first && tokens + more > TOKENS {
            batches.push(Batch::new(&sequences[first..end], first, before));
            (first, before, tokens) = (end, before + tokens, 0);
        }
        tokens += more;
        end = index * group + one.len();
    }
    if end > first {
        batches.push(Batch::new(&sequences[first..end], first, before));
    }
    batches
}
