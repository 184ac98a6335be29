//! One decoded batch of a conversation file, and a row of it as a [`Conversation`].

use arrow::array::{Array, ArrayRef, LargeStringArray, RecordBatch, StructArray};

use super::columns::{FloatLists, IntegerLists, Lists, strings, structure, text};
use super::metadata_columns::MetadataColumns;
use crate::conversation::{Conversation, Message, Metadata, Role};
use crate::top_logprobs::FlatTopLogprobs;

/// The largest k that is believed.
const MAX_K: u64 = 1 << 24;

/// A field's dotted path and what is wrong with it.
pub(super) type FieldError = (String, String);

/// The columns of one batch, brought to one form.
pub(super) struct BatchColumns {
    pub(super) rows: usize,
    message_rows: Lists,
    messages: MessageColumns,
    system_prompt: Option<LargeStringArray>,
    metadata: Option<MetadataColumns>,
    conversation_type: Option<LargeStringArray>,
}

impl BatchColumns {
    pub(super) fn new(batch: &RecordBatch) -> Result<Self, FieldError> {
        let at = |name: &'static str| move |reason: String| (name.to_owned(), reason);
        let messages = batch
            .column_by_name("messages")
            .ok_or_else(|| at("messages")("missing".to_owned()))?;
        let message_rows = Lists::new(messages).map_err(at("messages"))?;
        let optional_text = |name: &'static str| {
            batch
                .column_by_name(name)
                .map(|a| strings(a).map_err(at(name)))
                .transpose()
        };
        let metadata = match batch.column_by_name("metadata") {
            Some(array) => structure(array).map_err(at("metadata"))?,
            None => None,
        };
        Ok(Self {
            rows: batch.num_rows(),
            messages: MessageColumns::new(&message_rows.values)?,
            message_rows,
            system_prompt: optional_text("system_prompt")?,
            metadata: metadata.map(MetadataColumns::new).transpose()?,
            conversation_type: optional_text("type")?,
        })
    }

    pub(super) fn conversation(&self, row: usize) -> Result<Conversation, FieldError> {
        let range = self
            .message_rows
            .row(row)
            .ok_or_else(|| ("messages".to_owned(), "is null".to_owned()))?;
        let messages = range
            .enumerate()
            .map(|(i, at)| {
                self.messages
                    .message(at)
                    .map_err(|(field, reason)| (format!("messages[{i}]{field}"), reason))
            })
            .collect::<Result<_, _>>()?;
        let optional_text =
            |column: &Option<LargeStringArray>| column.as_ref().and_then(|c| text(c, row));
        Ok(Conversation {
            messages,
            system_prompt: optional_text(&self.system_prompt).unwrap_or_default(),
            metadata: match &self.metadata {
                Some(columns) => columns
                    .metadata(row)
                    .map_err(|(field, reason)| (format!("metadata{field}"), reason))?,
                None => Metadata::default(),
            },
            conversation_type: optional_text(&self.conversation_type),
        })
    }
}

/// A named child brought to its form; `None` where the struct has no such child.
pub(super) fn child<T>(
    parent: &StructArray,
    path: &str,
    name: &str,
    convert: impl Fn(&ArrayRef) -> Result<T, String>,
) -> Result<Option<T>, FieldError> {
    parent
        .column_by_name(name)
        .map(|array| convert(array).map_err(|reason| (format!("{path}.{name}"), reason)))
        .transpose()
}

struct MessageColumns {
    /// `None` where every list of messages in the batch is empty and the element type is null.
    all: Option<StructArray>,
    content: Option<LargeStringArray>,
    role: Option<LargeStringArray>,
    token_ids: Option<IntegerLists>,
    top_logprobs: Option<TopLogprobsColumns>,
}

struct TopLogprobsColumns {
    all: StructArray,
    token_idx: Option<IntegerLists>,
    token_id: Option<IntegerLists>,
    logprobs: Option<FloatLists>,
    shape: Option<IntegerLists>,
}

impl MessageColumns {
    fn new(array: &ArrayRef) -> Result<Self, FieldError> {
        let path = "messages";
        let all = structure(array).map_err(|reason| (path.to_owned(), reason))?;
        let Some(messages) = &all else {
            return Ok(Self {
                all: None,
                content: None,
                role: None,
                token_ids: None,
                top_logprobs: None,
            });
        };
        let content = child(messages, path, "content", strings)?;
        let role = child(messages, path, "role", strings)?;
        let token_ids = child(messages, path, "token_ids", IntegerLists::new)?;
        let top = child(messages, path, "top_logprobs", structure)?.flatten();
        let top_logprobs = top.map(TopLogprobsColumns::new).transpose()?;
        Ok(Self {
            content,
            role,
            token_ids,
            top_logprobs,
            all,
        })
    }

