//! Writing conversations.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float32Array, Int32Array, Int64Array, ListArray, NullArray,
    RecordBatch, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Fields};
use arrow::error::ArrowError;
use cartridges_model::atomic_file::write_atomic;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::error::ConversationFileError;
use super::schema::{
    conversation_schema, element, message_fields, metadata_fields, tool_call_fields,
    top_logprobs_fields,
};
use crate::conversation::{Conversation, Message, Metadata, ToolCall};
use crate::top_logprobs::FlatTopLogprobs;

/// Conversations turned into arrow arrays at once.
const ROWS_PER_BATCH: usize = 64;
/// Conversations in one row group; a row group is held in memory until it is full.
const ROWS_PER_GROUP: usize = 512;
/// Arrow's 32-bit offsets bound what one batch may hold, in list entries and in text bytes.
const MAX_PER_BATCH: usize = i32::MAX as usize;

/// What a stream of conversations needs to be known beforehand.
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    /// Whether conversations may hold tool calls (this decides the column's type).
    pub tool_calls: bool,
    /// Entries for the file's key-value metadata.
    pub key_values: Vec<(String, String)>,
}

/// Writes `conversations` to `path` atomically and returns how many there were.
pub fn write_conversations(
    path: &Path,
    conversations: &[Conversation],
) -> Result<usize, ConversationFileError> {
    let options = StreamOptions {
        tool_calls: conversations
            .iter()
            .any(|c| !c.metadata.tool_calls.is_empty()),
        key_values: Vec::new(),
    };
    write_conversation_stream(path, &options, conversations.iter().cloned().map(Ok))
}

/// Writes a stream of conversations to `path` atomically and returns how many there were. The bytes
/// depend only on the options and the conversations. The first error of the stream ends the write
/// and leaves an older file as it was.
pub fn write_conversation_stream(
    path: &Path,
    options: &StreamOptions,
    conversations: impl Iterator<Item = Result<Conversation, ConversationFileError>>,
) -> Result<usize, ConversationFileError> {
    let mut written = 0;
    let mut failure = None;
    let outcome = write_atomic(path, |sink| {
        encode(sink, options, conversations, &mut written).map_err(|error| match error {
            EncodeError::Io(error) => error,
            EncodeError::Other(error) => {
                failure = Some(error);
                io::Error::other("encoding failed")
            }
        })
    });
    match (outcome, failure) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(error.into()),
        (Ok(()), None) => Ok(written),
    }
}

enum EncodeError {
    Io(io::Error),
    Other(ConversationFileError),
}

impl From<io::Error> for EncodeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ConversationFileError> for EncodeError {
    fn from(error: ConversationFileError) -> Self {
        Self::Other(error)
    }
}

impl From<parquet::errors::ParquetError> for EncodeError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::Other(ConversationFileError::Encode(error.to_string()))
    }
}

fn encode(
    sink: &mut dyn io::Write,
    options: &StreamOptions,
    conversations: impl Iterator<Item = Result<Conversation, ConversationFileError>>,
    written: &mut usize,
) -> Result<(), EncodeError> {
    let key_values: Vec<KeyValue> = options
        .key_values
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
        .collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(None)
        .set_key_value_metadata((!key_values.is_empty()).then_some(key_values))
        .build();
    let schema = conversation_schema(options.tool_calls);
    // The encoder wants a sink that can be sent between threads, which ours need not be: it fills a
    // vector that is emptied after every row group.
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?;
    let mut pending: Vec<Conversation> = Vec::with_capacity(ROWS_PER_BATCH);
    let mut conversations = conversations.fuse();
    loop {
        pending.clear();
        while pending.len() < ROWS_PER_BATCH {
            match conversations.next() {
                Some(conversation) => pending.push(conversation?),
                None => break,
            }
        }
        if pending.is_empty() {
            break;
        }
        for (i, conversation) in pending.iter().enumerate() {
            check(*written + i, conversation, options.tool_calls)?;
        }
        let columns = columns(&pending, options.tool_calls).map_err(encode_error)?;
        let batch = RecordBatch::try_new(schema.clone(), columns)
            .map_err(|e| ConversationFileError::Encode(e.to_string()))?;
        writer.write(&batch)?;
        *written += pending.len();
        if written.is_multiple_of(ROWS_PER_GROUP) {
            writer.flush()?;
            writer.sync()?;
            sink.write_all(&std::mem::take(writer.inner_mut()))?;
        }
    }
    sink.write_all(&writer.into_inner()?)?;
    Ok(())
}

