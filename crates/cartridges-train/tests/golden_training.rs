//! Training against PyTorch: packed logits, both losses, gradients, the Adam curve, greedy text.
#![recursion_limit = "256"]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use cartridges_model::adapter::BatchAdapters;
use cartridges_model::cartridge::{Cartridge, HostCartridge, HostLayer, first_tokens};
use cartridges_model::decoder::{Decoder, KvSource, ModelConfig, Packed};
use cartridges_model::weights::Weights;
use cartridges_ops::{AttentionLayout, test_device};
use cartridges_train::{
    Alone, Exchange, Facts, GroupError, GroupOptions, LossPer, PackedRow, Recompute, Schedule,
    Star, Target, TrainConfig, Trainer, row_gradient,
};
use safetensors::SafeTensors;

const MODELS: [&str; 3] = ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"];

struct Golden {
    decoder: Decoder,
    bytes: Vec<u8>,
}

impl Golden {
    fn open(name: &str, device: &Device) -> Self {
        let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures")
            .join(name);
        let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
        let weights = Weights::open_folder(&folder).unwrap();
        Self {
            decoder: Decoder::load(config, &weights, device, &mut |_, _| ()).unwrap(),
            bytes: std::fs::read(folder.join("cartridge_training.safetensors")).unwrap(),
        }
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let normed = self.decoder.final_norm(hidden, BatchAdapters::NONE);
        self.decoder.logits(normed, BatchAdapters::NONE)
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let file = self.file();
        let tensor = file.tensor(name).unwrap();
        match tensor.dtype() {
            safetensors::Dtype::F64 => tensor
                .data()
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32)
                .collect(),
            _ => tensor
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
        }
    }

    fn ints(&self, name: &str) -> Vec<usize> {
        let file = self.file();
        let tensor = file.tensor(name).unwrap();
        let width = tensor.data().len() / tensor.shape().iter().product::<usize>().max(1);
        tensor
            .data()
            .chunks_exact(width)
            .map(|b| match width {
                8 => i64::from_le_bytes(b.try_into().unwrap()) as usize,
                _ => i32::from_le_bytes(b.try_into().unwrap()) as usize,
            })
            .collect()
    }

    /// [p, frozen, layers, kv_heads, head_dim].
    fn meta(&self) -> [usize; 5] {
        self.ints("meta").try_into().unwrap()
    }

    fn stored(&self, keys: &str, values: &str) -> HostCartridge {
        let [p, frozen, layers, kv, dim] = self.meta();
        let layers = (0..layers)
            .map(|l| HostLayer {
                key: self.floats(&format!("{keys}.{l}")),
                value: self.floats(&format!("{values}.{l}")),
            })
            .collect();
        HostCartridge::new(kv, dim, p, frozen, layers).unwrap()
    }

    /// The packed row without the padding at its end, which no other token sees.
    fn row(&self) -> PackedRow {
        let ids: Vec<u32> = self.ints("input_ids").iter().map(|i| *i as u32).collect();
        let elements = self.ints("element_ids");
        let positions = self.ints("position_ids");
        let mut lengths: Vec<usize> = Vec::new();
        for i in 0..ids.len() {
            let starts = i == 0 || elements[i] != elements[i - 1];
            if starts && positions[i] == 0 && elements[i] == lengths.len() {
                lengths.push(1);
            } else if !starts && positions[i] == positions[i - 1] + 1 {
                *lengths.last_mut().unwrap() += 1;
            } else {
                break;
            }
        }
        let logprobs = self.floats("topk_logprobs");
        let candidates = self.ints("topk_token_ids");
        let mut targets: Vec<Target> = self
            .ints("topk_token_idxs")
            .iter()
            .zip(candidates)
            .zip(logprobs)
            .map(|((position, id), logprob)| Target {
                position: *position as u32,
                id: id as u32,
                weight: logprob.exp(),
            })
            .collect();
        targets.sort_by_key(|t| t.position);
        let total: usize = lengths.iter().sum();
        assert!(targets.iter().all(|t| (t.position as usize) < total));
        let distinct = targets.chunk_by(|a, b| a.position == b.position).count();
        PackedRow {
            ids: ids[..total].to_vec(),
            lengths,
            targets,
            positions: distinct as f64,
        }
    }
}