    fn message(&self, at: usize) -> Result<Message, FieldError> {
        if self.all.as_ref().is_none_or(|all| all.is_null(at)) {
            return Err((String::new(), "is null".to_owned()));
        }
        let required = |column: &Option<LargeStringArray>, name: &str| {
            column
                .as_ref()
                .and_then(|c| text(c, at))
                .ok_or_else(|| (format!(".{name}"), "is missing or null".to_owned()))
        };
        let role = required(&self.role, "role")?;
        let role = Role::from_name(&role).ok_or_else(|| {
            (
                ".role".to_owned(),
                format!("is {role:?}, expected \"user\", \"assistant\" or \"system\""),
            )
        })?;
        let token_ids = match &self.token_ids {
            Some(lists) => lists
                .row_u32(at)
                .map_err(|reason| (".token_ids".to_owned(), reason))?,
            None => None,
        };
        let top_logprobs = match &self.top_logprobs {
            Some(columns) => columns
                .row(at, token_ids.as_deref())
                .map_err(|(field, reason)| (format!(".top_logprobs{field}"), reason))?,
            None => None,
        };
        Ok(Message {
            content: required(&self.content, "content")?,
            role,
            token_ids,
            top_logprobs,
        })
    }
}

impl TopLogprobsColumns {
    fn new(all: StructArray) -> Result<Self, FieldError> {
        let path = "messages.top_logprobs";
        Ok(Self {
            token_idx: child(&all, path, "token_idx", IntegerLists::new)?,
            token_id: child(&all, path, "token_id", IntegerLists::new)?,
            logprobs: child(&all, path, "logprobs", FloatLists::new)?,
            shape: child(&all, path, "shape", IntegerLists::new)?,
            all,
        })
    }

    fn row(
        &self,
        at: usize,
        token_ids: Option<&[u32]>,
    ) -> Result<Option<FlatTopLogprobs>, FieldError> {
        if self.all.is_null(at) {
            return Ok(None);
        }
        let u32s = |column: &Option<IntegerLists>, name: &str| match column {
            Some(lists) => lists.row_u32(at).map_err(|r| (format!(".{name}"), r)),
            None => Ok(None),
        };
        let token_idx = u32s(&self.token_idx, "token_idx")?;
        let token_id = u32s(&self.token_id, "token_id")?;
        let logprobs = match &self.logprobs {
            Some(lists) => lists.row(at).map_err(|r| (".logprobs".to_owned(), r))?,
            None => None,
        };
        let shape = match &self.shape {
            Some(lists) => lists
                .row(at, u64::from(u32::MAX))
                .map_err(|r| (".shape".to_owned(), r))?,
            None => None,
        };
        // Some producers write a struct of nulls where there is nothing.
        if token_idx.is_none() && token_id.is_none() && logprobs.is_none() {
            return Ok(None);
        }
        let missing = |name: &str| (format!(".{name}"), "is missing or null".to_owned());
        let mut flat = FlatTopLogprobs {
            token_idx: token_idx.ok_or_else(|| missing("token_idx"))?,
            token_id: token_id.ok_or_else(|| missing("token_id"))?,
            logprobs: logprobs.ok_or_else(|| missing("logprobs"))?,
            shape: (0, 0),
        };
        flat.shape = match shape.as_deref() {
            Some(&[rows, k]) if k <= MAX_K => (rows as usize, k as usize),
            Some(other) => {
                let reason = format!("is {other:?}, expected [positions, k]");
                return Err((".shape".to_owned(), reason));
            }
            None => implied_shape(&flat.token_idx),
        };
        // The entries count, not the shape: a producer's shape may stand for the uncut answer.
        if let Some(ids) = token_ids
            && let Some((entry, position)) = flat
                .token_idx
                .iter()
                .enumerate()
                .find(|&(_, &position)| position as usize >= ids.len())
        {
            let reason = format!(
                "entry {entry} is {position}, the message has {} token ids",
                ids.len()
            );
            return Err((".token_idx".to_owned(), reason));
        }
        flat.check()
            .map_err(|error| (String::new(), error.to_string()))?;
        if let Some(ids) = token_ids {
            flat.shape.0 = flat.shape.0.min(ids.len());
        }
        Ok(Some(flat))
    }
}

/// The smallest shape with room for the entries.
fn implied_shape(token_idx: &[u32]) -> (usize, usize) {
    let rows = token_idx.iter().max().map_or(0, |&i| i as usize + 1);
    let k = token_idx.chunk_by(|a, b| a == b).map(<[u32]>::len).max();
    (rows, k.unwrap_or(0))
}
