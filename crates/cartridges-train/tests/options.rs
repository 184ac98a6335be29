//! The options of training, each by its formula, on a tiny model.
#![recursion_limit = "256"]

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use cartridges_model::cartridge::{Cartridge, HostCartridge, first_tokens};
use cartridges_model::decoder::{Decoder, ModelConfig};
use cartridges_model::weights::Weights;
use cartridges_ops::test_device;
use cartridges_train::*;

const VOCABULARY: u32 = 512;

fn decoder() -> Decoder {
    let device = test_device();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-qwen2");
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open_folder(&folder).unwrap();
    Decoder::load(config, &weights, &device, &mut |_, _| ()).unwrap()
}

fn start(decoder: &Decoder) -> HostCartridge {
    first_tokens(decoder, &[5, 60, 7, 81, 9, 300], 1).unwrap()
}

/// Rows of one example with three trained positions each.
fn rows() -> Vec<PackedRow> {
    (0..3u32)
        .map(|n| {
            let ids: Vec<u32> = (0..6).map(|i| (i * 37 + n * 101) % VOCABULARY).collect();
            let targets = (2..5u32).flat_map(|position| {
                let target = |id, weight| Target {
                    position,
                    id,
                    weight,
                };
                [target(ids[position as usize], 0.6), target(position, 0.3)]
            });
            PackedRow {
                targets: targets.collect(),
                lengths: vec![ids.len()],
                positions: 3.0,
                ids,
            }
        })
        .collect()
}

fn config() -> TrainConfig {
    TrainConfig {
        steps: 9,
        lr: 1e-2,
        warmup_steps: 0,
        save_every: 2,
        optimizer: Optimizer::AdamW,
        weight_decay: 0.1,
        ema_decay: 0.6,
        ..TrainConfig::default()
    }
}

fn numbers(cartridge: &HostCartridge) -> Vec<f32> {
    let layers = cartridge.layers.iter();
    layers
        .flat_map(|l| l.key.iter().chain(&l.value).copied())
        .collect()
}

fn trainer<'a>(decoder: &'a Decoder, config: &TrainConfig) -> Trainer<'a> {
    Trainer::new(decoder, &start(decoder), rows(), config.clone()).unwrap()
}

#[test]
fn the_running_average_is_what_is_given() {
    let decoder = decoder();
    let decay = 0.6;
    let without = TrainConfig {
        ema_decay: 0.0,
        ..config()
    };
    let (mut averaged, mut plain) = (trainer(&decoder, &config()), trainer(&decoder, &without));
    let mut wanted: Vec<f64> = numbers(&start(&decoder))
        .iter()
        .map(|x| f64::from(*x))
        .collect();
    for _ in 0..4 {
        // What is trained does not depend on the average.
        assert_eq!(averaged.step().unwrap().loss, plain.step().unwrap().loss);
        for (average, now) in wanted.iter_mut().zip(numbers(&plain.cartridge().unwrap())) {
            *average = decay * *average + (1.0 - decay) * f64::from(now);
        }
        let found = numbers(&averaged.cartridge().unwrap());
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!(
                (f64::from(*found) - wanted).abs() < 1e-5,
                "{found} {wanted}"
            );
        }
    }
    assert_ne!(averaged.cartridge().unwrap(), plain.cartridge().unwrap());
}

