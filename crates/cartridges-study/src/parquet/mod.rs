//! Conversations in parquet files with the reference system's schema.
//!
//! | column | type |
//! |---|---|
//! | `messages` | list<struct<content: string, role: string, token_ids: list<int64>, top_logprobs: struct<token_idx: list<int64>, token_id: list<int32>, logprobs: list<float32>, shape: list<int64>>>> |
//! | `system_prompt` | string |
//! | `metadata` | struct<tool_calls: list<null>, seed_prompt: string, initial_system_prompt: string, …> |
//! | `type` | string |
//!
//! Everything may be null, list elements are called `element`, pages are compressed with Snappy.
//! The metadata fields behind the first three are ours; readers of the reference ignore them.

mod batch;
mod columns;
mod error;
mod files;
mod guard;
mod metadata_columns;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

pub use error::ConversationFileError;
pub use files::dataset_files;
pub use reader::{ConversationReader, read_conversations};
pub use writer::{StreamOptions, write_conversation_stream, write_conversations};
