//! Hugging Face folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype as StDtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};

use super::{HostTensor, Weights, WeightsError, tiny};

/// Tensors of a file as the `safetensors` crate reads them.
fn plainly(path: &Path) -> BTreeMap<String, HostTensor> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let values = view
                .data()
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            let shape = view.shape().to_vec();
            (name, HostTensor { shape, values })
        })
        .collect()
}

fn write(path: &Path, tensors: &[(&str, StDtype, &[usize], &[u8])]) {
    let views = tensors.iter().map(|(name, dtype, shape, raw)| {
        let view = TensorView::new(*dtype, shape.to_vec(), raw).unwrap();
        (name.to_string(), view)
    });
    serialize_to_file(views, None, path).unwrap();
}

fn write_index(folder: &Path, map: &[(&str, &str)]) {
    let map: BTreeMap<_, _> = map.iter().copied().collect();
    let text = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(
        folder.join("model.safetensors.index.json"),
        text.to_string(),
    )
    .unwrap();
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn single_file() {
    for name in ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"] {
        let weights = Weights::open(&tiny(name)).unwrap();
        let want = plainly(&tiny(name).join("model.safetensors"));
        assert_eq!(
            weights.names().collect::<Vec<_>>(),
            want.keys().collect::<Vec<_>>()
        );
        for (tensor, want) in &want {
            assert_eq!(weights.shape(tensor), Some(want.shape.as_slice()));
            assert_eq!(weights.dtype_name(tensor), Some("F32"));
            assert_eq!(weights.stored_bytes(tensor), Some(want.values.len() * 4));
            assert_eq!(&weights.read(tensor).unwrap(), want);
            let mut out = vec![0.0; want.values.len()];
            weights.read_into(tensor, &mut out).unwrap();
            assert_eq!(out, want.values);
        }
        assert!(!weights.head_is_embedding());
        assert!(weights.config().is_none());
        assert!(weights.tokenizer_parts().is_none());
    }
}

#[test]
fn shards_of_every_float_type() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = [1.0f32, -2.5, 0.375, 96.0];
    let halves: Vec<u8> = numbers
        .iter()
        .flat_map(|v| f16::from_f32(*v).to_le_bytes())
        .collect();
    let brains: Vec<u8> = numbers
        .iter()
        .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
        .collect();
    write(
        &folder.path().join("one.safetensors"),
        &[
            ("a", StDtype::F16, &[2, 2], &halves),
            ("c", StDtype::F32, &[1], &f32_bytes(&[7.0])),
        ],
    );
    write(
        &folder.path().join("two.safetensors"),
        &[
            ("b", StDtype::BF16, &[4], &brains),
            ("c", StDtype::F32, &[1], &f32_bytes(&[8.0])),
            ("ids", StDtype::I64, &[1], &[0; 8]),
            ("none", StDtype::F32, &[0, 3], &[]),
        ],
    );
    let map = [
        ("a", "one.safetensors"),
        ("b", "two.safetensors"),
        ("c", "two.safetensors"),
    ];
    write_index(folder.path(), &map);
    let weights = Weights::open_folder(folder.path()).unwrap();
    let names: Vec<_> = weights.names().collect();
    assert_eq!(names, ["a", "b", "c", "ids", "none"]);
    assert_eq!(weights.read("a").unwrap().values, numbers);
    assert_eq!(weights.read("a").unwrap().shape, [2, 2]);
    assert_eq!(weights.read("b").unwrap().values, numbers);
    // The index decides between two shards.
    assert_eq!(weights.read("c").unwrap().values, [8.0]);
    assert!(weights.read("none").unwrap().values.is_empty());
    assert_eq!(weights.dtype_name("ids"), Some("I64"));
    let error = weights.read("ids").unwrap_err();
    assert!(matches!(
        error,
        WeightsError::UnsupportedDtype { ref dtype, .. } if dtype == "I64"
    ));
    assert!(error.to_string().contains("ids"), "{error}");

    // Without the index's word, the same name in two shards is an error.
    write_index(folder.path(), &map[..2]);
    let error = Weights::open_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("another shard"), "{error}");

    // A tensor that the index promises must be there.
    write_index(
        folder.path(),
        &[("c", "two.safetensors"), ("z", "one.safetensors")],
    );
    let error = Weights::open_folder(folder.path()).unwrap_err();
    assert!(matches!(
        error,
        WeightsError::MissingTensor { ref tensor, .. } if tensor == "z"
    ));
}

