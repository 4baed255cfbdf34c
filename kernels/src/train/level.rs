//! What the processor can do, found out once, and functions built for each of it.

use std::sync::OnceLock;

/// Instructions that the kernels are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What every processor of the architecture has.
    Plain,
    /// Lanes of 8 with fused multiplication and addition (x86-64-v3).
    Avx2,
    /// Lanes of 16 (x86-64-v4).
    Avx512,
}

/// The best level of this processor.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    let best = *LEVEL.get_or_init(detect);
    #[cfg(test)]
    return super::tests::least(best);
    #[cfg(not(test))]
    best
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    use std::arch::is_x86_feature_detected as has;
    if !(has!("avx2") && has!("fma")) {
        return Level::Plain;
    }
    if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
        Level::Avx512
    } else {
        Level::Avx2
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Plain
}

/// Defines a function whose body is compiled once for every level, and which takes the best at run time. The body is plain
/// code that the compiler turns into lanes; it must not depend on how wide they are.
macro_rules! leveled {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $kind),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $kind),*) $(-> $result)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $kind),*) $(-> $result)? { body($($arg),*) }
                match $crate::train::level::level() {
                    // SAFETY: the processor has these instructions: `level` asked it.
                    $crate::train::level::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the same.
                    $crate::train::level::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::train::level::Level::Plain => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use leveled;
