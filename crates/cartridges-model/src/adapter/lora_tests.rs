use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::peft_folder::{PEFT_CONFIG_FILE, PEFT_TENSOR_FILE, PeftKind, peft_kind};

fn model() -> ModelIdentity {
    ModelIdentity {
        id: "owner/model".into(),
        config_fingerprint: "c".into(),
        weights_fingerprint: "w".into(),
        tokenizer_fingerprint: "t".into(),
        num_layers: 2,
        num_kv_heads: 2,
        head_dim: 3,
        rope: json!({"theta": 10000.0}),
    }
}

fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + seed) as f32).sin()).collect()
}

fn patch(target: &str, rank: usize, scale: f32) -> HostPatch {
    let (inputs, outputs) = if target == "lm_head" { (4, 9) } else { (6, 4) };
    let a = numbers(rank, rank * inputs);
    let b = numbers(rank + 50, outputs * rank);
    HostPatch {
        scale,
        ..HostPatch::low_rank(target.parse().unwrap(), rank, a, b)
    }
}

fn adapter() -> HostAdapter {
    HostAdapter::new(vec![
        patch("model.layers.0.mlp.down_proj", 3, 1.0),
        patch("model.layers.1.mlp.down_proj", 1, 0.5),
        patch("lm_head", 2, -2.0),
    ])
    .unwrap()
}

fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_lora(dir.path(), &adapter(), &model(), CartridgeDtype::F32).unwrap();
    dir
}

/// `scale · Δ [out, in]`, in f64.
fn delta(patch: &HostPatch) -> Vec<f64> {
    let (n, m) = (patch.inputs, patch.outputs);
    let mut sum = vec![0.0; n * m];
    match &patch.delta {
        Delta::None => {}
        Delta::Dense(delta) => sum = delta.iter().map(|x| f64::from(*x)).collect(),
        Delta::LowRank { rank, a, b } => {
            for (i, cell) in sum.iter_mut().enumerate() {
                let (row, column) = (i / n, i % n);
                let terms =
                    (0..*rank).map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * n + column]));
                *cell = terms.sum();
            }
        }
    }
    sum.iter().map(|x| x * f64::from(patch.scale)).collect()
}

fn same_deltas(found: &HostAdapter, wanted: &HostAdapter) {
    assert_eq!(found.patches().len(), wanted.patches().len());
    for (found, wanted) in found.patches().iter().zip(wanted.patches()) {
        assert_eq!(found.target, wanted.target);
        for (a, b) in delta(found).into_iter().zip(delta(wanted)) {
            assert!((a - b).abs() < 1e-6, "{}: {a} instead of {b}", found.target);
        }
    }
}

fn settings(dir: &Path) -> (PathBuf, Value) {
    let path = dir.join(PEFT_CONFIG_FILE);
    let json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (path, json)
}

