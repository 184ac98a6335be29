//! From the settings to the trackers.

use std::path::Path;

use cartridges_model::wandb::WandbClient;

use super::json_lines::JsonLines;
use super::tensorboard::TensorBoard;
use super::tracker::Tracker;
use super::wandb::WandbOffline;
use crate::config::{TrackerKind, TrainConfig, WandbMode};

/// The trackers that the settings name, in a run's folder. Nothing is written before the run begins.
pub fn open_trackers(config: &TrainConfig, folder: &Path) -> Vec<Box<dyn Tracker>> {
    let open = |kind: &TrackerKind| -> Box<dyn Tracker> {
        match kind {
            TrackerKind::Jsonl => Box::new(JsonLines::new(folder)),
            TrackerKind::TensorBoard => Box::new(TensorBoard::new(&folder.join("tensorboard"))),
            TrackerKind::Wandb => {
                let wandb = config.wandb.clone();
                let online = wandb.mode == WandbMode::Online;
                let run = WandbOffline::new(&folder.join("wandb"), wandb);
                match online.then(WandbClient::from_env) {
                    None => Box::new(run),
                    Some(Ok(client)) => Box::new(run.online(client)),
                    Some(Err(error)) => {
                        tracing::warn!("{error}; the run stays offline");
                        Box::new(run)
                    }
                }
            }
        }
    };
    config.trackers.iter().map(open).collect()
}