fn encode_error(error: ArrowError) -> ConversationFileError {
    ConversationFileError::Encode(error.to_string())
}

/// Refuses what a reader would refuse, so that no file is written that cannot be read.
fn check(
    row: usize,
    conversation: &Conversation,
    tool_calls: bool,
) -> Result<(), ConversationFileError> {
    let fail = |reason: String| Err(ConversationFileError::Unstorable { row, reason });
    if !tool_calls && !conversation.metadata.tool_calls.is_empty() {
        return fail("it has tool calls, which this file was not opened for".to_owned());
    }
    for (i, message) in conversation.messages.iter().enumerate() {
        let Some(top) = &message.top_logprobs else {
            continue;
        };
        if let Err(error) = top.check() {
            return fail(format!("messages[{i}].top_logprobs: {error}"));
        }
        if let Some(ids) = &message.token_ids
            && top.shape.0 > ids.len()
        {
            return fail(format!(
                "messages[{i}].top_logprobs has {} positions for {} token ids",
                top.shape.0,
                ids.len()
            ));
        }
        if let Some(id) = top.token_id.iter().find(|&&id| i32::try_from(id).is_err()) {
            return fail(format!(
                "messages[{i}].top_logprobs.token_id: {id} is beyond int32"
            ));
        }
    }
    Ok(())
}

/// The columns of a batch, in schema order.
pub(super) fn columns(
    rows: &[Conversation],
    tool_calls: bool,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let messages: Vec<&Message> = rows.iter().flat_map(|c| &c.messages).collect();
    let messages = list(
        rows.iter().map(|c| Some(c.messages.len())),
        message_array(&messages)?,
    )?;
    let metadata: Vec<&Metadata> = rows.iter().map(|c| &c.metadata).collect();
    Ok(vec![
        messages,
        strings(rows.iter().map(|c| Some(c.system_prompt.as_str())))?,
        metadata_array(&metadata, tool_calls)?,
        strings(rows.iter().map(|c| c.conversation_type.as_deref()))?,
    ])
}

fn message_array(messages: &[&Message]) -> Result<ArrayRef, ArrowError> {
    let token_ids = list(
        messages.iter().map(|m| m.token_ids.as_ref().map(Vec::len)),
        Arc::new(Int64Array::from_iter_values(
            messages
                .iter()
                .filter_map(|m| m.token_ids.as_ref())
                .flatten()
                .map(|&id| i64::from(id)),
        )),
    )?;
    structure(
        message_fields(),
        vec![
            strings(messages.iter().map(|m| Some(m.content.as_str())))?,
            strings(messages.iter().map(|m| Some(m.role.as_str())))?,
            token_ids,
            top_logprobs_array(messages)?,
        ],
        None,
    )
}

fn top_logprobs_array(messages: &[&Message]) -> Result<ArrayRef, ArrowError> {
    let tops = || messages.iter().map(|m| m.top_logprobs.as_ref());
    let lengths = |of: fn(&FlatTopLogprobs) -> usize| tops().map(move |top| top.map(of));
    let present = || tops().flatten();
    let children = vec![
        list(
            lengths(|t| t.token_idx.len()),
            Arc::new(Int64Array::from_iter_values(
                present().flat_map(|t| &t.token_idx).map(|&i| i64::from(i)),
            )),
        )?,
        list(
            lengths(|t| t.token_id.len()),
            // `check` has refused ids beyond int32.
            Arc::new(Int32Array::from_iter_values(
                present().flat_map(|t| &t.token_id).map(|&id| id as i32),
            )),
        )?,
        list(
            lengths(|t| t.logprobs.len()),
            Arc::new(Float32Array::from_iter_values(
                present().flat_map(|t| t.logprobs.iter().copied()),
            )),
        )?,
        list(
            tops().map(|top| top.map(|_| 2)),
            Arc::new(Int64Array::from_iter_values(
                present().flat_map(|t| [t.shape.0 as i64, t.shape.1 as i64]),
            )),
        )?,
    ];
    let nulls = NullBuffer::from_iter(tops().map(|top| top.is_some()));
    structure(top_logprobs_fields(), children, Some(nulls))
}

