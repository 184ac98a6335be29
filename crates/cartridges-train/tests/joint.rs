//! Joint training on the tiny golden models: what conversations see is what is served, gradients are
//! those of the loss, alone is alone, and a resumed run is the same run.
#![recursion_limit = "256"]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Tensor;
use cartridges_engine::{Engine, EngineOptions, ScoreRequest};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{
    Cartridge, HostCartridge, ModelIdentity, compose, random_vectors,
};
use cartridges_model::decoder::{Decoder, ModelConfig};
use cartridges_model::text::{CHATML_TEMPLATE, ChatTokenizer};
use cartridges_model::weights::{TokenizerParts, Weights};
use cartridges_ops::test_device;
use cartridges_train::{
    JointConfig, JointHooks, JointTrainer, PackedRow, Recompute, RunEnd, StepReport, Target,
    TrainConfig, Trainer, gradient_among, loss_among, row_loss, train_joint,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MODELS: [&str; 3] = ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"];

fn model(name: &str) -> Arc<LanguageModel> {
    let device = test_device();
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name);
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open_folder(&folder).unwrap();
    let identity = ModelIdentity {
        id: name.to_owned(),
        config_fingerprint: String::new(),
        weights_fingerprint: String::new(),
        tokenizer_fingerprint: String::new(),
        num_layers: config.num_layers,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        rope: serde_json::Value::Null,
    };
    // No text is looked at here, but an engine wants a tokenizer.
    let mut tokens: Vec<String> = (0..config.vocab_size).map(|i| format!("<|{i}|>")).collect();
    tokens[..3].clone_from_slice(&["t", "h", "th"].map(str::to_owned));
    let text = ChatTokenizer::from_gguf(&TokenizerParts {
        model: "gpt2".to_owned(),
        pre: Some("qwen2".to_owned()),
        tokens,
        merges: vec!["t h".to_owned()],
        token_types: vec![1; config.vocab_size],
        eos_id: Some(3),
        chat_template: Some(CHATML_TEMPLATE.to_owned()),
        ..TokenizerParts::default()
    });
    Arc::new(LanguageModel {
        text: text.unwrap(),
        decoder: Decoder::load(config, &weights, &device, &mut |_, _| ()).unwrap(),
        identity,
    })
}

/// Cartridges of 5, 6 and 7 slots.
fn starts(decoder: &Decoder) -> Vec<HostCartridge> {
    (0..3)
        .map(|i| random_vectors(decoder, 5 + i, 1, 70 + i as u64).unwrap())
        .collect()
}

/// Rows of three conversations that are trained on their own tokens, from the second on.
fn rows(count: usize, seed: u64) -> Vec<PackedRow> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let mut row = PackedRow::default();
            for length in [9, 4, 12] {
                let base = row.ids.len();
                row.ids
                    .extend((0..length).map(|_| rng.random_range(0..500u32)));
                row.lengths.push(length);
                row.targets
                    .extend((base + 2..base + length).map(|at| Target {
                        position: at as u32,
                        id: row.ids[at],
                        weight: 1.0,
                    }));
            }
            row.positions = row.num_positions() as f64;
            row
        })
        .collect()
}

fn on_device(hosts: &[HostCartridge], decoder: &Decoder) -> Vec<Cartridge> {
    let device = decoder.device();
    hosts
        .iter()
        .map(|host| Cartridge::from_host(host, device))
        .collect()
}

fn near(found: f64, wanted: f64, tolerance: f64, what: &str) {
    let off = (found - wanted).abs();
    assert!(off <= tolerance, "{what}: {found} instead of {wanted}");
}

