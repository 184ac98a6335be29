//! The arrow types of the columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// The element field of every list.
pub(super) fn element(data_type: DataType) -> FieldRef {
    Arc::new(nullable("element", data_type))
}

fn list(name: &str, data_type: DataType) -> Field {
    nullable(name, DataType::List(element(data_type)))
}

/// Children of `top_logprobs`.
pub(super) fn top_logprobs_fields() -> Fields {
    Fields::from(vec![
        list("token_idx", DataType::Int64),
        list("token_id", DataType::Int32),
        list("logprobs", DataType::Float32),
        list("shape", DataType::Int64),
    ])
}

/// Children of one message.
pub(super) fn message_fields() -> Fields {
    Fields::from(vec![
        nullable("content", DataType::Utf8),
        nullable("role", DataType::Utf8),
        list("token_ids", DataType::Int64),
        nullable("top_logprobs", DataType::Struct(top_logprobs_fields())),
    ])
}

/// Children of one tool call; the reference stores the arguments as a struct that differs from tool
/// to tool, here they are JSON text.
pub(super) fn tool_call_fields() -> Fields {
    Fields::from(vec![
        nullable("name", DataType::Utf8),
        nullable("input", DataType::Utf8),
        nullable("output", DataType::Utf8),
        nullable("success", DataType::Boolean),
        nullable("raw_request", DataType::Utf8),
    ])
}

/// Names of the metadata children that are read, in file order.
pub(super) const METADATA_CHILDREN: [&str; 9] = [
    "tool_calls",
    "seed_prompt",
    "initial_system_prompt",
    "kind",
    "seed_type",
    "resource",
    "finish_reasons",
    "thinking",
    "task",
];

/// Children of `metadata`. Without tool calls their list has elements of type null, as in a file of
/// the reference.
pub(super) fn metadata_fields(tool_calls: bool) -> Fields {
    let call = if tool_calls {
        DataType::Struct(tool_call_fields())
    } else {
        DataType::Null
    };
    Fields::from(vec![
        list("tool_calls", call),
        nullable("seed_prompt", DataType::Utf8),
        nullable("initial_system_prompt", DataType::Utf8),
        nullable("kind", DataType::Utf8),
        nullable("seed_type", DataType::Utf8),
        nullable("resource", DataType::Utf8),
        list("finish_reasons", DataType::Utf8),
        list("thinking", DataType::Boolean),
        nullable("task", DataType::Int64),
    ])
}

/// The whole file.
pub(super) fn conversation_schema(tool_calls: bool) -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        list("messages", DataType::Struct(message_fields())),
        nullable("system_prompt", DataType::Utf8),
        nullable("metadata", DataType::Struct(metadata_fields(tool_calls))),
        nullable("type", DataType::Utf8),
    ]))
}
