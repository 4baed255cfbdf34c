//! The Mersenne Twister MT19937, seeded and drawn from as numpy's legacy generator does.
//!
//! The reference's significance test draws with it; its p values can only be met bit by bit.

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
}