fn metadata_array(rows: &[&Metadata], tool_calls: bool) -> Result<ArrayRef, ArrowError> {
    let calls: Vec<&ToolCall> = rows.iter().flat_map(|m| &m.tool_calls).collect();
    let call_values: ArrayRef = if tool_calls {
        structure(
            tool_call_fields(),
            vec![
                strings(calls.iter().map(|c| Some(c.name.as_str())))?,
                strings(calls.iter().map(|c| Some(c.input.as_str())))?,
                strings(calls.iter().map(|c| Some(c.output.as_str())))?,
                Arc::new(BooleanArray::from_iter(
                    calls.iter().map(|c| Some(c.success)),
                )),
                strings(calls.iter().map(|c| Some(c.raw_request.as_str())))?,
            ],
            None,
        )?
    } else {
        Arc::new(NullArray::new(0))
    };
    let reasons = || rows.iter().map(|m| m.finish_reasons.as_ref());
    let thinking = || rows.iter().map(|m| m.thinking.as_ref());
    let children = vec![
        list(rows.iter().map(|m| Some(m.tool_calls.len())), call_values)?,
        strings(rows.iter().map(|m| Some(m.seed_prompt.as_str())))?,
        strings(rows.iter().map(|m| Some(m.initial_system_prompt.as_str())))?,
        strings(rows.iter().map(|m| m.kind.map(|k| k.as_str())))?,
        strings(rows.iter().map(|m| m.seed_type.as_deref()))?,
        strings(rows.iter().map(|m| m.resource.as_deref()))?,
        list(
            reasons().map(|r| r.map(Vec::len)),
            strings(reasons().flatten().flatten().map(|r| Some(r.as_str())))?,
        )?,
        list(
            thinking().map(|t| t.map(Vec::len)),
            Arc::new(BooleanArray::from_iter(
                thinking().flatten().flatten().map(|&b| Some(b)),
            )),
        )?,
        Arc::new(Int64Array::from_iter(
            rows.iter().map(|m| m.task.map(|t| t as i64)),
        )),
    ];
    structure(metadata_fields(tool_calls), children, None)
}

fn structure(
    fields: Fields,
    children: Vec<ArrayRef>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(StructArray::try_new(fields, children, nulls)?))
}

/// A list column; `None` is a null list.
fn list(
    lengths: impl Iterator<Item = Option<usize>>,
    values: ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let (lengths, valid): (Vec<usize>, Vec<bool>) =
        lengths.map(|n| (n.unwrap_or(0), n.is_some())).unzip();
    if values.len() > MAX_PER_BATCH {
        return Err(too_much("list entries"));
    }
    let field = element(values.data_type().clone());
    Ok(Arc::new(ListArray::try_new(
        field,
        OffsetBuffer::from_lengths(lengths),
        values,
        valid
            .contains(&false)
            .then(|| NullBuffer::from_iter(valid.iter().copied())),
    )?))
}

fn strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Result<ArrayRef, ArrowError> {
    let values: Vec<Option<&str>> = values.collect();
    if values.iter().flatten().map(|v| v.len()).sum::<usize>() > MAX_PER_BATCH {
        return Err(too_much("bytes of text"));
    }
    let array = StringArray::from_iter(values);
    debug_assert_eq!(array.data_type(), &DataType::Utf8);
    Ok(Arc::new(array))
}

fn too_much(what: &str) -> ArrowError {
    ArrowError::InvalidArgumentError(format!(
        "{ROWS_PER_BATCH} conversations hold more than {MAX_PER_BATCH} {what}"
    ))
}
