//! The parser on right and wrong headers.

use super::test_writer::TestGguf;
use super::{Array, Gguf, Value};
use crate::weights::{Dtype, WeightsError};

fn parse(bytes: &[u8]) -> Result<Gguf, WeightsError> {
    Gguf::parse(bytes, "test.gguf")
}

fn refused(bytes: &[u8]) -> String {
    let error = parse(bytes).unwrap_err().to_string();
    assert!(error.contains("test.gguf"), "{error}");
    error
}

fn header(tensors: u64, entries: u64, rest: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(entries.to_le_bytes());
    rest.iter().for_each(|part| bytes.extend(*part));
    bytes
}

#[test]
fn metadata_of_every_type() {
    let nested = Array::Nested(vec![
        Array::Text(vec!["x".into(), String::new()]),
        Array::Nested(vec![Array::Bool(vec![true, false])]),
        Array::Float(vec![]),
    ]);
    let values = [
        ("u", Value::Unsigned(7)),
        ("i", Value::Signed(-7)),
        ("f", Value::Single(1e-6)),
        ("d", Value::Double(0.1)),
        ("b", Value::Bool(true)),
        ("t", Value::Text("grüß".into())),
        ("us", Value::Array(Array::Unsigned(vec![1, 2]))),
        ("is", Value::Array(Array::Signed(vec![-1, 2]))),
        ("nested", Value::Array(nested)),
    ];
    let mut file = TestGguf::new();
    for (key, value) in &values {
        file = file.entry(key, value.clone());
    }
    for version in [2, 3] {
        let gguf = parse(&file.clone().version(version).bytes()).unwrap();
        assert_eq!(gguf.version, version);
        assert_eq!(gguf.metadata.len(), values.len());
        for (key, value) in &values {
            assert_eq!(gguf.metadata.get(*key), Some(value));
        }
        assert_eq!(gguf.unsigned("u").unwrap(), Some(7));
        assert!(gguf.unsigned("i").is_err());
        assert_eq!(gguf.number("f").unwrap(), Some(1e-6));
        assert_eq!(gguf.boolean("b").unwrap(), Some(true));
        assert_eq!(gguf.text("t").unwrap(), Some("grüß"));
        assert_eq!(gguf.integers("is").unwrap(), Some(vec![-1, 2]));
        assert_eq!(gguf.text("absent").unwrap(), None);
        let error = gguf.text("u").unwrap_err().to_string();
        assert!(error.contains("metadata u is 7, expected text"), "{error}");
    }
}

#[test]
fn integer_widths() {
    let cases: [(u32, &[u8], Value); 8] = [
        (0, &[200], Value::Unsigned(200)),
        (1, &[200], Value::Signed(-56)),
        (2, &[1, 200], Value::Unsigned(51_201)),
        (3, &[1, 200], Value::Signed(-14_335)),
        (4, &[1, 0, 0, 200], Value::Unsigned(3_355_443_201)),
        (5, &[1, 0, 0, 200], Value::Signed(-939_524_095)),
        (10, &[255; 8], Value::Unsigned(u64::MAX)),
        (11, &[255; 8], Value::Signed(-1)),
    ];
    for (code, raw, want) in cases {
        let key = [&1u64.to_le_bytes()[..], b"k"].concat();
        let bytes = header(0, 1, &[&key, &code.to_le_bytes(), raw]);
        assert_eq!(parse(&bytes).unwrap().metadata["k"], want);
        // The same as an array of one.
        let array = [&code.to_le_bytes()[..], &1u64.to_le_bytes(), raw].concat();
        let bytes = header(0, 1, &[&key, &9u32.to_le_bytes(), &array]);
        let want = match want {
            Value::Unsigned(v) => Array::Unsigned(vec![v]),
            Value::Signed(v) => Array::Signed(vec![v]),
            _ => unreachable!(),
        };
        assert_eq!(parse(&bytes).unwrap().metadata["k"], Value::Array(want));
    }
}

#[test]
fn tensors_are_found() {
    for alignment in [1, 8, 32, 4096] {
        let file = TestGguf::new()
            .alignment(alignment)
            .f32_tensor("a", &[3], &[1.0, 2.0, 3.0])
            .tensor("b", &[2, 3, 32], Dtype::Q4_0, vec![9; 6 * 18]);
        let bytes = file.bytes();
        let gguf = parse(&bytes).unwrap();
        let [a, b] = &gguf.tensors[..] else { panic!() };
        assert_eq!(
            (a.name.as_str(), &a.shape[..], a.dtype),
            ("a", &[3][..], Dtype::F32)
        );
        assert_eq!(bytes[a.range.clone()][..8], [0, 0, 128, 63, 0, 0, 0, 64]);
        assert_eq!((&b.shape[..], b.dtype), (&[2, 3, 32][..], Dtype::Q4_0));
        assert_eq!(bytes[b.range.clone()], [9; 108]);
        assert_eq!(b.range.start % alignment as usize, 0);
    }
}

