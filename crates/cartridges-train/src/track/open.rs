//! From the settings to the trackers.

use std::path::Path;

use super::json_lines::JsonLines;
use super::tensorboard::TensorBoard;
use super::tracker::Tracker;
use super::wandb::WandbOffline;
use crate::config::{TrackerKind, TrainConfig};

/// The trackers that the settings name, in a run's folder. Nothing is written before the run begins.
pub fn open_trackers(config: &TrainConfig, folder: &Path) -> Vec<Box<dyn Tracker>> {
    let open = |kind: &TrackerKind| -> Box<dyn Tracker> {
        match kind {
            TrackerKind::Jsonl => Box::new(JsonLines::new(folder)),
            TrackerKind::TensorBoard => Box::new(TensorBoard::new(&folder.join("tensorboard"))),
            TrackerKind::Wandb => {
                let wandb = config.wandb.clone();
                Box::new(WandbOffline::new(&folder.join("wandb"), wandb))
            }
        }
    };
    config.trackers.iter().map(open).collect()
}
