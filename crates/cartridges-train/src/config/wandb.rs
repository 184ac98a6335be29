//! How a run is called in Weights & Biases.

use serde::{Deserialize, Serialize};

/// Whether a run is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WandbMode {
    /// It stays in its folder, which `wandb sync` uploads.
    #[default]
    Offline,
    /// It is sent to the server of `WANDB_BASE_URL` (default the public one) with the key of
    /// `WANDB_API_KEY`, and stays in its folder too.
    Online,
}

/// The reference's fields of the same names; empty means not given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WandbConfig {
    /// Whether the run is sent (default offline; `WANDB_MODE=online` is read where the command line
    /// fills the settings).
    pub mode: WandbMode,
    /// Project (default `cartridges`; the reference's environment variable
    /// `CARTRIDGES_WANDB_PROJECT` is read where the command line fills the settings).
    pub project: String,
    /// User or team (default none).
    pub entity: String,
    /// Name of the run (default none: Weights & Biases makes one up).
    pub name: String,
    /// Tags (default none).
    pub tags: Vec<String>,
    /// Notes (default none).
    pub notes: String,
    /// Group of runs (default none).
    pub group: String,
}

impl Default for WandbConfig {
    fn default() -> Self {
        Self {
            mode: WandbMode::Offline,
            project: "cartridges".to_owned(),
            entity: String::new(),
            name: String::new(),
            tags: Vec::new(),
            notes: String::new(),
            group: String::new(),
        }
    }
}
