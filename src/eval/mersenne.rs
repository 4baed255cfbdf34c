//! The Mersenne Twister MT19937, seeded and drawn from as numpy's legacy generator does, and as Python's `random`.
//!
//! The reference's significance test draws with the one, its newer extraction of examples shuffles with the other; both can
//! only be met bit by bit.

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// A generator of 32-bit words (Matsumoto and Nishimura, 1998).
pub struct Mersenne {
    words: [u32; SIZE],
    next: usize,
}

impl Mersenne {
    /// Seeds by the authors' `init_genrand`.
    pub fn new(seed: u32) -> Self {
        let mut words = [0; SIZE];
        words[0] = seed;
        for place in 1..SIZE {
            let before: u32 = words[place - 1];
            words[place] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(place as u32);
        }
        Self { words, next: SIZE }
    }

    /// Seeds as Python's `random.Random(seed)`: the authors' `init_by_array` of the seed's 32-bit digits, the least first.
    pub fn python(seed: u64) -> Self {
        let digits = [seed as u32, (seed >> 32) as u32];
        Self::of_key(if digits[1] == 0 { &digits[..1] } else { &digits })
    }

    /// Seeds by the authors' `init_by_array`. The key must not be empty.
    fn of_key(key: &[u32]) -> Self {
        let mut generator = Self::new(19_650_218);
        let words = &mut generator.words;
        let mut place = 1;
        let mut step = |words: &mut [u32; SIZE], factor: u32, add: u32, subtract: u32| {
            let before = words[place - 1];
            let mixed = words[place] ^ (before ^ (before >> 30)).wrapping_mul(factor);
            words[place] = mixed.wrapping_add(add).wrapping_sub(subtract.wrapping_mul(place as u32));
            place += 1;
            if place == SIZE {
                words[0] = words[SIZE - 1];
                place = 1;
            }
        };
        for (at, digit) in (0..key.len()).cycle().zip(key.iter().cycle()).take(SIZE.max(key.len())) {
            step(words, 1_664_525, digit.wrapping_add(at as u32), 0);
        }
        for _ in 1..SIZE {
            step(words, 1_566_083_941, 0, 1);
        }
        words[0] = 0x8000_0000;
        generator
    }

    /// The next word.
    pub fn word(&mut self) -> u32 {
        if self.next == SIZE {
            self.twist();
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number below `count`, which must not be 0: words are masked to the fewest bits that can hold it, and drawn anew
    /// while they are too great.
    pub fn below(&mut self, count: u32) -> u32 {
        let most = count.saturating_sub(1);
        if most == 0 {
            return 0;
        }
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let drawn = self.word() & mask;
            if drawn <= most {
                return drawn;
            }
        }
    }

    /// Shuffles as Python's `Random.shuffle`: from the end, each item swapped with one that is not behind it.
    pub fn python_shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.python_below(last as u64 + 1) as usize);
        }
    }

    /// A number below `count`, which must not be 0, as Python's `Random` draws it: as many bits as `count` has, drawn anew
    /// while they are too great.
    fn python_below(&mut self, count: u64) -> u64 {
        let bits = u64::BITS - count.leading_zeros();
        loop {
            let low = u64::from(self.word() >> 32_u32.saturating_sub(bits));
            let high = if bits > 32 { u64::from(self.word() >> (64 - bits)) } else { 0 };
            let drawn = high << 32 | low;
            if drawn < count {
                return drawn;
            }
        }
    }

    fn twist(&mut self) {
        for place in 0..SIZE {
            let mixed = (self.words[place] & 0x8000_0000) | (self.words[(place + 1) % SIZE] & 0x7fff_ffff);
            let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[place] = self.words[(place + MIDDLE) % SIZE] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_authors_generator() {
        // The 10,000th word of the default seed is fixed by the C++ standard for `std::mt19937`.
        let mut generator = Mersenne::new(5489);
        let last = (0..10_000).map(|_| generator.word()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn numbers_are_numpys() {
        // numpy.random.RandomState(42).choice(450, 8)
        let mut generator = Mersenne::new(42);
        let drawn: Vec<u32> = (0..8).map(|_| generator.below(450)).collect();
        assert_eq!(drawn, [102, 435, 348, 270, 106, 71, 188, 20]);
        assert_eq!(Mersenne::new(42).below(1), 0);
    }

    #[test]
    fn an_order_is_pythons() {
        // random.Random(seed).shuffle(list(range(count)))
        let shuffled = |seed: u64, count: usize| {
            let mut items: Vec<usize> = (0..count).collect();
            Mersenne::python(seed).python_shuffle(&mut items);
            items
        };
        assert_eq!(shuffled(42, 12), [7, 5, 2, 8, 9, 6, 11, 3, 4, 0, 1, 10]);
        assert_eq!(shuffled(0, 9), [7, 5, 1, 3, 4, 2, 0, 8, 6]);
        assert_eq!(shuffled(1_099_511_627_783, 9), [0, 5, 2, 3, 6, 1, 8, 4, 7]);
        let sum: usize = shuffled(42, 5000).iter().enumerate().map(|(place, item)| place * item).sum();
        assert_eq!(sum, 31_286_367_899);
        assert!(shuffled(42, 0).is_empty());
    }

    #[test]
    fn a_count_of_more_than_a_word_takes_two() {
        // random.Random(42).randrange(2 ** 40), twice
        let mut generator = Mersenne::python(42);
        assert_eq!(
            [generator.python_below(1 << 40), generator.python_below(1 << 40)],
            [247_559_453_085, 538_052_153_943]
        );
    }
}
