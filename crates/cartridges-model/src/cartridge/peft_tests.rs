use std::fs;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::peft_folder::{PEFT_CONFIG_FILE, PEFT_TENSOR_FILE, PeftKind, peft_kind};

const DTYPES: [CartridgeDtype; 3] = [
    CartridgeDtype::F32,
    CartridgeDtype::F16,
    CartridgeDtype::Bf16,
];

/// An element that tells where it belongs: exact in every type.
fn element(layer: usize, value: bool, head: usize, slot: usize, i: usize) -> f32 {
    (layer * 100 + usize::from(value) * 50 + head * 20 + slot * 3 + i) as f32 / 2.0
}

fn cartridge(frozen: usize) -> HostCartridge {
    let part = |layer: usize, value: bool| -> Vec<f32> {
        let heads = (0..2).flat_map(|head| (0..5).map(move |slot| (head, slot)));
        heads
            .flat_map(|(head, slot)| (0..3).map(move |i| element(layer, value, head, slot, i)))
            .collect()
    };
    let layers = (0..2).map(|l| HostLayer {
        key: part(l, false),
        value: part(l, true),
    });
    HostCartridge::new(2, 3, 5, frozen, layers.collect()).unwrap()
}

fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_peft(
        dir.path(),
        &cartridge(1),
        Some("owner/model"),
        CartridgeDtype::F32,
    )
    .unwrap();
    dir
}

