//! A model ready to use: decoder, tokenizer and the identity that cartridges are checked against.

use std::path::Path;

use burn::tensor::Device;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cartridge::ModelIdentity;
use crate::decoder::{ConfigError, Decoder, LoadError, ModelConfig, Precision};
use crate::digest::hex;
use crate::text::{ChatTokenizer, TextError};
use crate::weights::{Weights, WeightsError};

/// A model that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its config is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights are missing or wrong.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Weights and config do not fit together.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Its tokenizer or chat template is missing or wrong.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer makes ids that the model has no embedding for.
    #[error("the tokenizer has {tokens} tokens but the model's vocabulary is {vocab_size}")]
    Vocabulary {
        /// Highest id of the tokenizer plus one.
        tokens: usize,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
}

/// A frozen language model with its tokenizer.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    /// The decoder.
    pub decoder: Decoder,
    /// Tokenizer and chat template.
    pub text: ChatTokenizer,
    /// What cartridges are checked against.
    pub identity: ModelIdentity,
}

impl LanguageModel {
    /// Loads a model from a folder in Hugging Face layout or a GGUF file. `id` is its name for
    /// records; `progress` gets resident bytes done and in all.
    ///
    /// # Errors
    /// [`ModelError`], which names the file and what is wrong with it.
    pub fn load(
        path: &Path,
        id: &str,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        Self::load_as(path, id, |_| Precision::F32, device, progress)
    }

    /// What cartridges and adapters are checked against: its config and its identity. No weights are
    /// loaded.
    ///
    /// # Errors
    /// As [`LanguageModel::load`], for what is wrong before the weights are read.
    pub fn identify(
        path: &Path,
        id: &str,
    ) -> Result<(ModelConfig, ChatTokenizer, ModelIdentity), ModelError> {
        describe(path, id, &Weights::open(path)?)
    }

    /// [`LanguageModel::load`] in the precision that is chosen for the weights.
    pub fn load_as(
        path: &Path,
        id: &str,
        precision: impl FnOnce(&Weights) -> Precision,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let weights = Weights::open(path)?;
        let (config, text, identity) = describe(path, id, &weights)?;
        let decoder = Decoder::load_as(config, &weights, precision(&weights), device, progress)?;
        Ok(Self {
            decoder,
            text,
            identity,
        })
    }
}

impl LanguageModel {
    /// A model of random weights ([`Decoder::random`]) that reads and writes bytes, for measurements.
    ///
    /// # Errors
    /// If the vocabulary has no room for the bytes.
    pub fn random(
        id: &str,
        config: ModelConfig,
        precision: Precision,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let text = ChatTokenizer::of_bytes(config.vocab_size)?;
        let identity = identity(id, &config, format!("random {seed}"), &text)?;
        let decoder = Decoder::random(config, precision, seed, device);
        Ok(Self {
            decoder,
            text,
            identity,
        })
    }
}

/// Config, tokenizer and identity of a model whose weights are not loaded.
fn describe(
    path: &Path,
    id: &str,
    weights: &Weights,
) -> Result<(ModelConfig, ChatTokenizer, ModelIdentity), ModelError> {
    let (config, text) = match (weights.config(), weights.tokenizer_parts()) {
        (Some(config), Some(parts)) => (config?, ChatTokenizer::from_gguf(&parts?)?),
        _ => (
            ModelConfig::from_file(&path.join("config.json"))?,
            ChatTokenizer::from_folder(path)?,
        ),
    };
    if text.vocab_size() > config.vocab_size {
        return Err(ModelError::Vocabulary {
            tokens: text.vocab_size(),
            vocab_size: config.vocab_size,
        });
    }
    let identity = identity(id, &config, weights.fingerprint(), &text)?;
    Ok((config, text, identity))
}

fn identity(
    id: &str,
    config: &ModelConfig,
    weights_fingerprint: String,
    text: &ChatTokenizer,
) -> Result<ModelIdentity, TextError> {
    Ok(ModelIdentity {
        id: id.to_owned(),
        config_fingerprint: config_fingerprint(config),
        weights_fingerprint,
        tokenizer_fingerprint: text.vocabulary_fingerprint()?,
        num_layers: config.num_layers,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        rope: json!({ "theta": config.rope.theta, "frequencies": frequency_hash(config) }),
    })
}

/// Hash of what shapes the arithmetic. A GGUF file and a folder of the same model agree: the
/// vocabulary may be padded and f64 settings rounded to f32, so neither counts.
fn config_fingerprint(c: &ModelConfig) -> String {
    let parts = json!([
        c.architecture,
        c.hidden_size,
        c.intermediate_size,
        c.num_layers,
        c.num_heads,
        c.num_kv_heads,
        c.head_dim,
        c.rms_norm_eps as f32,
        frequency_hash(c),
    ]);
    short_hash(parts.to_string().as_bytes())
}

/// Hash of the rotary frequencies to five digits.
fn frequency_hash(c: &ModelConfig) -> String {
    let text: Vec<String> = c
        .rope_frequencies()
        .iter()
        .map(|f| format!("{f:.4e}"))
        .collect();
    short_hash(text.join(",").as_bytes())
}

/// The first 16 hexadecimal digits of the SHA-256.
fn short_hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}
