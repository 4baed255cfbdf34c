//! Seeds: one number for a run, and from it one for every place where chance enters.

/// The seed of one place, from the run's seed and the names that lead to the place.
///
/// The same names give the same seed on every machine and in every order of asking; names that differ in any part, or in
/// where one name ends and the next begins, give seeds that have nothing to do with each other.
pub fn derive(seed: u64, names: &[&str]) -> u64 {
    let mut hash = blake3::Hasher::new();
    hash.update(&seed.to_le_bytes());
    for name in names {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_borders_count() {
        let seeds = [
            derive(1, &["ab", "c"]),
            derive(1, &["a", "bc"]),
            derive(1, &["abc"]),
            derive(1, &["abc", ""]),
            derive(2, &["ab", "c"]),
        ];
        for (place, seed) in seeds.iter().enumerate() {
            assert!(!seeds[..place].contains(seed), "seed {place} repeats an earlier one");
        }
        assert_eq!(derive(1, &["ab", "c"]), seeds[0]);
    }
}
