use std::path::Path;

use burn::tensor::Tensor;
use cartridges_ops::{AttentionLayout, test_device};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;
use crate::cartridge::{CartridgeDtype, ModelIdentity};
use crate::decoder::{Decoder, ModelConfig, NoPast, Packed};
use crate::weights::Weights;

const IDS: [u32; 9] = [3, 17, 250, 9, 88, 41, 7, 300, 12];

fn decoder(name: &str) -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name);
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open_folder(&folder).unwrap();
    let device = test_device();
    Decoder::load(config, &weights, &device, &mut |_, _| ()).unwrap()
}

fn numbers(rng: &mut ChaCha8Rng, count: usize, size: f32) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-size..size)).collect()
}

/// Every target of the model that takes `mode`, with a low rank, a dense delta or a bias in turn.
fn adapter(config: &ModelConfig, mode: Mode, seed: u64) -> HostAdapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layers = (0..config.num_layers)
        .flat_map(|layer| Site::ALL.map(|site| Target::Layer { layer, site }))
        .chain([Target::FinalNorm, Target::LmHead]);
    let patches = layers
        .filter_map(|target| {
            let (inputs, outputs) = target.widths(config)?;
            let inputs = match mode {
                Mode::Linear if target == Target::FinalNorm => return None,
                Mode::Linear => inputs,
                Mode::Post => outputs,
            };
            let delta = match rng.random_range(0..3) {
                0 => Delta::LowRank {
                    rank: 3,
                    a: numbers(&mut rng, 3 * inputs, 0.1),
                    b: numbers(&mut rng, 3 * outputs, 0.1),
                },
                1 if outputs < 200 => Delta::Dense(numbers(&mut rng, inputs * outputs, 0.05)),
                _ => Delta::None,
            };
            Some(HostPatch {
                target,
                mode,
                scale: 0.5,
                inputs,
                outputs,
                delta,
                bias: Some(numbers(&mut rng, outputs, 0.1)),
            })
        })
        .collect();
    HostAdapter::new(patches).unwrap()
}

fn logits(decoder: &Decoder, ids: &[u32], lengths: &[usize], adapters: &BatchAdapters) -> Vec<f32> {
    let positions: Vec<u32> = lengths.iter().flat_map(|n| 0..*n as u32).collect();
    let batch = Packed {
        ids,
        positions: &positions,
        layout: &AttentionLayout::packed(0, lengths),
        adapters,
    };
    let hidden = decoder.hidden(batch, &mut NoPast);
    let logits = decoder.logits(decoder.final_norm(hidden, adapters), adapters);
    logits.into_data().try_to_vec().unwrap()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let worst = a
        .iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
    let worst = worst.fold(0.0, f32::max);
    assert!(worst < tolerance, "{worst}");
}

/// `b · a`, or the dense delta, times `x`, plus the bias, in f64.
fn expected(patch: &HostPatch, x: &[f32]) -> Vec<f64> {
    let product = |m: &[f32], x: &[f64]| -> Vec<f64> {
        m.chunks(x.len())
            .map(|row| row.iter().zip(x).map(|(m, x)| f64::from(*m) * x).sum())
            .collect()
    };
    let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
    let mut sum = match &patch.delta {
        Delta::None => vec![0.0; patch.outputs],
        Delta::LowRank { a, b, .. } => product(b, &product(a, &x)),
        Delta::Dense(delta) => product(delta, &x),
    };
    if let Some(bias) = &patch.bias {
        sum.iter_mut()
            .zip(bias)
            .for_each(|(s, b)| *s += f64::from(*b));
    }
    sum.iter().map(|s| s * f64::from(patch.scale)).collect()
}

#[test]
fn every_patch_adds_what_its_formula_says() {
    let decoder = decoder("tiny-qwen3");
    let device = decoder.device();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for mode in [Mode::Linear, Mode::Post] {
        let host = adapter(decoder.config(), mode, 5);
        let module = ThoughtAdapter::from_host(&host, device);
        for patch in host.patches() {
            let (inputs, outputs) = patch.target.widths(decoder.config()).unwrap();
            let (x, y) = (
                numbers(&mut rng, inputs, 1.0),
                numbers(&mut rng, outputs, 1.0),
            );
            let row = |v: &[f32]| {
                let data = burn::tensor::TensorData::new(v.to_vec(), [1, v.len()]);
                Tensor::<2>::from_data(data, device)
            };
            let found = module.delta(patch.target, &row(&x), &row(&y)).unwrap();
            let found: Vec<f32> = found.into_data().try_to_vec().unwrap();
            let wanted = expected(patch, if mode == Mode::Linear { &x } else { &y });
            let wanted: Vec<f32> = wanted.into_iter().map(|x| x as f32).collect();
            close(&found, &wanted, 1e-5);
        }
    }
}

