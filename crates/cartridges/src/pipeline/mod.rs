//! The three stages of making a cartridge, as the commands and `quickstart` use them.

mod distill;
mod evaluations;
mod group;
mod joint;
mod match_args;
mod match_chunks;
mod on_policy;
mod remote_data;
mod start;
mod study;
mod summary;

pub use distill::{Distilled, Surroundings, View, distill, distill_in};
pub use group::{GroupArgs, Member};
pub use joint::{JointSpec, train_jointly};
pub use match_args::{MatchArgs, MatchKeys, MatchQueries, MatchSlots, MatchValues, SizeArgs};
pub use match_chunks::match_chunks;
pub use on_policy::EngineTeacher;
pub use remote_data::fetch_remote_data;
pub use start::{Init, Start, StartArgs, document_ids, start};
pub use study::{model_name, read_data, self_study, self_study_of_text};
