//! The three stages of making a cartridge, as the commands and `quickstart` use them.

mod distill;
mod evaluations;
mod group;
mod queries;
mod remote_data;
mod start;
mod study;
mod summary;

pub use distill::{Distilled, View, distill, distill_in};
pub use group::{GroupArgs, Member};
pub use queries::reference_queries;
pub use remote_data::fetch_remote_data;
pub use start::{Init, Start, StartArgs, document_ids, start};
pub use study::{model_name, read_data, self_study, self_study_of_text};
