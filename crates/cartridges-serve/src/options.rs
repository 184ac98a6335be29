//! What can be set.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ServeError;
use crate::job::Source;

/// A secret that a client must show. It is never printed or saved.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ApiKey(pub String);

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

/// Settings of a server. Every limit guards the server against a client's mistake or ill will.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerOptions {
    /// Name or address to listen on (127.0.0.1: this machine only).
    pub host: String,
    /// Port (10210, as Tokasaurus); 0: any free one.
    pub port: u16,
    /// Keys, one of which a client must send as `Authorization: Bearer …`; empty: none needed.
    #[serde(skip_serializing)]
    pub api_keys: Vec<ApiKey>,
    /// Listen on an address that other machines can reach although there is no key (false).
    pub force_public: bool,
    /// More host names under which a server on a loopback address may be addressed, for example
    /// behind a proxy (none). Web pages of other names are refused.
    pub allowed_hosts: Vec<String>,
    /// Remote places that a request may name (none). A cartridge that is already here can be used
    /// whatever place the request names.
    pub allow_remote: Vec<Source>,
    /// Refuse requests on the OpenAI paths whose `model` is neither the served one nor `default`
    /// (true).
    pub check_model: bool,
    /// Largest request body in bytes (16 MiB); batch files too.
    pub max_body_bytes: usize,
    /// Most messages of a conversation (4096).
    pub max_messages: usize,
    /// Most answers to one completion request: its prompts times `n` (256).
    pub max_answers: usize,
    /// Most answers per prompt (16).
    pub max_n: usize,
    /// Most log-probs per position (20); the engine may allow fewer.
    pub max_top_logprobs: usize,
    /// Most stop texts (16).
    pub max_stop: usize,
    /// Most cartridges of a request (16).
    pub max_cartridges: usize,
    /// Largest JSON Schema in bytes (64 KiB).
    pub max_schema_bytes: usize,
    /// Most requests in one batch (10 000).
    pub max_batch_requests: usize,
    /// How many requests of one batch are handed to the engine at a time (64).
    pub batch_concurrency: usize,
    /// Most files held in memory (64).
    pub max_files: usize,
    /// Most bytes of all files held in memory, and again of all batches that run (256 MiB).
    pub max_stored_bytes: usize,
    /// Most batches remembered (256).
    pub max_batches: usize,
    /// Requests are refused while this many jobs wait (1024).
    pub max_queue: usize,
    /// Most open connections (1024); more wait to be accepted.
    pub max_connections: usize,
    /// Seconds a request may take, its queueing included (600).
    pub request_timeout_seconds: u64,
    /// Seconds a client may take to send the headers, and to send the body (30).
    pub read_timeout_seconds: u64,
    /// Seconds without any progress after which a client that does not read is cut off (60).
    pub write_timeout_seconds: u64,
    /// Seconds that running requests get at shutdown (30).
    pub drain_timeout_seconds: u64,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 10210,
            api_keys: Vec::new(),
            force_public: false,
            allowed_hosts: Vec::new(),
            allow_remote: Vec::new(),
            check_model: true,
            max_body_bytes: 16 << 20,
            max_messages: 4096,
            max_answers: 256,
            max_n: 16,
            max_top_logprobs: 20,
            max_stop: 16,
            max_cartridges: 16,
            max_schema_bytes: 64 << 10,
            max_batch_requests: 10_000,
            batch_concurrency: 64,
            max_files: 64,
            max_stored_bytes: 256 << 20,
            max_batches: 256,
            max_queue: 1024,
            max_connections: 1024,
            request_timeout_seconds: 600,
            read_timeout_seconds: 30,
            write_timeout_seconds: 60,
            drain_timeout_seconds: 30,
        }
    }
}

impl ServerOptions {
    /// Refuses settings that cannot work.
    pub fn check(&self) -> Result<(), ServeError> {
        let positive = [
            ("max_body_bytes", self.max_body_bytes),
            ("max_messages", self.max_messages),
            ("max_answers", self.max_answers),
            ("max_n", self.max_n),
            ("max_batch_requests", self.max_batch_requests),
            ("batch_concurrency", self.batch_concurrency),
            ("max_queue", self.max_queue),
            ("max_connections", self.max_connections),
            (
                "request_timeout_seconds",
                self.request_timeout_seconds as usize,
            ),
            ("read_timeout_seconds", self.read_timeout_seconds as usize),
            ("write_timeout_seconds", self.write_timeout_seconds as usize),
        ];
        for (option, value) in positive {
            if value == 0 {
                let problem = "must be at least 1".to_owned();
                return Err(ServeError::Option { option, problem });
            }
        }
        for key in &self.api_keys {
            let fine = !key.0.is_empty() && key.0.bytes().all(|byte| byte.is_ascii_graphic());
            if !fine {
                let problem = "a key needs at least one sign, all of them visible ASCII".to_owned();
                let option = "api_keys";
                return Err(ServeError::Option { option, problem });
            }
        }
        Ok(())
    }

    /// Refuses an address that others can reach if no key is set.
    pub(crate) fn check_address(&self, address: std::net::SocketAddr) -> Result<(), ServeError> {
        if is_loopback(address.ip()) || !self.api_keys.is_empty() || self.force_public {
            return Ok(());
        }
        Err(ServeError::PublicWithoutKey { address })
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    pub(crate) fn read_timeout(&self) -> Duration {
        Duration::from_secs(self.read_timeout_seconds)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_timeout_seconds)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }
}

/// Whether only this machine can reach the address; `::ffff:127.0.0.1` counts.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_address_needs_a_key_or_force() {
        let public = "0.0.0.0:1".parse().unwrap();
        let mut options = ServerOptions::default();
        assert!(
            options
                .check_address("127.0.0.1:1".parse().unwrap())
                .is_ok()
        );
        assert!(options.check_address("[::1]:1".parse().unwrap()).is_ok());
        assert!(
            options
                .check_address("[::ffff:127.0.0.1]:1".parse().unwrap())
                .is_ok()
        );
        assert!(options.check_address(public).is_err());
        assert!(options.check_address("[::]:1".parse().unwrap()).is_err());
        options.force_public = true;
        assert!(options.check_address(public).is_ok());
        options.force_public = false;
        options.api_keys = vec![ApiKey("secret".into())];
        assert!(options.check_address(public).is_ok());
    }

    #[test]
    fn keys_are_not_shown() {
        let options = ServerOptions {
            api_keys: vec![ApiKey("topsecret".into())],
            ..ServerOptions::default()
        };
        assert!(!format!("{options:?}").contains("topsecret"));
        assert!(
            !serde_json::to_string(&options)
                .unwrap()
                .contains("topsecret")
        );
    }

    #[test]
    fn senseless_settings_are_refused() {
        assert!(ServerOptions::default().check().is_ok());
        let zero = ServerOptions {
            max_n: 0,
            ..ServerOptions::default()
        };
        assert!(zero.check().unwrap_err().to_string().contains("max_n"));
        let key = ServerOptions {
            api_keys: vec![ApiKey(String::new())],
            ..ServerOptions::default()
        };
        assert!(key.check().is_err());
    }
}