/// The loss with tail buckets: every probability is asked for by a target of its own.
#[test]
fn tail_buckets_add_their_divergence_and_its_gradient() {
    let decoder = decoder();
    let mut host = start(&decoder);
    let plain = rows().remove(0);
    let mut bucketed = plain.clone();
    let rest = 0.1f32;
    for position in [4, 3, 2] {
        let bucket = Target {
            position,
            id: Target::REST,
            weight: rest,
        };
        let at = bucketed
            .targets
            .iter()
            .rposition(|t| t.position == position);
        bucketed.targets.insert(at.unwrap() + 1, bucket);
    }
    let on_device = |host: &HostCartridge| Cartridge::from_host(host, decoder.device());
    let mut wanted = row_loss(&decoder, &on_device(&host), &plain);
    for position in [2, 3, 4] {
        let named: f64 = (plain.targets.iter())
            .filter(|t| t.position == position)
            .map(|t| {
                let one = PackedRow {
                    targets: vec![Target { weight: 1.0, ..*t }],
                    ..plain.clone()
                };
                (-row_loss(&decoder, &on_device(&host), &one)).exp()
            })
            .sum();
        let mass = f64::from(rest) / (0.6 + 0.3 + f64::from(rest));
        wanted += f64::from(rest) * (mass / (1.0 - named)).ln();
    }
    let loss = |host: &HostCartridge| row_loss(&decoder, &on_device(host), &bucketed);
    let found = loss(&host);
    assert!((found - wanted).abs() < 1e-5, "{found} instead of {wanted}");

    let gradient = row_gradient(&decoder, &on_device(&host), &bucketed, Recompute::Layers);
    assert!((gradient.loss - found).abs() < 1e-5);
    let gradient = gradient.tensors[0].clone().permute([1, 0, 2]);
    let gradient = gradient.into_data().try_to_vec::<f32>().unwrap();
    // Along the gradient the loss grows by its square: the key of layer 0, frozen slot left out.
    let (slots, dim, heads) = (host.slots, host.head_dim, host.kv_heads);
    let before = host.layers[0].key.clone();
    let mut moved = |by: f32| {
        for head in 0..heads {
            for i in 0..(slots - 1) * dim {
                let at = head * slots * dim + dim + i;
                host.layers[0].key[at] = before[at] + by * gradient[head * (slots - 1) * dim + i];
            }
        }
        loss(&host)
    };
    let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
    let by = (0.05 / square.sqrt()) as f32;
    let slope = (moved(by) - moved(-by)) / (2.0 * f64::from(by));
    assert!((slope / square - 1.0).abs() < 1e-2, "{slope} {square}");
}

#[test]
fn a_run_stops_where_it_is_told_without_bending_the_schedule() {
    let decoder = decoder();
    let short = TrainConfig {
        max_steps: 3,
        ..config()
    };
    let (mut whole, mut cut) = (trainer(&decoder, &config()), trainer(&decoder, &short));
    assert_eq!((whole.total_steps(), cut.total_steps()), (9, 3));
    for step in 1..=3 {
        let (a, b) = (whole.step().unwrap(), cut.step().unwrap());
        assert_eq!((a.lr, a.loss), (b.lr, b.loss));
        let seen = (b.epoch, b.rows, b.targets, b.total_tokens, b.total_targets);
        assert_eq!(seen, (0, step, 3, 6 * step, 3 * step));
    }
    assert_eq!(whole.step().unwrap().epoch, 1);
}

/// What a run told its tracker.
#[derive(Default, Clone)]
struct Told(Rc<RefCell<Vec<String>>>);

