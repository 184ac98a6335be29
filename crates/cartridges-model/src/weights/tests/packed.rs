//! Blocks that are taken as they are stored.

use base64::Engine;
use cartridges_ops::Packing;
use half::f16;

use super::{open, small_llama};
use crate::weights::Dtype;

const Q: &str = "model.layers.2.self_attn.q_proj.weight";

/// `rows` rows of one block with small scales of both signs and uneven bytes.
fn blocks(dtype: Dtype, rows: usize) -> Vec<u8> {
    (0..rows)
        .flat_map(|row| {
            let scale = f16::from_f32((row as f32 - 7.3) / 64.0).to_le_bytes();
            let byte = move |i: usize| ((row * 131 + i * 29) % 251) as u8;
            let rest = (2..dtype.block_bytes()).map(byte);
            scale.into_iter().chain(rest)
        })
        .collect()
}

#[test]
fn symmetric_blocks_keep_their_values_and_find_their_rows() {
    let cases = [
        (Dtype::Q8_0, Packing::Q8, Packing::Q8),
        (Dtype::Q5_0, Packing::Q8, Packing::Q8),
        (Dtype::Q4_0, Packing::Q8, Packing::Q4),
        (Dtype::Q4_0, Packing::Q4, Packing::Q4),
    ];
    for (dtype, asked, given) in cases {
        // The rows of the heads of q are interleaved in the file, those of v are not.
        let gguf = small_llama()
            .tensor("blk.2.attn_q.weight", &[32, 32], dtype, blocks(dtype, 32))
            .tensor("blk.2.attn_v.weight", &[16, 32], dtype, blocks(dtype, 16));
        let (_folder, weights) = open(&gguf);
        let weights = weights.unwrap();
        for name in [Q, "model.layers.2.self_attn.v_proj.weight"] {
            let rows = weights.read_packed(name, asked).unwrap();
            assert_eq!(rows.layout().packing, given, "{dtype:?}");
            assert_eq!(
                rows.values(),
                weights.read(name).unwrap().values,
                "{dtype:?}"
            );
        }
    }
}

#[test]
fn golden_rows_of_real_files_are_taken_bit_for_bit() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/golden_dequant.json"
    );
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for dtype in [Dtype::Q8_0, Dtype::Q5_0] {
        let case = &golden[dtype.name()];
        let raw = base64::engine::general_purpose::STANDARD
            .decode(case["raw_b64"].as_str().unwrap())
            .unwrap();
        let n = case["n"].as_u64().unwrap();
        let gguf = small_llama().tensor("blk.2.ffn_up.weight", &[1, n], dtype, raw);
        let (_folder, weights) = open(&gguf);
        let rows = weights
            .unwrap()
            .read_packed("model.layers.2.mlp.up_proj.weight", Packing::Q8)
            .unwrap();
        let values = rows.values();
        assert_eq!(values.len(), n as usize);
        for (found, wanted) in values.iter().zip(case["values"].as_array().unwrap()) {
            assert_eq!(*found, wanted.as_f64().unwrap() as f32, "{}", dtype.name());
        }
    }
}

#[test]
fn other_formats_are_packed_anew() {
    let values: Vec<f32> = (0..1024).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
    let gguf = small_llama()
        .f32_tensor("blk.2.attn_v.weight", &[32, 32], &values)
        .tensor(
            "blk.2.attn_k.weight",
            &[16, 32],
            Dtype::Q8_0,
            blocks(Dtype::Q8_0, 16),
        );
    let (_folder, weights) = open(&gguf);
    let weights = weights.unwrap();
    let rows = weights
        .read_packed("model.layers.2.self_attn.v_proj.weight", Packing::Q8)
        .unwrap();
    for (found, wanted) in rows.values().iter().zip(&values) {
        assert!((found - wanted).abs() <= 0.21, "{found} for {wanted}");
    }
    let rows = weights
        .read_packed("model.layers.2.self_attn.k_proj.weight", Packing::Q4)
        .unwrap();
    assert_eq!(rows.layout().packing, Packing::Q4);
}

#[test]
fn a_scale_that_is_not_finite_is_named() {
    let mut raw = blocks(Dtype::Q8_0, 32);
    // Row 1 of a head in the file is row 4 of the result.
    raw[34..36].copy_from_slice(&f16::INFINITY.to_le_bytes());
    let gguf = small_llama().tensor("blk.2.attn_q.weight", &[32, 32], Dtype::Q8_0, raw);
    let (_folder, weights) = open(&gguf);
    let error = weights.unwrap().read_packed(Q, Packing::Q8).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("value 128 is inf") && error.contains(Q),
        "{error}"
    );
}
