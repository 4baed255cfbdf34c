//! Numbers side by side, as wide as a processor's registers.

/// A register of numbers.
pub(crate) trait Lanes: Copy {
    /// How many.
    const WIDTH: usize;

    /// The same number everywhere.
    ///
    /// # Safety
    /// The processor has the instructions, here and below.
    unsafe fn splat(value: f32) -> Self;

    /// The numbers from `from` on.
    ///
    /// # Safety
    /// `WIDTH` numbers can be read there.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes the numbers from `to` on.
    ///
    /// # Safety
    /// `WIDTH` numbers can be written there.
    unsafe fn store(self, to: *mut f32);

    /// `self + left * right`, rounded once where the processor can.
    ///
    /// # Safety
    /// See [`Lanes::splat`].
    unsafe fn add_product(self, left: Self, right: Self) -> Self;

    /// `self + other`.
    ///
    /// # Safety
    /// See [`Lanes::splat`].
    unsafe fn add(self, other: Self) -> Self;
}

/// What every processor has.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

impl Lanes for Plain {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array of numbers may lie wherever a number may.
        Self(unsafe { *from.cast::<[f32; 4]>() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { *to.cast::<[f32; 4]>() = self.0 }
    }

    #[inline(always)]
    unsafe fn add_product(self, left: Self, right: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + left.0[lane] * right.0[lane]))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    macro_rules! lanes {
        ($name:ident, $width:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident) => {
            impl Lanes for $name {
                const WIDTH: usize = $width;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller's promise, here and below.
                    Self(unsafe { $splat(value) })
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: as above.
                    Self(unsafe { $load(from) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: as above.
                    unsafe { $store(to, self.0) }
                }

                #[inline(always)]
                unsafe fn add_product(self, left: Self, right: Self) -> Self {
                    // SAFETY: as above.
                    Self(unsafe { $fma(left.0, right.0, self.0) })
                }

                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: as above.
                    Self(unsafe { $add(self.0, other.0) })
                }
            }
        };
    }

    lanes!(Avx2, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_fmadd_ps, _mm256_add_ps);
    lanes!(Avx512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_fmadd_ps, _mm512_add_ps);
}
