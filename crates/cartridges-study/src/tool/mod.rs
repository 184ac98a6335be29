//! Tools that the agents of self-study may call before they speak: a search in the studied texts, and
//! servers of the Model Context Protocol.
//!
//! What a call gives is put behind the system prompt of its conversation, and the call is recorded in the
//! conversation's metadata. A call that fails is recorded too and changes nothing else.

mod bm25;
mod call;
mod config;
mod error;
mod mcp;
mod prompt;
mod retrieval;
mod tool_box;
mod tool_set;

pub use bm25::Bm25;
pub use config::ToolConfig;
pub use error::ToolError;
pub use mcp::{Hidden, McpConfig, McpTools};
pub use retrieval::{Retrieval, RetrievalConfig};
pub use tool_box::ToolBox;
pub use tool_set::{ToolDefinition, ToolSet};