#[test]
fn registering_and_removing_leaves_every_bit_as_it_was() {
    for name in ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"] {
        let decoder = decoder(name);
        let run = |adapters: &BatchAdapters| logits(&decoder, &IDS, &[9], adapters);
        let before = run(BatchAdapters::NONE);
        let mut registry = AdapterRegistry::default();
        let host = adapter(decoder.config(), Mode::Linear, 1);
        let handle = registry.register(&host, &decoder).unwrap();
        let changed = run(&registry.everywhere());
        let moved = before
            .iter()
            .zip(&changed)
            .filter(|(a, b)| (**a - **b).abs() > 1e-2);
        assert!(moved.count() > before.len() / 2);
        assert_eq!(registry.get(handle).unwrap().digest, host.digest());
        assert!(registry.remove(handle).is_some());
        assert!(registry.remove(handle).is_none());
        assert_eq!(run(&registry.everywhere()), before);
    }
}

#[test]
fn adapters_add_up_in_any_order() {
    let decoder = decoder("tiny-llama3");
    // Biases at one place: their sum is known, whatever stands behind it.
    let bias = |factor: f32| {
        let target = "model.layers.0.mlp.down_proj".parse().unwrap();
        let (inputs, outputs) = Target::widths(target, decoder.config()).unwrap();
        let values = (0..outputs).map(|i| factor * (i as f32).sin());
        HostAdapter::new(vec![HostPatch {
            target,
            mode: Mode::Linear,
            scale: 1.0,
            inputs,
            outputs,
            delta: Delta::None,
            bias: Some(values.collect()),
        }])
        .unwrap()
    };
    let run = |hosts: &[HostAdapter]| {
        let mut registry = AdapterRegistry::default();
        for host in hosts {
            registry.register(host, &decoder).unwrap();
        }
        logits(&decoder, &IDS, &[9], &registry.everywhere())
    };
    close(&run(&[bias(0.2), bias(0.3)]), &run(&[bias(0.5)]), 1e-5);
    let two = [1, 2].map(|seed| adapter(decoder.config(), Mode::Linear, seed));
    let swapped = [two[1].clone(), two[0].clone()];
    close(&run(&two), &run(&swapped), 1e-5);
}

#[test]
fn rows_of_one_batch_have_their_own_adapters() {
    for mode in [Mode::Linear, Mode::Post] {
        let decoder = decoder("tiny-qwen2");
        let mut registry = AdapterRegistry::default();
        let handles = [1, 2].map(|seed| {
            let host = adapter(decoder.config(), mode, seed);
            registry.register(&host, &decoder).unwrap()
        });
        let module = |i: usize| registry.get(handles[i]).unwrap().adapter.clone();
        // Four sequences: the first adapter, none, both, the second.
        let sequences: [(&[u32], &[usize]); 4] = [
            (&IDS[..4], &[0]),
            (&IDS[2..5], &[]),
            (&IDS[1..7], &[0, 1]),
            (&IDS, &[1]),
        ];
        let ids: Vec<u32> = sequences.iter().flat_map(|s| s.0.iter().copied()).collect();
        let lengths: Vec<usize> = sequences.iter().map(|s| s.0.len()).collect();
        let mut rows: [Vec<usize>; 2] = Default::default();
        let mut at = 0;
        for (ids, adapters) in sequences {
            for adapter in adapters {
                rows[*adapter].extend(at..at + ids.len());
            }
            at += ids.len();
        }
        let groups = rows.into_iter().enumerate();
        let groups = groups.map(|(i, rows)| (module(i), rows));
        let adapters = BatchAdapters::for_rows(groups, ids.len(), decoder.device());
        let together = logits(&decoder, &ids, &lengths, &adapters);
        let vocab = decoder.config().vocab_size;
        let mut at = 0;
        for (ids, adapters) in sequences {
            let mine = BatchAdapters::everywhere(adapters.iter().map(|i| module(*i)));
            let alone = logits(&decoder, ids, &[ids.len()], &mine);
            close(
                &together[at * vocab..(at + ids.len()) * vocab],
                &alone,
                1e-4,
            );
            at += ids.len();
        }
    }
}