fn refused(dir: &Path) -> String {
    read_lora(dir).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read() {
    let dir = written();
    let found = read_lora(dir.path()).unwrap();
    same_deltas(&found.adapter, &adapter());
    assert_eq!(found.base_model.as_deref(), Some("owner/model"));
    assert_eq!(found.dtype, CartridgeDtype::F32);
    assert_eq!(peft_kind(dir.path()).unwrap(), PeftKind::Lora);
    // A second time nothing is left to change.
    write_lora(dir.path(), &found.adapter, &model(), CartridgeDtype::F32).unwrap();
    assert_eq!(read_lora(dir.path()).unwrap(), found);
}

#[test]
fn names_ranks_and_settings_are_those_of_peft() {
    let dir = written();
    let bytes = fs::read(dir.path().join(PEFT_TENSOR_FILE)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, shape) in [
        ("model.layers.0.mlp.down_proj.lora_A.weight", [3, 6]),
        ("model.layers.0.mlp.down_proj.lora_B.weight", [4, 3]),
        ("model.layers.1.mlp.down_proj.lora_A.weight", [3, 6]),
        ("model.layers.1.mlp.down_proj.lora_B.weight", [4, 3]),
        ("lm_head.lora_A.weight", [3, 4]),
        ("lm_head.lora_B.weight", [9, 3]),
    ] {
        let name = format!("base_model.model.{name}");
        assert_eq!(file.tensor(&name).unwrap().shape(), shape, "{name}");
    }
    assert_eq!(file.len(), 6);
    let (_, json) = settings(dir.path());
    assert_eq!((&json["r"], &json["lora_alpha"]), (&json!(3), &json!(3)));
    assert_eq!(json["peft_type"], "LORA");
    assert_eq!(json["target_modules"], json!(["down_proj", "lm_head"]));
    // Where only some layers have a site, short names would reach too far.
    let mut larger = model();
    larger.num_layers = 3;
    write_lora(dir.path(), &adapter(), &larger, CartridgeDtype::Bf16).unwrap();
    let whole = [
        "lm_head",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
    ];
    assert_eq!(settings(dir.path()).1["target_modules"], json!(whole));
    assert_eq!(read_lora(dir.path()).unwrap().dtype, CartridgeDtype::Bf16);
}

#[test]
fn dense_deltas_are_exact_at_full_rank() {
    let dir = tempfile::tempdir().unwrap();
    for target in ["model.layers.0.mlp.down_proj", "lm_head"] {
        let mut dense = patch(target, 1, 0.5);
        dense.delta = Delta::Dense(numbers(3, dense.inputs * dense.outputs));
        let host = HostAdapter::new(vec![dense]).unwrap();
        write_lora(dir.path(), &host, &model(), CartridgeDtype::F32).unwrap();
        same_deltas(&read_lora(dir.path()).unwrap().adapter, &host);
        assert_eq!(settings(dir.path()).1["r"], 4);
    }
}

#[test]
fn what_lora_cannot_say_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let target = "model.layers.1.mlp.down_proj";
    let write = |patch: HostPatch| {
        let host = HostAdapter::new(vec![patch]).unwrap();
        write_lora(dir.path(), &host, &model(), CartridgeDtype::F16).map_err(|e| e.to_string())
    };
    type Change = fn(&mut HostPatch);
    let cases: [(&str, Change); 4] = [
        ("mode post", |p| {
            p.mode = Mode::Post;
            p.inputs = p.outputs;
            p.delta = Delta::Dense(numbers(0, p.outputs * p.outputs));
        }),
        ("has a bias", |p| p.bias = Some(numbers(1, p.outputs))),
        ("no weight delta", |p| {
            p.delta = Delta::None;
            p.bias = Some(vec![0.0; p.outputs]);
        }),
        ("no finite f16", |p| p.scale = 1e6),
    ];
    for (word, change) in cases {
        let mut bad = patch(target, 2, 1.0);
        change(&mut bad);
        let error = write(bad).unwrap_err();
        assert!(error.contains(word) && error.contains(target), "{error}");
    }
    assert!(!dir.path().join(PEFT_CONFIG_FILE).exists());
    // A bias of zeros says nothing; another one can be absorbed.
    let mut zero = patch(target, 2, 1.0);
    zero.bias = Some(vec![0.0; 4]);
    write(zero).unwrap();
}

/// With a feature whose product with the input is 1, the absorbed bias is the bias.
#[test]
fn absorbed_biases_are_added_where_the_feature_is_one() {
    let mut before = patch("model.layers.0.mlp.down_proj", 2, 0.5);
    before.bias = Some(numbers(9, 4));
    let mut feature = vec![0.0; 6];
    feature[2] = 0.25;
    let after = before.clone().absorb_bias(&feature).unwrap();
    assert_eq!(after.bias, None);
    let x: Vec<f64> = (0..6)
        .map(|i| if i == 2 { 4.0 } else { f64::from(i) })
        .collect();
    let apply = |patch: &HostPatch| -> Vec<f64> {
        let rows = delta(patch);
        let rows = rows
            .chunks(6)
            .map(|row| row.iter().zip(&x).map(|(w, x)| w * x).sum());
        rows.collect()
    };
    let bias = before.bias.clone().unwrap();
    let wanted = apply(&before)
        .into_iter()
        .zip(bias)
        .map(|(y, b)| y + 0.5 * f64::from(b));
    for (found, wanted) in apply(&after).into_iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-6, "{found} instead of {wanted}");
    }
    let unchanged = patch("lm_head", 2, 1.0);
    assert_eq!(unchanged.clone().absorb_bias(&[0.0; 4]).unwrap(), unchanged);
    assert!(before.clone().absorb_bias(&[0.0; 5]).is_err());
    assert!(before.clone().absorb_bias(&[f32::NAN; 6]).is_err());
    before.delta = Delta::Dense(numbers(0, 24));
    assert!(before.absorb_bias(&feature).is_err());
}

#[test]
fn scales_follow_the_settings() {
    let dir = written();
    let (path, good) = settings(dir.path());
    let scales = |change: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        change(&mut json);
        fs::write(&path, json.to_string()).unwrap();
        let found = read_lora(dir.path()).unwrap().adapter;
        found.patches().iter().map(|p| p.scale).collect::<Vec<_>>()
    };
    assert_eq!(scales(&|_| ()), [1.0; 3]);
    assert_eq!(scales(&|j| j["lora_alpha"] = json!(6)), [2.0; 3]);
    let root = 6.0 / 3f32.sqrt();
    let rooted = scales(&|j| {
        j["lora_alpha"] = json!(6);
        j["use_rslora"] = json!(true);
    });
    assert!(rooted.iter().all(|s| (s - root).abs() < 1e-6), "{rooted:?}");
    let pattern = |j: &mut Value| {
        j["alpha_pattern"] = json!({"^lm_head": 9, "layers.1.mlp.down_proj": 12});
    };
    assert_eq!(scales(&pattern), [1.0, 4.0, 3.0]);
    let ranks = |j: &mut Value| {
        j["r"] = json!(8);
        j["rank_pattern"] = json!({"down_proj": 3, "lm_head": 3});
    };
    assert_eq!(scales(&ranks), [1.0; 3]);
}

