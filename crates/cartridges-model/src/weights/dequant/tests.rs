//! Golden rows of real files, and blocks packed here from their numbers.

use base64::Engine;
use half::{bf16, f16};

use super::dequantise;
use crate::weights::Dtype;

const GOLDEN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/fixtures/golden_dequant.json"
);

fn unpack(dtype: Dtype, raw: &[u8], values: usize) -> Vec<f32> {
    assert_eq!(dtype.byte_len(values), Some(raw.len()), "{}", dtype.name());
    let mut out = vec![f32::NAN; values];
    dequantise(dtype, raw, &mut out);
    out
}

#[test]
fn golden_rows_are_bit_exact() {
    let text = std::fs::read_to_string(GOLDEN).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let golden = golden.as_object().unwrap();
    let mut seen = 0;
    for dtype in Dtype::ALL {
        let Some(case) = golden.get(dtype.name()) else {
            continue;
        };
        seen += 1;
        let raw = base64::engine::general_purpose::STANDARD
            .decode(case["raw_b64"].as_str().unwrap())
            .unwrap();
        let n = case["n"].as_u64().unwrap() as usize;
        let out = unpack(dtype, &raw, n);
        for (i, want) in case["values"].as_array().unwrap().iter().enumerate() {
            let want = want.as_f64().unwrap() as f32;
            assert_eq!(out[i], want, "{} value {i}", dtype.name());
        }
        assert!(out.iter().all(|v| v.is_finite()));
    }
    assert_eq!(seen, golden.len());
    assert_eq!(seen, 5);
}

/// A fixed, uneven sequence below `below`.
fn pattern(count: usize, below: u32) -> Vec<u32> {
    (0..count as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) % below)
        .collect()
}

fn halves(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|v| f16::from_f32(*v).to_le_bytes())
        .collect()
}

/// Packs 32 numbers' low nibbles: value i and value i + 16 share a byte.
fn pack_nibbles(q: &[u32]) -> Vec<u8> {
    (0..16)
        .map(|i| (q[i] % 16 + 16 * (q[i + 16] % 16)) as u8)
        .collect()
}

fn fifth_bits(q: &[u32]) -> [u8; 4] {
    let mut bits = 0u32;
    for (i, q) in q.iter().enumerate() {
        if *q >= 16 {
            bits += 1 << i;
        }
    }
    bits.to_le_bytes()
}

#[test]
fn four_and_five_bit_blocks() {
    // Scales are powers of two, so that the expected numbers are exact.
    let scales = [(0.5f32, -3.0f32), (-2.0, 0.25), (0.0078125, 1.5)];
    let q4 = pattern(96, 16);
    let q5 = pattern(96, 32);
    let (mut q4_0, mut q4_1, mut q5_0, mut q5_1) = (vec![], vec![], vec![], vec![]);
    for (i, (d, m)) in scales.iter().enumerate() {
        let (four, five) = (&q4[32 * i..][..32], &q5[32 * i..][..32]);
        q4_0.extend(halves(&[*d]));
        q4_0.extend(pack_nibbles(four));
        q4_1.extend(halves(&[*d, *m]));
        q4_1.extend(pack_nibbles(four));
        q5_0.extend(halves(&[*d]));
        q5_0.extend(fifth_bits(five));
        q5_0.extend(pack_nibbles(five));
        q5_1.extend(halves(&[*d, *m]));
        q5_1.extend(fifth_bits(five));
        q5_1.extend(pack_nibbles(five));
    }
    let [q4_0, q4_1, q5_0, q5_1] = [
        (Dtype::Q4_0, q4_0),
        (Dtype::Q4_1, q4_1),
        (Dtype::Q5_0, q5_0),
        (Dtype::Q5_1, q5_1),
    ]
    .map(|(dtype, raw)| unpack(dtype, &raw, 96));
    for i in 0..96 {
        let (d, m) = scales[i / 32];
        let (four, five) = (q4[i] as f32, q5[i] as f32);
        assert_eq!(q4_0[i], d * (four - 8.0), "Q4_0 value {i}");
        assert_eq!(q4_1[i], d * four + m, "Q4_1 value {i}");
        assert_eq!(q5_0[i], d * (five - 16.0), "Q5_0 value {i}");
        assert_eq!(q5_1[i], d * five + m, "Q5_1 value {i}");
    }
}