/// The cartridge in front of new tokens, without gradients; keeps what it has seen.
struct Behind {
    layers: Vec<(Tensor<3>, Tensor<3>)>,
}

impl Behind {
    fn new(cartridge: &Cartridge) -> Self {
        let layers = (0..cartridge.num_layers())
            .map(|l| cartridge.layer(l))
            .collect();
        Self { layers }
    }
}

impl KvSource for Behind {
    fn extend(&mut self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let (keys, values) = &self.layers[layer];
        let all = (
            Tensor::cat(vec![keys.clone(), k], 0),
            Tensor::cat(vec![values.clone(), v], 0),
        );
        self.layers[layer] = all.clone();
        all
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

fn assert_close(found: &[f32], wanted: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!(
            (a - b).abs() <= tolerance,
            "{what}[{i}]: {a} instead of {b}"
        );
    }
}

fn each(test: impl Fn(&str, Golden)) {
    for name in MODELS {
        test(name, Golden::open(name, &test_device()));
    }
}

#[test]
fn a_cartridge_from_tokens_is_the_models_own_kv() {
    each(|name, golden| {
        let [p, frozen, ..] = golden.meta();
        let ids: Vec<u32> = golden
            .ints("init_token_ids")
            .iter()
            .map(|i| *i as u32)
            .collect();
        assert_eq!(ids.len(), p);
        let made = first_tokens(&golden.decoder, &ids, frozen).unwrap();
        let wanted = golden.stored("init_keys", "init_values");
        for (made, wanted) in made.layers.iter().zip(&wanted.layers) {
            assert_close(&made.key, &wanted.key, 1e-4, &format!("{name} init key"));
            assert_close(
                &made.value,
                &wanted.value,
                1e-4,
                &format!("{name} init value"),
            );
        }
    });
}

#[test]
fn packed_logits_losses_and_gradients_are_those_of_pytorch() {
    each(|name, golden| {
        let [p, frozen, layers, kv, dim] = golden.meta();
        let host = golden.stored("init_keys", "init_values");
        let cartridge = Cartridge::from_host(&host, golden.decoder.device());
        let row = golden.row();
        assert!(row.lengths.len() >= 3, "{:?}", row.lengths);

        let positions: Vec<u32> = row
            .lengths
            .iter()
            .flat_map(|len| (0..*len).map(|i| (p + i) as u32))
            .collect();
        let layout = AttentionLayout::packed(p, &row.lengths);
        let batch = Packed {
            ids: &row.ids,
            positions: &positions,
            layout: &layout,
            adapters: BatchAdapters::NONE,
        };
        let hidden = golden.decoder.hidden(batch, &mut Behind::new(&cartridge));
        let logits = values(golden.logits(hidden));
        let wanted = golden.floats("logits");
        assert_close(
            &logits,
            &wanted[..logits.len()],
            1e-4,
            &format!("{name} logits"),
        );

        for recompute in [Recompute::Nothing, Recompute::Layers, Recompute::Auto] {
            let gradient = row_gradient(&golden.decoder, &cartridge, &row, recompute);
            let pairs = row.targets.len() as f64;
            let wanted = f64::from(golden.floats("loss_mean_over_pairs")[0]);
            assert!(
                (gradient.loss / pairs - wanted).abs() < 1e-5,
                "{name} loss over pairs"
            );
            let wanted = f64::from(golden.floats("loss_mean_over_positions")[0]);
            let found = gradient.loss / row.positions;
            assert!((found - wanted).abs() < 1e-5, "{name} loss over positions");
            for (i, tensor) in gradient.tensors.into_iter().enumerate() {
                let kind = ["keys", "values"][i / layers];
                let what = format!("grad_{kind}.{}", i % layers);
                let found = values((tensor / pairs).permute([1, 0, 2]));
                assert_eq!(found.len(), kv * (p - frozen) * dim);
                let wanted = golden.floats(&what);
                let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|v| v * v).sum::<f32>().sqrt();
                let off = norm(&mut found.iter().zip(&wanted).map(|(a, b)| a - b));
                let size = norm(&mut wanted.iter().copied());
                assert!(
                    off <= 1e-4 * size,
                    "{name} {what} {recompute:?}: {off} of {size}"
                );
            }
        }
    });
}

