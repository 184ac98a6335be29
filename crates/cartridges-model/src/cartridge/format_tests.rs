use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;
use crate::digest::hex;

const WAITING_TENSOR_FILE: &str = ".cartridge.safetensors.new";
const WAITING_MANIFEST_FILE: &str = ".cartridge.json.new";

pub(super) fn cartridge() -> HostCartridge {
    let data = |seed: usize| {
        (0..2 * 5 * 3)
            .map(|i| ((i * 7 + seed) as f32).sin())
            .collect()
    };
    let layers = (0..3).map(|l| HostLayer {
        key: data(100 * l),
        value: data(100 * l + 50),
    });
    HostCartridge::new(2, 3, 5, 1, layers.collect()).unwrap()
}

fn model() -> ModelIdentity {
    ModelIdentity {
        id: "tiny".into(),
        config_fingerprint: "c".into(),
        weights_fingerprint: "w".into(),
        tokenizer_fingerprint: "t".into(),
        num_layers: 3,
        num_kv_heads: 2,
        head_dim: 3,
        rope: json!({"theta": 10000.0}),
    }
}

fn saved(dtype: CartridgeDtype) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save(
        dir.path(),
        &cartridge(),
        &model(),
        &json!({"stage": "test"}),
        dtype,
    )
    .unwrap();
    dir
}

fn rounded(mut cartridge: HostCartridge, dtype: CartridgeDtype) -> HostCartridge {
    for layer in &mut cartridge.layers {
        for v in layer.key.iter_mut().chain(&mut layer.value) {
            *v = dtype.round(*v);
        }
    }
    cartridge
}

fn refused(dir: &Path, word: &str) {
    let text = load(dir).unwrap_err().to_string();
    assert!(text.contains(word), "{text}");
}

