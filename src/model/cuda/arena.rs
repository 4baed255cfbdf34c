//! Where things lie in one piece of memory: planned first, then taken at once.

/// The alignment of everything in an arena: enough for any load and for matrix products.
const ALIGN: usize = 256;

/// A plan of regions behind each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    bytes: usize,
}

impl Plan {
    /// Room for so many bytes; gives where it begins.
    pub fn take(&mut self, bytes: usize) -> usize {
        let at = self.bytes;
        self.bytes = at + bytes.next_multiple_of(ALIGN);
        at
    }

    /// The bytes of all regions.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn regions_are_aligned_and_never_overlap(sizes in proptest::collection::vec(0_usize..5_000, 0..40)) {
            let mut plan = Plan::default();
            let mut end = 0;
            for size in sizes {
                let at = plan.take(size);
                prop_assert!(at % ALIGN == 0 && at >= end);
                end = at + size;
            }
            prop_assert!(plan.bytes() >= end && plan.bytes() < end + ALIGN);
        }
    }
}