impl Tracker for Told {
    fn begin(&mut self, start: &RunStart<'_>) -> Result<(), TrackError> {
        let sizes = start.sizes;
        // 5 slots in 3 layers of keys and values, 2 heads of 16.
        assert_eq!(
            (sizes.trainable_slots, sizes.trainable_parameters),
            (5, 960)
        );
        assert_eq!(start.settings["ema_decay"], 0.6);
        self.0.borrow_mut().push(format!("begin {}", start.step));
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrackError> {
        self.0.borrow_mut().push(report.step.to_string());
        Ok(())
    }

    fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<(), TrackError> {
        let mut told = self.0.borrow_mut();
        told.extend(values.iter().map(|(name, x)| format!("{step} {name} {x}")));
        Ok(())
    }

    fn end(&mut self) -> Result<(), TrackError> {
        self.0.borrow_mut().push("end".to_owned());
        Ok(())
    }
}

/// Runs with scores read off a list; raises the stop flag after a step if told to.
fn run(
    trainer: &mut Trainer<'_>,
    folder: &Path,
    scores: &mut Vec<f64>,
    stop_after: usize,
) -> (RunEnd, Vec<String>) {
    let told = Told::default();
    let stop = AtomicBool::new(false);
    let mut score = |_: &Cartridge, _: usize| {
        Ok(Evaluation {
            score: scores.remove(0),
            scalars: Vec::new(),
            tables: Vec::new(),
        })
    };
    let hooks = Hooks {
        trackers: vec![Box::new(told.clone())],
        on_step: &mut |report| stop.store(report.step == stop_after, Ordering::Relaxed),
        score: Some(&mut score),
    };
    let end = train(trainer, folder, "run", &stop, hooks).unwrap();
    (end, told.0.take())
}

#[test]
fn the_best_cartridge_is_kept_and_patience_ends_the_run() {
    let decoder = decoder();
    let patient = TrainConfig {
        eval_every: 2,
        patience: 2,
        keep_last_n: 2,
        ..config()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut whole = trainer(&decoder, &patient);
    let mut scores = vec![-3.0, -1.0, -2.0, -1.0];
    let (end, told) = run(&mut whole, folder.path(), &mut scores, 0);
    assert_eq!((end, whole.steps_done()), (RunEnd::OutOfPatience, 6));
    assert_eq!(whole.best_score(), Some((-1.0, 2)));
    let mut two = trainer(&decoder, &patient);
    two.step().unwrap();
    two.step().unwrap();
    assert_eq!(whole.best_cartridge().unwrap(), two.cartridge().unwrap());
    let wanted = "begin 0|0 eval/score -3|1|2|2 eval/score -1|3|4|4 eval/score -2|5|6|6 eval/score \
                  -1|end";
    assert_eq!(told.join("|"), wanted);
    let kept = |step| numbered_checkpoint(folder.path(), step).exists();
    assert_eq!([2, 4, 6].map(kept), [false, true, true]);

    // The same in two parts, with nothing left to do in a third.
    let parts = tempfile::tempdir().unwrap();
    let mut scores = vec![-3.0, -1.0, -2.0, -1.0];
    let mut first = trainer(&decoder, &patient);
    let (end, _) = run(&mut first, parts.path(), &mut scores, 5);
    assert_eq!((end, first.steps_done()), (RunEnd::Stopped, 5));
    let mut second = trainer(&decoder, &patient);
    let (end, told) = run(&mut second, parts.path(), &mut scores, 0);
    assert_eq!(end, RunEnd::OutOfPatience);
    assert_eq!(told.join("|"), "begin 5|6|6 eval/score -1|end");
    let all = |t: &Trainer<'_>| (t.cartridge().unwrap(), t.best_cartridge().unwrap());
    assert_eq!(all(&second), all(&whole));
    let mut third = trainer(&decoder, &patient);
    let (end, told) = run(&mut third, parts.path(), &mut Vec::new(), 0);
    assert_eq!((end, told.len()), (RunEnd::OutOfPatience, 0));
    assert_eq!(all(&third), all(&whole));
}

#[test]
fn a_resumed_run_with_decay_and_average_is_the_same() {
    let decoder = decoder();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut whole = trainer(&decoder, &config());
    for _ in 0..4 {
        whole.step().unwrap();
    }
    whole.save_checkpoint(&path, "run").unwrap();
    let rest: Vec<StepReport> = (4..9).map(|_| whole.step().unwrap()).collect();
    // How a run is logged and kept may change.
    let other = TrainConfig {
        save_every: 7,
        trackers: vec![TrackerKind::TensorBoard],
        ..config()
    };
    let mut again = trainer(&decoder, &other);
    assert!(again.resume(&path, "run").unwrap());
    for wanted in rest {
        let seconds = wanted.seconds;
        let found = again.step().unwrap();
        assert_eq!(StepReport { seconds, ..found }, wanted);
    }
    assert_eq!(again.cartridge().unwrap(), whole.cartridge().unwrap());
    let other = TrainConfig {
        ema_decay: 0.5,
        ..config()
    };
    assert!(trainer(&decoder, &other).resume(&path, "run").is_err());
}

#[test]
fn held_out_loss_is_the_mean_over_positions() {
    let decoder = decoder();
    let cartridge = Cartridge::from_host(&start(&decoder), decoder.device());
    let rows = rows();
    let sum: f64 = rows
        .iter()
        .map(|row| row_loss(&decoder, &cartridge, row))
        .sum();
    let found = held_out(&decoder, &rows, "data")(&cartridge, 0).unwrap();
    assert!((found.score + sum / 9.0).abs() < 1e-12);
    let names: Vec<&str> = found
        .scalars
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["eval_data/loss", "eval_data/perplexity"]);
    let nothing = TrainConfig {
        eval_every: 1,
        ..config()
    };
    let folder: PathBuf = tempfile::tempdir().unwrap().path().to_owned();
    let hooks = Hooks {
        trackers: Vec::new(),
        on_step: &mut |_| (),
        score: None,
    };
    let stop = AtomicBool::new(false);
    let refused = train(
        &mut trainer(&decoder, &nothing),
        &folder,
        "run",
        &stop,
        hooks,
    );
    assert!(refused.unwrap_err().to_string().contains("eval_every is 1"));
}
