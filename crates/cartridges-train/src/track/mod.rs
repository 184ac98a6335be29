//! Where a run is logged.

mod crc;
mod json_lines;
mod open;
mod protobuf;
mod records;
mod table;
mod tensorboard;
mod tracker;
mod uplink;
mod wandb;

pub use json_lines::JsonLines;
pub use open::open_trackers;
pub use table::Table;
pub use tensorboard::TensorBoard;
pub use tracker::{RunStart, TrackError, Tracker};
pub use wandb::WandbOffline;
