//! Damaged files: errors, never panics, and never more memory than the file explains.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use safetensors::tensor::{Dtype as StDtype, TensorView};

use super::{Weights, small_llama};
use crate::weights::{Dtype, Gguf};

/// Uses everything that an opened file offers. Values may be wrong, sizes may not.
fn exercise(weights: &Weights, file_len: usize) {
    for name in weights.names() {
        if let Ok(tensor) = weights.read(name) {
            assert_eq!(tensor.values.len(), tensor.shape.iter().product::<usize>());
            // The densest format has 4.5 bits per value.
            assert!(tensor.values.len() <= 2 * file_len);
        }
    }
    let _ = weights.head_is_embedding();
    let _ = weights.config();
    let _ = weights.tokenizer_parts();
    assert_eq!(weights.fingerprint().len(), 64);
}

fn check_gguf(folder: &Path, bytes: &[u8]) {
    let path = folder.join("m.gguf");
    fs::write(&path, bytes).unwrap();
    if let Ok(weights) = Weights::open_gguf(&path) {
        exercise(&weights, bytes.len());
    }
}

fn check_folder(folder: &Path, bytes: &[u8]) {
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
    if let Ok(weights) = Weights::open_folder(folder) {
        exercise(&weights, bytes.len());
    }
}

fn small_gguf() -> Vec<u8> {
    small_llama()
        .tensor("rope_freqs.weight", &[4], Dtype::F16, vec![0; 8])
        .tensor("odd.weight", &[2, 256], Dtype::Q4_K, vec![17; 288])
        .bytes()
}

fn small_safetensors() -> Vec<u8> {
    let raw = [0u8; 96];
    let tensors = [
        ("model.embed_tokens.weight", StDtype::F32, vec![4, 6]),
        ("lm_head.weight", StDtype::F32, vec![4, 6]),
        ("half", StDtype::BF16, vec![48]),
        ("ids", StDtype::I64, vec![2, 6]),
    ]
    .map(|(name, dtype, shape)| (name, TensorView::new(dtype, shape, &raw).unwrap()));
    safetensors::serialize(tensors, None).unwrap()
}

/// See [`mutations`]: bytes, fields, and the length to cut to.
type Change = (Vec<(usize, u8)>, Vec<(usize, u64)>, usize);

/// Overwrites of single bytes, and of whole 8-byte fields with numbers that break sums.
fn mutations(len: usize) -> impl Strategy<Value = Change> {
    let numbers = prop_oneof![
        Just(u64::MAX),
        Just(u64::MAX - 7),
        Just(1 << 63),
        Just(1 << 62),
        Just(u64::from(u32::MAX)),
        0u64..5000,
        any::<u64>(),
    ];
    (
        prop::collection::vec((0..len, any::<u8>()), 0..4),
        prop::collection::vec((0..len.saturating_sub(8).max(1), numbers), 0..2),
        prop_oneof![3 => Just(len), 1 => 0..len],
    )
}

fn apply(bytes: &mut Vec<u8>, (single, fields, length): Change) {
    for (at, byte) in single {
        bytes[at] = byte;
    }
    for (at, number) in fields {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    bytes.truncate(length);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn gguf_from_noise(noise in prop::collection::vec(any::<u8>(), 0..600), version in 2u32..4) {
        let _ = Gguf::parse(&noise, "noise");
        let with_magic = [b"GGUF".to_vec(), version.to_le_bytes().to_vec(), noise].concat();
        let _ = Gguf::parse(&with_magic, "noise");
    }

    #[test]
    // The header is the first 3 KB; the data behind it has little to break.
    fn gguf_with_mutations(change in mutations(3000), tail in 0usize..40) {
        let mut bytes = small_gguf();
        let (single, fields, cut) = change;
        let cut = if cut == 3000 { bytes.len() - tail * 40 } else { cut };
        apply(&mut bytes, (single, fields, cut));
        let folder = tempfile::tempdir().unwrap();
        check_gguf(folder.path(), &bytes);
    }

    #[test]
    fn safetensors_from_noise(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        check_folder(folder.path(), &noise);
        let framed = [(noise.len() as u64).to_le_bytes().to_vec(), noise].concat();
        check_folder(folder.path(), &framed);
    }

    #[test]
    fn safetensors_with_mutations(change in mutations(small_safetensors().len())) {
        let mut bytes = small_safetensors();
        apply(&mut bytes, change);
        let folder = tempfile::tempdir().unwrap();
        check_folder(folder.path(), &bytes);
    }

    #[test]
    fn safetensors_with_any_table(
        shapes in prop::collection::vec(prop::collection::vec(0u64..=u64::MAX, 0..4), 1..4),
        offsets in prop::collection::vec(any::<(u64, u64)>(), 4),
    ) {
        let table: serde_json::Map<_, _> = shapes
            .iter()
            .zip(&offsets)
            .enumerate()
            .map(|(i, (shape, (a, b)))| {
                let line = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [a, b]});
                (format!("t{i}"), line)
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        check_folder(folder.path(), &framed(&serde_json::Value::Object(table).to_string()));
    }
}

fn framed(json: &str) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

#[test]
fn every_truncation_of_a_header() {
    let bytes = small_gguf();
    for length in 0..3000 {
        assert!(Gguf::parse(&bytes[..length], "cut").is_err());
    }
    assert!(Gguf::parse(&bytes, "whole").is_ok());
    let folder = tempfile::tempdir().unwrap();
    let bytes = small_safetensors();
    for length in 0..bytes.len() {
        fs::write(folder.path().join("model.safetensors"), &bytes[..length]).unwrap();
        assert!(Weights::open_folder(folder.path()).is_err());
    }
    check_folder(folder.path(), &bytes);
}

#[test]
fn lying_safetensors_tables() {
    let folder = tempfile::tempdir().unwrap();
    let quarter = u64::MAX / 8 / 8 * 8;
    // Eight big tensors whose offsets are contiguous and end just below 2^64.
    let chain: Vec<String> = (0..8)
        .map(|i| {
            let (start, end) = (i * quarter, (i + 1) * quarter);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{quarter}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    for json in [
        format!("{{{}}}", chain.join(",")),
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}}"#.into(),
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#.into(),
        r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#.into(),
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#.into(),
        r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}}"#.into(),
        "[".repeat(10_000),
    ] {
        fs::write(folder.path().join("model.safetensors"), framed(&json)).unwrap();
        assert!(Weights::open_folder(folder.path()).is_err(), "{json}");
    }
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, 3] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        assert!(Weights::open_folder(folder.path()).is_err());
    }
    // A folder, or an empty file, in the place of the file.
    fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(Weights::open_folder(folder.path()).is_err());
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    assert!(Weights::open_folder(folder.path()).is_err());
    assert!(Weights::open_gguf(folder.path()).is_err());
}
