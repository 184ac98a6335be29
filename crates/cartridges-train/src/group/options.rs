//! How long the members of a group wait for each other.

use std::time::Duration;

/// Patience of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupOptions {
    /// How long the first waits for the last to join (default 10 minutes).
    pub join: Duration,
    /// After so much silence a member counts as lost. Members say that they live while they compute,
    /// however long that takes (default a minute).
    pub silence: Duration,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            join: Duration::from_secs(600),
            silence: Duration::from_secs(60),
        }
    }
}
