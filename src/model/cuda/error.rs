//! What can go wrong on a CUDA device, in words for the person who runs it.

use std::path::PathBuf;

use cudarc::cublaslt::result::CublasError;
use cudarc::driver::DriverError;

/// Why work on a CUDA device did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// A library that CUDA needs at run time is not there.
    #[error("`{file}` cannot be loaded: {advice}")]
    Library {
        /// The file that was looked for.
        file: &'static str,
        /// Where it comes from.
        advice: &'static str,
    },
    /// There are fewer devices than the number asked for.
    #[error("there is no CUDA device {index}: the driver shows {count}")]
    NoDevice {
        /// The device asked for, from 0.
        index: usize,
        /// How many the driver shows.
        count: usize,
    },
    /// The device is older than what the kernels are written for.
    #[error("`{name}` has compute capability {major}.{minor}; the kernels need 8.0 or newer")]
    TooOld {
        /// The device's name.
        name: String,
        /// Its compute capability.
        major: i32,
        /// The digit behind the point.
        minor: i32,
    },
    /// The device's memory does not hold what is asked of it.
    #[error(
        "the device has {free} MiB of memory left, but {wanted} MiB are needed for {what}; a training takes less with `gradient_checkpointing: true`, `precision: bf16`, `lora`, or a smaller `max_length`"
    )]
    Memory {
        /// What was to be held.
        what: String,
        /// Its size in MiB.
        wanted: usize,
        /// What is left, in MiB.
        free: usize,
    },
    /// A kernel's source does not compile with the NVRTC that is installed.
    #[error("NVRTC cannot compile the kernels of `{module}`: {log}")]
    Compile {
        /// The module.
        module: &'static str,
        /// What the compiler said.
        log: String,
    },
    /// A kernel that the host asks for is in no module.
    #[error("no module has the kernel `{0}`")]
    Kernel(String),
    /// The folder of compiled kernels cannot be written.
    #[error("cannot keep compiled kernels in `{path}`: {reason}", path = path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The model asks for what the kernels do not compute.
    #[error("the CUDA kernels do not take this model: {0}")]
    Model(String),
    /// The device's blocks have less shared memory than attention asks for.
    #[error("heads of {head} in {number} need {wanted} KiB of shared memory a block, this device has {here}; {advice}")]
    Shared {
        /// The size of a head.
        head: usize,
        /// The type of numbers.
        number: &'static str,
        /// What is needed, in KiB.
        wanted: usize,
        /// What there is, in KiB.
        here: usize,
        /// What would do.
        advice: &'static str,
    },
    /// No token can be drawn from what the model gives.
    #[error(
        "no token can be drawn: the model's logits are no numbers or infinite; its weights may be damaged, or too large to compute with in bf16"
    )]
    Logits,
    /// The driver refused a call, or work before it failed.
    #[error("CUDA: {0}")]
    Driver(String),
    /// cuBLASLt refused a product.
    #[error("cuBLASLt: {0}")]
    Product(String),
}

impl From<DriverError> for CudaError {
    fn from(error: DriverError) -> Self {
        let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
        let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
        Self::Driver(match (name, text) {
            (Ok(name), Ok(text)) => format!("{text} ({name})"),
            _ => format!("error {}", error.0 as u32),
        })
    }
}

impl From<CublasError> for CudaError {
    fn from(error: CublasError) -> Self {
        Self::Product(format!("{:?}", error.0))
    }
}
