//! `logits`, against transformers.

use super::*;

pub(super) fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data().to_vec();
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// The first sequence of a reference file, its logits, and the vocabulary's size.
fn reference() -> (Vec<u32>, Vec<f32>, usize) {
    let bytes = std::fs::read(fixture("tiny-qwen2/reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    let (length, vocab) = (logits.shape()[1], logits.shape()[2]);
    let ids = file.tensor("input_ids").unwrap().data().to_vec();
    let ids = ids
        .chunks_exact(8)
        .take(length)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32)
        .collect();
    (
        ids,
        floats(&file, "logits")[..length * vocab].to_vec(),
        vocab,
    )
}

/// Keys and values of the first sequence's tokens `from .. to`, as transformers computed them.
pub(super) fn reference_cartridge(folder: &Path, from: usize, to: usize) {
    let bytes = std::fs::read(fixture("tiny-qwen2/reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = file.tensor("keys.0").unwrap().shape().to_vec();
    let (kv_heads, length, head_dim) = (shape[1], shape[2], shape[3]);
    let part = |name: String| -> Vec<f32> {
        let all = floats(&file, &name);
        (0..kv_heads)
            .flat_map(|head| {
                let start = head * length * head_dim;
                all[start + from * head_dim..start + to * head_dim].to_vec()
            })
            .collect()
    };
    let layers = (0..3)
        .map(|layer| HostLayer {
            key: part(format!("keys.{layer}")),
            value: part(format!("values.{layer}")),
        })
        .collect();
    let host = HostCartridge::new(kv_heads, head_dim, to - from, 0, layers).unwrap();
    let identity = ModelIdentity {
        id: "tiny-qwen2".to_owned(),
        config_fingerprint: "0".repeat(16),
        weights_fingerprint: "1".repeat(64),
        tokenizer_fingerprint: "2".repeat(64),
        num_layers: 3,
        num_kv_heads: kv_heads,
        head_dim,
        rope: json!({ "theta": 1e6 }),
    };
    let how = json!({ "program": "test" });
    save(folder, &host, &identity, &how, CartridgeDtype::F32).unwrap();
}

fn logits(ids: &[u32], cartridges: &[&Path]) -> (String, Vec<f32>, Vec<usize>) {
    let home = TempDir::new().unwrap();
    let (model, ids) = (fixture("tiny-qwen2"), write_ids(home.path(), ids));
    let out = home.path().join("new/folder/logits.safetensors");
    let mut args = vec![
        "logits",
        "--model",
        text(&model),
        "--ids",
        text(&ids),
        "--out",
        text(&out),
    ];
    for cartridge in cartridges {
        args.extend(["--cartridge", text(cartridge)]);
    }
    let said = works(&args);
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = file.tensor("logits").unwrap().shape().to_vec();
    (said, floats(&file, "logits"), shape)
}

fn assert_close(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() <= 1e-4, "logit {i}: {a} instead of {b}");
    }
}

#[test]
fn logits_are_those_of_transformers() {
    let (ids, wanted, vocab) = reference();
    let (said, found, shape) = logits(&ids, &[]);
    assert_eq!(shape, [ids.len(), vocab]);
    assert_close(&found, &wanted);
    let last = &wanted[(ids.len() - 1) * vocab..];
    let best = (0..vocab)
        .max_by(|a, b| last[*a].total_cmp(&last[*b]))
        .unwrap();
    assert!(
        said.contains(&format!("[{}, {vocab}]", ids.len())),
        "{said}"
    );
    assert!(
        said.lines()
            .nth(2)
            .unwrap()
            .trim_start()
            .starts_with(&best.to_string()),
        "{said}"
    );
    assert_eq!(said.lines().count(), 7, "{said}");
}

#[test]
fn a_precision_that_is_named_is_used() {
    let (ids, wanted, vocab) = reference();
    let home = TempDir::new().unwrap();
    let (model, out) = (fixture("tiny-qwen2"), home.path().join("out.safetensors"));
    let file = write_ids(home.path(), &ids);
    let args = ["logits", "--model", text(&model), "--ids", text(&file)];
    let coarse = ["--precision", "q8", "--out", text(&out)];
    works(&[&args[..], &coarse].concat());
    let bytes = std::fs::read(&out).unwrap();
    let found = floats(&SafeTensors::deserialize(&bytes).unwrap(), "logits");
    assert_eq!(found.len(), ids.len() * vocab);
    let apart = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
    let most = apart.fold(0f32, f32::max);
    // Eight bits are coarser than the 1e-4 of f32, and no more than that.
    assert!(most > 1e-3 && most < 0.5, "{most}");
}

#[test]
fn logits_behind_the_keys_of_the_beginning_are_those_of_the_whole() {
    let home = TempDir::new().unwrap();
    let (ids, wanted, vocab) = reference();
    let parts = [(0, 3), (3, 8), (0, 8)].map(|(from, to)| {
        let folder = home.path().join(format!("{from}-{to}"));
        reference_cartridge(&folder, from, to);
        folder
    });
    let [first, second, whole] = &parts;
    for cartridges in [
        vec![whole.as_path()],
        vec![first.as_path(), second.as_path()],
    ] {
        let (_, found, shape) = logits(&ids[8..], &cartridges);
        assert_eq!(shape, [ids.len() - 8, vocab]);
        assert_close(&found, &wanted[8 * vocab..]);
    }
    let shown = works(&["inspect", text(whole)]);
    for part in ["8, 0 of them frozen", "tiny-qwen2", "made by", "|key| mean"] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    let file = whole.join("cartridge.safetensors");
    let json: Value = serde_json::from_str(&works(&["inspect", text(&file), "--json"])).unwrap();
    assert_eq!(json["kind"], "cartridge");
    assert_eq!(json["shape"]["slots"], 8);
    assert_eq!(json["norms"].as_array().unwrap().len(), 3);
    // One byte of damage.
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    fails(&["inspect", text(whole)], &["cartridge"]);
}

#[test]
fn a_cartridge_of_another_shape_is_refused() {
    let home = TempDir::new().unwrap();
    let ids = write_ids(home.path(), &[1]);
    let (model, out) = (fixture("tiny-qwen2"), home.path().join("out.safetensors"));
    let other = home.path().join("other");
    let layer = HostLayer {
        key: vec![0.5; 8],
        value: vec![0.5; 8],
    };
    let host = HostCartridge::new(1, 8, 1, 0, vec![layer]).unwrap();
    let identity = ModelIdentity {
        id: "other".to_owned(),
        config_fingerprint: "0".repeat(16),
        weights_fingerprint: "1".repeat(64),
        tokenizer_fingerprint: "2".repeat(64),
        num_layers: 1,
        num_kv_heads: 1,
        head_dim: 8,
        rope: Value::Null,
    };
    save(&other, &host, &identity, &Value::Null, CartridgeDtype::F32).unwrap();
    let (model, ids, out) = (text(&model), text(&ids), text(&out));
    fails(
        &[
            "logits",
            "--model",
            model,
            "--ids",
            ids,
            "--out",
            out,
            "--cartridge",
            text(&other),
        ],
        &["other", "layers"],
    );
}

#[test]
fn ids_that_are_no_ids_are_refused() {
    let home = TempDir::new().unwrap();
    let model = fixture("tiny-qwen2");
    let path = home.path().join("ids.json");
    let out = home.path().join("out.safetensors");
    let many: Vec<u32> = vec![1; 4097];
    let many = json!(many).to_string();
    for (content, names) in [
        ("", &["ids.json", "JSON"][..]),
        ("nonsense", &["ids.json", "JSON"]),
        ("{}", &["ids.json", "\"ids\""]),
        ("\"1\"", &["ids.json", "array"]),
        ("[]", &["ids.json", "no ids"]),
        ("[1, -1]", &["ids.json", "element 1", "-1"]),
        ("[1, 2.5]", &["ids.json", "element 1", "2.5"]),
        ("[4294967296]", &["ids.json", "element 0"]),
        (
            "{\"ids\": [1, 511, 512]}",
            &["ids.json", "512", "index 2", "vocabulary"],
        ),
        (&many, &["4097", "4096"]),
    ] {
        std::fs::write(&path, content).unwrap();
        fails(
            &[
                "logits",
                "--model",
                text(&model),
                "--ids",
                text(&path),
                "--out",
                text(&out),
            ],
            names,
        );
    }
    assert!(!out.exists());
}