#[test]
fn q8_0_bytes_are_signed() {
    let mut raw = halves(&[0.25]);
    raw.extend((0..32).map(|i| (i * 8 - 128) as i8 as u8));
    let out = unpack(Dtype::Q8_0, &raw, 32);
    let want: Vec<f32> = (0..32).map(|i| 0.25 * (i * 8 - 128) as f32).collect();
    assert_eq!(out, want);
}

/// Packs eight six-bit (scale, minimum) pairs into 12 bytes, bit by bit.
fn pack_scales(scales: &[u32], mins: &[u32]) -> [u8; 12] {
    let mut raw = [0u8; 12];
    for i in 0..4 {
        raw[i] = (scales[i] + 64 * (scales[i + 4] / 16)) as u8;
        raw[i + 4] = (mins[i] + 64 * (mins[i + 4] / 16)) as u8;
        raw[i + 8] = (scales[i + 4] % 16 + 16 * (mins[i + 4] % 16)) as u8;
    }
    raw
}

#[test]
fn k_blocks_with_mins() {
    let (d, dmin) = (0.125f32, 0.5f32);
    let (scales, mins) = (pattern(8, 64), [63, 0, 17, 5, 48, 33, 62, 1]);
    let q4 = pattern(256, 16);
    let q5 = pattern(256, 32);
    let mut high = [0u8; 32];
    let (mut low4, mut low5) = (vec![0u8; 128], vec![0u8; 128]);
    for i in 0..256 {
        let (group, lane) = (i / 32, i % 32);
        let byte = 32 * (group / 2) + lane;
        let weight = if group % 2 == 0 { 1 } else { 16 };
        low4[byte] += (q4[i] * weight) as u8;
        low5[byte] += (q5[i] % 16 * weight) as u8;
        if q5[i] >= 16 {
            high[lane] += 1 << group;
        }
    }
    let head = [halves(&[d, dmin]), pack_scales(&scales, &mins).to_vec()].concat();
    let q4_k = unpack(Dtype::Q4_K, &[head.clone(), low4].concat(), 256);
    let q5_k = unpack(Dtype::Q5_K, &[head, high.to_vec(), low5].concat(), 256);
    for i in 0..256 {
        let (s, m) = (scales[i / 32] as f32, mins[i / 32] as f32);
        assert_eq!(q4_k[i], d * s * q4[i] as f32 - dmin * m, "Q4_K value {i}");
        assert_eq!(q5_k[i], d * s * q5[i] as f32 - dmin * m, "Q5_K value {i}");
    }
}

#[test]
fn plain_formats_at_any_length_and_alignment() {
    // 600 values span several runs of the half-precision reader; the leading byte misaligns them.
    let numbers: Vec<f32> = (0..600).map(|i| (i as f32 - 300.0) * 0.125).collect();
    let shifted = |raw: Vec<u8>| [vec![0], raw].concat();
    let f32s = shifted(numbers.iter().flat_map(|v| v.to_le_bytes()).collect());
    let f16s = shifted(halves(&numbers));
    let bf16s: Vec<u8> = numbers
        .iter()
        .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
        .collect();
    let bf16s = shifted(bf16s);
    assert_eq!(unpack(Dtype::F32, &f32s[1..], 600), numbers);
    assert_eq!(unpack(Dtype::F16, &f16s[1..], 600), numbers);
    let rounded: Vec<f32> = numbers
        .iter()
        .map(|v| bf16::from_f32(*v).to_f32())
        .collect();
    assert_eq!(unpack(Dtype::BF16, &bf16s[1..], 600), rounded);
    // Well-known bit patterns, also subnormal ones.
    let known = [
        (0x3c00u16, 1.0f32),
        (0xc000, -2.0),
        (0x0001, 5.960_464_5e-8),
    ];
    for (bits, want) in known {
        assert_eq!(unpack(Dtype::F16, &bits.to_le_bytes(), 1), [want]);
    }
    assert_eq!(
        unpack(Dtype::BF16, &0x4049u16.to_le_bytes(), 1),
        [3.140_625]
    );
}
