//! Self-study that is killed at random moments comes to the same data set as one that is left alone.

use std::time::{Duration, Instant};

use cartridges_study::parquet::read_conversations;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::stages::{Place, files, wait_until};

const RUN: &str =
    "synthesize --corpus path:text.txt --out path:study --config path:kills.toml --batch 4";

fn place() -> Place {
    let place = Place::new();
    let settings = "max_completion_tokens_a = 6\nmax_completion_tokens_b = 6\n\
        num_conversations = 120\n";
    place.write("kills.toml", settings);
    place
}

/// How long the work takes when it is left alone: until its first part, and in all.
fn times(place: &Place) -> (Duration, Duration) {
    let begin = Instant::now();
    let parts = place.path("study/parts");
    let mut child = place.start(RUN);
    wait_until(&mut child, || !files(&parts).is_empty());
    let first = begin.elapsed();
    assert!(child.wait().unwrap().success());
    (first, begin.elapsed())
}

fn check(kills: usize, seed: u64) {
    let undisturbed = place();
    let (first, whole) = times(&undisturbed);
    let place = place();
    let parts = place.path("study/parts");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut hits, mut kept) = (0, Vec::new());
    for _ in 0..kills {
        let mut child = place.start(RUN);
        if rng.random::<bool>() {
            // Behind the next part, or at once where the work ends first.
            while files(&parts).len() <= kept.len() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(0..20)));
        } else {
            std::thread::sleep(first.mul_f64(rng.random()));
        }
        hits += usize::from(child.try_wait().unwrap().is_none());
        // SIGKILL on Unix.
        let _ = child.kill();
        child.wait().unwrap();
        let now = files(&parts);
        assert!(now.starts_with(&kept), "a finished part changed");
        kept = now;
    }
    eprintln!(
        "{hits} of {kills} kills hit the work of {whole:.1?}, which left {} parts",
        kept.len()
    );
    assert!(
        2 * hits >= kills && !kept.is_empty(),
        "the kills came too late or too early"
    );
    place.works(RUN);
    assert!(files(&parts).starts_with(&kept));
    for folder in ["study", "study/parts"] {
        for entry in std::fs::read_dir(place.path(folder)).unwrap() {
            let name = entry.unwrap().file_name();
            let name = name.to_string_lossy();
            assert!(!name.starts_with(".tmp-"), "litter: {name}");
        }
    }
    let read = |place: &Place| {
        read_conversations(&place.home.path().join("study/dataset.parquet"), None).unwrap()
    };
    // To the last digit of every log-prob, so that what is trained on them is the same as well.
    assert!(read(&place) == read(&undisturbed));
}

#[test]
fn twenty_random_kills_change_nothing() {
    check(20, 2);
}
