//! Sixteen numbers at a time, on whatever registers the processor has.

/// How many numbers a vector has, on every processor.
pub(crate) const LANES: usize = 16;

/// A vector of sixteen numbers. Every operation is that of IEEE 754 lane by lane, so that all implementations agree to the bit.
pub(crate) trait Lanes: Copy {
    /// How many rows of a product are computed at a time: as many as registers can hold.
    const ROWS: usize;

    fn splat(x: f32) -> Self;
    fn load(from: &[f32; LANES]) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    /// 2 to the power of the integer that the lowest bits of the number hold.
    fn power_of_low_bits(self) -> Self;

    /// The sum of the lanes, halves onto halves.
    #[inline(always)]
    fn sum(self) -> f32 {
        self.fold(|a, b| a + b)
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        self.fold(f32::max)
    }

    #[inline(always)]
    fn fold(self, with: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        let mut half = LANES / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] = with(lanes[lane], lanes[lane + half]);
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The exponential, to about two units in the last place; below -87 and above 88 it stays at those ends.
    ///
    /// After Cephes: `x = n ln 2 + r`, and a polynomial in `r`.
    #[inline(always)]
    fn exp(self) -> Self {
        const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23: added, it leaves the rounded number in the lowest bits
        let x = self.max(Self::splat(-87.0)).min(Self::splat(88.0));
        let shifted = x.fma(Self::splat(std::f32::consts::LOG2_E), Self::splat(SHIFT));
        let n = shifted.sub(Self::splat(SHIFT));
        let r = n.fma(Self::splat(-0.693_359_4), x);
        let r = n.fma(Self::splat(2.121_944_4e-4), r);
        let mut sum = Self::splat(1.987_569_1e-4);
        for term in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            sum = sum.fma(r, Self::splat(term));
        }
        let sum = sum.fma(r.mul(r), r.add(Self::splat(1.0)));
        sum.mul(shifted.power_of_low_bits())
    }
}

/// Something to compute with vectors.
pub(crate) trait Kernel {
    fn run<L: Lanes>(self);
}

/// Runs a kernel on the widest vectors of this processor.
pub(crate) fn dispatch(kernel: impl Kernel) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            return unsafe { x86::on_avx512(kernel) };
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has both.
            return unsafe { x86::on_avx2(kernel) };
        }
    }
    kernel.run::<Plain>();
}

/// Vectors that the compiler makes what it can of.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, with: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| with(self.0[lane], other.0[lane])))
    }
}

impl Lanes for Plain {
    const ROWS: usize = 3;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].mul_add(b.0[lane], c.0[lane])))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    // As the processors' instructions: the second where one is no number.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn power_of_low_bits(self) -> Self {
        Self(self.0.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Kernel, LANES, Lanes};

    #[target_feature(enable = "avx512f")]
    pub(super) fn on_avx512(kernel: impl Kernel) {
        kernel.run::<Avx512>();
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn on_avx2(kernel: impl Kernel) {
        kernel.run::<Avx2>();
    }

    /// One register of AVX-512. Only [`on_avx512`] makes them.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512);

    /// Two registers of AVX2. Only [`on_avx2`] makes them.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256, __m256);

    // SAFETY, of every block below: a vector of the type exists only where its instructions do, see above; loads and stores
    // need no alignment, and arrays have the vector's size.
    impl Lanes for Avx512 {
        const ROWS: usize = 8;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn div(self, other: Self) -> Self {
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            Self(unsafe { _mm512_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn power_of_low_bits(self) -> Self {
            Self(unsafe {
                let shifted = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
                _mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(0x3f80_0000)))
            })
        }
    }

    impl Lanes for Avx2 {
        const ROWS: usize = 3;

        #[inline(always)]
        fn splat(x: f32) -> Self {
            let half = unsafe { _mm256_set1_ps(x) };
            Self(half, half)
        }
        #[inline(always)]
        fn load(from: &[f32; LANES]) -> Self {
            unsafe { Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))) }
        }
        #[inline(always)]
        fn store(self, to: &mut [f32; LANES]) {
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), self.0);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
            }
        }
        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn div(self, other: Self) -> Self {
            unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn power_of_low_bits(self) -> Self {
            unsafe {
                let power = |half| {
                    let shifted = _mm256_slli_epi32::<23>(_mm256_castps_si256(half));
                    _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(0x3f80_0000)))
                };
                Self(power(self.0), power(self.1))
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Which {
        Plain,
        Avx2,
        Avx512,
    }

    impl Which {
        /// Runs it there; whether that was possible.
        pub(crate) fn run(self, kernel: impl Kernel) -> bool {
            #[cfg(target_arch = "x86_64")]
            match self {
                Self::Avx512 if std::arch::is_x86_feature_detected!("avx512f") => unsafe { x86::on_avx512(kernel) },
                Self::Avx2
                    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") =>
                unsafe {
                    x86::on_avx2(kernel);
                },
                Self::Plain => kernel.run::<Plain>(),
                _ => return false,
            }
            #[cfg(not(target_arch = "x86_64"))]
            match self {
                Self::Plain => kernel.run::<Plain>(),
                _ => return false,
            }
            true
        }
    }

    struct Exp<'a>(&'a mut [[f32; LANES]]);

    impl Kernel for Exp<'_> {
        #[inline(always)]
        fn run<L: Lanes>(self) {
            for x in self.0 {
                L::load(x).exp().store(x);
            }
        }
    }

    #[test]
    fn the_exponential_is_right_and_the_same_everywhere() {
        let inputs: Vec<[f32; LANES]> = (0..2_000)
            .map(|row| std::array::from_fn(|lane| (row * LANES + lane) as f32 * (175.0 / 32_000.0) - 87.0))
            .collect();
        let mut all: Vec<Vec<[f32; LANES]>> = Vec::new();
        for which in [Which::Plain, Which::Avx2, Which::Avx512] {
            let mut values = inputs.clone();
            if which.run(Exp(&mut values)) {
                all.push(values);
            }
        }
        for (x, found) in inputs.as_flattened().iter().zip(all[0].as_flattened()) {
            let expected = f64::from(*x).exp();
            assert!((f64::from(*found) - expected).abs() <= 2.5e-7 * expected, "{x} {found} {expected}");
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        let mut ends = vec![[-1e9, f32::NEG_INFINITY, 1e9, 0.0].repeat(4).try_into().unwrap()];
        dispatch(Exp(&mut ends));
        assert!(ends[0][0] < 1e-37 && ends[0][1] < 1e-37 && ends[0][2] > 1e38 && ends[0][3] == 1.0, "{ends:?}");
    }
}
