//! How models are told of tools, and of what tools said.

use serde_json::{Value, json};

use super::tool_set::ToolDefinition;
use crate::conversation::ToolCall;

/// The description of tools, one JSON object a line, as Qwen's chat template lays it out.
pub(super) fn block(definitions: &[&ToolDefinition]) -> String {
    let mut out = String::from(
        "# Tools\n\nYou may call one or more of these tools to help with the message. Each line \
         between the <tools> tags describes one:\n<tools>",
    );
    for tool in definitions {
        let function = json!({
            "name": tool.name,
            "description": tool.description,
            "parameters": without_title(&tool.input_schema),
        });
        out.push('\n');
        out.push_str(&json!({"type": "function", "function": function}).to_string());
    }
    out.push_str(
        "\n</tools>\n\nTo call a tool, write a JSON object with its name and its arguments between \
         <tool_call> tags:\n<tool_call>\n{\"name\": <name of the tool>, \"arguments\": <object with the \
         arguments>}\n</tool_call>",
    );
    out
}

fn without_title(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(fields) = &mut schema {
        fields.shift_remove("title");
    }
    schema
}

/// What is put behind the system prompt after a call that succeeded.
pub(super) fn result(call: &ToolCall) -> String {
    format!(
        "\n\n<tool_call>\n<tool_input>\n{}\n</tool_input>\n<tool_output>\n{}\n</tool_output>\n</tool_call>",
        call.input, call.output
    )
}
