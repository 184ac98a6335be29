use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stand_in::{Act, Seen, StandIn, client, nobody, quick, request};
use crate::client::{
    ChatClient, ChatRequest, ClientConfig, ClientError, FinishReason, FleetConfig, HttpClient,
    OpenAiConfig, Sample,
};

fn config(urls: &[&str], fleet: FleetConfig) -> ClientConfig {
    ClientConfig::Openai(OpenAiConfig {
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        fleet,
        ..OpenAiConfig::default()
    })
}

fn quick_client(urls: &[&str]) -> HttpClient {
    client(&config(urls, quick()))
}

/// Answers with the request's seed.
fn echo(seen: &Seen) -> Value {
    let content = seen.body["seed"].to_string();
    let message = json!({"role": "assistant", "content": content});
    json!({"choices": [{"message": message, "finish_reason": "stop"}]})
}

fn well(seen: &Seen) -> Act {
    Act::Json(200, echo(seen))
}

fn requests(count: u64) -> Vec<ChatRequest> {
    (0..count).map(request).collect()
}

fn complete(client: &mut HttpClient, count: u64) -> Vec<Sample> {
    let mut done = Vec::new();
    let samples = client
        .complete(&requests(count), &mut |index| done.push(index as u64))
        .unwrap();
    done.sort_unstable();
    assert_eq!(done, (0..count).collect::<Vec<_>>(), "each is told once");
    samples
}

fn failure(sample: &Sample) -> Option<String> {
    match &sample.finish {
        FinishReason::Failed(error) => Some(error.to_string()),
        _ => None,
    }
}

fn assert_all_echoed(samples: &[Sample]) {
    for (index, sample) in samples.iter().enumerate() {
        assert_eq!(failure(sample), None);
        assert_eq!(sample.text, index.to_string(), "in the requests' order");
    }
}

#[test]
fn what_passes_is_asked_again() {
    // The first time that a seed comes it meets something; then it goes well.
    let met = Mutex::new(HashSet::new());
    let server = StandIn::start(move |seen, _| {
        let seed = seen.body["seed"].as_u64().unwrap();
        match (met.lock().unwrap().insert(seed), seed) {
            (true, 0) => Act::With(429, "Retry-After: 0\r\n", json!({"error": "slowly"})),
            (true, 1) => Act::Json(500, json!({"error": {"message": "out of memory"}})),
            (true, 2) => Act::Close,
            (true, 3) => Act::Half(echo(seen).to_string()),
            (true, 4) => Act::Text("<html>not JSON"),
            _ => well(seen),
        }
    });
    let mut client = quick_client(&[&server.url]);
    let samples = complete(&mut client, 8);
    assert_all_echoed(&samples);
    let statistics = client.statistics();
    let own = &statistics.servers[0];
    assert_eq!((own.requests, own.answered, own.failed()), (13, 8, 5));
    for cause in ["busy", "server error", "connection", "cut off", "bad reply"] {
        assert_eq!(own.failures.get(cause), Some(&1), "{cause}");
    }
    assert!(own.mean_latency().is_some());
    assert!(statistics.to_string().contains("1 bad reply, 1 busy"));
}

#[test]
fn a_slow_server_gets_more_time_at_each_attempt() {
    let server = StandIn::start(|seen, _| {
        thread::sleep(Duration::from_millis(150));
        well(seen)
    });
    // 60, 120, 240 ms and so on: the first two are too short.
    let fleet = FleetConfig {
        timeout_seconds: 0.06,
        timeout_growth: 2.0,
        max_attempts: 6,
        rest_after: 9,
        ..quick()
    };
    let mut client = client(&config(&[&server.url], fleet));
    assert_all_echoed(&complete(&mut client, 1));
    let own = &client.statistics().servers[0];
    assert!(own.failures.get("timed out") >= Some(&2));
}

