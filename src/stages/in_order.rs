//! Results that come in any order, handed on in theirs.

use std::collections::BTreeMap;

/// Holds results back until all before them are there.
pub struct InOrder<T> {
    next: usize,
    waiting: BTreeMap<usize, T>,
}

impl<T> InOrder<T> {
    /// Nothing came yet; the first to be handed on is that of place 0.
    pub fn new() -> Self {
        Self { next: 0, waiting: BTreeMap::new() }
    }

    /// Takes the result of a place, and hands on all that no longer wait for one before them.
    pub fn push(&mut self, place: usize, item: T, mut hand_on: impl FnMut(T)) {
        self.waiting.insert(place, item);
        while let Some(item) = self.waiting.remove(&self.next) {
            self.next += 1;
            hand_on(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_handed_on_in_order() {
        let mut order = InOrder::new();
        let mut seen = Vec::new();
        for place in [2, 0, 1, 5, 4, 3] {
            order.push(place, place * 10, |item| seen.push(item));
        }
        assert_eq!(seen, [0, 10, 20, 30, 40, 50]);
    }
}
