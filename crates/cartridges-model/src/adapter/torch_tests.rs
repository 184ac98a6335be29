use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::cartridge::torch::tests::{container, stored, tensor, text};

/// A dict of names and what stands for their values.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}(".to_vec();
    for (name, value) in entries {
        bytes.extend(text(name));
        bytes.extend(value);
    }
    bytes.extend(b"u.");
    bytes
}

/// A dict of layers and tensors. Python writes a negative index with four bytes.
fn layers(entries: &[(i32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"}(".to_vec();
    for (index, value) in entries {
        bytes.push(b'J');
        bytes.extend(index.to_le_bytes());
        bytes.extend(value);
    }
    bytes.push(b'u');
    bytes
}

fn bias(storage: u64) -> Vec<u8> {
    tensor(storage, 2, 0, &[2], &[1])
}

fn weight(storage: u64) -> Vec<u8> {
    tensor(storage, 4, 0, &[2, 2], &[2, 1])
}

const BIAS: &[f32] = &[1.0, 2.0];
const WEIGHT: &[f32] = &[3.0, 4.0, 5.0, 6.0];

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn read(pickle: &[u8], storages: &[&[f32]]) -> Result<TorchAdapter, String> {
    let file = file(&container(pickle, storages, stored()));
    read_adapter_pt(file.path(), 3).map_err(|e| e.to_string())
}

/// What a fork's program writes beside the tensors: texts, a number with a fraction, lists.
fn single() -> Vec<u8> {
    let metadata = [
        &b"}("[..],
        &text("data_paths"),
        b"](",
        &text("a.parquet"),
        b"e",
        &text("num_patches"),
        b"M\x00\x10",
        &text("lambda_scale"),
        b"Nu",
    ];
    dict(&[
        ("bias_delta", bias(0)),
        ("weight_delta", weight(1)),
        ("metadata", metadata.concat()),
        ("model_name", text("owner/model")),
        ("tokenizer_name", text("owner/model")),
        (
            "lambda_scale",
            [b"G".as_slice(), &0.5f64.to_be_bytes()].concat(),
        ),
    ])
}

#[test]
fn the_single_layout_is_read() {
    let found = read(&single(), &[BIAS, WEIGHT]).unwrap();
    assert_eq!(found.base_model.as_deref(), Some("owner/model"));
    assert!(found.skipped.is_empty());
    let [patch] = found.adapter.patches() else {
        panic!("{found:?}");
    };
    assert_eq!((patch.target, patch.mode), (Target::FinalNorm, Mode::Post));
    assert_eq!((patch.inputs, patch.outputs, patch.scale), (2, 2, 1.0));
    assert_eq!(patch.delta, Delta::Dense(WEIGHT.to_vec()));
    assert_eq!(patch.bias.as_deref(), Some(BIAS));
}

#[test]
fn the_layout_of_layers_is_read() {
    let zero: (&[f32], &[f32]) = (&[0.0; 2], &[0.0; 4]);
    for index in [-1, 3] {
        let pickle = dict(&[
            ("bias_deltas", layers(&[(0, bias(2)), (index, bias(0))])),
            (
                "weight_deltas",
                layers(&[(0, weight(3)), (index, weight(1))]),
            ),
            ("metadata", b"}".to_vec()),
        ]);
        let found = read(&pickle, &[BIAS, WEIGHT, zero.0, zero.1]).unwrap();
        assert_eq!((found.skipped, found.base_model), (vec![0], None));
        assert_eq!(found.adapter.patches()[0].bias.as_deref(), Some(BIAS));
    }
}

#[test]
fn adapters_are_told_from_cartridges() {
    let adapter = file(&container(&single(), &[BIAS, WEIGHT], stored()));
    assert!(is_torch_adapter(adapter.path()).unwrap());
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/tiny-llama3/cartridge_public.pt");
    assert!(!is_torch_adapter(&fixture).unwrap());
    assert!(is_torch_adapter(file(b"PK").path()).is_err());
    // Each reader refuses the other's file by its keys.
    let error = read_adapter_pt(&fixture, 3).unwrap_err().to_string();
    assert!(
        error.contains("unknown key") && error.contains("adapter"),
        "{error}"
    );
    let error = crate::cartridge::torch::read_pt(adapter.path()).unwrap_err();
    assert!(
        error.to_string().contains("unknown key 'bias_delta'"),
        "{error}"
    );
}

#[test]
fn wrong_structures_are_refused() {
    let two = |b: Vec<u8>, w: Vec<u8>| dict(&[("bias_delta", b), ("weight_delta", w)]);
    let many = |b: &[(i32, Vec<u8>)], w: &[(i32, Vec<u8>)]| {
        dict(&[("bias_deltas", layers(b)), ("weight_deltas", layers(w))])
    };
    let huge = tensor(1, 1 << 40, 0, &[1 << 20, 1 << 20], &[1 << 20, 1]);
    let wide = tensor(0, 1 << 20, 0, &[1 << 20], &[1]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (two(bias(0), bias(0)), "shape [2, 2]"),
        (two(weight(1), weight(1)), "one axis"),
        (
            two(bias(0), tensor(1, 4, 0, &[2, 1], &[2, 1])),
            "shape [2, 2]",
        ),
        (
            two(bias(0), tensor(1, 4, 1, &[2, 2], &[2, 1])),
            "beyond its storage",
        ),
        (
            two(bias(0), b"N".to_vec()),
            "'weight_delta' is not a tensor",
        ),
        (two(wide, huge), "the tensors claim"),
        (two(bias(0), weight(7)), "data/7: is missing"),
        (
            dict(&[("bias_delta", bias(0))]),
            "'weight_deltas.-1' is missing",
        ),
        (
            dict(&[("weight_delta", weight(1))]),
            "'bias_deltas.-1' is missing",
        ),
        (dict(&[("bias_deltas", bias(0))]), "is not a dict"),
        (
            dict(&[(
                "bias_deltas",
                dict(&[("a", bias(0))])[2..]
                    .strip_suffix(b".")
                    .unwrap()
                    .to_vec(),
            )]),
            "no index",
        ),
        (dict(&[("other", b"N".to_vec())]), "unknown key 'other'"),
        (dict(&[]), "no patches"),
        (
            many(&[(1, bias(0))], &[(1, weight(1))]),
            "hidden state 1, between two layers",
        ),
        (
            many(
                &[(-1, bias(0)), (3, bias(0))],
                &[(-1, weight(1)), (3, weight(1))],
            ),
            "two patches",
        ),
        (b"\x80\x02N.".to_vec(), "not a dict"),
        (b"\x80\x02cos\nsystem\n.".to_vec(), "'os.system'"),
    ];
    for (pickle, word) in cases {
        let error = read(&pickle, &[BIAS, WEIGHT]).unwrap_err();
        assert!(error.contains(word), "{word} in {error}");
    }
    let error = read(&two(bias(0), weight(1)), &[&[f32::NAN, 0.0], WEIGHT]).unwrap_err();
    assert!(error.contains("NaN"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes_are_refused(mut bytes: Vec<u8>, magic: bool) {
        if magic {
            bytes.splice(0..0, *b"PK\x03\x04");
        }
        let file = file(&bytes);
        prop_assert!(read_adapter_pt(file.path(), 3).is_err());
        prop_assert!(is_torch_adapter(file.path()).is_err());
    }

    #[test]
    fn changed_pickles_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut pickle = single();
        for (at, byte) in edits {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        let _ = read(&pickle, &[BIAS, WEIGHT]);
    }
}
