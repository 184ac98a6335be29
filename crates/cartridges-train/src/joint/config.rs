//! The settings of joint training.

use serde::{Deserialize, Serialize};

use crate::config::TrainConfigError;

/// What a conversation sees besides its own cartridge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JointConfig {
    /// Share of the conversations, 0 to 1, that see their own cartridge alone (default 0.5).
    pub alone_share: f64,
    /// The others see so many cartridges of the set besides, at most; the number and which ones are
    /// drawn by the seed (default 2).
    pub max_distractors: usize,
}

impl Default for JointConfig {
    fn default() -> Self {
        Self {
            alone_share: 0.5,
            max_distractors: 2,
        }
    }
}

impl JointConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`TrainConfigError`], which names the field.
    pub fn validate(&self) -> Result<(), TrainConfigError> {
        let share = self.alone_share;
        TrainConfigError::check(
            (0.0..=1.0).contains(&share),
            "joint.alone_share",
            share,
            "0 to 1",
        )?;
        TrainConfigError::check(
            self.max_distractors > 0 || share == 1.0,
            "joint.max_distractors",
            self.max_distractors,
            "at least 1 (or alone_share 1)",
        )
    }
}
