//! Self-study that is killed at random moments comes to the same data set as one that is left alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cartridges_study::conversation::{Conversation, Message};
use cartridges_study::parquet::read_conversations;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::stages::{Place, files};

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
    while files(&parts).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(5));
    }
    let first = begin.elapsed();
    assert!(child.wait().unwrap().success());
    (first, begin.elapsed())
}

/// The teacher's distribution at each place of a message: log-probs by id.
fn rows(message: &Message) -> BTreeMap<i64, BTreeMap<u32, f32>> {
    let mut rows: BTreeMap<i64, BTreeMap<u32, f32>> = BTreeMap::new();
    if let Some(top) = &message.top_logprobs {
        for ((row, id), logprob) in top.token_idx.iter().zip(&top.token_id).zip(&top.logprobs) {
            rows.entry(i64::from(*row))
                .or_default()
                .insert(*id, *logprob);
        }
    }
    rows
}

/// Everything that was said is the same. Log-probs differ in their last digits: what a fresh process
/// computes anew came from memory in the one that was not killed. So may the order of two candidates
/// that are equally likely, also at the end of a row.
fn assert_same(a: &Conversation, b: &Conversation) {
    const CLOSE: f32 = 1e-5;
    assert_eq!(
        (&a.system_prompt, &a.metadata),
        (&b.system_prompt, &b.metadata)
    );
    assert_eq!(a.messages.len(), b.messages.len());
    for (a, b) in a.messages.iter().zip(&b.messages) {
        assert_eq!((&a.content, a.role), (&b.content, b.role));
        assert_eq!(a.token_ids, b.token_ids, "{:?}", a.content);
        let (a, b) = (rows(a), rows(b));
        assert!(a.keys().eq(b.keys()));
        for (row, other) in a.values().zip(b.values()) {
            for (here, there) in [(row, other), (other, row)] {
                let least = there.values().copied().fold(f32::INFINITY, f32::min);
                for (id, logprob) in here {
                    let found = there.get(id).copied().unwrap_or(least);
                    assert!((found - logprob).abs() < CLOSE, "{id}: {found}, {logprob}");
                }
            }
        }
    }
}

fn check(kills: usize, seed: u64) {
    let undisturbed = place();
    let (first, whole) = times(&undisturbed);
    let place = place();
    let parts = place.path("study/parts");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut hits, mut kept) = (0, Vec::new());
    for _ in 0..kills {
        // From before its first part on, and far enough that work is left for the last kill.
        let beyond = (whole - first).mul_f64(0.5 * rng.random::<f64>() / kills as f64);
        let mut child = place.start(RUN);
        std::thread::sleep(first.mul_f64(0.6 + 0.4 * rng.random::<f64>()) + beyond);
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
    let (all, expected) = (read(&place), read(&undisturbed));
    assert_eq!(all.len(), expected.len());
    for (a, b) in all.iter().zip(&expected) {
        assert_same(a, b);
    }
}

#[test]
fn twenty_random_kills_change_nothing() {
    check(20, 2);
}
