//! Decoders on NVIDIA's devices: training and decoding as explicit passes over one [`Architecture`], in memory of our own.
//!
//! Matrices are multiplied by cuBLASLt, everything else is done by the kernels of `kernels/`. Driver, compiler and cuBLASLt are
//! loaded where they run ([`library`]); nothing of CUDA is needed where this is built. Kernels are compiled once and kept
//! ([`module`]).
//!
//! Why not burn's own CUDA backend. In 0.22 its autodiff has attention only as plain products, which keep all scores
//! (`attention_fallback`); each new shape of a product starts an autotuning that compiles about thirty candidates, some of
//! which take NVRTC over 20 seconds, and in bf16 a first step did not end within minutes; and its stream cannot be reached,
//! so that nothing can be recorded as a graph. Nor does burn hold the numbers while we compute. Parameters come from a decoder on the
//! processor once, at the beginning, and go back once, at the end: that costs a copy of the parameters, a second for 8 billion
//! of them, and spares the device a second copy in `f32`.
//!
//! [`Architecture`]: crate::model::architecture::Architecture

pub mod arena;
mod attention;
pub mod batch;
pub mod blas;
pub mod driver;
mod error;
pub mod inference;
pub mod library;
pub mod module;
mod network;
mod passes;
mod steps;
pub mod table;
pub mod trainer;
pub mod weights;

pub use error::CudaError;
pub use network::Network;

/// Whether device `index` can be used: driver, device and cuBLASLt. The run-time compiler is asked for only when kernels are
/// loaded ([`module::Kernels::load`]), since kernels that were kept do without it.
///
/// # Errors
/// Names what is missing.
pub fn probe(index: usize) -> Result<(), CudaError> {
    let count = driver::count()?;
    if index >= count {
        return Err(CudaError::NoDevice { index, count });
    }
    library::Library::BlasLt.load()
}
