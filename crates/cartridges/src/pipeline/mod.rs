//! The three stages of making a cartridge, as the commands and `quickstart` use them.

mod ask;
mod distill;
mod evaluations;
mod group;
mod joint;
mod match_args;
mod match_chunks;
mod on_policy;
mod start;
mod study;
mod summary;

pub use ask::ask;
pub use distill::{Distilled, Surroundings, View, distill, distill_in};
pub use group::{GroupArgs, Member};
pub use joint::{JointSpec, train_jointly};
pub use match_args::{MatchArgs, MatchKeys, MatchQueries, MatchSlots, MatchValues, SizeArgs};
pub use match_chunks::match_chunks;
pub use on_policy::EngineTeacher;
pub use start::{Init, Start, StartArgs, document_ids, start};
pub use study::{load_sources, model_name, read_data, self_study, self_study_of_text};
pub use summary::summarize;