fn refused(dir: &Path) -> String {
    read_peft(dir).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for frozen in [0, 1, 5] {
        for dtype in DTYPES {
            let host = cartridge(frozen);
            for name in [None, Some("owner/model")] {
                write_peft(dir.path(), &host, name, dtype).unwrap();
                let found = read_peft(dir.path()).unwrap();
                assert_eq!((&found.cartridge, found.dtype), (&host, dtype));
                assert_eq!(found.base_model.as_deref(), name);
            }
        }
    }
    assert_eq!(peft_kind(dir.path()).unwrap(), PeftKind::Cartridge);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// `[slots, layers, key and value, kv_heads, head_dim]`, as PEFT's `get_prompt` takes it apart.
#[test]
fn the_layout_is_that_of_peft() {
    let dir = written();
    let bytes = fs::read(dir.path().join(PEFT_TENSOR_FILE)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("prompt_embeddings").unwrap();
    assert_eq!(tensor.shape(), [5, 2 * 2 * 2 * 3]);
    let mut values = Vec::new();
    CartridgeDtype::F32.decode(tensor.data(), &mut values);
    let mut values = values.into_iter();
    for slot in 0..5 {
        for layer in 0..2 {
            for value in [false, true] {
                for head in 0..2 {
                    for i in 0..3 {
                        let wanted = element(layer, value, head, slot, i);
                        assert_eq!(values.next(), Some(wanted));
                    }
                }
            }
        }
    }
    let json = fs::read(dir.path().join(PEFT_CONFIG_FILE)).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    for (field, wanted) in [
        ("peft_type", json!("CARTRIDGE")),
        ("num_virtual_tokens", json!(5)),
        ("num_layers", json!(2)),
        ("token_dim", json!(6)),
        ("num_attention_heads", json!(2)),
        ("num_frozen_tokens", json!(1)),
        ("base_model_name_or_path", json!("owner/model")),
    ] {
        assert_eq!(json[field], wanted, "{field}");
    }
}

#[test]
fn settings_that_lie_are_refused() {
    let dir = written();
    let path = dir.path().join(PEFT_CONFIG_FILE);
    let good: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (field, value, word) in [
        ("peft_type", json!("LORA"), "expected CARTRIDGE"),
        ("peft_type", Value::Null, "missing, expected CARTRIDGE"),
        ("num_virtual_tokens", json!(4), "has shape [5, 24]"),
        (
            "num_virtual_tokens",
            json!(0),
            "'num_virtual_tokens' is missing or 0",
        ),
        ("num_layers", json!(3), "3 layers"),
        ("num_layers", json!(u64::MAX), "layers"),
        ("num_layers", json!(-1), "-1, expected a whole number"),
        ("num_layers", json!("2"), "\"2\", expected a whole number"),
        ("token_dim", json!(7), "expected a multiple of the 2"),
        ("token_dim", Value::Null, "'token_dim' is missing"),
        ("num_attention_heads", json!(0), "'num_attention_heads'"),
        ("num_frozen_tokens", json!(6), "at most the 5 slots"),
        ("num_transformer_submodules", json!(2), "expected 1"),
        ("base_model_name_or_path", json!(3), "expected a text"),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        fs::write(&path, bad.to_string()).unwrap();
        let text = refused(dir.path());
        assert!(text.contains(word), "{word}: {text}");
    }
    // Frozen slots are 1 where the settings say nothing, as in PEFT; fields of newer versions may be there.
    let mut sparse = good;
    sparse.as_object_mut().unwrap().remove("num_frozen_tokens");
    sparse["new_in_later_versions"] = json!([1]);
    fs::write(&path, sparse.to_string()).unwrap();
    assert_eq!(read_peft(dir.path()).unwrap().cartridge, cartridge(1));
}

#[test]
fn damaged_and_missing_files_are_named() {
    let dir = written();
    let (config, tensors) = (
        dir.path().join(PEFT_CONFIG_FILE),
        dir.path().join(PEFT_TENSOR_FILE),
    );
    let whole = fs::read(&tensors).unwrap();
    for cut in [0, 7, 40, whole.len() - 1] {
        fs::write(&tensors, &whole[..cut]).unwrap();
        let text = refused(dir.path());
        assert!(text.contains(PEFT_TENSOR_FILE), "{text}");
    }
    let mut nan = whole.clone();
    let at = nan.len() - 4;
    nan[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&tensors, &nan).unwrap();
    assert!(refused(dir.path()).contains("NaN"));

    fs::remove_file(&tensors).unwrap();
    assert!(refused(dir.path()).contains(PEFT_TENSOR_FILE));
    fs::write(dir.path().join("adapter_model.bin"), b"\x80\x02.").unwrap();
    assert!(refused(dir.path()).contains("pickle, which is not opened"));

    let other = NamedTensor {
        name: "other".to_owned(),
        shape: vec![1],
        values: &[0.0],
    };
    let json: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    peft_folder::write(dir.path(), &json, &[other], CartridgeDtype::F32).unwrap();
    assert!(refused(dir.path()).contains("'prompt_embeddings' is missing"));

    fs::write(&config, b"{").unwrap();
    assert!(refused(dir.path()).contains(PEFT_CONFIG_FILE));
    fs::remove_file(&config).unwrap();
    assert!(refused(dir.path()).contains(PEFT_CONFIG_FILE));
}

/// Whatever is interrupted, files of two writes are never taken for one.
#[test]
fn a_failed_write_leaves_no_settings() {
    let dir = written();
    let tensors = dir.path().join(PEFT_TENSOR_FILE);
    fs::remove_file(&tensors).unwrap();
    fs::create_dir(&tensors).unwrap();
    fs::write(tensors.join("x"), b"").unwrap();
    let error = write_peft(dir.path(), &cartridge(0), None, CartridgeDtype::F32).unwrap_err();
    assert!(error.to_string().contains(PEFT_TENSOR_FILE), "{error}");
    assert!(!dir.path().join(PEFT_CONFIG_FILE).exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_bytes_never_panic(config: Vec<u8>, tensors: Vec<u8>, keep: bool) {
        let dir = written();
        if !keep {
            fs::write(dir.path().join(PEFT_CONFIG_FILE), config).unwrap();
        }
        fs::write(dir.path().join(PEFT_TENSOR_FILE), tensors).unwrap();
        prop_assert!(read_peft(dir.path()).is_err());
    }

    #[test]
    fn changed_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        settings: bool,
    ) {
        let dir = written();
        let path = dir.path().join(if settings { PEFT_CONFIG_FILE } else { PEFT_TENSOR_FILE });
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(found) = read_peft(dir.path()) {
            prop_assert_eq!(found.cartridge.byte_len(found.dtype), cartridge(1).byte_len(found.dtype));
        }
    }
}
