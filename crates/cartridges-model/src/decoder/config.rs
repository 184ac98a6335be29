//! What a decoder looks like, read from Hugging Face's `config.json`.
//!
//! One struct serves `llama`, `qwen2` and `qwen3`; the families differ only in the switches
//! [`ModelConfig::qkv_bias`], [`ModelConfig::qk_norm`] and in their rope settings.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// A model description that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The text is not the JSON that a decoder config is.
    #[error("{path} is not a decoder config: {reason}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A field has a value that no decoder here has.
    #[error("model config: {field} is {found}, expected {expected}")]
    Field {
        /// The field's name in `config.json`.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: String,
    },
}

/// The families that share this decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2 and relatives: no biases, optional llama3 rope scaling.
    Llama,
    /// Qwen2 and Qwen2.5: bias on q, k and v.
    Qwen2,
    /// Qwen3: RMS norm on every query and key head, free head size.
    Qwen3,
}

/// Frequency scaling of Llama 3.1 and later.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Llama3Scaling {
    /// By how much low frequencies are stretched.
    pub factor: f64,
    /// Wavelengths above `original / low_freq_factor` are stretched fully.
    pub low_freq_factor: f64,
    /// Wavelengths below `original / high_freq_factor` are left alone.
    pub high_freq_factor: f64,
    /// Context length of the first training, in tokens.
    pub original_max_position_embeddings: usize,
}

/// Rotary position settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Llama 3 scaling, if the model uses it.
    pub llama3: Option<Llama3Scaling>,
}

/// Everything the decoder needs to know about a model's shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key/value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Rotary positions.
    pub rope: RopeConfig,
    /// Longest position the model was trained for, in tokens.
    pub max_position_embeddings: usize,
    /// The output head is the embedding table.
    pub tie_word_embeddings: bool,
    /// q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Queries and keys are normalised per head before rope.
    pub qk_norm: bool,
    /// Divisors of the `head_dim / 2` rope frequencies as a GGUF file carries them
    /// (`rope_freqs.weight`); they replace [`RopeConfig::llama3`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_divisors: Option<Vec<f32>>,
}

impl ModelConfig {
    /// Reads and checks a Hugging Face `config.json`.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: name.clone(),
            source,
        })?;
        Self::from_json(&text, &name)
    }

    /// Reads and checks the text of a `config.json`; `name` is used in errors.
    pub fn from_json(text: &str, name: &str) -> Result<Self, ConfigError> {
        let raw: HfConfig = serde_json::from_str(text).map_err(|e| ConfigError::Parse {
            path: name.to_owned(),
            reason: e.to_string(),
        })?;
        raw.into_config()?.checked()
    }

    /// Refuses sizes that cannot be a model: zero, not divisible, or absurdly large.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 22),
            ("num_hidden_layers", self.num_layers, 1 << 12),
            ("num_attention_heads", self.num_heads, 1 << 12),
            ("num_key_value_heads", self.num_kv_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 30,
            ),
        ];
        for (field, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(field_error(field, value, format!("1 to {limit}")));
            }
        }
        if !self.num_heads.is_multiple_of(self.num_kv_heads) {
            return Err(field_error(
                "num_key_value_heads",
                self.num_kv_heads,
                format!("a divisor of num_attention_heads = {}", self.num_heads),
            ));
        }
        if let Some(divisors) = &self.rope_divisors
            && (divisors.len() != self.head_dim / 2
                || divisors.iter().any(|d| !d.is_finite() || *d <= 0.0))
        {
            return Err(field_error(
                "rope_freqs",
                format!("{} values", divisors.len()),
                format!("{} positive numbers", self.head_dim / 2),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(field_error(
                "head_dim",
                self.head_dim,
                "an even number".into(),
            ));
        }
        if !(self.rope.theta.is_finite() && self.rope.theta > 1.0) {
            return Err(field_error(
                "rope_theta",
                self.rope.theta,
                "more than 1".into(),
            ));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err(field_error(
                "rms_norm_eps",
                self.rms_norm_eps,
                "more than 0".into(),
            ));
        }
        if let Some(s) = self.rope.llama3 {
            let sane = s.factor.is_finite()
                && s.factor >= 1.0
                && s.low_freq_factor > 0.0
                && s.high_freq_factor > s.low_freq_factor
                && s.original_max_position_embeddings > 0;
            if !sane {
                return Err(field_error(
                    "rope_scaling",
                    format!("{s:?}"),
                    "factor >= 1 and 0 < low_freq_factor < high_freq_factor".into(),
                ));
            }
        }
        Ok(self)
    }

    /// Query heads that share one key/value head.
    pub fn group_size(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Number of values in all matrices; `tied`: the head is the embedding table.
    pub fn matrix_values(&self, tied: bool) -> usize {
        let attention = 2 * self.hidden_size * self.head_dim * (self.num_heads + self.num_kv_heads);
        let tables = if tied { 1 } else { 2 };
        self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)
            + tables * self.vocab_size * self.hidden_size
    }

    /// Bytes that one cartridge slot or one cached token takes in all layers with `bytes` per value.
    pub fn kv_bytes_per_token(&self, bytes: usize) -> usize {
        2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes
    }

    /// The angular frequency of each of the `head_dim / 2` rotary pairs, in radians per position.
    ///
    /// With llama3 scaling (Llama 3.1's published rule) wavelengths longer than
    /// `original / low_freq_factor` are divided by `factor`, shorter than
    /// `original / high_freq_factor` kept, and blended in between.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let half = self.head_dim / 2;
        let plain = (0..half).map(|i| self.rope.theta.powf(-(i as f64) / half as f64));
        if let Some(divisors) = &self.rope_divisors {
            return plain
                .zip(divisors)
                .map(|(f, d)| f / f64::from(*d))
                .collect();
        }
        plain
            .map(|f| match self.rope.llama3 {
                None => f,
                Some(s) => {
                    let original = s.original_max_position_embeddings as f64;
                    let wavelength = std::f64::consts::TAU / f;
                    if wavelength > original / s.low_freq_factor {
                        f / s.factor
                    } else if wavelength < original / s.high_freq_factor {
                        f
                    } else {
                        let smooth = (original / wavelength - s.low_freq_factor)
                            / (s.high_freq_factor - s.low_freq_factor);
                        (1.0 - smooth) * f / s.factor + smooth * f
                    }
                }
            })
            .collect()
    }
}

