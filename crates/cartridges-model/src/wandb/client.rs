//! The HTTP side: GraphQL, posts of JSON, uploads and downloads, each within a time limit.

use std::io::Read;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::error::WandbError;
use crate::is_loopback;

/// Where Weights & Biases is if nothing else is said.
const PUBLIC: &str = "https://api.wandb.ai";
/// Connecting, and a question with its answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A file, up or down.
const FILE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Longest answer to a question.
const LONGEST_ANSWER: u64 = 16 << 20;
/// As much of a refusal is shown.
const LONGEST_REFUSAL: usize = 300;

/// A server of Weights & Biases and a key to it.
#[derive(Clone)]
pub struct WandbClient {
    http: Client,
    base: String,
    key: String,
}

impl std::fmt::Debug for WandbClient {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WandbClient")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl WandbClient {
    /// A client of the server at `base`. Nothing is asked yet.
    ///
    /// # Errors
    /// If the key is empty or the system has no room for a client.
    pub fn new(base: &str, key: &str) -> Result<Self, WandbError> {
        let base = base.trim_end_matches('/').to_owned();
        let key = key.trim().to_owned();
        if key.is_empty() {
            return Err(WandbError::NoKey);
        }
        let mut http = Client::builder()
            .user_agent(concat!("cartridges/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        let host = reqwest::Url::parse(&base).ok();
        if host.is_some_and(|url| url.host_str().is_some_and(is_loopback)) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| WandbError::NoAnswer {
            base: base.clone(),
            what: "making a client".to_owned(),
            problem: causes(&error),
        })?;
        Ok(Self { http, base, key })
    }

    /// The server of `WANDB_BASE_URL` (default the public one) with the key of `WANDB_API_KEY`.
    ///
    /// # Errors
    /// [`WandbError::NoKey`].
    pub fn from_env() -> Result<Self, WandbError> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let base = variable("WANDB_BASE_URL");
        let base = match base.trim() {
            "" => PUBLIC,
            base => base,
        };
        Self::new(base, &variable("WANDB_API_KEY"))
    }

    /// The server.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where people look at what is on the server.
    pub fn page(&self, path: &str) -> String {
        match self.base == PUBLIC {
            true => format!("https://wandb.ai/{path}"),
            false => format!("{}/{path}", self.base),
        }
    }

    /// Asks in GraphQL; the answer's `data`. `what` says it in errors.
    ///
    /// # Errors
    /// [`WandbError`].
    pub fn graphql(&self, what: &str, query: &str, variables: Value) -> Result<Value, WandbError> {
        let body = json!({ "query": query, "variables": variables });
        let mut answer = self.post(what, "graphql", &body)?;
        if let Some(first) = answer["errors"]
            .as_array()
            .and_then(|errors| errors.first())
        {
            let said = first["message"]
                .as_str()
                .unwrap_or("an error without words");
            return Err(self.answer(what, said));
        }
        match answer["data"].take() {
            Value::Object(data) => Ok(Value::Object(data)),
            _ => Err(self.answer(what, "the answer has no data")),
        }
    }

    /// Posts JSON to a path of the server.
    ///
    /// # Errors
    /// [`WandbError`].
    pub fn post(&self, what: &str, path: &str, body: &Value) -> Result<Value, WandbError> {
        let request = self
            .http
            .post(format!("{}/{path}", self.base))
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = self.send(what, self.signed(request))?;
        let mut text = String::new();
        answer
            .take(LONGEST_ANSWER)
            .read_to_string(&mut text)
            .map_err(|error| self.no_answer(what, error.to_string()))?;
        serde_json::from_str(&text).map_err(|_| {
            let begin: String = text.chars().take(LONGEST_REFUSAL).collect();
            self.answer(what, &format!("the answer is not JSON: {begin}"))
        })
    }

    /// Puts bytes to an address that the server gave, with headers it gave (`Name:value`).
    ///
    /// # Errors
    /// [`WandbError`].
    pub fn put(
        &self,
        what: &str,
        url: &str,
        headers: &[&str],
        bytes: Vec<u8>,
    ) -> Result<(), WandbError> {
        let mut request = self
            .http
            .put(self.whole(url))
            .timeout(FILE_TIMEOUT)
            .body(bytes);
        for (name, value) in headers.iter().filter_map(|header| header.split_once(':')) {
            request = request.header(name.trim(), value.trim());
        }
        self.send(what, request).map(|_| ())
    }

    /// Gets what stands at an address that the server gave. The key goes to the server alone, not to
    /// where it keeps its files.
    ///
    /// # Errors
    /// [`WandbError`].
    pub(super) fn get(&self, what: &str, url: &str) -> Result<Response, WandbError> {
        let url = self.whole(url);
        let own = url
            .strip_prefix(&self.base)
            .is_some_and(|rest| rest.starts_with('/'));
        let request = self.http.get(url).timeout(FILE_TIMEOUT);
        let request = match own {
            true => self.signed(request),
            false => request,
        };
        self.send(what, request)
    }

    /// Addresses may be given without the server.
    fn whole(&self, url: &str) -> String {
        match url.starts_with('/') {
            true => format!("{}{url}", self.base),
            false => url.to_owned(),
        }
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        request.basic_auth("api", Some(&self.key))
    }

    fn send(&self, what: &str, request: RequestBuilder) -> Result<Response, WandbError> {
        let answer = request
            .send()
            .map_err(|error| self.no_answer(what, causes(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let mut said = Vec::new();
        // What cannot be read of a refusal is left out of the message.
        let _ = answer.take(LONGEST_REFUSAL as u64).read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let hint = match status.as_u16() {
            401 | 403 => " (is WANDB_API_KEY the key of this server?)",
            _ => "",
        };
        Err(WandbError::Refused {
            base: self.base.clone(),
            what: what.to_owned(),
            status: status.as_u16(),
            said: format!(
                "{}{hint}",
                said.split_whitespace().collect::<Vec<_>>().join(" ")
            ),
        })
    }

    fn no_answer(&self, what: &str, problem: String) -> WandbError {
        WandbError::NoAnswer {
            base: self.base.clone(),
            what: what.to_owned(),
            problem,
        }
    }

    /// An answer that is not what the interface promises; `what` was asked for.
    pub fn answer(&self, what: &str, problem: &str) -> WandbError {
        WandbError::Answer {
            base: self.base.clone(),
            what: what.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// An error with its causes; addresses, which may hold signatures, are left out.
fn causes(error: &reqwest::Error) -> String {
    let kind = match error {
        e if e.is_timeout() => "no answer in time",
        e if e.is_connect() => "no connection",
        _ => "the connection broke",
    };
    let mut text = kind.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
