//! Several servers used as one: a request goes to the least loaded, and to another one if that fails.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::ClientError;
use super::failure::Failure;
use super::fleet_config::FleetConfig;
use super::routing::Routing;
use super::statistics::{FleetStatistics, ServerStatistics};
use super::transport::{Address, Call};

/// A reply that makes no sense is asked for this often.
const MAX_BAD_REPLIES: usize = 2;
/// Whoever waits for a place looks at least this often.
const LOOK: Duration = Duration::from_millis(250);

/// What a reply was read as.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answer<T> {
    pub value: T,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Log-probs were asked for and could not be kept, for lack of token ids.
    pub without_ids: bool,
}

/// The servers.
pub(super) struct Fleet {
    addresses: Vec<Address>,
    config: FleetConfig,
    routing: Mutex<Routing>,
    statistics: Mutex<FleetStatistics>,
    /// Told whenever a place may have become free.
    freed: Notify,
}

impl Fleet {
    pub fn new(addresses: Vec<Address>, config: FleetConfig) -> Self {
        let statistics = FleetStatistics {
            servers: addresses
                .iter()
                .map(|address| ServerStatistics {
                    server: address.base().to_owned(),
                    ..ServerStatistics::default()
                })
                .collect(),
            ..FleetStatistics::default()
        };
        Self {
            routing: Mutex::new(Routing::new(addresses.len(), &config)),
            statistics: Mutex::new(statistics),
            freed: Notify::new(),
            addresses,
            config,
        }
    }

    /// Requests that all servers together take at a time.
    pub fn capacity(&self) -> usize {
        self.config.concurrency.saturating_mul(self.addresses.len())
    }

    pub fn statistics(&self) -> FleetStatistics {
        lock(&self.statistics).clone()
    }

    pub fn begin_batch(&self) {
        lock(&self.routing).begin_batch();
    }

    /// Asks until an answer can be read, or no attempt is left.
    pub async fn ask<T>(
        &self,
        call: &Call,
        read: impl Fn(&[u8]) -> Result<Answer<T>, ClientError>,
    ) -> Result<T, ClientError> {
        let mut failed_at = None;
        let mut bad_replies = 0;
        let mut attempt = 0;
        loop {
            let place = self.place(failed_at).await?;
            let server = place.server;
            let result = self.attempt(server, call, attempt, &read).await;
            drop(place);
            let failure = match result {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            attempt += 1;
            bad_replies += usize::from(failure.kind.is_bad_reply());
            let name = self.addresses[server].base();
            if !failure.kind.retried()
                || attempt >= self.config.max_attempts
                || bad_replies >= MAX_BAD_REPLIES
            {
                return Err(failure.into_error(name));
            }
            tracing::debug!(
                server = name,
                attempt,
                failure = failure.message,
                "asking again"
            );
            failed_at = Some(server);
            // Another server can be asked at once; the one that just failed is given time.
            let elsewhere = attempt < self.addresses.len()
                && lock(&self.routing).has_other(server, Instant::now());
            if !elsewhere {
                tokio::time::sleep(self.config.backoff(attempt, rand::random())).await;
            }
        }
    }

    /// Asks one server once, and notes how it went.
    async fn attempt<T>(
        &self,
        server: usize,
        call: &Call,
        attempt: usize,
        read: &impl Fn(&[u8]) -> Result<Answer<T>, ClientError>,
    ) -> Result<T, Failure> {
        let address = &self.addresses[server];
        lock(&self.statistics).servers[server].requests += 1;
        let begun = Instant::now();
        let reply = address.exchange(call, self.config.timeout(attempt)).await;
        let took = begun.elapsed();
        let result = reply.and_then(|body| Ok(read(&body)?));
        self.note(server, result.as_ref().err());
        let mut all = lock(&self.statistics);
        let own = &mut all.servers[server];
        match result {
            Ok(answer) => {
                own.answered += 1;
                own.busy += took;
                own.prompt_tokens += answer.prompt_tokens;
                own.completion_tokens += answer.completion_tokens;
                all.answers_without_ids += u64::from(answer.without_ids);
                Ok(answer.value)
            }
            Err(failure) => {
                *own.failures.entry(failure.kind.cause()).or_default() += 1;
                Err(failure)
            }
        }
    }

    fn note(&self, server: usize, failure: Option<&Failure>) {
        let now = Instant::now();
        let mut routing = lock(&self.routing);
        let Some(failure) = failure else {
            routing.well(server);
            return;
        };
        if !failure.kind.retried() {
            routing.well(server);
            return;
        }
        let pause = failure.retry_after.map(|pause| self.config.wished(pause));
        if routing.failed(server, failure, pause, now) {
            let server = self.addresses[server].base();
            tracing::warn!(server, failure = failure.message, "a server rests");
        }
    }

    /// Waits for a place at a server. Fails when all servers have been failing for too long.
    async fn place(&self, avoid: Option<usize>) -> Result<Place<'_>, ClientError> {
        loop {
            let wait = {
                let now = Instant::now();
                let mut routing = lock(&self.routing);
                if let Some((down, last)) = routing.down(now)
                    && down >= self.config.patience()
                {
                    return Err(ClientError::Unavailable {
                        cause: "all servers fail",
                        message: format!(
                            "all servers have been failing for {:.0} s: {last}",
                            down.as_secs_f64()
                        ),
                    });
                }
                if let Some(server) = routing.take(avoid, now) {
                    return Ok(Place {
                        fleet: self,
                        server,
                    });
                }
                routing.until_rested(now).unwrap_or(LOOK).min(LOOK)
            };
            // Whichever comes first; a wake-up that is missed costs no more than one look.
            let _ = tokio::time::timeout(wait, self.freed.notified()).await;
        }
    }

    /// Asks every server for something itself, in order, once.
    pub async fn ask_each(
        &self,
        call: &Call,
        read: impl Fn(&[u8]) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        for address in &self.addresses {
            let reply = address.exchange(call, self.config.timeout(0)).await;
            let body = reply.map_err(|failure| failure.into_error(address.base()))?;
            read(&body).map_err(|error| Failure::from(error).into_error(address.base()))?;
        }
        Ok(())
    }
}

/// A place at a server, given back when it is dropped.
struct Place<'a> {
    fleet: &'a Fleet,
    server: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.fleet.routing).give_back(self.server);
        self.fleet.freed.notify_one();
    }
}

/// The counters are whole after every step, so a thread that died with the lock did no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
