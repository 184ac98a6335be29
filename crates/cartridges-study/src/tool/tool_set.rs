//! What a tool is.

use serde_json::Value;

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDefinition {
    /// The name it is called by.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON schema of its arguments.
    pub input_schema: Value,
}

/// One or more tools with a common origin.
pub trait ToolSet {
    /// The tools.
    fn definitions(&self) -> &[ToolDefinition];

    /// Calls the tool `name` with a JSON object of arguments; gives what it says.
    ///
    /// # Errors
    /// Why it has nothing to say, in words that are recorded.
    fn call(&mut self, name: &str, input: &Value) -> Result<String, String>;
}
