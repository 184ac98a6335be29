use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::SafeTensors;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{read_pt, write_pt};
use crate::cartridge::dtype::CartridgeDtype;
use crate::cartridge::host::{HostCartridge, HostLayer};

const MODELS: [&str; 3] = ["tiny-qwen3", "tiny-llama3", "tiny-qwen2"];

fn fixture(model: &str, file: &str) -> PathBuf {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures"));
    folder.join(model).join(file)
}

/// The reference's file holds the trained cartridge of `cartridge_training.safetensors`, rounded to
/// bfloat16.
#[test]
fn the_references_files_are_read_exactly() {
    for model in MODELS {
        let found = read_pt(&fixture(model, "cartridge_public.pt")).unwrap();
        let bytes = fs::read(fixture(model, "cartridge_training.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |name: &str| {
            let mut values = Vec::new();
            CartridgeDtype::F32.decode(golden.tensor(name).unwrap().data(), &mut values);
            values
        };
        let meta = golden.tensor("meta").unwrap();
        let width = meta.data().len() / 5;
        let meta = meta.data().chunks_exact(width).map(|b| usize::from(b[0]));
        let sizes = [
            found.slots,
            found.frozen,
            found.layers.len(),
            found.kv_heads,
            found.head_dim,
        ];
        assert_eq!(meta.collect::<Vec<_>>(), sizes, "{model}");
        for (l, layer) in found.layers.iter().enumerate() {
            for (part, data) in [("keys", &layer.key), ("values", &layer.value)] {
                let golden = numbers(&format!("final_{part}.{l}"));
                let rounded: Vec<f32> = golden
                    .iter()
                    .map(|v| CartridgeDtype::Bf16.round(*v))
                    .collect();
                assert_eq!(*data, rounded, "{model} {part} {l}");
            }
        }
    }
}

fn cartridge(frozen: usize) -> HostCartridge {
    let data = |seed: usize| {
        (0..2 * 5 * 3)
            .map(|i| ((i * 7 + seed) as f32).sin())
            .collect()
    };
    let layers = (0..3).map(|l| HostLayer {
        key: data(100 * l),
        value: data(100 * l + 50),
    });
    HostCartridge::new(2, 3, 5, frozen, layers.collect()).unwrap()
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for frozen in [0, 1, 4, 5] {
        for dtype in [
            CartridgeDtype::F32,
            CartridgeDtype::F16,
            CartridgeDtype::Bf16,
        ] {
            let path = dir.path().join("cache-step7.pt");
            let mut expected = cartridge(frozen);
            write_pt(&path, &expected, dtype).unwrap();
            for layer in &mut expected.layers {
                (layer.key.iter_mut().chain(&mut layer.value)).for_each(|v| *v = dtype.round(*v));
            }
            assert_eq!(read_pt(&path).unwrap(), expected);
        }
    }
}

/// The trained fixture survives our own writer bit for bit.
#[test]
fn the_references_files_can_be_written_again() {
    let dir = tempfile::tempdir().unwrap();
    for model in MODELS {
        let found = read_pt(&fixture(model, "cartridge_public.pt")).unwrap();
        let path = dir.path().join("again.pt");
        write_pt(&path, &found, CartridgeDtype::Bf16).unwrap();
        assert_eq!(read_pt(&path).unwrap(), found);
        let mut zip = ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
        for i in 0..zip.len() {
            let entry = zip.by_index_raw(i).unwrap();
            assert_eq!(entry.compression(), CompressionMethod::Stored);
            assert_eq!(entry.data_start().unwrap() % 64, 0, "{:?}", entry.name());
            assert!(entry.name().unwrap().starts_with("again/"));
        }
    }
}

/// A container as `torch.save` makes it, from a pickle in hand and storages of `f32`.
pub(crate) fn container(pickle: &[u8], storages: &[&[f32]], options: SimpleFileOptions) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut entry = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("a/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    entry("data.pkl", pickle);
    entry("byteorder", b"little");
    for (i, storage) in storages.iter().enumerate() {
        let mut bytes = Vec::new();
        CartridgeDtype::F32.encode(storage, &mut bytes);
        entry(&format!("data/{i}"), &bytes);
    }
    zip.finish().unwrap().into_inner()
}

pub(crate) fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Stored)
}

