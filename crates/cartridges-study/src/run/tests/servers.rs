//! Runs whose conversations are written by servers that misbehave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use serde_json::json;

use super::*;
use crate::client::tests::stand_in::{Act, Seen, StandIn, client as http, quick};
use crate::client::{ClientConfig, FleetConfig, OpenAiConfig};

/// Text is all that the stand-ins give. Every batch is full, so that steps can be counted.
fn text_only(num_conversations: usize) -> SelfStudyConfig {
    SelfStudyConfig {
        num_conversations,
        verbatim: false,
        coverage_share: 0.0,
        num_top_logprobs: 0,
        ..small_config()
    }
}

fn servers(url: &str, fleet: FleetConfig) -> ClientConfig {
    ClientConfig::Openai(OpenAiConfig {
        urls: vec![url.to_owned()],
        fleet,
        ..OpenAiConfig::default()
    })
}

fn patient() -> FleetConfig {
    FleetConfig {
        rest_after: 1000,
        timeout_seconds: 0.15,
        timeout_growth: 1.0,
        ..quick()
    }
}

fn study(folder: &Path, count: usize, servers: &ClientConfig) -> Result<Outcome, RunError> {
    let run = &mut open(folder, &text_only(count))?;
    run.run(&mut http(servers), &AtomicBool::new(false), &mut |_| {})
}

fn report(outcome: Outcome) -> SynthesisReport {
    match outcome {
        Outcome::Finished { report, .. } => report,
        Outcome::Stopped { .. } => panic!("nobody stops it"),
    }
}

fn seed(seen: &Seen) -> u64 {
    seen.body["seed"].as_u64().unwrap()
}

/// An answer that depends on the request alone.
fn well(seen: &Seen) -> Act {
    let message = json!({"role": "assistant", "content": format!("reply {}", seed(seen))});
    Act::Json(
        200,
        json!({"choices": [{"message": message, "finish_reason": "stop"}]}),
    )
}

/// What happens to the requests with this seed as long as the server is broken, and the name of it.
fn broken(seed: u64) -> Option<(&'static str, Act)> {
    let half = json!({"choices": [], "padding": "x".repeat(100)}).to_string();
    Some(match seed % 18 {
        0 => ("timed out", Act::Hang),
        1 => ("bad reply", Act::Text("<html>not JSON")),
        2 => ("cut off", Act::Half(half)),
        3 => ("busy", Act::Json(429, json!({"error": "slowly"}))),
        4 => (
            "busy",
            Act::With(429, "Retry-After: 0.01\r\n", json!({"error": "slowly"})),
        ),
        5 => ("connection", Act::Close),
        6 => ("server error", Act::Json(500, json!({}))),
        7 => ("refused", Act::Json(400, json!({"error": "too long"}))),
        _ => return None,
    })
}

#[test]
fn what_fails_is_counted_by_cause_and_nothing_finished_is_lost() {
    let undisturbed = tempfile::tempdir().unwrap();
    let healthy = StandIn::start(|seen, _| well(seen));
    study(undisturbed.path(), 80, &servers(&healthy.url, patient())).unwrap();
    let expected = dataset(undisturbed.path());

    let folder = tempfile::tempdir().unwrap();
    let is_broken = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_broken);
    let server = StandIn::start(move |seen, _| match broken(seed(seen)) {
        Some((_, act)) if asked.load(Ordering::Relaxed) => act,
        _ => well(seen),
    });
    let config = servers(&server.url, patient());
    let first = report(study(folder.path(), 80, &config).unwrap());
    // A conversation fails with its first request that does.
    let mut causes: BTreeMap<String, usize> = BTreeMap::new();
    let seeds: BTreeSet<u64> = server.seen().iter().map(seed).collect();
    for (cause, _) in seeds.iter().filter_map(|&seed| broken(seed)) {
        *causes.entry(cause.to_owned()).or_default() += 1;
    }
    assert_eq!(first.failed, causes);
    let kinds = ["timed out", "bad reply", "cut off", "busy", "connection"];
    for kind in kinds.iter().chain(&["server error", "refused"]) {
        assert!(causes.contains_key(*kind), "no {kind} among {causes:?}");
    }
    assert!(first.last_failure.is_some() && first.finished > 0);
    assert_eq!(first.finished + first.num_failed(), first.planned);
    let kept = read_conversations(&folder.path().join("dataset.parquet"), None).unwrap();
    assert_eq!(kept.len(), first.finished);
    let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let written: SynthesisReport = serde_json::from_str(&json).unwrap();
    assert_eq!(written, first);

    // Well again: only what failed is asked for.
    is_broken.store(false, Ordering::Relaxed);
    let before = server.seen().len();
    let second = report(study(folder.path(), 80, &config).unwrap());
    assert!(second.failed.is_empty());
    assert_eq!(second.finished, second.planned);
    assert_eq!(server.seen().len() - before, 2 * first.num_failed());
    assert!(dataset(folder.path()) == expected);
}

#[test]
fn a_server_that_goes_away_halfway_ends_the_run_and_another_one_goes_on() {
    let undisturbed = tempfile::tempdir().unwrap();
    let healthy = StandIn::start(|seen, _| well(seen));
    study(undisturbed.path(), 20, &servers(&healthy.url, patient())).unwrap();

    for away in [|| Act::Close, || Act::Hang, || Act::Text("\0\0")] {
        let folder = tempfile::tempdir().unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        // Two and a half of five batches.
        let server = StandIn::start(move |seen, _| match count.fetch_add(1, Ordering::Relaxed) {
            0..20 => well(seen),
            _ => away(),
        });
        let fleet = FleetConfig {
            timeout_seconds: 0.05,
            timeout_growth: 1.0,
            patience_seconds: 0.1,
            ..quick()
        };
        let outcome = study(folder.path(), 20, &servers(&server.url, fleet));
        // Three steps are left, so the run comes to its end with what it has.
        let first = report(outcome.unwrap());
        assert_eq!((first.finished, first.num_failed()), (8, 12), "{first:?}");
        let parts = folder.path().join("parts");
        let kept = std::fs::read(parts.join("part-00001.parquet")).unwrap();

        let second = report(study(folder.path(), 20, &servers(&healthy.url, patient())).unwrap());
        assert_eq!(second.finished, 20);
        assert!(dataset(folder.path()) == dataset(undisturbed.path()));
        let there = std::fs::read(parts.join("part-00001.parquet")).unwrap();
        assert!(there == kept, "a finished part changed");
    }
}

#[test]
fn servers_that_are_gone_for_good_end_the_run_with_what_they_said() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = FleetConfig {
        patience_seconds: 0.05,
        ..quick()
    };
    let run = |url: &str| study(folder.path(), 40, &servers(url, fleet.clone()));
    let server = StandIn::start(|seen, before| match before {
        0..16 => well(seen),
        _ => Act::Json(502, json!({"error": "the model is gone"})),
    });
    let error = run(&server.url).unwrap_err();
    let RunError::GaveUp {
        steps: 5, message, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert!(message.contains("the model is gone"), "{error}");
    let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let written: SynthesisReport = serde_json::from_str(&json).unwrap();
    assert_eq!((written.finished, written.num_failed()), (8, 20));
    let healthy = StandIn::start(|seen, _| well(seen));
    assert_eq!(report(run(&healthy.url).unwrap()).finished, 40);
    assert_eq!(healthy.seen().len(), 64);
}
