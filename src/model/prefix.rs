//! Keys and values of token sequences seen before, so that a dialogue that grows turn by turn, and siblings that branch off
//! one dialogue, encode only their new tokens.
//!
//! Sequences are kept in blocks of [`BLOCK`] tokens. A block is found by the block before it and its own tokens, so that
//! sequences share what they have in common, and a block stands for one history only. When the cache is full, the block
//! that was needed least recently goes; a history is always younger than what continues it, so that no block is orphaned.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Tokens in a block.
pub const BLOCK: usize = 16;

/// The keys and values of a block: layer by layer, token by token.
pub type BlockValues = Arc<[f32]>;

type Key = (u64, [u32; BLOCK]);

#[derive(Debug)]
struct Block {
    id: u64,
    stamp: u64,
    values: BlockValues,
}

/// A bounded store of blocks. What it holds depends on the calls alone, not on time or memory addresses.
#[derive(Debug)]
pub struct PrefixCache {
    blocks: HashMap<Key, Block>,
    by_stamp: BTreeMap<u64, Key>,
    limit: usize,
    bytes: usize,
    clock: u64,
    ids: u64,
}

impl PrefixCache {
    /// An empty cache that holds at most `limit` bytes of keys and values.
    pub fn new(limit: usize) -> Self {
        Self { blocks: HashMap::new(), by_stamp: BTreeMap::new(), limit, bytes: 0, clock: 0, ids: 0 }
    }

    /// Bytes of keys and values held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The blocks that `tokens` begins with, as many as are known without a gap.
    pub fn find(&mut self, tokens: &[u32]) -> Vec<BlockValues> {
        let keys = self.known(tokens);
        self.touch(&keys);
        keys.iter().map(|key| Arc::clone(&self.blocks[key].values)).collect()
    }

    /// How many tokens of `tokens` are known, from the first on; touches nothing.
    pub fn known_tokens(&self, tokens: &[u32]) -> usize {
        self.known(tokens).len() * BLOCK
    }

    /// Keeps the whole blocks of a sequence; `values` gives the keys and values of the block that begins at a token.
    pub fn insert(&mut self, tokens: &[u32], mut values: impl FnMut(usize) -> Vec<f32>) {
        let mut parent = 0;
        let mut keys = Vec::new();
        for (index, block) in tokens.as_chunks::<BLOCK>().0.iter().enumerate() {
            let key = (parent, *block);
            parent = match self.blocks.get(&key) {
                Some(block) => block.id,
                None => self.add(key, values(index * BLOCK).into()),
            };
            keys.push(key);
        }
        self.touch(&keys);
        self.evict();
    }

    fn known(&self, tokens: &[u32]) -> Vec<Key> {
        let mut parent = 0;
        let mut keys = Vec::new();
        for tokens in tokens.as_chunks::<BLOCK>().0 {
            let key = (parent, *tokens);
            let Some(block) = self.blocks.get(&key) else { break };
            parent = block.id;
            keys.push(key);
        }
        keys
    }

    fn add(&mut self, key: Key, values: BlockValues) -> u64 {
        self.ids += 1;
        self.clock += 1;
        self.bytes += size_of_val(&*values);
        self.by_stamp.insert(self.clock, key);
        self.blocks.insert(key, Block { id: self.ids, stamp: self.clock, values });
        self.ids
    }

    /// Last block first, so that a history is younger than what continues it.
    fn touch(&mut self, keys: &[Key]) {
        for key in keys.iter().rev() {
            if let Some(block) = self.blocks.get_mut(key) {
                self.by_stamp.remove(&block.stamp);
                self.clock += 1;
                block.stamp = self.clock;
                self.by_stamp.insert(self.clock, *key);
            }
        }
    }

    fn evict(&mut self) {
        while self.bytes > self.limit {
            let Some((_, key)) = self.by_stamp.pop_first() else { break };
            if let Some(block) = self.blocks.remove(&key) {
                self.bytes -= size_of_val(&*block.values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(seed: u32, length: usize) -> Vec<u32> {
        (0..length as u32).map(|index| seed * 1_000 + index).collect()
    }

    fn values(tokens: &[u32]) -> impl FnMut(usize) -> Vec<f32> {
        move |start| tokens[start..start + BLOCK].iter().map(|&token| token as f32).collect()
    }

    #[test]
    fn finds_what_a_sequence_begins_with() {
        let mut cache = PrefixCache::new(1 << 20);
        let first = sequence(1, 3 * BLOCK + 5);
        cache.insert(&first, values(&first));
        assert_eq!(cache.find(&first).len(), 3);
        let mut branch = first[..BLOCK].to_vec();
        branch.extend(sequence(2, 2 * BLOCK));
        assert_eq!(cache.known_tokens(&branch), BLOCK);
        cache.insert(&branch, values(&branch));
        assert_eq!(cache.bytes(), 5 * BLOCK * 4);
        assert_eq!(cache.find(&branch)[2][0], 2_000.0 + BLOCK as f32);
        // The same tokens behind another history are another block.
        assert!(cache.find(&branch[BLOCK..]).is_empty());
    }

    #[test]
    fn forgets_what_was_needed_least_recently_from_its_end() {
        let mut cache = PrefixCache::new(4 * BLOCK * 4);
        let (first, second, third) = (sequence(1, 2 * BLOCK), sequence(2, 2 * BLOCK), sequence(3, BLOCK));
        cache.insert(&first, values(&first));
        cache.insert(&second, values(&second));
        cache.find(&first);
        cache.insert(&third, values(&third));
        assert_eq!(cache.known_tokens(&first), 2 * BLOCK);
        assert_eq!(cache.known_tokens(&second), BLOCK);
        assert_eq!(cache.known_tokens(&third), BLOCK);
    }

    proptest! {
        #[test]
        fn never_exceeds_its_limit_and_never_leaves_a_gap(
            calls in prop::collection::vec((0u32..4, 0usize..5, prop::bool::ANY), 1..60),
        ) {
            let mut cache = PrefixCache::new(6 * BLOCK * 4);
            for (seed, blocks, insert) in calls {
                let mut tokens = sequence(seed % 2, BLOCK);
                tokens.extend(sequence(seed, blocks * BLOCK));
                if insert {
                    cache.insert(&tokens, values(&tokens));
                } else {
                    cache.find(&tokens);
                }
                prop_assert!(cache.bytes() <= 6 * BLOCK * 4);
                prop_assert_eq!(cache.blocks.len(), cache.by_stamp.len());
                let ids: Vec<u64> = cache.blocks.values().map(|block| block.id).collect();
                prop_assert!(cache.blocks.keys().all(|key| key.0 == 0 || ids.contains(&key.0)));
            }
        }
    }
}
