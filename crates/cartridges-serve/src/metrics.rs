//! What is measured, for Prometheus.
//!
//! The recorder belongs to one server and not to the process, so that several servers (and tests)
//! do not mix.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::error::ServeError;
use crate::inference::Load;

/// Bounds of the time histograms, in seconds.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0,
    100.0, 250.0, 600.0,
];

const REQUESTS: &str = "cartridges_requests_total";
const REQUEST_SECONDS: &str = "cartridges_request_seconds";
const FIRST_TOKEN: &str = "cartridges_time_to_first_token_seconds";
const INTER_TOKEN: &str = "cartridges_inter_token_seconds";
const TOKENS_PER_SECOND: &str = "cartridges_tokens_per_second";

type Count = fn(&Load) -> u64;

const GAUGES: [(&str, &str, Count); 5] = [
    ("cartridges_jobs_queued", "Jobs that wait", |load| {
        load.queued as u64
    }),
    ("cartridges_jobs_running", "Jobs that generate", |load| {
        load.running as u64
    }),
    ("cartridges_kv_rows_used", "Key-value rows in use", |load| {
        load.kv_rows_used as u64
    }),
    (
        "cartridges_kv_rows_kept",
        "Key-value rows of cartridges and stored prompts",
        |load| load.kv_rows_kept as u64,
    ),
    (
        "cartridges_kv_rows_total",
        "Key-value rows there are",
        |load| load.kv_rows_total as u64,
    ),
];
const COUNTERS: [(&str, &str, Count); 5] = [
    (
        "cartridges_generated_tokens_total",
        "Tokens generated",
        |load| load.generated_tokens,
    ),
    (
        "cartridges_prompt_tokens_total",
        "Prompt tokens read",
        |load| load.prompt_tokens,
    ),
    (
        "cartridges_cartridge_hits_total",
        "Cartridges found in memory",
        |load| load.cartridge_hits,
    ),
    (
        "cartridges_cartridge_misses_total",
        "Cartridges loaded",
        |load| load.cartridge_misses,
    ),
    (
        "cartridges_preemptions_total",
        "Jobs put back for lack of memory",
        |load| load.preemptions,
    ),
];

/// The measurements of one server.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    first_token: Histogram,
    inter_token: Histogram,
    speed: Mutex<Speed>,
}

/// Tokens per second, from the counter of tokens at two times.
struct Speed {
    since: Instant,
    tokens: u64,
    per_second: f64,
}

impl Metrics {
    /// Sets up all measurements.
    pub fn new() -> Result<Self, ServeError> {
        let builder = PrometheusBuilder::new()
            .set_buckets(SECONDS)
            .map_err(|error| ServeError::Metrics(error.to_string()))?;
        let recorder = builder.build_recorder();
        let (first_token, inter_token) = with_local_recorder(&recorder, || {
            describe_counter!(REQUESTS, "HTTP requests by route, method and status");
            describe_histogram!(
                REQUEST_SECONDS,
                Unit::Seconds,
                "Time until the response begins"
            );
            describe_histogram!(FIRST_TOKEN, Unit::Seconds, "Time until a job's first token");
            describe_histogram!(
                INTER_TOKEN,
                Unit::Seconds,
                "Time between two tokens of a job"
            );
            describe_gauge!(TOKENS_PER_SECOND, "Tokens generated per second, of late");
            GAUGES
                .iter()
                .for_each(|(name, what, _)| describe_gauge!(*name, *what));
            COUNTERS
                .iter()
                .for_each(|(name, what, _)| describe_counter!(*name, *what));
            (histogram!(FIRST_TOKEN), histogram!(INTER_TOKEN))
        });
        let speed = Speed {
            since: Instant::now(),
            tokens: 0,
            per_second: 0.0,
        };
        Ok(Self {
            recorder,
            first_token,
            inter_token,
            speed: Mutex::new(speed),
        })
    }

    /// Counts one request. `route` is the pattern of the path, never the path itself: a client must
    /// not be able to make up series.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let route = route.to_owned();
        with_local_recorder(&self.recorder, || {
            counter!(REQUESTS, "route" => route.clone(), "method" => method.to_owned(),
                "status" => status.to_string())
            .increment(1);
            histogram!(REQUEST_SECONDS, "route" => route).record(took.as_secs_f64());
        });
    }

    /// A stop-watch for one job.
    pub fn meter(&self) -> Meter {
        Meter {
            first_token: self.first_token.clone(),
            inter_token: self.inter_token.clone(),
            last: Instant::now(),
            begun: false,
        }
    }

    /// To be called every few seconds.
    pub fn tick(&self, load: &Load) {
        self.recorder.handle().run_upkeep();
        let mut speed = self.speed.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = speed.since.elapsed().as_secs_f64();
        if seconds > 0.5 {
            let tokens = load.generated_tokens.saturating_sub(speed.tokens);
            *speed = Speed {
                since: Instant::now(),
                tokens: load.generated_tokens,
                per_second: tokens as f64 / seconds,
            };
        }
    }

    /// Tokens per second between the last two ticks.
    pub fn tokens_per_second(&self) -> f64 {
        self.speed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .per_second
    }

    /// Everything in Prometheus' text form.
    pub fn render(&self, load: &Load) -> String {
        with_local_recorder(&self.recorder, || {
            GAUGES
                .iter()
                .for_each(|(name, _, value)| gauge!(*name).set(value(load) as f64));
            COUNTERS
                .iter()
                .for_each(|(name, _, value)| counter!(*name).absolute(value(load)));
            gauge!(TOKENS_PER_SECOND).set(self.tokens_per_second());
        });
        self.recorder.handle().render()
    }
}

/// Measures the times of one job's tokens.
pub(crate) struct Meter {
    first_token: Histogram,
    inter_token: Histogram,
    last: Instant,
    begun: bool,
}

impl Meter {
    /// A token came.
    pub fn token(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64();
        match self.begun {
            true => self.inter_token.record(seconds),
            false => self.first_token.record(seconds),
        }
        (self.last, self.begun) = (now, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_rendered() {
        let metrics = Metrics::new().unwrap();
        metrics.request("/v1/models", "GET", 200, Duration::from_millis(3));
        let mut meter = metrics.meter();
        meter.token();
        meter.token();
        let load = Load {
            queued: 3,
            generated_tokens: 7,
            ..Load::default()
        };
        let text = metrics.render(&load);
        for line in [
            "cartridges_requests_total{route=\"/v1/models\",method=\"GET\",status=\"200\"} 1",
            "cartridges_jobs_queued 3",
            "cartridges_generated_tokens_total 7",
            "cartridges_time_to_first_token_seconds_count 1",
            "cartridges_inter_token_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
