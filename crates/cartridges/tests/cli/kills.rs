//! Training that dies: killed at random moments, out of disk, without permission any more. It goes on
//! where it was, and the cartridge is the one of a run that nothing happened to.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::stages::{Place, SYNTHESIZE, json_lines, lines, signal_when, wait_until};
use super::*;

const KILLS: usize = 20;

/// Everything that a checkpoint holds: moments, a running average, the best cartridge so far.
const SETTINGS: &str = "steps = 40\nrows_per_step = 2\nsave_every = 3\nkeep_last_n = 2\n\
    ema_decay = 0.5\neval_every = 8\neval_data = [DATA]\n\
    eval_questions = [{ path = QUESTIONS, kind = \"likelihood\" }]\n";

const TRAIN: &str = "train --data path:study/dataset.parquet --corpus path:text.txt --tokens 8 \
    --packed-seq-length 64 --config path:train.toml --out path:cartridge";

fn place(settings: &str) -> Place {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let settings = settings
        .replace(
            "DATA",
            &format!("{:?}", place.path("study/dataset.parquet")),
        )
        .replace("QUESTIONS", &format!("{:?}", place.path("questions.json")));
    place.write("train.toml", &settings);
    place
}

fn cartridge(place: &Place) -> Vec<u8> {
    std::fs::read(place.path("cartridge/cartridge.safetensors")).unwrap()
}

fn checkpoint(place: &Place) -> Option<Vec<u8>> {
    std::fs::read(place.path("cartridge/checkpoint.safetensors")).ok()
}

/// The undisturbed run's cartridge, and how long it took; the folder is empty again afterwards.
fn undisturbed(place: &Place) -> (Vec<u8>, Duration) {
    let begin = Instant::now();
    place.works(TRAIN);
    let (whole, time) = (cartridge(place), begin.elapsed());
    std::fs::remove_dir_all(place.path("cartridge")).unwrap();
    (whole, time)
}

#[test]
fn twenty_kills_at_random_moments_change_nothing() {
    let place = place(SETTINGS);
    let (whole, time) = undisturbed(&place);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = seed.as_nanos() as u64;
    println!("seed {seed}, undisturbed {time:?}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut kills, mut behind_a_checkpoint, mut finished) = (0, 0, 0);
    while kills < KILLS {
        let moment = Instant::now() + time.mul_f64(rng.random());
        let mut child = place.start(TRAIN);
        let ended = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() >= moment => break None,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        if let Some(status) = ended {
            // It was done before its moment came: the next one begins anew.
            assert!(status.success(), "{status}");
            assert!(
                cartridge(&place) == whole,
                "{kills} kills changed the result"
            );
            std::fs::remove_dir_all(place.path("cartridge")).unwrap();
            finished += 1;
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        if let Some(bytes) = checkpoint(&place) {
            SafeTensors::deserialize(&bytes).unwrap();
            behind_a_checkpoint += 1;
        }
    }
    place.works(TRAIN);
    assert!(
        cartridge(&place) == whole,
        "{kills} kills changed the result"
    );
    println!("{behind_a_checkpoint} kills behind a checkpoint, {finished} runs finished between");
    assert!(behind_a_checkpoint > 0);
}

/// The log reaches the limit in the middle of the run.
#[test]
fn out_of_disk_in_the_middle_keeps_the_checkpoint() {
    let place = place("steps = 40\nsave_every = 1\n");
    let (whole, _) = undisturbed(&place);
    // More than a checkpoint, less than forty lines of the log.
    let output = place.with_small_disk(12, TRAIN);
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(
        last.contains("train.jsonl") && last.contains("too large"),
        "{stderr}"
    );
    assert!(last.contains("the same command goes on"), "{stderr}");
    SafeTensors::deserialize(&checkpoint(&place).unwrap()).unwrap();
    place.works(TRAIN);
    assert!(cartridge(&place) == whole, "resuming changed the result");
    // The line that was cut off is no part of the log.
    let log = json_lines(&place.path("cartridge/train.jsonl"));
    let steps: Vec<u64> = (log.iter())
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!((steps.first(), steps.last()), (Some(&1), Some(&40)));
}

#[test]
fn a_folder_that_is_closed_in_the_middle_keeps_the_checkpoint() {
    let place = place("steps = 3000\nsave_every = 1\n");
    let out = place.path("cartridge");
    let mut child = place.start_bound(TRAIN);
    wait_until(&mut child, || checkpoint(&place).is_some());
    std::fs::set_permissions(&out, PermissionsExt::from_mode(0o555)).unwrap();
    let output = child.wait_with_output().unwrap();
    std::fs::set_permissions(&out, PermissionsExt::from_mode(0o777)).unwrap();
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    for part in [
        "checkpoint.safetensors",
        "Permission denied",
        "the same command goes on",
    ] {
        assert!(last.contains(part), "no `{part}` in {stderr}");
    }
    let bytes = checkpoint(&place).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let step: usize = header.metadata().as_ref().unwrap()["step"].parse().unwrap();
    assert!((1..3000).contains(&step), "{step}");
    // It goes on from there.
    let log = place.path("cartridge/train.jsonl");
    let before = lines(&log);
    signal_when(place.start(TRAIN), "-KILL", || lines(&log) > before + 1);
    let log = std::fs::read_to_string(&log).unwrap();
    let next = log.lines().nth(before).unwrap();
    let next: Value = serde_json::from_str(next).unwrap();
    assert_eq!(next["step"], step + 1);
}