#[test]
fn lying_counts_and_lengths() {
    let key = [&1u64.to_le_bytes()[..], b"k"].concat();
    for count in [u64::MAX, u64::MAX / 13, 1 << 60, 1 << 33, 100] {
        let long = count.to_le_bytes();
        refused(&header(count, 0, &[&[0; 64]]));
        refused(&header(0, count, &[&[0; 64]]));
        // A key, a text, an array of each type, and a nested array that are said to be that long.
        refused(&header(0, 1, &[&long, &[0; 13]]));
        refused(&header(0, 1, &[&key, &8u32.to_le_bytes(), &long, b"abc"]));
        for code in 0..13u32 {
            let array = [&code.to_le_bytes()[..], &long, &[0; 40]].concat();
            refused(&header(0, 1, &[&key, &9u32.to_le_bytes(), &array]));
            let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &array].concat();
            refused(&header(0, 1, &[&key, &9u32.to_le_bytes(), &nested]));
        }
        // A tensor with that dimension, or at that offset.
        let tensor = |dimensions: [u64; 2], offset: u64| {
            let mut raw = key.clone();
            raw.extend(2u32.to_le_bytes());
            dimensions.iter().for_each(|d| raw.extend(d.to_le_bytes()));
            raw.extend(0u32.to_le_bytes());
            raw.extend(offset.to_le_bytes());
            raw
        };
        refused(&header(1, 0, &[&tensor([count, 1], 0), &[0; 96]]));
        refused(&header(1, 0, &[&tensor([1, count], 0), &[0; 96]]));
        refused(&header(1, 0, &[&tensor([count, count], 0), &[0; 96]]));
        refused(&header(1, 0, &[&tensor([1, 1], count / 32 * 32), &[0; 96]]));
    }
}

#[test]
fn deep_nesting_is_refused() {
    let level = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    let key = [&1u64.to_le_bytes()[..], b"k"].concat();
    let deep = level.repeat(100_000);
    let error = refused(&header(0, 1, &[&key, &9u32.to_le_bytes(), &deep]));
    assert!(error.contains("nested"), "{error}");
}

#[test]
fn wrong_headers() {
    let valid = TestGguf::new().f32_tensor("a", &[8], &[0.0; 8]);
    assert!(parse(&valid.bytes()).is_ok());
    let cases = [
        (b"GGML\x03\0\0\0".to_vec(), "not a GGUF file"),
        (b"GG".to_vec(), "the magic"),
        (valid.clone().version(1).bytes(), "version 1"),
        (valid.clone().version(4).bytes(), "version 4"),
        (valid.clone().version(0).bytes(), "version 0"),
        (valid.clone().version(3 << 24).bytes(), "big-endian"),
        (
            valid.clone().f32_tensor("a", &[1], &[0.0]).bytes(),
            "tensor a: stands twice",
        ),
        (
            valid.clone().number("k", 1).number("k", 1).bytes(),
            "metadata k stands twice",
        ),
        (
            valid.clone().number("general.alignment", 24).bytes(),
            "general.alignment is 24",
        ),
        (
            valid.clone().number("general.alignment", 0).bytes(),
            "general.alignment is 0",
        ),
        // Written with the default alignment, read with a larger one.
        (
            TestGguf::new()
                .number("general.alignment", 64)
                .f32_tensor("a", &[8], &[0.0; 8])
                .f32_tensor("b", &[8], &[0.0; 8])
                .bytes(),
            "tensor b: offset 32 is not a multiple of 64",
        ),
        (
            valid.clone().last_type(23).bytes(),
            "tensor a is stored as IQ4_XS, expected one of F32, F16",
        ),
        (valid.clone().last_type(4).bytes(), "GGML type 4"),
        (valid.clone().last_type(2).bytes(), "not whole Q4_0 blocks"),
        (
            TestGguf::new().f32_tensor("a", &[0, 4], &[]).bytes(),
            "impossible dimensions",
        ),
        (TestGguf::new().f32_tensor("a", &[], &[0.0]).bytes(), ""),
        (
            TestGguf::new().f32_tensor("a", &[1; 5], &[0.0]).bytes(),
            "5 dimensions",
        ),
        (
            TestGguf::new().f32_tensor("a", &[9], &[0.0; 8]).bytes(),
            "do not fit a file",
        ),
    ];
    for (bytes, part) in cases {
        let error = refused(&bytes);
        assert!(error.contains(part), "{part}: {error}");
    }
    let key = [&1u64.to_le_bytes()[..], b"k"].concat();
    for (code, raw) in [(7u32, vec![2u8]), (13, vec![0; 8])] {
        refused(&header(0, 1, &[&key, &code.to_le_bytes(), &raw]));
    }
    let not_text = [&8u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[0xff]].concat();
    let error = refused(&header(0, 1, &[&key, &not_text]));
    assert!(error.contains("not UTF-8"), "{error}");
}
