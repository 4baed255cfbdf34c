//! Where tensors live: a device from the profile's text.

use burn::tensor::Device;

/// Why there is no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A device that this build leaves out.
    #[error("device `{0}` is not compiled in; this build has `cpu`")]
    NotCompiledIn(String),
    /// No device at all.
    #[error("unknown device `{0}`; expected `cpu`, `wgpu`, `cuda` or `cuda:N`")]
    Unknown(String),
}

/// The device that a profile names: `cpu`, `wgpu`, `cuda` or `cuda:1`.
pub fn device(spec: &str) -> Result<Device, DeviceError> {
    let (kind, index) = spec.split_once(':').unwrap_or((spec, "0"));
    match (kind, index.parse::<usize>()) {
        ("cpu", Ok(_)) if kind == spec => Ok(Device::flex()),
        ("wgpu", Ok(_)) if kind == spec => Err(DeviceError::NotCompiledIn(spec.to_owned())),
        ("cuda", Ok(_)) => Err(DeviceError::NotCompiledIn(spec.to_owned())),
        _ => Err(DeviceError::Unknown(spec.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_devices() {
        assert!(device("cpu").is_ok());
        assert_eq!(
            device("cuda:1").unwrap_err().to_string(),
            "device `cuda:1` is not compiled in; this build has `cpu`"
        );
        for unknown in ["gpu", "", "cpu:1", "cuda:x", "CPU"] {
            assert_eq!(device(unknown).unwrap_err(), DeviceError::Unknown(unknown.to_owned()));
        }
    }
}
