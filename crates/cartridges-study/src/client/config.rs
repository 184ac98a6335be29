//! Which servers are asked, and how.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fleet_config::FleetConfig;

/// The model name that stands for whatever a server runs.
pub const DEFAULT_MODEL: &str = "default";

/// Fields that a request's meaning hangs on; `extra_body` may not set them.
const RESERVED: [&str; 6] = ["messages", "prompt", "input_ids", "text", "n", "stream"];

/// A client over HTTP; `type` says which protocol its servers speak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ClientConfig {
    /// OpenAI's chat completions: vLLM, SGLang, llama-server, hosted services.
    Openai(OpenAiConfig),
    /// The reference's server, and `cartridges serve`.
    Tokasaurus(TokasaurusConfig),
    /// SGLang's own interface.
    Sglang(SglangConfig),
}

/// Servers that speak OpenAI's chat completions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenAiConfig {
    /// Base URLs, as `http://localhost:8000` or `https://api.openai.com/v1`; without a path, `/v1` is
    /// added. All serve the same model.
    pub urls: Vec<String>,
    /// The model's name, sent with every request (default `default`, which few servers take).
    pub model: String,
    /// Sent as bearer token. Never written out; `api_key_env` is the better place.
    #[serde(skip_serializing)]
    pub api_key: Option<ApiKey>,
    /// Environment variable that holds the key (default none: no key is sent). Whatever it holds goes
    /// to all of `urls`.
    pub api_key_env: Option<String>,
    /// More fields of every request, over those that are set here (default none).
    pub extra_body: Map<String, Value>,
    /// Whether to ask for token ids as vLLM gives them, by `return_token_ids` and
    /// `return_tokens_as_token_ids` (default true). Turn it off for servers that refuse unknown
    /// fields, as hosted services and `cartridges serve` do (which gives ids as `tokasaurus`).
    /// llama-server gives ids unasked. Without ids, answers keep their text only.
    pub ask_token_ids: bool,
    /// How the thinking switch is told (default `chat_template`).
    pub thinking: ThinkingField,
    /// What the token limit is called (default `max_completion_tokens`).
    pub max_tokens_field: MaxTokensField,
    /// How the servers are used.
    pub fleet: FleetConfig,
}

impl Default for OpenAiConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            model: DEFAULT_MODEL.to_owned(),
            api_key: None,
            api_key_env: None,
            extra_body: Map::new(),
            ask_token_ids: true,
            thinking: ThinkingField::default(),
            max_tokens_field: MaxTokensField::default(),
            fleet: FleetConfig::default(),
        }
    }
}

/// How a server is told whether to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThinkingField {
    /// `chat_template_kwargs.enable_thinking`: vLLM, SGLang, llama-server.
    #[default]
    ChatTemplate,
    /// `reasoning_effort`, `high` or `low`: OpenAI's reasoning models.
    ReasoningEffort,
    /// Not at all.
    None,
}

/// The name of the token limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensField {
    /// OpenAI's present name, which newer models insist on.
    #[default]
    MaxCompletionTokens,
    /// The older name, which some servers know only.
    MaxTokens,
}

impl MaxTokensField {
    /// The field's name.
    pub fn as_str(self) -> &'static str {
        match self {
            MaxTokensField::MaxCompletionTokens => "max_completion_tokens",
            MaxTokensField::MaxTokens => "max_tokens",
        }
    }
}

/// Tokasaurus servers. Their pickled batch path is never used: requests go one by one to the JSON
/// paths, with ids and log-probs packed into the fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokasaurusConfig {
    /// Base URLs without `/v1`.
    pub urls: Vec<String>,
    /// The model's name (default `default`: whatever runs there).
    pub model: String,
    /// Sent as bearer token, for servers behind something that wants one. Never written out.
    #[serde(skip_serializing)]
    pub api_key: Option<ApiKey>,
    /// Environment variable that holds the key (default none: no key is sent).
    pub api_key_env: Option<String>,
    /// More fields of every request, over those that are set here (default none).
    pub extra_body: Map<String, Value>,
    /// Cartridges that stand before every request (default none).
    pub cartridges: Vec<RemoteCartridge>,
    /// Path of requests with cartridges (default `/custom/cartridge/chat/completions`). Servers from
    /// before 22 August 2025 have it at `/v1/cartridge/chat/completions`.
    pub cartridge_path: String,
    /// How the servers are used.
    pub fleet: FleetConfig,
}

impl Default for TokasaurusConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            model: DEFAULT_MODEL.to_owned(),
            api_key: None,
            api_key_env: None,
            extra_body: Map::new(),
            cartridges: Vec::new(),
            cartridge_path: "/custom/cartridge/chat/completions".to_owned(),
            fleet: FleetConfig::default(),
        }
    }
}

/// A cartridge as a Tokasaurus request names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteCartridge {
    /// Its name.
    pub id: String,
    /// Where the server finds it (default `wandb`, as on the server).
    #[serde(default)]
    pub source: CartridgeSource,
    /// Whether the server fetches it anew (default false).
    #[serde(default)]
    pub force_redownload: bool,
}

