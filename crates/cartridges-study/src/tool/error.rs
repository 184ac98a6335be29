//! Tools that cannot be had.

/// A tool that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// A field has a value outside its range.
    #[error("tool of type {kind}: {field} is {found}, expected {expected}")]
    Field {
        /// The tool's type.
        kind: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Two tools have one name.
    #[error("two tools have the name `{0}`")]
    SameName(String),
    /// A server of tools does not start or does not speak the protocol.
    #[error("the tool server `{command}` cannot be used: {reason}")]
    Server {
        /// Its command.
        command: String,
        /// What went wrong.
        reason: String,
    },
    /// There is nothing to search.
    #[error("tool of type retrieval: no resource of this run has a text to search")]
    NoText,
}
