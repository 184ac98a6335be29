//! From stored bytes to `f32`.

mod k_quants;
mod legacy;
mod plain;
#[cfg(test)]
mod tests;

use super::Dtype;

/// Unpacks `bytes` to `out`. `bytes` must be `dtype.byte_len(out.len())` long; the callers' ranges
/// were checked when the file was opened.
pub(super) fn dequantise(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    debug_assert_eq!(dtype.byte_len(out.len()), Some(bytes.len()));
    match dtype {
        Dtype::F32 => plain::f32(bytes, out),
        Dtype::F16 => plain::f16(bytes, out),
        Dtype::BF16 => plain::bf16(bytes, out),
        Dtype::Q4_0 => legacy::q4_0(bytes, out),
        Dtype::Q4_1 => legacy::q4_1(bytes, out),
        Dtype::Q5_0 => legacy::q5_0(bytes, out),
        Dtype::Q5_1 => legacy::q5_1(bytes, out),
        Dtype::Q8_0 => legacy::q8_0(bytes, out),
        Dtype::Q4_K => k_quants::q4_k(bytes, out),
        Dtype::Q5_K => k_quants::q5_k(bytes, out),
        Dtype::Q6_K => k_quants::q6_k(bytes, out),
    }
}

/// The half-precision number at byte `at` of a block.
#[inline]
fn half_at<const N: usize>(block: &[u8; N], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
