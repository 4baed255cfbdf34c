//! Where models compute: a place from the profile's text.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

/// Why there is no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A device that this build leaves out.
    #[error("device `{device}` is not compiled in; this build has {here}")]
    NotCompiledIn {
        /// What was asked for.
        device: String,
        /// What there is.
        here: String,
    },
    /// No device at all.
    #[error(
        "unknown device `{0}`; expected `cpu`, `wgpu`, `cuda`, `cuda:N`, or one of the last two with `/f32` behind it"
    )]
    Unknown(String),
    /// The machine lacks what the device needs.
    #[error("device `{device}` cannot be used: {reason}")]
    Missing {
        /// What was asked for.
        device: String,
        /// What is missing.
        reason: String,
    },
}

/// Where compiled kernels are kept unless [`Compute::keeping`] says otherwise: in the usual store.
const CACHE: &str = ".thresh/cache/cuda";

/// Where a model computes: the device that holds its tensors and, for CUDA, the device that trains and samples.
///
/// Models on CUDA lie on the processor; what trains or samples them takes their numbers to the device and brings them back.
/// It dereferences to the holder, which is all that reading and writing of weights asks for.
#[derive(Clone, Debug)]
pub struct Compute {
    holder: Device,
    place: Place,
}

/// What computes a model, apart from where its tensors lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The device that holds the tensors.
    #[default]
    Holder,
    /// A CUDA device.
    Cuda(CudaPlace),
}

/// A CUDA device and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaPlace {
    /// Its number, from 0.
    pub index: usize,
    /// Whether sampling multiplies bf16 numbers; else `f32` ones, rounded to TF32. Trainings say themselves what they want.
    pub half: bool,
    /// The folder of compiled kernels.
    pub cache: PathBuf,
}

impl std::ops::Deref for Compute {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.holder
    }
}

impl Compute {
    /// Tensors of this device, and nothing else.
    pub fn tensors(holder: Device) -> Self {
        Self { holder, place: Place::Holder }
    }

    /// What computes.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The same with compiled kernels in this folder.
    #[must_use]
    pub fn keeping(mut self, folder: &Path) -> Self {
        if let Place::Cuda(cuda) = &mut self.place {
            cuda.cache = folder.to_owned();
        }
        self
    }
}

/// The device that a profile names: `cpu`, `wgpu`, `cuda`, `cuda:1` (computing in bf16) or `cuda/f32`.
///
/// # Errors
/// For what is unknown, left out of this build, or not to be had on this machine; the last is found out by asking, so that no
/// tensor is made where none can be.
pub fn device(spec: &str) -> Result<Compute, DeviceError> {
    let (named, number) = spec.split_once('/').map_or((spec, None), |(named, number)| (named, Some(number)));
    let (kind, index) = named.split_once(':').map_or((named, None), |(kind, index)| (kind, Some(index)));
    let index = index.unwrap_or("0").parse::<usize>();
    match (kind, index, number) {
        ("cpu", Ok(_), None) if kind == spec => Ok(Compute::tensors(Device::flex())),
        ("wgpu", Ok(_), None) if kind == spec => wgpu(spec),
        ("cuda", Ok(index), None | Some("bf16" | "f32")) => cuda(spec, index, number != Some("f32")),
        _ => Err(DeviceError::Unknown(spec.to_owned())),
    }
}

/// Text for a device that is left out.
#[cfg(not(all(feature = "cuda", feature = "wgpu")))]
fn left_out(spec: &str) -> DeviceError {
    let here = [("cpu", true), ("wgpu", cfg!(feature = "wgpu")), ("cuda", cfg!(feature = "cuda"))];
    let here: Vec<String> = here.iter().filter(|(_, is)| *is).map(|(name, _)| format!("`{name}`")).collect();
    DeviceError::NotCompiledIn { device: spec.to_owned(), here: here.join(" and ") }
}

#[cfg(feature = "wgpu")]
fn wgpu(spec: &str) -> Result<Compute, DeviceError> {
    if Device::enumerate(burn::tensor::DeviceType::Wgpu).is_empty() {
        let reason = "no adapter was found; it needs a driver for Vulkan, Metal or DirectX 12".to_owned();
        return Err(DeviceError::Missing { device: spec.to_owned(), reason });
    }
    Ok(Compute::tensors(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)))
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(spec: &str) -> Result<Compute, DeviceError> {
    Err(left_out(spec))
}

#[cfg(feature = "cuda")]
fn cuda(spec: &str, index: usize, half: bool) -> Result<Compute, DeviceError> {
    let missing =
        |error: super::cuda::CudaError| DeviceError::Missing { device: spec.to_owned(), reason: error.to_string() };
    super::cuda::probe(index).map_err(missing)?;
    let place = Place::Cuda(CudaPlace { index, half, cache: PathBuf::from(CACHE) });
    Ok(Compute { holder: Device::flex(), place })
}

#[cfg(not(feature = "cuda"))]
fn cuda(spec: &str, _: usize, _: bool) -> Result<Compute, DeviceError> {
    let _ = CACHE;
    Err(left_out(spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_devices() {
        assert_eq!(device("cpu").unwrap().place(), &Place::Holder);
        for unknown in ["gpu", "", "cpu:1", "cpu/f32", "cuda:x", "cuda:0/f16", "wgpu:1", "CPU"] {
            assert_eq!(device(unknown).unwrap_err(), DeviceError::Unknown(unknown.to_owned()));
        }
    }

    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    #[test]
    fn says_what_this_build_has() {
        for left_out in ["cuda:1", "cuda/f32", "wgpu"] {
            let expected = format!("device `{left_out}` is not compiled in; this build has `cpu`");
            assert_eq!(device(left_out).unwrap_err().to_string(), expected);
        }
    }

    /// Passes with any outcome on machines that have such a device.
    #[cfg(feature = "cuda")]
    #[test]
    fn a_machine_without_a_driver_or_device_is_told_so() {
        match device("cuda:99") {
            Err(DeviceError::Missing { device, reason }) => {
                assert_eq!(device, "cuda:99");
                assert!(reason.starts_with('`') || reason.contains("no CUDA device 99"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}