fn field_error(
    field: &'static str,
    found: impl std::fmt::Display,
    expected: String,
) -> ConfigError {
    ConfigError::Field {
        field,
        found: found.to_string(),
        expected,
    }
}

/// The fields of `config.json` that matter here. Others are ignored on purpose: the file carries
/// training and generation settings of many kinds that do not change the forward pass.
#[derive(Deserialize)]
struct HfConfig {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<serde_json::Value>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_sliding_window: Option<bool>,
}

impl HfConfig {
    fn into_config(self) -> Result<ModelConfig, ConfigError> {
        let architecture = match self.model_type.as_str() {
            "llama" => Architecture::Llama,
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            other => {
                return Err(field_error(
                    "model_type",
                    other,
                    "llama, qwen2 or qwen3".into(),
                ));
            }
        };
        // Settings that would change the numbers are refused, not passed over.
        if let Some(act) = self.hidden_act.as_deref().filter(|a| *a != "silu") {
            return Err(field_error("hidden_act", act, "silu".into()));
        }
        if self.attention_bias == Some(true) {
            return Err(field_error("attention_bias", true, "false".into()));
        }
        if self.mlp_bias == Some(true) {
            return Err(field_error("mlp_bias", true, "false".into()));
        }
        if self.use_sliding_window == Some(true) {
            return Err(field_error("use_sliding_window", true, "false".into()));
        }
        if self.num_attention_heads == 0 {
            return Err(field_error("num_attention_heads", 0, "at least 1".into()));
        }
        let rope = self.rope()?;
        Ok(ModelConfig {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_layers: self.num_hidden_layers,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self
                .head_dim
                .unwrap_or(self.hidden_size / self.num_attention_heads),
            rms_norm_eps: self.rms_norm_eps,
            rope,
            max_position_embeddings: self.max_position_embeddings,
            tie_word_embeddings: self.tie_word_embeddings,
            qkv_bias: architecture == Architecture::Qwen2,
            qk_norm: architecture == Architecture::Qwen3,
            rope_divisors: None,
        })
    }

    /// Rope settings stand in `rope_parameters` (newer files) or in `rope_theta` + `rope_scaling`.
    fn rope(&self) -> Result<RopeConfig, ConfigError> {
        let table = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref());
        let number = |key: &str| table.and_then(|t| t.get(key)).and_then(|v| v.as_f64());
        let theta = number("rope_theta").or(self.rope_theta).unwrap_or(10_000.0);
        let kind = table
            .and_then(|t| t.get("rope_type").or_else(|| t.get("type")))
            .and_then(|v| v.as_str())
            .unwrap_or("default");
        let llama3 = match kind {
            "default" => None,
            "llama3" => {
                let need = |key: &'static str| {
                    number(key).ok_or_else(|| field_error(key, "missing", "a number".into()))
                };
                Some(Llama3Scaling {
                    factor: need("factor")?,
                    low_freq_factor: need("low_freq_factor")?,
                    high_freq_factor: need("high_freq_factor")?,
                    original_max_position_embeddings: need("original_max_position_embeddings")?
                        as usize,
                })
            }
            other => return Err(field_error("rope_type", other, "default or llama3".into())),
        };
        Ok(RopeConfig { theta, llama3 })
    }
}