fn read_bytes(bytes: &[u8]) -> Result<HostCartridge, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    read_pt(file.path()).map_err(|e| e.to_string())
}

fn read_pickle(pickle: &[u8], storages: &[&[f32]]) -> Result<HostCartridge, String> {
    read_bytes(&container(pickle, storages, stored()))
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

fn tuple(items: &[u64]) -> Vec<u8> {
    let mut bytes = b"(".to_vec();
    for item in items {
        bytes.extend([0x8a, 8]);
        bytes.extend(item.to_le_bytes());
    }
    bytes.push(b't');
    bytes
}

/// A float32 tensor over `storage` of `len` elements.
pub(crate) fn tensor(
    storage: u64,
    len: u64,
    offset: u64,
    shape: &[u64],
    stride: &[u64],
) -> Vec<u8> {
    let number = tuple(&[offset]);
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(&storage.to_string()),
        text("cuda:0"),
        tuple(&[len])[1..11].to_vec(),
        b"tQ".to_vec(),
        number[1..11].to_vec(),
        tuple(shape),
        tuple(stride),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// A dict of four lists, each with the given entries.
fn dict(lists: [(&str, &[Vec<u8>]); 4]) -> Vec<u8> {
    let mut bytes = b"\x80\x02}(".to_vec();
    for (key, entries) in lists {
        bytes.extend(text(key));
        bytes.extend(b"](");
        bytes.extend(entries.concat());
        bytes.push(b'e');
    }
    bytes.extend(b"u.");
    bytes
}

/// Everything but the tensors of one layer without frozen slots.
fn one(keys: Vec<u8>, values: Vec<u8>) -> Vec<u8> {
    dict([
        ("frozen_keys", &[]),
        ("frozen_values", &[]),
        ("trainable_keys", &[keys]),
        ("trainable_values", &[values]),
    ])
}

fn plain(storage: u64) -> Vec<u8> {
    tensor(storage, 6, 0, &[1, 1, 2, 3], &[6, 6, 3, 1])
}

const SIX: &[f32] = &[0., 1., 2., 3., 4., 5.];

#[test]
fn old_names_empty_lists_and_views_are_read() {
    let found = read_pickle(&one(plain(0), plain(1)), &[SIX, &[9.; 6]]).unwrap();
    assert_eq!(
        (found.frozen, found.slots, found.kv_heads, found.head_dim),
        (0, 2, 1, 3)
    );
    assert_eq!(
        (&found.layers[0].key[..], &found.layers[0].value[..]),
        (SIX, &[9.; 6][..])
    );

    // One storage shared by all four: frozen slots from element 0, trainable ones transposed from 4.
    let frozen = [tensor(0, 12, 0, &[1, 2, 1, 2], &[99, 2, 77, 1])];
    let rest = [tensor(0, 12, 4, &[1, 2, 2, 2], &[0, 4, 1, 2])];
    let pickle = dict([
        ("fixed_keys", &frozen),
        ("fixed_values", &frozen),
        ("trainable_keys", &rest),
        ("trainable_values", &rest),
    ]);
    let numbers: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let found = read_pickle(&pickle, &[&numbers]).unwrap();
    assert_eq!((found.frozen, found.slots), (1, 3));
    let expected = [0., 1., 4., 6., 5., 7., 2., 3., 8., 10., 9., 11.];
    assert_eq!(found.layers[0].key, expected);
    assert_eq!(found.layers[0].value, expected);
}

#[test]
fn zip64_and_missing_checksums_are_read() {
    let pickle = one(plain(0), plain(1));
    let large = container(&pickle, &[SIX, SIX], stored().large_file(true));
    let expected = read_bytes(&large).unwrap();
    assert_eq!(expected.layers[0].key, SIX);

    // The central directory's checksum of data/0 is set to 0 (offset 16 of its entry).
    let mut bytes = container(&pickle, &[SIX, SIX], stored());
    let name = bytes.windows(8).rposition(|w| w == b"a/data/0").unwrap();
    bytes[name - 46 + 16..name - 46 + 20].fill(0);
    assert_eq!(read_bytes(&bytes).unwrap(), expected);
    // Any other wrong checksum is an error.
    bytes[name - 46 + 16] = 1;
    assert!(read_bytes(&bytes).is_err());
}

#[test]
fn compressed_entries_are_refused() {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let error = read_bytes(&container(&one(plain(0), plain(1)), &[SIX, SIX], options));
    assert!(error.unwrap_err().contains("compressed"));
}

#[test]
fn foreign_classes_are_refused_by_name() {
    let call = b"\x80\x02}X\x01\x00\x00\x00acos\nsystem\nX\x02\x00\x00\x00ls\x85Rs.";
    let error = read_pickle(call, &[]).unwrap_err();
    assert!(
        error.contains("'os.system'") && error.contains("nothing was executed"),
        "{error}"
    );
    for name in [
        "builtins\neval",
        "torch\nLongStorage",
        "collections\ndefaultdict",
    ] {
        let error = read_pickle(format!("}}c{name}\n").as_bytes(), &[]).unwrap_err();
        assert!(error.contains(&name.replace('\n', ".")), "{error}");
    }
}

#[test]
fn wrong_structures_are_refused() {
    let four = |names: [&'static str; 4], frozen: &[Vec<u8>], rest: &[Vec<u8>]| {
        dict([
            (names[0], frozen),
            (names[1], frozen),
            (names[2], rest),
            (names[3], rest),
        ])
    };
    let names = [
        "frozen_keys",
        "frozen_values",
        "trainable_keys",
        "trainable_values",
    ];
    let p = || plain(0);
    let shaped = |shape: &[u64]| {
        let t = tensor(0, 6, 0, shape, &[6, 6, 3, 1]);
        one(t.clone(), t)
    };
    let view =
        |len, offset, stride: &[u64]| one(tensor(0, len, offset, &[1, 1, 2, 3], stride), p());
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            four(["x", names[1], names[2], names[3]], &[], &[p()]),
            "unknown key 'x'",
        ),
        (
            four([names[0], "fixed_keys", names[2], names[3]], &[], &[p()]),
            "there twice",
        ),
        (
            four(names, &[p()], &[p(), p()]),
            "has 1 layers, trainable_keys has 2",
        ),
        (four(names, &[], &[]), "trainable_keys' is empty"),
        (
            four(names, &[], &[b"N".to_vec()]),
            "'trainable_keys.0' is not a tensor",
        ),
        (b"\x80\x02}.".to_vec(), "'frozen_keys' is missing"),
        (b"\x80\x02N.".to_vec(), "not a dict"),
        (b"\x80\x04}.".to_vec(), "protocol 2"),
        (b"\x80\x02}}.".to_vec(), "left over"),
        (b"\x80\x02}".to_vec(), "middle of a value"),
        (b"\x80\x02\xff.".to_vec(), "operation 0xff at byte 2"),
        (shaped(&[1, 2, 3]), "a stride per size"),
        (shaped(&[1, 1, 1, 2, 3]), "at most four axes"),
        (
            one(tensor(0, 6, 0, &[1, 2, 3], &[6, 3, 1]), p()),
            "'trainable_keys.0' does not have four axes",
        ),
        (shaped(&[2, 1, 1, 3]), "expected [1, 1, 1, 3]"),
        (shaped(&[1, 0, 2, 3]), "no elements"),
        (shaped(&[1, 1 << 62, 0, 3]), "no elements"),
        (shaped(&[1, 1 << 40, 1 << 40, 0]), "overflows"),
        (
            one(p(), tensor(0, 6, 0, &[1, 1, 1, 3], &[6, 6, 3, 1])),
            "'trainable_values.0' has shape",
        ),
        (view(6, 1, &[6, 6, 3, 1]), "beyond its storage of 6"),
        (view(6, 0, &[6, 6, 6, u64::MAX >> 1]), "overflow"),
        (view(2, 0, &[0, 0, 0, 0]), "beyond its storage"),
        (
            view(7, 0, &[6, 6, 3, 1]),
            "has 24 bytes, the pickle says 28",
        ),
        (one(plain(5), p()), "a/data/5: is missing"),
        (
            one(
                tensor(0, 1 << 60, 0, &[1, 1, 1 << 30, 3], &[6, 6, 3, 1]),
                p(),
            ),
            "expected",
        ),
    ];
    for (pickle, word) in cases {
        let error = read_pickle(&pickle, &[SIX]).unwrap_err();
        assert!(error.contains(word), "{word} in {error}");
    }
    let t = tensor(0, 1 << 60, 0, &[1, 1, 1 << 30, 3], &[6, 6, 3, 1]);
    let error = read_pickle(&one(t.clone(), t), &[SIX]).unwrap_err();
    assert!(error.contains("the tensors claim"), "{error}");
    let error = read_pickle(&one(p(), p()), &[&[f32::NAN; 6]]).unwrap_err();
    assert!(error.contains("layer 0 key: element 0 is NaN"), "{error}");
}

