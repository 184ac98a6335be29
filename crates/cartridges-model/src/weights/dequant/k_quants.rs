//! GGML's "k-quants": 256 values per block, small integer scales per group of 16 or 32 values, and
//! half-precision scales of those scales.

use super::half_at;

/// `d s q - dmin m` per group of 32, four-bit `q`.
///
/// Block: `d`, `dmin`, 12 bytes of scales, 128 packed bytes. Each run of 32 bytes holds two groups,
/// the first in the low nibbles.
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in pairs::<144>(bytes, out) {
        let (d, dmin) = (half_at(block, 0), half_at(block, 2));
        let scales = scales_and_mins(&block[4..16]);
        let packed = block[16..].as_chunks::<32>().0;
        let groups = values.as_chunks_mut::<32>().0;
        for ((raw, pair), s) in packed
            .iter()
            .zip(groups.as_chunks_mut::<2>().0)
            .zip(scales.as_chunks::<2>().0)
        {
            let (scale, min) = (d * f32::from(s[0].0), dmin * f32::from(s[0].1));
            for (byte, value) in raw.iter().zip(&mut pair[0]) {
                *value = scale * f32::from(byte & 15) - min;
            }
            let (scale, min) = (d * f32::from(s[1].0), dmin * f32::from(s[1].1));
            for (byte, value) in raw.iter().zip(&mut pair[1]) {
                *value = scale * f32::from(byte >> 4) - min;
            }
        }
    }
}

/// As [`q4_k`] with five-bit `q`.
///
/// Block: `d`, `dmin`, 12 bytes of scales, 32 bytes whose bit `g` is the fifth bit of group `g`,
/// 128 packed bytes.
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in pairs::<176>(bytes, out) {
        let (d, dmin) = (half_at(block, 0), half_at(block, 2));
        let scales = scales_and_mins(&block[4..16]);
        let fifth = &block[16..48];
        let packed = block[48..].as_chunks::<32>().0;
        for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (s, m) = scales[group];
            let (scale, min) = (d * f32::from(s), dmin * f32::from(m));
            let shift = 4 * (group % 2);
            for ((byte, bits), value) in packed[group / 2].iter().zip(fifth).zip(values) {
                let q = ((byte >> shift) & 15) | ((bits >> group) & 1) << 4;
                *value = scale * f32::from(q) - min;
            }
        }
    }
}

/// `d s (q - 32)` per group of 16, six-bit `q`, signed byte `s`.
///
/// Block: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 scales, `d`. Each half of the
/// block has four runs of 32 values: runs 0 and 1 in the low nibbles of its 64 bytes, runs 2 and 3
/// in the high ones, and run `r`'s upper bits at bit `2 r` of its 32 bytes.
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    for (block, values) in pairs::<210>(bytes, out) {
        let d = half_at(block, 208);
        for (half, values) in values.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let low = &block[64 * half..][..64];
            let upper = &block[128 + 32 * half..][..32];
            let scales = &block[192 + 8 * half..][..8];
            for (run, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let low = &low[32 * (run % 2)..][..32];
                let shift = 4 * (run / 2);
                for (part, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                    let scale = d * f32::from(scales[2 * run + part] as i8);
                    let low = &low[16 * part..][..16];
                    let upper = &upper[16 * part..][..16];
                    for ((low, upper), value) in low.iter().zip(upper).zip(values) {
                        let q = ((low >> shift) & 15) | ((upper >> (2 * run)) & 3) << 4;
                        *value = scale * f32::from(q as i8 - 32);
                    }
                }
            }
        }
    }
}

/// The eight (scale, minimum) pairs of six bits each in 12 bytes: the first four pairs are the lower
/// six bits of bytes 0 to 3 and 4 to 7; the other four have their low nibbles in bytes 8 to 11 and
/// their upper two bits in what is left of bytes 0 to 7.
fn scales_and_mins(packed: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|group| {
        if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4;
            let min = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4;
            (scale, min)
        }
    })
}

fn pairs<'a, const BYTES: usize>(
    bytes: &'a [u8],
    out: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; 256])> {
    let blocks = bytes.as_chunks::<BYTES>().0;
    blocks.iter().zip(out.as_chunks_mut::<256>().0)
}
