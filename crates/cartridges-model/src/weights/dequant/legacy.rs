//! GGML's first block formats: 32 values with one scale `d`, and a minimum `m` in the `_1` kinds.
//!
//! The low nibbles of the 16 packed bytes are values 0 to 15, the high ones 16 to 31. The five-bit
//! kinds keep the fifth bit of value `i` in bit `i` of a little-endian `u32`.

use super::half_at;

/// `d (q - 8)`; block: `d`, 16 packed bytes.
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in pairs::<18>(bytes, out) {
        let d = half_at(block, 0);
        nibbles(&block[2..], values, |q| d * (q as i32 - 8) as f32);
    }
}

/// `d q + m`; block: `d`, `m`, 16 packed bytes.
pub(super) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in pairs::<20>(bytes, out) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        nibbles(&block[4..], values, |q| d * q as f32 + m);
    }
}

/// `d (q - 16)`; block: `d`, fifth bits, 16 packed bytes.
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in pairs::<22>(bytes, out) {
        let d = half_at(block, 0);
        let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        five_bits(&block[6..], fifth, values, |q| d * (q as i32 - 16) as f32);
    }
}

/// `d q + m`; block: `d`, `m`, fifth bits, 16 packed bytes.
pub(super) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in pairs::<24>(bytes, out) {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        five_bits(&block[8..], fifth, values, |q| d * q as f32 + m);
    }
}

/// `d q` with signed bytes; block: `d`, 32 bytes.
pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in pairs::<34>(bytes, out) {
        let d = half_at(block, 0);
        for (q, value) in block[2..].iter().zip(values) {
            *value = d * f32::from(*q as i8);
        }
    }
}

fn pairs<'a, const BYTES: usize>(
    bytes: &'a [u8],
    out: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; 32])> {
    let blocks = bytes.as_chunks::<BYTES>().0;
    blocks.iter().zip(out.as_chunks_mut::<32>().0)
}

#[inline]
fn nibbles(packed: &[u8], values: &mut [f32; 32], value: impl Fn(u32) -> f32) {
    let (low, high) = values.split_at_mut(16);
    for ((byte, low), high) in packed.iter().zip(low).zip(high) {
        *low = value(u32::from(byte & 15));
        *high = value(u32::from(byte >> 4));
    }
}

#[inline]
fn five_bits(packed: &[u8], fifth: u32, values: &mut [f32; 32], value: impl Fn(u32) -> f32) {
    let (low, high) = values.split_at_mut(16);
    for (i, ((byte, low), high)) in packed.iter().zip(low).zip(high).enumerate() {
        *low = value(u32::from(byte & 15) | ((fifth >> i) & 1) << 4);
        *high = value(u32::from(byte >> 4) | ((fifth >> (i + 16)) & 1) << 4);
    }
}