#[test]
fn settings_that_lie_or_ask_for_more_are_refused() {
    let dir = written();
    let (path, good) = settings(dir.path());
    for (field, value, word) in [
        ("peft_type", json!("LOHA"), "expected LORA"),
        ("r", json!(2), "tensors have rank 3"),
        ("r", json!(0), "'r' is missing or 0"),
        ("lora_alpha", json!("x"), "expected a number"),
        ("lora_alpha", Value::Null, "missing, expected a number"),
        ("use_rslora", json!(1), "expected true or false"),
        ("use_dora", json!(true), "more than LoRA"),
        ("modules_to_save", json!(["lm_head"]), "more than LoRA"),
        ("target_parameters", json!(["x"]), "more than LoRA"),
        ("bias", json!("all"), "expected \"none\""),
        ("init_lora_weights", json!("pissa"), "base model's weights"),
        ("alpha_pattern", json!({".*down": 1}), "plain names"),
        (
            "rank_pattern",
            json!({"down_proj": 4}),
            "tensors have rank 3",
        ),
        ("rank_pattern", json!([1]), "expected an object"),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        fs::write(&path, bad.to_string()).unwrap();
        let text = refused(dir.path());
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn odd_tensors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let settings = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
    let read = |tensors: &[(&str, &[usize])]| {
        let sizes = tensors.iter().map(|(_, shape)| shape.iter().product());
        let values: Vec<Vec<f32>> = sizes.map(|n: usize| numbers(n, n)).collect();
        let named: Vec<NamedTensor<'_>> = (tensors.iter().zip(&values))
            .map(|((name, shape), values)| NamedTensor {
                name: format!("base_model.model.{name}"),
                shape: shape.to_vec(),
                values,
            })
            .collect();
        peft_folder::write(dir.path(), &settings, &named, CartridgeDtype::F32).unwrap();
        read_lora(dir.path()).map_err(|e| e.to_string())
    };
    const A: &str = "lm_head.lora_A.weight";
    const B: &str = "lm_head.lora_B.weight";
    const BIAS: &str = "lm_head.lora_B.bias";
    type Named<'a> = (&'a str, &'a [usize]);
    let cases: [(&[Named], &str); 8] = [
        (&[(A, &[2, 4])], "lora_B.weight' is missing"),
        (&[(B, &[9, 2])], "not part of a LoRA"),
        (&[(A, &[8]), (B, &[9, 2])], "expected [rank, in]"),
        (&[(A, &[2, 4]), (B, &[9, 3])], "expected [out, 2]"),
        (&[(A, &[0, 4]), (B, &[9, 0])], "rank 0"),
        (&[(A, &[2, 4]), (B, &[9, 2]), (BIAS, &[8])], "expected [9]"),
        (
            &[(A, &[2, 4]), (B, &[9, 2]), ("lm_head.weight", &[1])],
            "not part of",
        ),
        (
            &[
                ("model.embed.lora_A.weight", &[2, 4]),
                ("model.embed.lora_B.weight", &[4, 2]),
            ],
            "'model.embed' is no target",
        ),
    ];
    for (tensors, word) in cases {
        let error = read(tensors).unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
    }
    // PEFT's own bias is ours: both are multiplied with the scale.
    let found = read(&[(A, &[2, 4]), (B, &[9, 2]), (BIAS, &[9])])
        .unwrap()
        .adapter;
    let patch = &found.patches()[0];
    assert_eq!(
        (patch.scale, patch.bias.clone()),
        (2.0, Some(numbers(9, 9)))
    );
}

#[test]
fn ranks_that_differ_too_much_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wide = |target: &str, rank: usize, inputs: usize, outputs: usize| HostPatch {
        inputs,
        outputs,
        delta: Delta::LowRank {
            rank,
            a: vec![0.1; rank * inputs],
            b: vec![0.1; rank * outputs],
        },
        ..patch(target, 1, 1.0)
    };
    let host = HostAdapter::new(vec![
        wide("model.layers.0.mlp.down_proj", 40_000, 1, 1),
        wide("model.layers.1.mlp.down_proj", 1, 40_000, 1),
    ])
    .unwrap();
    let error = write_lora(dir.path(), &host, &model(), CartridgeDtype::F32).unwrap_err();
    assert!(error.to_string().contains("similar ranks"), "{error}");
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
        prop_assert!(read_lora(dir.path()).is_err());
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
        let _ = read_lora(dir.path());
    }
}
