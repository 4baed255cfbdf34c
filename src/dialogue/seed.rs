//! Seeds: every random decision has a number of its own, derived from the run's seed and the names of what decides.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// The seed of the thing named by `names` in the run seeded by `seed`: the first eight bytes of a BLAKE3 hash.
///
/// The names are hashed with their lengths, so that `["a", "bc"]` and `["ab", "c"]` differ (quirk Q16: in the reference all
/// branches share one seed, so that siblings are equal).
pub fn derive(seed: u64, names: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for name in names {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    let mut head = [0; 8];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(head)
}

/// A generator for the thing named by `names` in the run seeded by `seed`.
pub fn generator(seed: u64, names: &[&str]) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_apart() {
        assert_ne!(derive(1, &["a", "bc"]), derive(1, &["ab", "c"]));
        assert_ne!(derive(1, &["a"]), derive(2, &["a"]));
        assert_eq!(derive(7, &["a", "b"]), derive(7, &["a", "b"]));
    }
}
