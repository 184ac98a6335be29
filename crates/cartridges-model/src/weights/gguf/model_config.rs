//! The model description in a GGUF header.

use super::Gguf;
use crate::decoder::{Architecture, ModelConfig, RopeConfig};
use crate::weights::{Weights, WeightsError};

/// Rope base when a file names none, as in GGML and Hugging Face.
const DEFAULT_THETA: f64 = 10_000.0;

/// The matrices and norms that every layer of every family has.
const LAYER_WEIGHTS: [&str; 9] = [
    "input_layernorm.weight",
    "mlp.down_proj.weight",
    "mlp.gate_proj.weight",
    "mlp.up_proj.weight",
    "post_attention_layernorm.weight",
    "self_attn.k_proj.weight",
    "self_attn.o_proj.weight",
    "self_attn.q_proj.weight",
    "self_attn.v_proj.weight",
];

/// Reads and checks the description. Whatever would change the numbers and is not supported by the
/// decoder is refused, not passed over.
pub(in crate::weights) fn read(
    gguf: &Gguf,
    weights: &Weights,
) -> Result<ModelConfig, WeightsError> {
    const ARCHITECTURE: &str = "general.architecture";
    let expected = "llama, qwen2 or qwen3";
    let (architecture, prefix) = match gguf.text(ARCHITECTURE)? {
        Some("llama") => (Architecture::Llama, "llama"),
        Some("qwen2") => (Architecture::Qwen2, "qwen2"),
        Some("qwen3") => (Architecture::Qwen3, "qwen3"),
        Some(other) => return Err(gguf.metadata_error(ARCHITECTURE, other, expected)),
        None => return Err(gguf.missing(ARCHITECTURE, expected)),
    };
    let fields = Fields { gguf, prefix };
    fields.refuse_other_arithmetic()?;
    refuse_other_tensors(weights, architecture)?;

    let hidden_size = fields.size("embedding_length")?;
    let num_heads = fields.size("attention.head_count")?;
    let head_dim = match fields.optional_size("attention.key_length")? {
        Some(width) => width,
        None => hidden_size / num_heads.max(1),
    };
    fields.expect_size("attention.value_length", head_dim)?;
    // A smaller number would rotate only a part of each head.
    fields.expect_size("rope.dimension_count", head_dim)?;

    let config = ModelConfig {
        architecture,
        vocab_size: fields.vocab_size(weights)?,
        hidden_size,
        intermediate_size: fields.size("feed_forward_length")?,
        num_layers: fields.size("block_count")?,
        num_heads,
        num_kv_heads: fields
            .optional_size("attention.head_count_kv")?
            .unwrap_or(num_heads),
        head_dim,
        rms_norm_eps: fields.eps()?,
        rope: RopeConfig {
            theta: fields.number("rope.freq_base")?.unwrap_or(DEFAULT_THETA),
            llama3: None,
        },
        max_position_embeddings: fields.size("context_length")?,
        tie_word_embeddings: weights.shape("lm_head.weight").is_none()
            || weights.head_is_embedding(),
        qkv_bias: architecture == Architecture::Qwen2
            || weights
                .shape("model.layers.0.self_attn.q_proj.bias")
                .is_some(),
        qk_norm: architecture == Architecture::Qwen3,
        rope_divisors: match weights.shape("rope_freqs.weight") {
            Some(_) => Some(weights.read("rope_freqs.weight")?.values),
            None => None,
        },
    };
    config.checked().map_err(|source| WeightsError::Config {
        file: gguf.file.clone(),
        source,
    })
}

/// Tensors that other members of the family have and this decoder would not use.
fn refuse_other_tensors(weights: &Weights, architecture: Architecture) -> Result<(), WeightsError> {
    for name in weights.names() {
        let known = match name.strip_prefix("model.layers.") {
            None => matches!(
                name,
                "model.embed_tokens.weight"
                    | "model.norm.weight"
                    | "lm_head.weight"
                    | "rope_freqs.weight"
            ),
            Some(rest) => match rest.split_once('.').map_or("", |(_, part)| part) {
                "self_attn.q_norm.weight" | "self_attn.k_norm.weight" => {
                    architecture == Architecture::Qwen3
                }
                "self_attn.q_proj.bias" | "self_attn.k_proj.bias" | "self_attn.v_proj.bias" => true,
                part => LAYER_WEIGHTS.contains(&part),
            },
        };
        if !known {
            return Err(WeightsError::Tensor {
                file: weights.source_name().to_owned(),
                tensor: name.to_owned(),
                reason: format!("has no place in the {architecture:?} decoder"),
            });
        }
    }
    Ok(())
}

