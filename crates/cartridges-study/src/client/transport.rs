//! One HTTP exchange with one server.

use std::error::Error;
use std::time::{Duration, SystemTime};

use cartridges_model::is_loopback;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use serde_json::Value;

use super::config::{ApiKey, ClientConfigError};
use super::failure::{Failure, FailureKind, presentable, retry_after};
use super::fleet_config::FleetConfig;

/// The longest part of an error's body that is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// What is asked of a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// The path behind the base URL, beginning with `/`.
    pub path: String,
    /// The JSON body to post; `None` gets the path.
    pub body: Option<Value>,
}

impl Call {
    pub fn get(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            body: None,
        }
    }

    pub fn post(path: &str, body: Value) -> Self {
        Self {
            path: path.to_owned(),
            body: Some(body),
        }
    }
}

/// A server's address and the connections to it.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// The base URL, without a slash at its end.
    base: String,
    http: Client,
    max_reply_bytes: usize,
}

impl Address {
    /// An address. `adjust` brings the base URL's path into the protocol's form.
    pub fn new(
        index: usize,
        url: &str,
        adjust: fn(&mut Url),
        key: Option<&ApiKey>,
        config: &FleetConfig,
    ) -> Result<Self, ClientConfigError> {
        let wrong = |reason: &str| ClientConfigError::Url {
            index,
            reason: reason.to_owned(),
        };
        let mut url = Url::parse(url.trim()).map_err(|error| wrong(&error.to_string()))?;
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(wrong("it has no host; expected http://HOST:PORT"));
        };
        let here = is_loopback(host);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("expected http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it holds a name or password; use an API key"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("expected no part after ? or #"));
        }
        adjust(&mut url);
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.secret()))
                .map_err(|_| ClientConfigError::Key)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
            if url.scheme() == "http" && !here {
                tracing::warn!(server = url.as_str(), "the API key goes over plain http");
            }
        }
        let mut http = Client::builder()
            .default_headers(headers)
            .connect_timeout(config.connect_timeout())
            .user_agent(concat!("cartridges/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry texts to where nobody sent them.
            .redirect(redirect::Policy::none());
        if here {
            http = http.no_proxy();
        }
        Ok(Self {
            base: url.as_str().trim_end_matches('/').to_owned(),
            http: http
                .build()
                .map_err(|error| ClientConfigError::Start(chain(&error)))?,
            max_reply_bytes: config.max_reply_bytes,
        })
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks and gives the reply's body, all within `timeout`.
    pub async fn exchange(&self, call: &Call, timeout: Duration) -> Result<Vec<u8>, Failure> {
        match tokio::time::timeout(timeout, self.unhurried(call)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(
                FailureKind::TimedOut,
                format!("no answer within {:.1} s", timeout.as_secs_f64()),
            )),
        }
    }

    async fn unhurried(&self, call: &Call) -> Result<Vec<u8>, Failure> {
        let url = format!("{}{}", self.base, call.path);
        let request = match &call.body {
            Some(body) => self
                .http
                .post(url)
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string()),
            None => self.http.get(url),
        };
        let mut response = request.send().await.map_err(|error| {
            let kind = match error.is_timeout() {
                true => FailureKind::TimedOut,
                false => FailureKind::Connection,
            };
            Failure::new(kind, chain(&error))
        })?;
        let status = response.status();
        if !status.is_success() {
            let pause = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| retry_after(value, SystemTime::now()));
            // The status says enough if the words do not come.
            let said = read(&mut response, MAX_ERROR_BYTES)
                .await
                .unwrap_or_default();
            return Err(Failure::status(status.as_u16(), &said, pause));
        }
        read(&mut response, self.max_reply_bytes).await
    }
}

async fn read(response: &mut Response, limit: usize) -> Result<Vec<u8>, Failure> {
    let too_long = || {
        Failure::new(
            FailureKind::TooLong,
            format!("the reply is longer than {limit} bytes"),
        )
    };
    if response.content_length().is_some_and(|n| n > limit as u64) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if chunk.len() > limit - body.len() => return Err(too_long()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => {
                let message = format!("the reply broke off: {}", chain(&error));
                return Err(Failure::new(FailureKind::CutOff, message));
            }
        }
    }
}

/// An error with its causes; reqwest alone says little. URLs are told elsewhere.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next: Option<&dyn Error> = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if words.last() != Some(&said) {
            words.push(said);
        }
        next = cause.source();
    }
    match words.is_empty() {
        true => presentable(&error.to_string()),
        false => presentable(&words.join(": ")),
    }
}

/// A base URL to which `/v1` belongs: added where there is no path.
pub(super) fn with_version(url: &mut Url) {
    if url.path().trim_matches('/').is_empty() {
        url.set_path("/v1");
    }
}

/// A base URL to which `/v1` does not belong.
pub(super) fn without_version(url: &mut Url) {
    let path = url.path().trim_end_matches('/');
    let bare = path.strip_suffix("/v1").unwrap_or(path).to_owned();
    url.set_path(&bare);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str, adjust: fn(&mut Url)) -> Result<String, String> {
        Address::new(3, url, adjust, None, &FleetConfig::default())
            .map(|address| address.base)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn base_urls_take_the_protocols_form() {
        for (given, with, without) in [
            ("http://a:1", "http://a:1/v1", "http://a:1"),
            ("http://a:1/", "http://a:1/v1", "http://a:1"),
            ("https://a/v1/", "https://a/v1", "https://a"),
            ("https://a/b/v1", "https://a/b/v1", "https://a/b"),
            (
                "https://a/v1beta/openai/",
                "https://a/v1beta/openai",
                "https://a/v1beta/openai",
            ),
        ] {
            assert_eq!(base(given, with_version).unwrap(), with);
            assert_eq!(base(given, without_version).unwrap(), without);
        }
    }

    #[test]
    fn other_urls_are_refused_without_repeating_them() {
        for bad in [
            "",
            "localhost:8000",
            "ftp://a",
            "http://",
            "http://u:secret@a",
            "http://a/?key=secret",
        ] {
            let message = base(bad, with_version).unwrap_err();
            assert!(message.starts_with("client: urls[3]: "), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
