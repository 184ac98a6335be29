//! Formats that store every value by itself, little endian, at any alignment.

use half::f16;
use half::slice::HalfFloatSliceExt;

pub(super) fn f32(bytes: &[u8], out: &mut [f32]) {
    for (raw, value) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *value = f32::from_le_bytes(*raw);
    }
}

pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    // Through an aligned buffer, so that the processor's conversion works on whole vectors.
    const RUN: usize = 256;
    let mut halves = [f16::ZERO; RUN];
    for (raw, values) in bytes.chunks(2 * RUN).zip(out.chunks_mut(RUN)) {
        for (pair, half) in raw.as_chunks::<2>().0.iter().zip(&mut halves) {
            *half = f16::from_le_bytes(*pair);
        }
        halves[..values.len()].convert_to_f32_slice(values);
    }
}

pub(super) fn bf16(bytes: &[u8], out: &mut [f32]) {
    // A bfloat16 is the upper half of a float32.
    for (raw, value) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*raw)) << 16);
    }
}