/// The entries under the architecture's prefix.
struct Fields<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
}

impl Fields<'_> {
    fn key(&self, field: &str) -> String {
        format!("{}.{field}", self.prefix)
    }

    fn optional_size(&self, field: &str) -> Result<Option<usize>, WeightsError> {
        let key = self.key(field);
        let Some(value) = self.gguf.uniform(&key)? else {
            return Ok(None);
        };
        match usize::try_from(value) {
            Ok(size) => Ok(Some(size)),
            Err(_) => Err(self.gguf.metadata_error(&key, value, "a size")),
        }
    }

    fn size(&self, field: &str) -> Result<usize, WeightsError> {
        self.optional_size(field)?
            .ok_or_else(|| self.gguf.missing(&self.key(field), "a whole number"))
    }

    fn number(&self, field: &str) -> Result<Option<f64>, WeightsError> {
        self.gguf.number(&self.key(field))
    }

    fn eps(&self) -> Result<f64, WeightsError> {
        const FIELD: &str = "attention.layer_norm_rms_epsilon";
        self.number(FIELD)?
            .ok_or_else(|| self.gguf.missing(&self.key(FIELD), "a number"))
    }

    /// The rows of the embedding table; without one, what the metadata says.
    fn vocab_size(&self, weights: &Weights) -> Result<usize, WeightsError> {
        if let Some([rows, _]) = weights.shape("model.embed_tokens.weight") {
            return Ok(*rows);
        }
        if let Some(size) = self.optional_size("vocab_size")? {
            return Ok(size);
        }
        match self.gguf.texts("tokenizer.ggml.tokens")? {
            Some(tokens) => Ok(tokens.len()),
            None => Err(self.gguf.missing(&self.key("vocab_size"), "a whole number")),
        }
    }

    fn expect_size(&self, field: &str, expected: usize) -> Result<(), WeightsError> {
        match self.optional_size(field)? {
            Some(found) if found != expected => Err(self.gguf.metadata_error(
                &self.key(field),
                found,
                format!("the head width, {expected}"),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses settings that ask for another computation.
    fn refuse_other_arithmetic(&self) -> Result<(), WeightsError> {
        self.refuse_rope_scaling()?;
        if let Some(window) = self.optional_size("attention.sliding_window")?
            && window != 0
            && window < self.size("context_length")?
        {
            let key = self.key("attention.sliding_window");
            let expected = "0, or no less than the context length";
            return Err(self.gguf.metadata_error(&key, window, expected));
        }
        // Each is a no-op at the value named.
        for (field, neutral) in [
            ("expert_count", 0.0),
            ("attn_logit_softcapping", 0.0),
            ("final_logit_softcapping", 0.0),
            ("attention.clamp_kqv", 0.0),
            ("attention.max_alibi_bias", 0.0),
        ] {
            if let Some(value) = self.number(field)?
                && value != neutral
            {
                let expected = format!("{neutral} or nothing");
                return Err(self.gguf.metadata_error(&self.key(field), value, expected));
            }
        }
        for field in [
            "logit_scale",
            "residual_scale",
            "embedding_scale",
            "attention.scale",
        ] {
            if let Some(value) = self.number(field)?
                && value != 0.0
                && (value != 1.0 || field == "attention.scale")
            {
                return Err(self.gguf.metadata_error(&self.key(field), value, "nothing"));
            }
        }
        for (field, neutral) in [("attention.causal", true), ("use_parallel_residual", false)] {
            let key = self.key(field);
            if let Some(value) = self.gguf.boolean(&key)?
                && value != neutral
            {
                return Err(self.gguf.metadata_error(&key, value, neutral.to_string()));
            }
        }
        Ok(())
    }

    /// Only no scaling, or a factor of 1, is accepted; llama3's comes as `rope_freqs.weight`.
    fn refuse_rope_scaling(&self) -> Result<(), WeightsError> {
        let key = self.key("rope.scaling.type");
        match self.gguf.text(&key)? {
            Some("none") => return Ok(()),
            // Linear is what a factor without a type means.
            None | Some("linear") => {}
            Some(other) => {
                return Err(self.gguf.metadata_error(&key, other, "none"));
            }
        }
        for field in ["rope.scaling.factor", "rope.scale_linear"] {
            if let Some(factor) = self.number(field)?
                // 0 is written for "unset".
                && factor != 1.0
                && factor != 0.0
            {
                return Err(self.gguf.metadata_error(&self.key(field), factor, "1"));
            }
        }
        Ok(())
    }
}
