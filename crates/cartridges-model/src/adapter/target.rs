//! Places of the decoder that an adapter can change, by the path they have in checkpoints.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::AdapterError;
use crate::decoder::ModelConfig;

/// A linear map inside a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// `self_attn.q_proj`
    QProj,
    /// `self_attn.k_proj`
    KProj,
    /// `self_attn.v_proj`
    VProj,
    /// `self_attn.o_proj`
    OProj,
    /// `mlp.gate_proj`
    GateProj,
    /// `mlp.up_proj`
    UpProj,
    /// `mlp.down_proj`
    DownProj,
}

impl Site {
    /// All of them, in the order in which a layer computes them.
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// Its path inside a layer.
    pub fn path(self) -> &'static str {
        match self {
            Self::QProj => "self_attn.q_proj",
            Self::KProj => "self_attn.k_proj",
            Self::VProj => "self_attn.v_proj",
            Self::OProj => "self_attn.o_proj",
            Self::GateProj => "mlp.gate_proj",
            Self::UpProj => "mlp.up_proj",
            Self::DownProj => "mlp.down_proj",
        }
    }
}

/// What an adapter changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// `model.layers.{layer}.{site}`
    Layer {
        /// The layer, from 0.
        layer: usize,
        /// The map inside it.
        site: Site,
    },
    /// `model.norm`: the output of the final norm.
    FinalNorm,
    /// `lm_head`: the logits.
    LmHead,
}

impl Target {
    /// Widths of its input and its output in a model of this shape; `None` if the model has no such
    /// layer. The final norm's input is its own output.
    pub fn widths(self, config: &ModelConfig) -> Option<(usize, usize)> {
        let hidden = config.hidden_size;
        match self {
            Self::Layer { layer, .. } if layer >= config.num_layers => None,
            Self::Layer { site, .. } => {
                let queries = config.num_heads * config.head_dim;
                let keys = config.num_kv_heads * config.head_dim;
                Some(match site {
                    Site::QProj => (hidden, queries),
                    Site::KProj | Site::VProj => (hidden, keys),
                    Site::OProj => (queries, hidden),
                    Site::GateProj | Site::UpProj => (hidden, config.intermediate_size),
                    Site::DownProj => (config.intermediate_size, hidden),
                })
            }
            Self::FinalNorm => Some((hidden, hidden)),
            Self::LmHead => Some((hidden, config.vocab_size)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer { layer, site } => write!(f, "model.layers.{layer}.{}", site.path()),
            Self::FinalNorm => f.write_str("model.norm"),
            Self::LmHead => f.write_str("lm_head"),
        }
    }
}

impl FromStr for Target {
    type Err = AdapterError;

    fn from_str(path: &str) -> Result<Self, AdapterError> {
        let unknown = || AdapterError::UnknownTarget(path.to_owned());
        match path {
            "model.norm" => return Ok(Self::FinalNorm),
            "lm_head" => return Ok(Self::LmHead),
            _ => {}
        }
        let inside = path.strip_prefix("model.layers.").ok_or_else(unknown)?;
        let (layer, site) = inside.split_once('.').ok_or_else(unknown)?;
        let site = Site::ALL
            .into_iter()
            .find(|known| known.path() == site)
            .ok_or_else(unknown)?;
        let digits = layer.bytes().all(|b| b.is_ascii_digit());
        let layer = layer.parse().ok().filter(|_| digits).ok_or_else(unknown)?;
        Ok(Self::Layer { layer, site })
    }
}

impl TryFrom<String> for Target {
    type Error = AdapterError;

    fn try_from(path: String) -> Result<Self, AdapterError> {
        path.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}
