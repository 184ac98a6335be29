//! Choosing where the numbers live.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

/// A device that cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// The name is none of those known.
    #[error("unknown device `{0}`; expected auto, cpu, ndarray, wgpu or cuda[:N]")]
    Unknown(String),
    /// The program was built without it.
    #[error("this build has no `{0}` device; build with `--features {0}`")]
    NotCompiled(&'static str),
    /// The driver or the hardware is not there.
    #[error("device `{device}` cannot be opened: {reason}")]
    Unavailable {
        /// The device asked for.
        device: String,
        /// What the driver said.
        reason: String,
    },
}

/// A device as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best one present: cuda, then wgpu, then cpu.
    #[default]
    Auto,
    /// Pure Rust CPU backend.
    Cpu,
    /// The deprecated ndarray CPU backend.
    NdArray,
    /// Vulkan, Metal, DirectX 12 or WebGPU.
    Wgpu,
    /// An NVIDIA GPU by index.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "ndarray" => Ok(Self::NdArray),
            "wgpu" => Ok(Self::Wgpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => other
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| DeviceError::Unknown(other.to_owned())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::NdArray => f.write_str("ndarray"),
            Self::Wgpu => f.write_str("wgpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl DeviceChoice {
    /// The devices this program was built with, best first.
    pub fn compiled() -> Vec<Self> {
        let mut all = Vec::new();
        if cfg!(feature = "cuda") {
            all.push(Self::Cuda(0));
        }
        if cfg!(feature = "wgpu") {
            all.push(Self::Wgpu);
        }
        if cfg!(feature = "cpu") {
            all.push(Self::Cpu);
        }
        if cfg!(feature = "ndarray") {
            all.push(Self::NdArray);
        }
        all
    }

    /// Whether products with bf16 matrices are faster here than with f32 ones.
    pub fn multiplies_bf16(self) -> bool {
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu => crate::cpu::Bf16::detect().is_some(),
            _ => false,
        }
    }

    /// Opens the device and runs one addition on it. Gives the device and the choice that was made,
    /// which differs from `self` only for [`DeviceChoice::Auto`].
    pub fn open(self) -> Result<(Device, Self), DeviceError> {
        if self != Self::Auto {
            return self.probe().map(|device| (device, self));
        }
        let mut last = DeviceError::NotCompiled("cpu");
        for choice in Self::compiled() {
            match choice.probe() {
                Ok(device) => return Ok((device, choice)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Drivers that are missing make Burn panic; that must not end the program.
    fn probe(self) -> Result<Device, DeviceError> {
        if matches!(self, Self::Cpu | Self::NdArray) {
            return self.device();
        }
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let result = std::panic::catch_unwind(|| {
            self.device().map(|device| {
                let sum = burn::Tensor::<1>::from_floats([1.0, 2.0], &device).sum();
                (device, sum.into_scalar::<f32>())
            })
        });
        std::panic::set_hook(hook);
        match result {
            Ok(Ok((device, 3.0))) => Ok(device),
            Ok(Ok((_, sum))) => Err(self.unavailable(format!("it says that 1 + 2 is {sum}"))),
            Ok(Err(error)) => Err(error),
            Err(panic) => {
                let reason = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_else(|| "the driver could not be started".to_owned());
                Err(self.unavailable(reason.lines().next().unwrap_or_default().to_owned()))
            }
        }
    }

    fn unavailable(self, reason: String) -> DeviceError {
        DeviceError::Unavailable {
            device: self.to_string(),
            reason,
        }
    }

    fn device(self) -> Result<Device, DeviceError> {
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        if matches!(self, Self::Wgpu | Self::Cuda(_)) {
            keep_kernels();
        }
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)] // kept for comparison until Burn drops it
            Self::NdArray => Ok(Device::ndarray()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Device::cuda(index)),
            #[allow(unreachable_patterns)] // the arms above depend on what was compiled in
            other => Err(DeviceError::NotCompiled(match other {
                Self::NdArray => "ndarray",
                Self::Wgpu => "wgpu",
                Self::Cuda(_) => "cuda",
                Self::Auto | Self::Cpu => "cpu",
            })),
        }
    }
}

/// The device for tests of whatever crate: the one named in `CARTRIDGES_TEST_DEVICE`, else the first that was
/// compiled in.
///
/// # Panics
/// If it cannot be opened.
#[doc(hidden)]
pub fn test_device() -> Device {
    let choice = match std::env::var("CARTRIDGES_TEST_DEVICE") {
        Ok(name) => name.parse(),
        Err(_) => Ok(DeviceChoice::compiled()[0]),
    };
    match choice.and_then(DeviceChoice::open) {
        Ok((device, _)) => device,
        Err(error) => panic!("the device for tests: {error}"),
    }
}

/// Bytes of the largest tensor that the device can hold in one piece.
pub(crate) fn largest_buffer(device: &Device) -> usize {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if let burn::backend::DispatchDevice::Cube(device) = device.as_dispatch() {
        let most = device.client().properties().memory.max_page_size;
        return usize::try_from(most).unwrap_or(usize::MAX);
    }
    let _ = device;
    usize::MAX
}

/// Keeps compiled kernels, and what was measured to choose among them, in the user's cache folder.
/// Without that every process compiles and measures for a minute before its first answer. Settings of
/// CubeCL's own (`cubecl.toml`, environment variables) still count.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn keep_kernels() {
    use burn_cubecl::cubecl::config::cache::CacheConfig;
    use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    // CubeCL would take the `target` folder of whatever Rust project the program is started in.
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    // Does nothing from the second device on.
    CubeClRuntimeConfig::try_set(config);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nonsense_is_refused() {
        for name in ["auto", "cpu", "ndarray", "wgpu", "cuda:3"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for name in ["", "gpu", "cuda:", "cuda:-1"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_device_that_was_not_built_in_says_how_to_get_it() {
        let error = DeviceChoice::Cuda(0).open().unwrap_err();
        assert!(error.to_string().contains("--features cuda"));
    }
}
