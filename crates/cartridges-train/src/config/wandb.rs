//! How a run is called in Weights & Biases.

use serde::{Deserialize, Serialize};

/// The reference's fields of the same names; empty means not given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WandbConfig {
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
            project: "cartridges".to_owned(),
            entity: String::new(),
            name: String::new(),
            tags: Vec::new(),
            notes: String::new(),
            group: String::new(),
        }
    }
}