#[test]
fn what_is_saved_is_loaded() {
    for dtype in [
        CartridgeDtype::F32,
        CartridgeDtype::F16,
        CartridgeDtype::Bf16,
    ] {
        let dir = saved(dtype);
        let (found, manifest) = load(dir.path()).unwrap();
        assert_eq!(found, rounded(cartridge(), dtype));
        assert_eq!(
            (manifest.slots, manifest.frozen, manifest.dtype),
            (5, 1, dtype)
        );
        assert_eq!(manifest.base_model, model());
        for name in [TENSOR_FILE, MANIFEST_FILE] {
            assert_eq!(load(&dir.path().join(name)).unwrap().0, found);
        }
        assert_eq!(load_manifest(dir.path()).unwrap(), manifest);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

/// The file must be readable by anyone's safetensors library.
#[test]
fn the_tensor_file_is_plain_safetensors() {
    let dir = saved(CartridgeDtype::F32);
    let bytes = fs::read(dir.path().join(TENSOR_FILE)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("layers.1.value").unwrap();
    assert_eq!(tensor.shape(), [2, 5, 3]);
    let first = f32::from_le_bytes(tensor.data()[..4].try_into().unwrap());
    assert_eq!(first, 150f32.sin());
    assert_eq!(file.len(), 6);
    assert_eq!(
        hex(&Sha256::digest(&bytes)),
        load_manifest(dir.path()).unwrap().sha256
    );
}

#[test]
fn a_cartridge_of_another_shape_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = model();
    other.num_layers = 4;
    let error = save(
        dir.path(),
        &cartridge(),
        &other,
        &json!({}),
        CartridgeDtype::F32,
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("is 3, the model tiny has 4")
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Every state in which a killed save can leave the folder loads as the old or the new cartridge.
#[test]
fn an_interrupted_save_leaves_a_whole_cartridge() {
    let old = saved(CartridgeDtype::F32);
    let new = saved(CartridgeDtype::Bf16);
    let copy = |from: &Path, from_name: &str, to: &Path, to_name: &str| {
        fs::copy(from.join(from_name), to.join(to_name)).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let dtype_now = || load(dir).map(|(c, m)| (c == rounded(cartridge(), m.dtype), m.dtype));

    // Over an older cartridge.
    copy(old.path(), TENSOR_FILE, dir, TENSOR_FILE);
    copy(old.path(), MANIFEST_FILE, dir, MANIFEST_FILE);
    copy(new.path(), TENSOR_FILE, dir, WAITING_TENSOR_FILE);
    assert_eq!(dtype_now().unwrap(), (true, CartridgeDtype::F32));
    copy(new.path(), MANIFEST_FILE, dir, WAITING_MANIFEST_FILE);
    assert_eq!(dtype_now().unwrap(), (true, CartridgeDtype::F32));
    fs::rename(dir.join(WAITING_TENSOR_FILE), dir.join(TENSOR_FILE)).unwrap();
    assert_eq!(dtype_now().unwrap(), (true, CartridgeDtype::Bf16));
    // Into an empty folder, at the same point.
    fs::remove_file(dir.join(MANIFEST_FILE)).unwrap();
    assert_eq!(dtype_now().unwrap(), (true, CartridgeDtype::Bf16));
    // The next save cleans up.
    save(dir, &cartridge(), &model(), &json!({}), CartridgeDtype::F16).unwrap();
    assert_eq!(dtype_now().unwrap(), (true, CartridgeDtype::F16));
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
}

#[test]
fn a_pair_that_does_not_belong_together_is_refused() {
    let dir = saved(CartridgeDtype::F32);
    let other = saved(CartridgeDtype::F16);
    fs::copy(other.path().join(TENSOR_FILE), dir.path().join(TENSOR_FILE)).unwrap();
    refused(dir.path(), "copied without its manifest");
    fs::remove_file(dir.path().join(MANIFEST_FILE)).unwrap();
    refused(dir.path(), MANIFEST_FILE);
    fs::write(dir.path().join("x.pt"), "").unwrap();
    refused(&dir.path().join("x.pt"), "expected a folder");
    refused(&dir.path().join("none"), "cannot read");
}

/// Rewrites the manifest so that its hash fits the changed tensor file.
fn adopt(dir: &Path, tensor_file: &[u8], change: impl FnOnce(&mut serde_json::Value)) {
    fs::write(dir.join(TENSOR_FILE), tensor_file).unwrap();
    let path = dir.join(MANIFEST_FILE);
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["sha256"] = json!(hex(&Sha256::digest(tensor_file)));
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn what_the_manifest_does_not_say_is_refused() {
    let dir = saved(CartridgeDtype::F32);
    let dir = dir.path();
    let good = fs::read(dir.join(TENSOR_FILE)).unwrap();
    let with = |tensors: &[u8], change: fn(&mut serde_json::Value), word: &str| {
        let before = fs::read(dir.join(MANIFEST_FILE)).unwrap();
        adopt(dir, tensors, change);
        refused(dir, word);
        fs::write(dir.join(MANIFEST_FILE), before).unwrap();
        fs::write(dir.join(TENSOR_FILE), &good).unwrap();
    };
    with(
        &good,
        |m| m["dtype"] = json!("f16"),
        "holds f32, the manifest says f16",
    );
    with(
        &good,
        |m| m["slots"] = json!(6),
        "'layers.0.key' has shape [2, 5, 3]",
    );
    with(
        &good,
        |m| m["base_model"]["num_layers"] = json!(4),
        "'layers.3.key' is missing",
    );
    with(
        &good,
        |m| m["base_model"]["num_layers"] = json!(2),
        "'layers.2.key' is not part",
    );
    with(
        &good,
        |m| m["base_model"]["num_layers"] = json!(1u64 << 60),
        "is missing",
    );
    with(&good, |m| m["frozen"] = json!(6), "'frozen'");
    with(&good, |m| m["surprise"] = json!(6), "surprise");
    with(&good[..good.len() - 1], |_| {}, "bytes of tensors");
    with(
        &[good.as_slice(), b"x"].concat(),
        |_| {},
        "bytes of tensors",
    );
    let mut nan = good.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    with(&nan, |_| {}, "layer 2 value: element 29 is NaN");
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    with(&huge, |_| {}, "claims a header");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_refused(tensors: Vec<u8>, manifest: Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TENSOR_FILE), tensors).unwrap();
        fs::write(dir.path().join(MANIFEST_FILE), manifest).unwrap();
        prop_assert!(load(dir.path()).is_err());
    }

    /// A changed tensor file whose manifest vouches for it either is refused or has the old shape.
    #[test]
    fn changed_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_header: bool,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let dir = saved(CartridgeDtype::Bf16);
        let mut bytes = fs::read(dir.path().join(TENSOR_FILE)).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let range = if in_header { header } else { bytes.len() };
        for (at, byte) in edits {
            bytes[at.index(range)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        adopt(dir.path(), &bytes, |_| {});
        if let Ok((found, _)) = load(dir.path()) {
            prop_assert_eq!(found.tensor_len(), cartridge().tensor_len());
        }
    }

    #[test]
    fn changed_manifests_never_panic(at: prop::sample::Index, byte: u8) {
        let dir = saved(CartridgeDtype::Bf16);
        let path = dir.path().join(MANIFEST_FILE);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        fs::write(&path, bytes).unwrap();
        let _ = load(dir.path());
    }
}
