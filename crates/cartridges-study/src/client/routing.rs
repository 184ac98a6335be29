//! Which server gets the next request. Knows no network; time is passed in.

use std::time::{Duration, Instant};

use super::failure::Failure;
use super::fleet_config::FleetConfig;

/// What is known about one server.
#[derive(Debug, Clone, Default)]
struct State {
    in_flight: usize,
    /// Requests it got so far; equally loaded servers take turns by it.
    taken: u64,
    failures_in_row: usize,
    rests_until: Option<Instant>,
}

/// What is known about all servers.
#[derive(Debug)]
pub(super) struct Routing {
    servers: Vec<State>,
    concurrency: usize,
    rest_after: usize,
    rest: Duration,
    /// Since when no server has been well, with the last thing that went wrong.
    down: Option<(Instant, String)>,
}

impl Routing {
    pub fn new(servers: usize, config: &FleetConfig) -> Self {
        Self {
            servers: vec![State::default(); servers],
            concurrency: config.concurrency,
            rest_after: config.rest_after,
            rest: config.rest(),
            down: None,
        }
    }

    /// Takes a place at the least loaded server that does not rest, if possible another than `avoid`.
    pub fn take(&mut self, avoid: Option<usize>, now: Instant) -> Option<usize> {
        let chosen = (0..self.servers.len())
            .filter(|&index| self.has_place(index, now))
            .min_by_key(|&index| {
                let server = &self.servers[index];
                (Some(index) == avoid, server.in_flight, server.taken)
            })?;
        let server = &mut self.servers[chosen];
        server.in_flight += 1;
        server.taken += 1;
        Some(chosen)
    }

    fn has_place(&self, index: usize, now: Instant) -> bool {
        let server = &self.servers[index];
        // One that has been failing is tried with one request, not with all that wait.
        let places = match server.failures_in_row >= self.rest_after {
            true => 1,
            false => self.concurrency,
        };
        server.in_flight < places && server.rests_until.is_none_or(|until| until <= now)
    }

    /// Gives the place back.
    pub fn give_back(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.in_flight = server.in_flight.saturating_sub(1);
    }

    /// Notes a request that was answered, even by a refusal.
    pub fn well(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.failures_in_row = 0;
        server.rests_until = None;
        self.down = None;
    }

    /// Notes a failure. `pause` is how long the server asked to be left alone. True if it rests now
    /// and did not before.
    pub fn failed(
        &mut self,
        index: usize,
        failure: &Failure,
        pause: Option<Duration>,
        now: Instant,
    ) -> bool {
        let rested = self.rests(index, now);
        let server = &mut self.servers[index];
        let mut until = pause.map(|pause| now + pause);
        if failure.kind.blames_server() {
            server.failures_in_row += 1;
            if server.failures_in_row >= self.rest_after {
                until = until.max(Some(now + self.rest));
            }
        }
        server.rests_until = server.rests_until.max(until);
        let failing = |server: &State| server.failures_in_row >= self.rest_after;
        if failure.kind.blames_server() && self.servers.iter().all(failing) {
            match &mut self.down {
                Some((_, last)) => last.clone_from(&failure.message),
                None => self.down = Some((now, failure.message.clone())),
            }
        }
        !rested && self.rests(index, now)
    }

    fn rests(&self, index: usize, now: Instant) -> bool {
        self.servers[index]
            .rests_until
            .is_some_and(|until| until > now)
    }

    /// Whether a server other than `index` is up.
    pub fn has_other(&self, index: usize, now: Instant) -> bool {
        (0..self.servers.len()).any(|other| {
            other != index
                && !self.rests(other, now)
                && self.servers[other].failures_in_row < self.rest_after
        })
    }

    /// How long until the first resting server may be asked again.
    pub fn until_rested(&self, now: Instant) -> Option<Duration> {
        self.servers
            .iter()
            .filter_map(|server| server.rests_until?.checked_duration_since(now))
            .min()
    }

    /// How long all servers have been failing, and the last failure.
    pub fn down(&self, now: Instant) -> Option<(Duration, &str)> {
        self.down
            .as_ref()
            .map(|(since, last)| (now.saturating_duration_since(*since), last.as_str()))
    }

    /// A new batch: what rests because it failed is tried again, and patience is new.
    pub fn begin_batch(&mut self) {
        self.down = None;
        for server in &mut self.servers {
            if server.failures_in_row >= self.rest_after {
                server.rests_until = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::failure::FailureKind;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn routing(servers: usize) -> (Routing, Instant) {
        let config = FleetConfig {
            concurrency: 2,
            rest_after: 2,
            rest_seconds: 10.0,
            ..FleetConfig::default()
        };
        (Routing::new(servers, &config), Instant::now())
    }

    fn broken() -> Failure {
        Failure::new(FailureKind::Connection, "refused")
    }

    #[test]
    fn the_least_loaded_takes_the_next_and_full_ones_none() {
        let (mut routing, now) = routing(2);
        let taken: Vec<_> = (0..5).map(|_| routing.take(None, now)).collect();
        assert_eq!(taken, [Some(0), Some(1), Some(0), Some(1), None]);
        routing.give_back(1);
        assert_eq!(routing.take(Some(1), now), Some(1), "better than none");
        routing.give_back(0);
        routing.give_back(1);
        assert_eq!(routing.take(Some(0), now), Some(1));
    }

    #[test]
    fn a_failing_server_rests_and_is_tried_with_one_request() {
        let (mut routing, now) = routing(2);
        assert!(!routing.failed(0, &broken(), None, now));
        assert!(routing.has_other(1, now));
        assert!(routing.failed(0, &broken(), None, now));
        assert!(!routing.has_other(1, now));
        assert_eq!(routing.take(Some(1), now), Some(1));
        assert_eq!(routing.take(Some(1), now), Some(1));
        assert_eq!(routing.take(None, now), None);
        assert_eq!(routing.until_rested(now), Some(10 * SECOND));
        let later = now + 10 * SECOND;
        assert_eq!(routing.take(None, later), Some(0));
        assert_eq!(routing.take(None, later), None, "one at a time");
        routing.well(0);
        assert_eq!(routing.take(None, later), Some(0));
        assert!(routing.down(later).is_none());
    }

    #[test]
    fn a_wish_for_a_pause_is_no_fault() {
        let (mut routing, now) = routing(1);
        let busy = Failure::new(FailureKind::Busy, "status 429");
        for _ in 0..5 {
            routing.failed(0, &busy, Some(3 * SECOND), now);
        }
        assert!(routing.down(now).is_none());
        assert_eq!(routing.take(None, now + 2 * SECOND), None);
        let later = now + 3 * SECOND;
        assert_eq!(routing.take(None, later), Some(0));
        assert_eq!(routing.take(None, later), Some(0));
    }

    #[test]
    fn the_fleet_is_down_when_all_fail_and_a_new_batch_tries_anew() {
        let (mut routing, now) = routing(2);
        for server in [0, 0, 1, 1] {
            assert!(routing.down(now).is_none());
            routing.failed(server, &broken(), None, now);
        }
        let later = now + 4 * SECOND;
        assert_eq!(routing.down(later), Some((4 * SECOND, "refused")));
        assert_eq!(routing.take(None, later), None);
        routing.begin_batch();
        assert!(routing.down(later).is_none());
        assert_eq!(routing.take(None, later), Some(0));
    }
}