#[test]
fn one_bad_request_does_not_touch_the_others() {
    let server = StandIn::start(|seen, _| match seen.body["seed"].as_u64() {
        Some(1) => Act::Json(400, json!({"detail": "too long"})),
        Some(2) => Act::Text(r#"{"choices": []}"#),
        Some(3) => Act::Half(echo(seen).to_string()),
        Some(4) => Act::Json(503, json!({})),
        _ => well(seen),
    });
    let fleet = FleetConfig {
        rest_after: 100,
        ..quick()
    };
    let samples = complete(&mut client(&config(&[&server.url], fleet)), 6);
    let said = |index: usize| failure(&samples[index]).unwrap_or_default();
    assert!(said(1).starts_with("no answer: ") && said(1).ends_with("status 400: too long"));
    assert!(said(2).contains("does not fit the request") && said(2).contains("0 choices"));
    assert!(said(3).starts_with("no answer: ") && said(3).contains("broke off"));
    assert!(said(4).starts_with("no answer: ") && said(4).contains("status 503"));
    assert_eq!(
        (samples[0].text.as_str(), samples[5].text.as_str()),
        ("0", "5")
    );
    let asked = |seed: u64| {
        let of = |seen: &&Seen| seen.body["seed"] == seed;
        server.seen().iter().filter(of).count()
    };
    let often: Vec<usize> = (0..6).map(asked).collect();
    assert_eq!(often, [1, 1, 2, 2, 3, 1], "refusals are final");
}

#[test]
fn one_server_dies_and_the_other_takes_over() {
    let dying = StandIn::start(|seen, before| match before {
        0..3 => well(seen),
        3 => Act::Half(echo(seen).to_string()),
        _ => Act::Close,
    });
    let healthy = StandIn::start(|seen, _| well(seen));
    let fleet = FleetConfig {
        rest_seconds: 60.0,
        ..quick()
    };
    let mut client = client(&config(&[&dying.url, &healthy.url], fleet));
    assert_all_echoed(&complete(&mut client, 40));
    let statistics = client.statistics();
    let [first, second] = statistics.servers.as_slice() else {
        panic!("two servers");
    };
    assert_eq!(first.answered, 3);
    assert_eq!(second.answered, 37);
    assert!(first.failed() >= 3 && second.failed() == 0);
    // Then it rests: at most its four places were tried in vain, and each of them twice.
    assert!(first.failed() <= 8, "{statistics}");
}

#[test]
fn load_is_spread_and_bounded() {
    let slow = |seen: &Seen, _| {
        thread::sleep(Duration::from_millis(20));
        well(seen)
    };
    let (a, b) = (StandIn::start(slow), StandIn::start(slow));
    let fleet = FleetConfig {
        concurrency: 2,
        ..quick()
    };
    let mut client = client(&config(&[&a.url, &b.url], fleet));
    assert_all_echoed(&complete(&mut client, 20));
    assert!(a.most_at_once() <= 2 && b.most_at_once() <= 2);
    assert!(a.seen().len() >= 6 && b.seen().len() >= 6);
}

#[test]
fn a_wished_pause_is_kept() {
    let server = StandIn::start(|seen, before| match before {
        0 => Act::With(503, "Retry-After: 0.15\r\n", json!({})),
        _ => well(seen),
    });
    let mut client = quick_client(&[&server.url]);
    let begun = Instant::now();
    assert_all_echoed(&complete(&mut client, 1));
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

#[test]
fn patience_with_a_dead_fleet_ends() {
    let fleet = FleetConfig {
        max_attempts: 1000,
        patience_seconds: 0.2,
        ..quick()
    };
    let mut client = client(&config(&[&nobody(), &nobody()], fleet));
    let begun = Instant::now();
    let samples = complete(&mut client, 20);
    assert!(begun.elapsed() < Duration::from_secs(5));
    for sample in &samples {
        let message = failure(sample).unwrap();
        assert!(
            message.starts_with("no answer: all servers have been failing"),
            "{message}"
        );
        assert!(message.contains("refused"), "{message}");
    }
}

#[test]
fn a_raised_flag_ends_the_batch() {
    let server = StandIn::start(|_, _| Act::Hang);
    let stop = Arc::new(AtomicBool::new(false));
    let config = config(&[&server.url], quick());
    let mut client = HttpClient::new(&config, None, Arc::clone(&stop)).unwrap();
    let raise = Arc::clone(&stop);
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        raise.store(true, Ordering::Relaxed);
    });
    let begun = Instant::now();
    let result = client.complete(&requests(9), &mut |_| {});
    assert_eq!(result, Err(ClientError::Stopped));
    assert!(begun.elapsed() < Duration::from_secs(1));
    // Places were given back, so a later batch goes on.
    stop.store(false, Ordering::Relaxed);
    assert_eq!(client.complete(&[], &mut |_| {}), Ok(Vec::new()));
}

#[test]
fn long_replies_are_not_read() {
    let server = StandIn::start(|_, _| Act::Json(200, json!("x".repeat(2000))));
    let fleet = FleetConfig {
        max_reply_bytes: 1000,
        ..quick()
    };
    let samples = complete(&mut client(&config(&[&server.url], fleet)), 1);
    let message = failure(&samples[0]).unwrap();
    assert!(message.contains("longer than 1000 bytes"), "{message}");
    assert_eq!(server.seen().len(), 1, "asked once");
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = StandIn::start(|seen, _| well(seen));
    let to: &'static str = format!("Location: {}\r\n", elsewhere.url).leak();
    let server = StandIn::start(move |_, _| Act::With(307, to, json!({})));
    let samples = complete(&mut quick_client(&[&server.url]), 1);
    assert!(failure(&samples[0]).unwrap().contains("status 307"));
    assert!(elsewhere.seen().is_empty());
}