#[test]
fn index_stays_in_its_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    fs::create_dir(&folder).unwrap();
    let outside = outer.path().join("x.safetensors");
    write(&outside, &[("a", StDtype::F32, &[1], &f32_bytes(&[1.0]))]);
    let absolute = outside.display().to_string();
    for name in [
        "../x.safetensors",
        "./../x.safetensors",
        "..",
        ".",
        "",
        "a/b",
        "a\\b",
        "C:x",
    ]
    .into_iter()
    .chain([absolute.as_str()])
    {
        write_index(&folder, &[("a", name)]);
        let error = Weights::open_folder(&folder).unwrap_err();
        assert!(
            matches!(error, WeightsError::Index { .. }),
            "{name}: {error}"
        );
    }
    for text in [
        "",
        "[]",
        "{}",
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": {"a": 1}}"#,
    ] {
        fs::write(folder.join("model.safetensors.index.json"), text).unwrap();
        let error = Weights::open_folder(&folder).unwrap_err();
        assert!(
            matches!(error, WeightsError::Index { .. }),
            "{text}: {error}"
        );
    }
    write_index(&folder, &[("a", "absent.safetensors")]);
    let error = Weights::open_folder(&folder).unwrap_err();
    assert!(matches!(error, WeightsError::Read { .. }), "{error}");
    let error = Weights::open_folder(outer.path()).unwrap_err();
    assert!(matches!(error, WeightsError::NoWeights { .. }), "{error}");
}

#[test]
fn reads_name_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // The first bad value is in the second of several parallel tasks.
    let mut values = vec![1.0f32; 100_000];
    values[20_001] = f32::NAN;
    values[90_000] = f32::INFINITY;
    write(
        &path,
        &[("w", StDtype::F32, &[100, 1000], &f32_bytes(&values))],
    );
    let weights = Weights::open_folder(folder.path()).unwrap();
    let error = weights.read("w").unwrap_err();
    assert!(matches!(
        error,
        WeightsError::NotFinite { ref tensor, index: 20_001, value, .. }
            if tensor == "w" && value.is_nan()
    ));
    assert!(matches!(
        weights.read("v").unwrap_err(),
        WeightsError::MissingTensor { ref tensor, .. } if tensor == "v"
    ));
    assert!(matches!(
        weights.read_into("w", &mut [0.0; 3]).unwrap_err(),
        WeightsError::BufferLength {
            expected: 100_000,
            found: 3,
            ..
        }
    ));
}

#[test]
fn tied_head_by_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let table = f32_bytes(&[1.0, 2.0, 3.0, 4.0]);
    let other = f32_bytes(&[1.0, 2.0, 3.0, 5.0]);
    for (head, tied) in [(&table, true), (&other, false)] {
        write(
            &path,
            &[
                ("model.embed_tokens.weight", StDtype::F32, &[2, 2], &table),
                ("lm_head.weight", StDtype::F32, &[2, 2], head),
            ],
        );
        let weights = Weights::open_folder(folder.path()).unwrap();
        assert_eq!(weights.head_is_embedding(), tied);
        assert_eq!(weights.head_is_embedding(), tied);
    }
}

#[test]
fn fingerprint_follows_its_definition() {
    use sha2::{Digest, Sha256};
    let long: Vec<f32> = (0..3000).map(|i| i as f32).collect();
    let raw = f32_bytes(&long);
    let folder = tempfile::tempdir().unwrap();
    let small = f32_bytes(&[1.0]);
    let path = folder.path().join("model.safetensors");
    write(
        &path,
        &[
            ("long", StDtype::F32, &[30, 100], &raw),
            ("a", StDtype::F32, &[1], &small),
        ],
    );
    let single = Weights::open_folder(folder.path()).unwrap().fingerprint();

    let number = |n: u64| n.to_le_bytes().to_vec();
    let want = [
        b"cartridges-weights-1\n".to_vec(),
        [number(1), b"a".to_vec(), number(3), b"F32".to_vec()].concat(),
        [
            number(1),
            number(1),
            number(4),
            small.clone(),
            small.clone(),
        ]
        .concat(),
        [number(4), b"long".to_vec(), number(3), b"F32".to_vec()].concat(),
        [number(2), number(30), number(100), number(12_000)].concat(),
        raw[..4096].to_vec(),
        raw[12_000 - 4096..].to_vec(),
    ]
    .concat();
    let want: String = Sha256::digest(&want)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(single, want);

    // The same tensors in two shards have the same fingerprint, another last value has not.
    fs::remove_file(&path).unwrap();
    write(
        &folder.path().join("1"),
        &[("long", StDtype::F32, &[30, 100], &raw)],
    );
    write(
        &folder.path().join("2"),
        &[("a", StDtype::F32, &[1], &small)],
    );
    write_index(folder.path(), &[("a", "2"), ("long", "1")]);
    let sharded = Weights::open_folder(folder.path()).unwrap().fingerprint();
    assert_eq!(sharded, single);
    let mut changed = long;
    changed[2999] += 1.0;
    write(
        &folder.path().join("1"),
        &[("long", StDtype::F32, &[30, 100], &f32_bytes(&changed))],
    );
    let other = Weights::open_folder(folder.path()).unwrap().fingerprint();
    assert_ne!(other, single);
}
