//! The metadata column of a conversation file.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, LargeStringArray, StructArray,
};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;

use super::batch::{FieldError, child};
use super::columns::{Lists, booleans, integers, strings, structure, text};
use crate::conversation::{ConversationKind, Metadata, ToolCall};

/// The metadata column of one batch.
pub(super) struct MetadataColumns {
    all: StructArray,
    tool_calls: Option<(Lists, ToolCallColumns)>,
    texts: [Option<LargeStringArray>; 5],
    finish_reasons: Option<(Lists, LargeStringArray)>,
    thinking: Option<(Lists, BooleanArray)>,
    task: Option<Int64Array>,
}

struct ToolCallColumns {
    /// `None` where no row of the batch has a tool call.
    calls: Option<StructArray>,
    success: Option<BooleanArray>,
}

impl MetadataColumns {
    pub(super) fn new(all: StructArray) -> Result<Self, FieldError> {
        let path = "metadata";
        let text_child = |name: &str| child(&all, path, name, strings);
        let lists = |name: &str| child(&all, path, name, Lists::new);
        let in_list = |name: &str, reason: String| (format!("{path}.{name}"), reason);
        let tool_calls = lists("tool_calls")?
            .map(|l| ToolCallColumns::new(&l.values).map(|c| (l, c)))
            .transpose()?;
        let finish_reasons = lists("finish_reasons")?
            .map(|l| strings(&l.values).map(|v| (l, v)))
            .transpose()
            .map_err(|r| in_list("finish_reasons", r))?;
        let thinking = lists("thinking")?
            .map(|l| booleans(&l.values).map(|v| (l, v)))
            .transpose()
            .map_err(|r| in_list("thinking", r))?;
        Ok(Self {
            tool_calls,
            texts: [
                text_child("seed_prompt")?,
                text_child("initial_system_prompt")?,
                text_child("kind")?,
                text_child("seed_type")?,
                text_child("resource")?,
            ],
            finish_reasons,
            thinking,
            task: child(&all, path, "task", integers)?,
            all,
        })
    }

    pub(super) fn metadata(&self, row: usize) -> Result<Metadata, FieldError> {
        if self.all.is_null(row) {
            return Ok(Metadata::default());
        }
        let text_at = |i: usize| self.texts[i].as_ref().and_then(|c| text(c, row));
        let task = match self.task.as_ref().filter(|t| t.is_valid(row)) {
            Some(tasks) => {
                let value = tasks.value(row);
                let task = u64::try_from(value).map_err(|_| {
                    (
                        ".task".to_owned(),
                        format!("is {value}, expected 0 or more"),
                    )
                })?;
                Some(task)
            }
            None => None,
        };
        let tool_calls = match &self.tool_calls {
            Some((lists, calls)) => lists
                .row(row)
                .into_iter()
                .flatten()
                .map(|at| calls.call(at))
                .collect(),
            None => Vec::new(),
        };
        Ok(Metadata {
            tool_calls,
            seed_prompt: text_at(0).unwrap_or_default(),
            initial_system_prompt: text_at(1).unwrap_or_default(),
            kind: text_at(2).and_then(|name| ConversationKind::from_name(&name)),
            seed_type: text_at(3),
            resource: text_at(4),
            finish_reasons: self.finish_reasons.as_ref().and_then(|(lists, values)| {
                let range = lists.row(row)?;
                Some(
                    range
                        .map(|at| text(values, at).unwrap_or_default())
                        .collect(),
                )
            }),
            thinking: self.thinking.as_ref().and_then(|(lists, values)| {
                let range = lists.row(row)?;
                Some(
                    range
                        .map(|at| values.is_valid(at) && values.value(at))
                        .collect(),
                )
            }),
            task,
        })
    }
}

impl ToolCallColumns {
    fn new(array: &ArrayRef) -> Result<Self, FieldError> {
        let path = "metadata.tool_calls";
        let calls = structure(array).map_err(|r| (path.to_owned(), r))?;
        let success = match &calls {
            Some(calls) => child(calls, path, "success", booleans)?,
            None => None,
        };
        Ok(Self { calls, success })
    }

    fn call(&self, at: usize) -> ToolCall {
        let text_of = |name: &str| {
            let column = self.calls.as_ref().and_then(|c| c.column_by_name(name));
            column.map(|c| any_text(c, at)).unwrap_or_default()
        };
        ToolCall {
            name: text_of("name"),
            input: text_of("input"),
            output: text_of("output"),
            raw_request: text_of("raw_request"),
            success: self
                .success
                .as_ref()
                .is_some_and(|s| s.is_valid(at) && s.value(at)),
        }
    }
}

/// Text as it is; anything else (the reference stores arguments as a struct that differs from tool to
/// tool) in arrow's display form.
fn any_text(array: &ArrayRef, at: usize) -> String {
    if array.is_null(at) {
        return String::new();
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(at).to_owned(),
        _ => array_value_to_string(array, at).unwrap_or_default(),
    }
}
