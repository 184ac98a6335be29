//! Why a server could not be started or had to end.

use std::net::SocketAddr;

/// A server that could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The host name has no address.
    #[error("cannot find an address for host `{host}`: {source}")]
    Resolve {
        /// The host.
        host: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address that others can reach, without a key.
    #[error(
        "{address} can be reached from other machines: set an API key (api_keys), listen on \
         127.0.0.1, or set force_public if this is really meant"
    )]
    PublicWithoutKey {
        /// The address.
        address: SocketAddr,
    },
    /// An option that makes no sense.
    #[error("option `{option}`: {problem}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The measurements could not be set up.
    #[error("cannot set up the measurements: {0}")]
    Metrics(String),
}