fn identity(config: &ModelConfig) -> ModelIdentity {
    ModelIdentity {
        id: "tiny".into(),
        config_fingerprint: "c".into(),
        weights_fingerprint: "w".into(),
        tokenizer_fingerprint: "t".into(),
        num_layers: config.num_layers,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        rope: json!({"theta": 1e4}),
    }
}

#[test]
fn what_was_saved_is_loaded_and_damage_is_named() {
    let config = decoder("tiny-qwen3").config().clone();
    let (dir, model) = (tempfile::tempdir().unwrap(), identity(&config));
    for mode in [Mode::Linear, Mode::Post] {
        let host = adapter(&config, mode, 3);
        let how = json!({"program": "test"});
        let saved = save_adapter(dir.path(), &host, &model, &how, CartridgeDtype::F32).unwrap();
        let (loaded, manifest) = load_adapter(dir.path()).unwrap();
        assert_eq!((&loaded, &manifest), (&host, &saved));
        assert_eq!(loaded.digest(), host.digest());
        assert_eq!(load_adapter_manifest(dir.path()).unwrap(), saved);
        loaded.check(&config).unwrap();
        manifest.check(&model, false).unwrap();
    }
    let mut other = model.clone();
    other.weights_fingerprint = "v".into();
    let manifest = load_adapter_manifest(dir.path()).unwrap();
    let error = manifest.check(&other, false).unwrap_err().to_string();
    assert!(error.contains("this adapter was made for"), "{error}");
    manifest.check(&other, true).unwrap();

    let path = dir.path().join(ADAPTER_FILE);
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 7, 40, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = load_adapter(dir.path()).unwrap_err().to_string();
        assert!(error.contains("adapter.safetensors"), "{error}");
    }
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    assert!(
        load_adapter(dir.path())
            .unwrap_err()
            .to_string()
            .contains("sha256")
    );
    std::fs::write(&path, &whole).unwrap();
    let json_path = dir.path().join(ADAPTER_MANIFEST_FILE);
    let text = std::fs::read_to_string(&json_path).unwrap();
    for (old, new, word) in [
        ("\"format_version\": 1", "\"format_version\": 9", "version"),
        ("mlp.down_proj", "mlp.sideways", "no target"),
        ("\"scale\"", "\"scales\"", "scales"),
        ("\"inputs\": 64", "\"inputs\": 65", "65"),
    ] {
        let wrong = text.replacen(old, new, 1);
        if wrong != text {
            std::fs::write(&json_path, wrong).unwrap();
            let error = load_adapter(dir.path()).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

#[test]
fn patches_that_contradict_themselves_or_the_model_are_refused() {
    let config = decoder("tiny-qwen3").config().clone();
    let target: Target = "model.layers.1.mlp.down_proj".parse().unwrap();
    let (inputs, outputs) = target.widths(&config).unwrap();
    let (a, b) = (vec![0.1; 2 * inputs], vec![0.1; 2 * outputs]);
    let good = HostPatch::low_rank(target, 2, a, b);
    HostAdapter::new(vec![good.clone()])
        .unwrap()
        .check(&config)
        .unwrap();
    type Change = fn(&mut HostPatch);
    let wrong: [(&str, Change); 8] = [
        ("rank 0", |p| {
            p.delta = Delta::LowRank {
                rank: 0,
                a: vec![],
                b: vec![],
            }
        }),
        ("a has", |p| p.inputs += 1),
        ("b has", |p| p.outputs += 1),
        ("the bias has", |p| p.bias = Some(vec![0.0])),
        ("NaN", |p| p.bias = Some(vec![f32::NAN; p.outputs])),
        ("inf", |p| p.scale = f32::INFINITY),
        ("square", |p| p.mode = Mode::Post),
        ("changes nothing", |p| p.delta = Delta::None),
    ];
    for (word, change) in wrong {
        let mut patch = good.clone();
        change(&mut patch);
        let error = HostAdapter::new(vec![patch]).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
        assert!(error.contains("model.layers.1.mlp.down_proj"), "{error}");
    }
    assert!(matches!(HostAdapter::new(vec![]), Err(AdapterError::Empty)));
    let twice = HostAdapter::new(vec![good.clone(), good.clone()]);
    assert!(twice.unwrap_err().to_string().contains("two patches"));
    let norm = HostPatch {
        target: Target::FinalNorm,
        ..good.clone()
    };
    let error = HostAdapter::new(vec![norm]).unwrap_err().to_string();
    assert!(error.contains("post"), "{error}");
    let mut far = good.clone();
    far.target = "model.layers.99.mlp.down_proj".parse().unwrap();
    let far = HostAdapter::new(vec![far]).unwrap();
    assert!(
        far.check(&config)
            .unwrap_err()
            .to_string()
            .contains("layers")
    );
    let mut other = good;
    other.target = "lm_head".parse().unwrap();
    let other = HostAdapter::new(vec![other]).unwrap();
    assert!(
        other
            .check(&config)
            .unwrap_err()
            .to_string()
            .contains("the model has")
    );
}

#[test]
fn targets_are_the_paths_of_checkpoints() {
    for path in [
        "model.layers.0.self_attn.q_proj",
        "model.layers.31.mlp.down_proj",
        "model.norm",
        "lm_head",
    ] {
        assert_eq!(path.parse::<Target>().unwrap().to_string(), path);
    }
    for path in [
        "",
        "norm",
        "model.layers.x.mlp.up_proj",
        "model.layers.+1.mlp.up_proj",
        "model.layers.0.mlp",
        "model.layers.0",
    ] {
        assert!(path.parse::<Target>().is_err(), "{path}");
    }
}

/// Property 17: tensors whose ranks or widths are not those of each other and of the manifest.
#[test]
fn tensors_of_other_ranks_and_shapes_are_refused() {
    let config = decoder("tiny-qwen3").config().clone();
    let dir = tempfile::tempdir().unwrap();
    let target = Target::Layer {
        layer: 1,
        site: Site::DownProj,
    };
    let (inputs, outputs) = target.widths(&config).unwrap();
    let (a, b) = (vec![0.5; 2 * inputs], vec![0.5; 2 * outputs]);
    let patch = HostPatch::low_rank(target, 2, a, b);
    let (host, how) = (HostAdapter::new(vec![patch]).unwrap(), json!({}));
    let model = identity(&config);
    let saved = save_adapter(dir.path(), &host, &model, &how, CartridgeDtype::F32).unwrap();
    let zeros = vec![0u8; 4 * inputs * outputs];
    let load_with = |tensors: &[(&str, [usize; 2])]| {
        let views = tensors.iter().map(|(part, shape)| {
            let bytes = &zeros[..4 * shape[0] * shape[1]];
            let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
            (format!("{target}.{part}"), view)
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        let manifest = AdapterManifest {
            sha256: crate::digest::hex(&Sha256::digest(&bytes)),
            ..saved.clone()
        };
        std::fs::write(dir.path().join(ADAPTER_FILE), bytes).unwrap();
        let text = serde_json::to_string(&manifest).unwrap();
        std::fs::write(dir.path().join(ADAPTER_MANIFEST_FILE), text).unwrap();
        load_adapter(dir.path())
    };
    load_with(&[("lora_a", [3, inputs]), ("lora_b", [outputs, 3])]).unwrap();
    for (a, b, named) in [
        ([2, inputs], [outputs, 3], "lora_b"),
        ([2, inputs - 1], [outputs, 2], "lora_a"),
        ([2, inputs], [outputs + 1, 2], "lora_b"),
    ] {
        let error = load_with(&[("lora_a", a), ("lora_b", b)])
            .unwrap_err()
            .to_string();
        assert!(error.contains(named) && error.contains("shape"), "{error}");
    }
    let error = load_with(&[("lora_a", [2, inputs])])
        .unwrap_err()
        .to_string();
    assert!(error.contains("half of a delta"), "{error}");
    let error = load_with(&[("delta", [inputs, outputs])])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("delta") && error.contains("shape"),
        "{error}"
    );
}
