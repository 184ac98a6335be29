//! Element types a cartridge can have on disk, and the way between them and `f32` in memory.

use std::fmt;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// Element type of a cartridge's tensors on disk (little-endian). In memory they are `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CartridgeDtype {
    /// 32-bit IEEE 754.
    F32,
    /// 16-bit IEEE 754; largest finite number 65 504.
    F16,
    /// bfloat16, the reference's own choice.
    Bf16,
}

impl CartridgeDtype {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name used in `cartridge.json`: `f32`, `f16` or `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The name used in safetensors files: `F32`, `F16` or `BF16`.
    pub const fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// `value` rounded to this type (to nearest, ties to even).
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// Appends `values` to `bytes`, rounded to this type.
    pub fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        bytes.reserve(values.len() * self.size());
        match self {
            Self::F32 => values.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
            Self::F16 => {
                (values.iter()).for_each(|v| bytes.extend(f16::from_f32(*v).to_le_bytes()))
            }
            Self::Bf16 => {
                (values.iter()).for_each(|v| bytes.extend(bf16::from_f32(*v).to_le_bytes()))
            }
        }
    }

    /// Appends the elements in `bytes` to `values`. A remainder shorter than one element is left out.
    pub fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        values.reserve(bytes.len() / self.size());
        match self {
            Self::F32 => {
                values.extend((bytes.as_chunks::<4>().0.iter()).map(|b| f32::from_le_bytes(*b)))
            }
            Self::F16 => values
                .extend((bytes.as_chunks::<2>().0.iter()).map(|b| f16::from_le_bytes(*b).to_f32())),
            Self::Bf16 => values.extend(
                (bytes.as_chunks::<2>().0.iter()).map(|b| bf16::from_le_bytes(*b).to_f32()),
            ),
        }
    }
}

impl fmt::Display for CartridgeDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_gives_back_what_encode_rounded() {
        let values = [0.0, -1.5, 2.1415927, 1e-3, 60000.0];
        for dtype in [
            CartridgeDtype::F32,
            CartridgeDtype::F16,
            CartridgeDtype::Bf16,
        ] {
            let mut bytes = Vec::new();
            dtype.encode(&values, &mut bytes);
            assert_eq!(bytes.len(), values.len() * dtype.size());
            let mut back = Vec::new();
            dtype.decode(&bytes, &mut back);
            assert_eq!(back, values.map(|v| dtype.round(v)));
        }
    }

    #[test]
    fn bfloat16_keeps_the_upper_half_of_the_bits() {
        // 1 + 2^-8 lies halfway between 1 and 1 + 2^-7; ties go to the even neighbour.
        assert_eq!(CartridgeDtype::Bf16.round(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(
            CartridgeDtype::Bf16.round(1.0 + 3.0 / 256.0),
            1.0 + 4.0 / 256.0
        );
    }
}