/// Nested marks over a large stack, cycles and deep nesting: cheap in bytes, so they must be cheap in
/// memory and depth too.
#[test]
fn pickle_bombs_stay_small() {
    let deep = [
        b"\x80\x02".to_vec(),
        vec![b'N'; 1],
        vec![0x85; 900_000],
        b".".to_vec(),
    ]
    .concat();
    let marks = [
        vec![b'('; 300_000],
        vec![b'N'; 300_000],
        vec![b't'; 300_000],
        b".".to_vec(),
    ];
    let cycle = [b"]q\x00".to_vec(), b"h\x00a".repeat(200_000), b".".to_vec()].concat();
    for pickle in [deep, marks.concat(), cycle] {
        let error = read_pickle(&pickle, &[]).unwrap_err();
        assert!(error.contains("not a dict"), "{error}");
    }
    let error = read_pickle(&vec![b'N'; 2 << 20], &[]).unwrap_err();
    assert!(error.contains("at most 1048576"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes_are_refused(mut bytes: Vec<u8>, magic: bool) {
        if magic {
            bytes.splice(0..0, *b"PK\x03\x04");
        }
        prop_assert!(read_bytes(&bytes).is_err());
    }

    #[test]
    fn random_pickles_never_panic(
        code in prop::collection::vec(prop::sample::select(b"(N)]}KMJX\x8acqrhjt\x85\x86\x87aesuQ\x81Rb.\x00\x01\x02\x80".to_vec()), 0..200),
    ) {
        let _ = read_pickle(&code, &[SIX]);
    }

    /// Changes anywhere in the container.
    #[test]
    fn changed_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = fs::read(fixture("tiny-llama3", "cartridge_public.pt")).unwrap();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read_bytes(&bytes);
    }

    /// Changes in the reference's own pickle, in a container whose checksums fit.
    #[test]
    fn changed_pickles_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let file = fs::File::open(fixture("tiny-llama3", "cartridge_public.pt")).unwrap();
        let mut zip = ZipArchive::new(file).unwrap();
        let mut pickle = Vec::new();
        std::io::copy(&mut zip.by_name("cartridge_public/data.pkl").unwrap(), &mut pickle).unwrap();
        for (at, byte) in edits {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        // Six long and six short storages as in the file (bfloat16 is half as long as float32).
        let entry = |n: usize| zip.by_name(&format!("cartridge_public/data/{n}")).unwrap().size();
        let sizes: Vec<usize> = (0..12).map(entry).map(|n| n as usize / 4).collect();
        let data = vec![0.5; sizes.iter().copied().max().unwrap_or(0)];
        let storages: Vec<&[f32]> = sizes.iter().map(|n| &data[..*n]).collect();
        if let Ok(found) = read_pickle(&pickle, &storages) {
            prop_assert!(found.byte_len(CartridgeDtype::Bf16) <= 13601);
        }
    }
}
