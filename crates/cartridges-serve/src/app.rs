//! What all handlers share.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::answer::{Answer, JobError};
use crate::api_error::ApiError;
use crate::guard::Keys;
use crate::inference::Inference;
use crate::job::Job;
use crate::metrics::Metrics;
use crate::openai::Store;
use crate::options::ServerOptions;

/// The state of a running server.
pub(crate) struct App {
    /// Whoever generates.
    pub inference: Arc<dyn Inference>,
    /// The settings.
    pub options: ServerOptions,
    /// Digests of the keys.
    pub keys: Keys,
    /// Whether only this machine can reach us.
    pub loopback: bool,
    /// The measurements.
    pub metrics: Metrics,
    /// Files and batches.
    pub store: Store,
}

impl App {
    /// An error if too many jobs wait.
    pub fn check_queue(&self) -> Result<(), ApiError> {
        match self.inference.load().queued >= self.options.max_queue {
            true => Err(JobError::Busy.into()),
            false => Ok(()),
        }
    }

    /// Hands a job over unless too many wait.
    pub fn submit(&self, job: Job) -> Result<Answer, ApiError> {
        self.check_queue()?;
        Ok(self.inference.submit(job)?)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
