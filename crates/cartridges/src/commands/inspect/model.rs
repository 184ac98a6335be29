//! What a model's files hold.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use cartridges_model::decoder::ModelConfig;
use cartridges_model::text::ChatTokenizer;
use cartridges_model::weights::Weights;
use serde::Serialize;
use serde_json::{Value, json};

use super::Findings;
use super::table::{bytes, fields, table};

/// Tensors of one storage format.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Stored {
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

/// What is known of the tokenizer without loading weights.
#[derive(Debug, Serialize)]
struct Tokenizer {
    tokens: usize,
    template: bool,
}

/// A model folder or a GGUF file. The weights are mapped, not read.
pub(super) fn model(path: &Path) -> Result<Findings> {
    let weights = Weights::open(path)?;
    let config = match weights.config() {
        Some(config) => config?,
        None => ModelConfig::from_file(&path.join("config.json"))?,
    };
    let mut formats: BTreeMap<String, Stored> = BTreeMap::new();
    for name in weights.names() {
        let format = weights.dtype_name(name).unwrap_or("unknown").to_owned();
        let entry = formats.entry(format).or_default();
        let shape = weights.shape(name).unwrap_or_default();
        entry.tensors += 1;
        entry.parameters += shape.iter().map(|n| *n as u64).product::<u64>();
        entry.bytes += weights.stored_bytes(name).unwrap_or_default() as u64;
    }
    let parameters: u64 = formats.values().map(|s| s.parameters).sum();
    let tied = config.tie_word_embeddings || weights.head_is_embedding();
    let tokenizer = tokenizer(path, &weights);
    let kv = config.kv_bytes_per_token(4);
    let container = match weights.gguf() {
        Some(_) => "GGUF",
        None => "safetensors folder",
    };

    let tokenizer_text = match &tokenizer {
        Ok(None) => "none".to_owned(),
        Ok(Some(t)) => format!(
            "{} tokens, {} chat template",
            t.tokens,
            if t.template { "with" } else { "without" }
        ),
        Err(problem) => format!("cannot be used: {problem}"),
    };
    let mut text = fields(&[
        ("model", path.display().to_string()),
        ("format", container.to_owned()),
        (
            "architecture",
            format!("{:?}", config.architecture).to_lowercase(),
        ),
        (
            "parameters",
            format!("{:.1} million", parameters as f64 / 1e6),
        ),
        ("layers", config.num_layers.to_string()),
        ("hidden size", config.hidden_size.to_string()),
        ("feed-forward", config.intermediate_size.to_string()),
        (
            "heads",
            format!(
                "{} query, {} key/value, of {}",
                config.num_heads, config.num_kv_heads, config.head_dim
            ),
        ),
        (
            "vocabulary",
            format!(
                "{}{}",
                config.vocab_size,
                if tied {
                    ", head tied to the embedding"
                } else {
                    ""
                }
            ),
        ),
        (
            "context",
            format!("{} tokens", config.max_position_embeddings),
        ),
        ("rope base", config.rope.theta.to_string()),
        (
            "cache",
            format!("{} per token or slot (f32)", bytes(kv as u64)),
        ),
        ("tokenizer", tokenizer_text),
    ]);
    let rows: Vec<Vec<String>> = formats
        .iter()
        .map(|(name, s)| {
            vec![
                name.clone(),
                s.tensors.to_string(),
                s.parameters.to_string(),
                bytes(s.bytes),
            ]
        })
        .collect();
    text += &format!(
        "\n{}",
        table(&["stored as", "tensors", "parameters", "size"], &rows)
    );

    let tokenizer_json = match tokenizer {
        Ok(tokenizer) => serde_json::to_value(tokenizer)?,
        Err(problem) => json!({ "problem": problem }),
    };
    let json: Value = json!({
        "kind": "model",
        "path": path,
        "format": container,
        "config": config,
        "parameters": parameters,
        "tied_head": tied,
        "kv_bytes_per_token": kv,
        "dtypes": formats,
        "tokenizer": tokenizer_json,
    });
    Ok(Findings {
        json,
        text,
        html: None,
    })
}

/// The tokenizer alone of a model folder or a GGUF file.
pub(super) fn text(path: &Path) -> Result<ChatTokenizer> {
    if path.is_dir() {
        return Ok(ChatTokenizer::from_folder(path)?);
    }
    match Weights::open(path)?.tokenizer_parts() {
        Some(parts) => Ok(ChatTokenizer::from_gguf(&parts?)?),
        None => bail!("{}: no tokenizer in it", path.display()),
    }
}

/// The tokenizer; none if there is no file for it, a message if it is of a kind not read here.
fn tokenizer(path: &Path, weights: &Weights) -> Result<Option<Tokenizer>, String> {
    if let Some(parts) = weights.tokenizer_parts() {
        let parts = parts.map_err(|e| e.to_string())?;
        return Ok(Some(Tokenizer {
            tokens: parts.tokens.len(),
            template: parts.chat_template.is_some(),
        }));
    }
    if !path.join("tokenizer.json").is_file() {
        return Ok(None);
    }
    let text = ChatTokenizer::from_folder(path).map_err(|e| e.to_string())?;
    Ok(Some(Tokenizer {
        tokens: text.vocab_size(),
        template: text.template().is_some(),
    }))
}
