//! The three stages of making a cartridge, as the commands and `quickstart` use them.

mod distill;
mod evaluations;
mod group;
mod joint;
mod on_policy;
mod queries;
mod remote_data;
mod start;
mod study;
mod summary;

pub use distill::{Distilled, Surroundings, View, distill, distill_in};
pub use group::{GroupArgs, Member};
pub use joint::{JointSpec, train_jointly};
pub use on_policy::EngineTeacher;
pub use queries::reference_queries;
pub use remote_data::fetch_remote_data;
pub use start::{Init, Start, StartArgs, document_ids, start};
pub use study::{model_name, read_data, self_study, self_study_of_text};