#[test]
fn conversations_see_what_is_served() {
    for name in MODELS {
        let model = model(name);
        let decoder = &model.decoder;
        let hosts = starts(decoder);
        let cartridges = on_device(&hosts, decoder);
        let all: Vec<&Cartridge> = cartridges.iter().collect();
        let row = &rows(1, 3)[0];
        // Everybody sees the first and the third, as if they were one.
        let both = compose(&[&hosts[0], &hosts[2]]).unwrap();
        let both = Cartridge::from_host(&both, decoder.device());
        let found = loss_among(decoder, &all, &vec![vec![0, 2]; 3], row);
        near(
            found,
            row_loss(decoder, &both, row),
            1e-4,
            "as one cartridge",
        );

        // Every conversation sees its own, as an engine serves it.
        let seen = [vec![1], vec![0, 1, 2], vec![1, 2]];
        let mut engine = Engine::new(model.clone(), EngineOptions::default());
        let handles: Vec<_> = hosts
            .iter()
            .map(|host| engine.add_cartridge(host).unwrap())
            .collect();
        let mut start = 0;
        let mut requests = Vec::new();
        for (seen, length) in seen.iter().zip(&row.lengths) {
            let ids = &row.ids[start..start + length];
            start += length;
            requests.push(ScoreRequest {
                cartridges: seen.iter().map(|i| handles[*i]).collect(),
                adapters: Vec::new(),
                prompt: ids[..2].to_vec(),
                continuation: ids[2..].to_vec(),
                top_logprobs: 0,
            });
        }
        let scores = engine.score(&requests).unwrap();
        let logprobs = scores.iter().flat_map(|s| &s.logprobs);
        let served: f64 = logprobs.map(|x| -f64::from(*x)).sum();
        let found = loss_among(decoder, &all, &seen, row);
        near(found, served, 1e-4 * row.positions, "as served");
        let alone = loss_among(decoder, &all, &vec![vec![1]; 3], row);
        assert!((found - alone).abs() > 0.1, "{name}: others change nothing");
    }
}

#[test]
fn gradients_are_slopes_of_the_loss_for_every_visible_cartridge() {
    for name in MODELS {
        let model = model(name);
        let decoder = &model.decoder;
        let cartridges = on_device(&starts(decoder), decoder);
        let all: Vec<&Cartridge> = cartridges.iter().collect();
        let row = &rows(1, 4)[0];
        let seen = [vec![0], vec![0, 1], vec![0]];
        let by = |recompute| gradient_among(decoder, &all, &seen, row, recompute);
        let (layers, whole) = (by(Recompute::Layers), by(Recompute::Nothing));
        near(layers.loss, whole.loss, 1e-6, "loss");
        near(
            layers.loss,
            loss_among(decoder, &all, &seen, row),
            1e-4,
            "loss without gradient",
        );
        let square = |t: &Tensor<3>| f64::from((t.clone() * t.clone()).sum().into_scalar::<f32>());
        let each = layers.tensors.len() / 3;
        for (i, (a, b)) in layers.tensors.iter().zip(&whole.tensors).enumerate() {
            let off = square(&(a.clone() - b.clone())).sqrt();
            assert!(off <= 1e-4 * square(b).sqrt().max(1e-6), "{name} {i}");
        }
        for number in 0..3 {
            let gradient = &layers.tensors[number * each..][..each];
            let squares: f64 = gradient.iter().map(square).sum();
            if number == 2 {
                assert_eq!(squares, 0.0, "nobody sees it");
                continue;
            }
            // Along its gradient of length g, the loss has slope g.
            let length = squares.sqrt();
            let moved = |by: f64| {
                let values = cartridges[number].trainable();
                let values = values.into_iter().zip(gradient);
                let values = values.map(|(v, g)| v + g.clone() * (by / length)).collect();
                let moved = cartridges[number].clone().with_trainable(values);
                let mut all = all.clone();
                all[number] = &moved;
                loss_among(decoder, &all, &seen, row)
            };
            let step = 0.02;
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            near(
                slope,
                length,
                0.01 * length,
                &format!("{name} slope {number}"),
            );
        }
    }
}

fn config() -> TrainConfig {
    TrainConfig {
        steps: 6,
        rows_per_step: 2,
        lr: 0.02,
        warmup_steps: 0,
        save_every: 2,
        ..TrainConfig::default()
    }
}

