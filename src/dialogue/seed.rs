//! Generators for the dialogues' random decisions: each has a seed of its own (quirk Q16: in the reference all branches share
//! one seed, so that siblings are equal).

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

pub use crate::seed::derive;

/// A generator for the thing named by `names` in the run seeded by `seed`.
pub fn generator(seed: u64, names: &[&str]) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, names))
}