fn golden_config() -> TrainConfig {
    TrainConfig {
        steps: 25,
        lr: 2e-2,
        warmup_steps: 0,
        schedule: Schedule::Constant,
        loss_per: LossPer::Pair,
        ..TrainConfig::default()
    }
}

#[test]
fn the_adam_curve_and_the_trained_cartridge_are_those_of_pytorch() {
    each(|name, golden| {
        let wanted = golden.floats("adam_loss_curve");
        let start = golden.stored("init_keys", "init_values");
        let rows = vec![golden.row()];
        let mut trainer =
            Trainer::new(&golden.decoder, &start, rows.clone(), golden_config()).unwrap();
        let mut curve = Vec::new();
        for _ in 0..25 {
            curve.push(trainer.step().unwrap().loss as f32);
        }
        let trained = trainer.cartridge().unwrap();
        let cartridge = Cartridge::from_host(&trained, golden.decoder.device());
        let last = cartridges_train::row_loss(&golden.decoder, &cartridge, &rows[0]);
        curve.push((last / rows[0].targets.len() as f64) as f32);
        assert_close(&curve, &wanted, 1e-4, &format!("{name} Adam curve"));
        let [_, frozen, ..] = golden.meta();
        assert_eq!(trained.frozen, frozen);
        // The frozen slots have not moved at all.
        let width = trained.head_dim * frozen;
        for (now, before) in trained.layers.iter().zip(&start.layers) {
            assert_eq!(now.key[..width], before.key[..width]);
        }
    });
}

#[test]
fn greedy_text_behind_the_trained_cartridge_is_that_of_pytorch() {
    each(|name, golden| {
        let [p, ..] = golden.meta();
        let host = golden.stored("final_keys", "final_values");
        let cartridge = Cartridge::from_host(&host, golden.decoder.device());
        let mut past = Behind::new(&cartridge);
        let mut ids: Vec<u32> = golden
            .ints("chat_prompt")
            .iter()
            .map(|i| *i as u32)
            .collect();
        let wanted_ids = golden.ints("chat_greedy");
        let wanted_logits = golden.floats("chat_logits");
        let vocab = golden.decoder.config().vocab_size;
        let mut seen = 0;
        for (step, wanted) in wanted_ids.iter().enumerate() {
            let new = ids[seen..].to_vec();
            let positions: Vec<u32> = (seen..ids.len()).map(|i| (p + i) as u32).collect();
            let layout = AttentionLayout::new(
                vec![cartridges_ops::QueryRun {
                    start: 0,
                    len: new.len(),
                    keys: vec![cartridges_ops::KeyRange {
                        start: 0,
                        len: p + ids.len(),
                        causal: true,
                    }],
                }],
                new.len(),
                p + ids.len(),
            )
            .unwrap();
            let batch = Packed {
                ids: &new,
                positions: &positions,
                layout: &layout,
                adapters: BatchAdapters::NONE,
            };
            let hidden = golden.decoder.hidden(batch, &mut past);
            let last = hidden.narrow(0, new.len() - 1, 1);
            let logits = values(golden.logits(last));
            assert_close(
                &logits,
                &wanted_logits[step * vocab..(step + 1) * vocab],
                1e-4,
                &format!("{name} chat logits {step}"),
            );
            seen = ids.len();
            let best = (0..vocab)
                .max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
                .unwrap();
            assert_eq!(best, *wanted, "{name} step {step}");
            ids.push(best as u32);
        }
    });
}

