//! The three stages of making a cartridge, as the commands and `quickstart` use them.

mod distill;
mod start;
mod study;

pub use distill::{Distilled, distill};
pub use start::{Init, Start, StartArgs, document_ids, reference_queries, start};
pub use study::{model_name, read_data, self_study, self_study_of_text};