fn joint<'a>(decoder: &'a Decoder, config: &TrainConfig, joint: JointConfig) -> JointTrainer<'a> {
    let trainers = (starts(decoder).iter().zip([3, 5, 2]))
        .map(|(start, count)| {
            Trainer::new(decoder, start, rows(count, count as u64), config.clone()).unwrap()
        })
        .collect();
    JointTrainer::new(trainers, joint).unwrap()
}

fn losses(reports: &[StepReport]) -> Vec<f64> {
    reports.iter().map(|r| r.loss).collect()
}

fn cartridges(trainer: &JointTrainer<'_>) -> Vec<HostCartridge> {
    let all = trainer.trainers().iter();
    all.map(|t| t.cartridge().unwrap()).collect()
}

#[test]
fn alone_is_as_if_each_were_trained_by_itself() {
    let model = model("tiny-qwen3");
    let decoder = &model.decoder;
    let config = TrainConfig {
        max_grad_norm: 0.5,
        ema_decay: 0.3,
        ..config()
    };
    let always = JointConfig {
        alone_share: 1.0,
        ..JointConfig::default()
    };
    let mut together = joint(decoder, &config, always);
    let curves: Vec<Vec<f64>> = (0..6).map(|_| losses(&together.step().unwrap())).collect();
    let found = cartridges(&together);
    for (number, (start, count)) in starts(decoder).iter().zip([3, 5, 2]).enumerate() {
        let rows = rows(count, count as u64);
        let mut alone = Trainer::new(decoder, start, rows, config.clone()).unwrap();
        for curve in &curves {
            assert_eq!(alone.step().unwrap().loss, curve[number]);
        }
        assert_eq!(alone.cartridge().unwrap(), found[number]);
    }
    // Among others it is something else, and the losses fall all the same.
    let mut among = joint(
        decoder,
        &TrainConfig {
            steps: 40,
            ..config
        },
        JointConfig::default(),
    );
    let first = losses(&among.step().unwrap());
    let last = (1..40)
        .map(|_| losses(&among.step().unwrap()))
        .last()
        .unwrap();
    assert_ne!(first, curves[0]);
    assert!(
        first.iter().zip(&last).all(|(a, b)| *b < a - 0.5),
        "{first:?} {last:?}"
    );
    for wrong in [
        JointConfig {
            alone_share: 1.5,
            ..always
        },
        JointConfig {
            max_distractors: 0,
            ..JointConfig::default()
        },
    ] {
        assert!(wrong.validate().unwrap_err().to_string().contains("joint."));
    }
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let model = model("tiny-qwen2");
    let decoder = &model.decoder;
    let folder = tempfile::tempdir().unwrap();
    let run = |folder: &Path, end: usize, settings: JointConfig| {
        let mut trainer = joint(decoder, &config(), settings);
        let stop = AtomicBool::new(false);
        let mut seen = Vec::new();
        let mut on_step = |reports: &[StepReport]| {
            seen.push(losses(reports));
            if reports[0].step == end {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        };
        let hooks = JointHooks {
            trackers: Vec::new(),
            on_step: &mut on_step,
            score: None,
        };
        let ended = train_joint(&mut trainer, folder, "run", &stop, hooks);
        ended.map(|ended| (ended, seen, cartridges(&trainer)))
    };
    let whole = run(&folder.path().join("whole"), 99, JointConfig::default()).unwrap();
    assert_eq!((whole.0, whole.1.len()), (RunEnd::Finished, 6));
    let parts = folder.path().join("parts");
    let first = run(&parts, 3, JointConfig::default()).unwrap();
    assert_eq!(first.0, RunEnd::Stopped);
    let rest = run(&parts, 99, JointConfig::default()).unwrap();
    assert_eq!([first.1, rest.1].concat(), whole.1);
    assert_eq!(rest.2, whole.2);
    let other = JointConfig {
        alone_share: 0.4,
        ..JointConfig::default()
    };
    let refused = run(&parts, 99, other).unwrap_err().to_string();
    assert!(refused.contains("other settings"), "{refused}");
}
