//! The device of a test's numbers.

use burn::tensor::{DType, Device};
use cartridges_ops::{DeviceChoice, test_device};

/// The device for numbers of a type: f64 (portable bodies) on the processor where it was compiled in, for few
/// GPUs compute with it; all else (fast bodies) on the one under test.
pub fn device(dtype: DType) -> Device {
    match dtype == DType::F64 && DeviceChoice::compiled().contains(&DeviceChoice::Cpu) {
        true => DeviceChoice::Cpu.open().unwrap().0,
        false => test_device(),
    }
}