/// Where a server finds a cartridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CartridgeSource {
    /// Weights & Biases.
    #[default]
    Wandb,
    /// The server's own folder.
    Local,
    /// The Hugging Face hub.
    Huggingface,
}

/// SGLang servers, through their own `/generate`. Prompts are rendered and tokenised here, so the
/// client needs a [`PromptCodec`](super::PromptCodec) of the served model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SglangConfig {
    /// Base URLs without `/v1`.
    pub urls: Vec<String>,
    /// The served model's path as `/get_model_info` gives it (default `default`: not checked).
    pub model: String,
    /// Sent as bearer token. Never written out; `api_key_env` is the better place.
    #[serde(skip_serializing)]
    pub api_key: Option<ApiKey>,
    /// Environment variable that holds the key (default none: no key is sent).
    pub api_key_env: Option<String>,
    /// More fields of every request, over those that are set here; `sampling_params` is merged
    /// (default none).
    pub extra_body: Map<String, Value>,
    /// How the servers are used.
    pub fleet: FleetConfig,
}

impl Default for SglangConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            model: DEFAULT_MODEL.to_owned(),
            api_key: None,
            api_key_env: None,
            extra_body: Map::new(),
            fleet: FleetConfig::default(),
        }
    }
}

/// A secret. It is read from files and never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

/// A client that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientConfigError {
    /// A field has a value outside its range.
    #[error("client: {field} is {found}, expected {expected}")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// The range.
        expected: &'static str,
    },
    /// No server is named.
    #[error("client: urls is empty, expected at least one server")]
    NoServer,
    /// A URL cannot be used. It is not repeated here where it may hold a password.
    #[error("client: urls[{index}]: {reason}")]
    Url {
        /// Its place in `urls`.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// `extra_body` sets a field that is not its own.
    #[error("client: extra_body may not set {0}")]
    Reserved(String),
    /// The variable of `api_key_env` is not set.
    #[error("client: the environment variable {0}, which should hold the API key, is not set")]
    NoKey(String),
    /// The key cannot be sent in a header.
    #[error("client: the API key has characters that HTTP does not allow")]
    Key,
    /// The protocol takes token ids, and nothing can make them.
    #[error("client: sglang needs the tokenizer of the served model")]
    NoCodec,
    /// The system does not give what is needed.
    #[error("client: cannot start: {0}")]
    Start(String),
}

impl ClientConfig {
    /// The servers.
    pub fn urls(&self) -> &[String] {
        match self {
            ClientConfig::Openai(c) => &c.urls,
            ClientConfig::Tokasaurus(c) => &c.urls,
            ClientConfig::Sglang(c) => &c.urls,
        }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        match self {
            ClientConfig::Openai(c) => &c.model,
            ClientConfig::Tokasaurus(c) => &c.model,
            ClientConfig::Sglang(c) => &c.model,
        }
    }

    /// How the servers are used.
    pub fn fleet(&self) -> &FleetConfig {
        match self {
            ClientConfig::Openai(c) => &c.fleet,
            ClientConfig::Tokasaurus(c) => &c.fleet,
            ClientConfig::Sglang(c) => &c.fleet,
        }
    }

    fn extra_body(&self) -> &Map<String, Value> {
        match self {
            ClientConfig::Openai(c) => &c.extra_body,
            ClientConfig::Tokasaurus(c) => &c.extra_body,
            ClientConfig::Sglang(c) => &c.extra_body,
        }
    }

    /// Checks all that can be checked without asking a server.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn check(&self) -> Result<(), ClientConfigError> {
        if self.urls().is_empty() {
            return Err(ClientConfigError::NoServer);
        }
        if self.model().trim().is_empty() {
            return Err(ClientConfigError::Range {
                field: "model",
                found: "empty".to_owned(),
                expected: "a name",
            });
        }
        if let Some(name) = RESERVED
            .iter()
            .find(|n| self.extra_body().contains_key(**n))
        {
            return Err(ClientConfigError::Reserved((*name).to_owned()));
        }
        if let ClientConfig::Tokasaurus(config) = self
            && !config.cartridge_path.starts_with('/')
        {
            return Err(ClientConfigError::Range {
                field: "cartridge_path",
                found: config.cartridge_path.clone(),
                expected: "a path that begins with /",
            });
        }
        self.fleet().check()
    }

    /// The key, from the field or else from the environment.
    pub(super) fn key(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<ApiKey>, ClientConfigError> {
        let (key, variable) = match self {
            ClientConfig::Openai(c) => (&c.api_key, &c.api_key_env),
            ClientConfig::Tokasaurus(c) => (&c.api_key, &c.api_key_env),
            ClientConfig::Sglang(c) => (&c.api_key, &c.api_key_env),
        };
        if key.is_some() {
            return Ok(key.clone());
        }
        let Some(variable) = variable else {
            return Ok(None);
        };
        environment(variable)
            .map(|key| key.trim().to_owned())
            .filter(|key| !key.is_empty())
            .map(|key| Some(ApiKey(key)))
            .ok_or_else(|| ClientConfigError::NoKey(variable.clone()))
    }
}
