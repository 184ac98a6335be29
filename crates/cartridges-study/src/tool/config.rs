//! Every kind of tool, as it stands in a configuration.

use serde::{Deserialize, Serialize};

use super::mcp::McpConfig;
use super::retrieval::RetrievalConfig;

/// A tool or a set of tools, by its `type` and the fields of that type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToolConfig {
    /// `retrieval`: a search in the texts of the run.
    Retrieval(RetrievalConfig),
    /// `mcp`: the tools of a server of the Model Context Protocol, started as a process.
    Mcp(McpConfig),
}
