//! The libraries that CUDA needs where it runs, found without asking anything of where it was built.
//!
//! The bindings load a library by its bare name, and panic where there is none. So each is looked for beforehand, also where
//! a toolkit lies that is not on the loader's path; a library that is loaded once is found by its bare name from then on.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::libc;

use super::CudaError;

/// A library that is loaded at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The driver.
    Driver,
    /// The run-time compiler.
    Nvrtc,
    /// Matrix products.
    BlasLt,
}

impl Library {
    /// The names that the library may have, newest first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1", "libcuda.so"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            Self::BlasLt => &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Driver => "install NVIDIA's driver, or say `device = \"cpu\"` in thresh.toml",
            Self::Nvrtc => {
                "it comes with the CUDA toolkit, 12 or newer (package `cuda-nvrtc`); point CUDA_PATH or LD_LIBRARY_PATH at it"
            }
            Self::BlasLt => {
                "it comes with the CUDA toolkit, 12 or newer (package `libcublas`); point CUDA_PATH or LD_LIBRARY_PATH at it"
            }
        }
    }

    /// Loads the library, once for the whole process.
    ///
    /// # Errors
    /// When it is nowhere to be found.
    pub fn load(self) -> Result<(), CudaError> {
        static FOUND: [OnceLock<bool>; 3] = [const { OnceLock::new() }; 3];
        let found = FOUND[self as usize].get_or_init(|| self.search());
        if *found { Ok(()) } else { Err(CudaError::Library { file: self.names()[0], advice: self.advice() }) }
    }

    fn search(self) -> bool {
        let bare = self.names().iter().map(PathBuf::from);
        let placed = toolkits().into_iter().flat_map(|toolkit| {
            ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"]
                .into_iter()
                .flat_map(move |folder| self.names().iter().map(move |name| (folder, name)))
                .map(move |(folder, name)| toolkit.join(folder).join(name))
        });
        bare.chain(placed).any(|path| open(&path))
    }
}

/// Keeps a library loaded, its symbols open to all.
fn open(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the path ends with a zero byte; loading runs the constructors of NVIDIA's libraries, which ask nothing of us.
    !unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) }.is_null()
}

/// Where toolkits lie: what the environment names, then the usual place.
fn toolkits() -> Vec<PathBuf> {
    let named = ["CUDA_PATH", "CUDA_HOME"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    named.chain([PathBuf::from("/usr/local/cuda"), PathBuf::from("/opt/cuda")]).collect()
}