#[test]
fn a_resumed_run_has_the_same_losses() {
    let device = test_device();
    let golden = Golden::open("tiny-qwen2", &device);
    let start = golden.stored("init_keys", "init_values");
    let mut second = golden.row();
    second.targets.truncate(second.targets.len() / 2);
    let rows = vec![golden.row(), second];
    let config = TrainConfig {
        steps: 9,
        schedule: Schedule::Cosine,
        warmup_steps: 2,
        ..golden_config()
    };
    let new = || Trainer::new(&golden.decoder, &start, rows.clone(), config.clone()).unwrap();
    let mut whole = new();
    let losses: Vec<f64> = (0..9).map(|_| whole.step().unwrap().loss).collect();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut first = new();
    assert!(!first.resume(&path, "run").unwrap());
    for _ in 0..4 {
        first.step().unwrap();
    }
    first.save_checkpoint(&path, "run").unwrap();
    drop(first);
    let mut again = new();
    assert!(again.resume(&path, "run").unwrap());
    let rest: Vec<f64> = (4..9).map(|_| again.step().unwrap().loss).collect();
    assert_eq!(rest, losses[4..]);
    assert_eq!(again.cartridge().unwrap(), whole.cartridge().unwrap());

    let refused = new().resume(&path, "other run").unwrap_err().to_string();
    assert!(refused.contains("other data"), "{refused}");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(new().resume(&path, "run").is_err());
}

/// Two members, each with its share of a step's rows, against one with all of them.
#[test]
fn two_members_train_as_one_does() {
    let device = test_device();
    for name in MODELS {
        let golden = Golden::open(name, &device);
        let start = golden.stored("init_keys", "init_values");
        let rows: Vec<PackedRow> = (1..=4)
            .map(|part| {
                let mut row = golden.row();
                row.targets.truncate(row.targets.len() * part / 4);
                row.positions = row.num_positions() as f64;
                row
            })
            .collect();
        let config = TrainConfig {
            steps: 12,
            rows_per_step: 3,
            lr: 5e-3,
            max_grad_norm: 0.1,
            ema_decay: 0.5,
            ..golden_config()
        };
        let run = |group: Box<dyn Exchange>| {
            let trainer = Trainer::new(&golden.decoder, &start, rows.clone(), config.clone());
            let mut trainer = trainer.unwrap().with_group(group).unwrap();
            let curve: Vec<f32> = (0..12)
                .map(|_| trainer.step().unwrap().loss as f32)
                .collect();
            (curve, trainer.cartridge().unwrap())
        };
        let (wanted_curve, wanted) = run(Box::new(Alone));
        let facts = Facts::new("weights", "data", &config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let leader = listener.local_addr().unwrap().to_string();
        let options = GroupOptions::default();
        let both = std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                run(Box::new(
                    Star::join(&leader, 1, 2, &facts, options).unwrap(),
                ))
            });
            let first = Star::lead(&listener, 2, &facts, options, &mut || Ok(())).unwrap();
            [run(Box::new(first)), second.join().unwrap()]
        });
        assert_eq!(both[0], both[1], "{name}: the members differ");
        assert_close(&both[0].0, &wanted_curve, 1e-4, &format!("{name} curve"));
        assert_ne!(wanted, start);
        for (found, wanted) in both[0].1.layers.iter().zip(&wanted.layers) {
            assert_close(&found.key, &wanted.key, 1e-4, &format!("{name} keys"));
            assert_close(&found.value, &wanted.value, 1e-4, &format!("{name} values"));
        }
    }
    let golden = Golden::open("tiny-qwen2", &device);
    let start = golden.stored("init_keys", "init_values");
    let trainer = Trainer::new(&golden.decoder, &start, vec![golden.row()], golden_config());
    struct Two;
    impl Exchange for Two {
        fn rank(&self) -> usize {
            0
        }
        fn size(&self) -> usize {
            2
        }
        fn sum(&mut self, t: Vec<Tensor<3>>, _: &mut [f64]) -> Result<Vec<Tensor<3>>, GroupError> {
            Ok(t)
        }
        fn share(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, GroupError> {
            Ok(bytes)
        }
    }
    let refused = trainer.unwrap().with_group(Box::new(Two)).err().unwrap();
    assert!(
        refused
            .to_string()
            .contains("rows_per_step is 1 for 2 processes")
    );
}
