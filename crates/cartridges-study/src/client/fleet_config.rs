//! How several servers are used as one: load, time-outs, retries, rest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::ClientConfigError;

/// No attempt takes longer than this, however often it was tried before.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// The longest time that any field may name, in seconds: one day.
const MAX_SECONDS: f64 = 86_400.0;

/// How servers are used. Time-outs and attempts follow the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// Requests that one server gets at a time (default 32).
    pub concurrency: usize,
    /// Seconds that the first attempt of a request may take (default 90).
    pub timeout_seconds: f64,
    /// Factor by which each further attempt may take longer (default 1.5), up to an hour.
    pub timeout_growth: f64,
    /// Seconds that connecting may take (default 10).
    pub connect_timeout_seconds: f64,
    /// Attempts per request (default 10). A reply that makes no sense is asked for twice only.
    pub max_attempts: usize,
    /// Seconds before the second attempt (default 1), doubled for each further one and shortened by a
    /// random part of up to a half.
    pub backoff_seconds: f64,
    /// The longest such pause in seconds (default 60). A server's own wish (`Retry-After`) may be up to
    /// ten times that.
    pub max_backoff_seconds: f64,
    /// Failures in a row after which a server rests (default 3). Then it gets one request at a time
    /// until it answers one.
    pub rest_after: usize,
    /// How long it rests, in seconds (default 30).
    pub rest_seconds: f64,
    /// When all servers have been failing for this many seconds, requests are given up (default 300).
    pub patience_seconds: f64,
    /// The longest reply that is read, in bytes (default 64 MiB).
    pub max_reply_bytes: usize,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            concurrency: 32,
            timeout_seconds: 90.0,
            timeout_growth: 1.5,
            connect_timeout_seconds: 10.0,
            max_attempts: 10,
            backoff_seconds: 1.0,
            max_backoff_seconds: 60.0,
            rest_after: 3,
            rest_seconds: 30.0,
            patience_seconds: 300.0,
            max_reply_bytes: 64 << 20,
        }
    }
}

impl FleetConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the first field that is out of range.
    pub fn check(&self) -> Result<(), ClientConfigError> {
        let counts = [
            ("fleet.concurrency", self.concurrency),
            ("fleet.max_attempts", self.max_attempts),
            ("fleet.rest_after", self.rest_after),
            ("fleet.max_reply_bytes", self.max_reply_bytes),
        ];
        if let Some((field, found)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return Err(ClientConfigError::Range {
                field,
                found: found.to_string(),
                expected: "at least 1",
            });
        }
        let seconds = [
            ("fleet.timeout_seconds", self.timeout_seconds, true),
            (
                "fleet.connect_timeout_seconds",
                self.connect_timeout_seconds,
                true,
            ),
            ("fleet.backoff_seconds", self.backoff_seconds, false),
            ("fleet.max_backoff_seconds", self.max_backoff_seconds, false),
            ("fleet.rest_seconds", self.rest_seconds, false),
            ("fleet.patience_seconds", self.patience_seconds, false),
        ];
        for (field, found, positive) in seconds {
            let least = if positive { f64::MIN_POSITIVE } else { 0.0 };
            if !(least..=MAX_SECONDS).contains(&found) {
                return Err(ClientConfigError::Range {
                    field,
                    found: found.to_string(),
                    expected: match positive {
                        true => "more than 0 and at most 86400",
                        false => "0 to 86400",
                    },
                });
            }
        }
        if !(1.0..=10.0).contains(&self.timeout_growth) {
            return Err(ClientConfigError::Range {
                field: "fleet.timeout_growth",
                found: self.timeout_growth.to_string(),
                expected: "1 to 10",
            });
        }
        Ok(())
    }

    /// How long attempt number `attempt`, from 0, may take.
    pub(super) fn timeout(&self, attempt: usize) -> Duration {
        let grown = self.timeout_seconds * self.timeout_growth.powi(power(attempt));
        let longest = LONGEST_TIMEOUT.max(seconds(self.timeout_seconds));
        seconds(grown.min(longest.as_secs_f64()))
    }

    /// The pause before attempt number `attempt`, from 1; `jitter` from 0 to 1.
    pub(super) fn backoff(&self, attempt: usize, jitter: f64) -> Duration {
        let doubled = self.backoff_seconds * 2f64.powi(power(attempt.saturating_sub(1)));
        seconds(doubled.min(self.max_backoff_seconds) * (1.0 - jitter.clamp(0.0, 1.0) / 2.0))
    }

    /// How long a server that asked for a pause is left alone.
    pub(super) fn wished(&self, retry_after: Duration) -> Duration {
        retry_after.min(seconds(10.0 * self.max_backoff_seconds))
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        seconds(self.connect_timeout_seconds)
    }

    pub(super) fn rest(&self) -> Duration {
        seconds(self.rest_seconds)
    }

    pub(super) fn patience(&self) -> Duration {
        seconds(self.patience_seconds)
    }
}

/// An exponent; beyond this everything is capped anyway.
fn power(attempt: usize) -> i32 {
    attempt.min(64) as i32
}

/// A duration; what [`FleetConfig::check`] lets through always is one.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(LONGEST_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_the_references() {
        let config = FleetConfig::default();
        assert_eq!(config.timeout(0), Duration::from_secs(90));
        assert_eq!(config.timeout(2), Duration::from_millis(202_500));
        assert_eq!(config.timeout(1000), Duration::from_secs(3600));
        let pauses: Vec<u64> = (1..=8).map(|i| config.backoff(i, 0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(config.backoff(1, 1.0), Duration::from_millis(500));
        assert_eq!(config.wished(Duration::MAX), Duration::from_secs(600));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let wrong = |change: fn(&mut FleetConfig), name: &str| {
            let mut config = FleetConfig::default();
            change(&mut config);
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        };
        FleetConfig::default().check().unwrap();
        wrong(|c| c.concurrency = 0, "concurrency");
        wrong(|c| c.timeout_seconds = 0.0, "timeout_seconds");
        wrong(|c| c.timeout_seconds = f64::NAN, "timeout_seconds");
        wrong(|c| c.backoff_seconds = -1.0, "backoff_seconds");
        wrong(|c| c.patience_seconds = f64::INFINITY, "patience_seconds");
        wrong(|c| c.timeout_growth = 0.5, "timeout_growth");
    }
}
