//! Reading conversations.

use std::path::{Path, PathBuf};

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::batch::BatchColumns;
use super::error::ConversationFileError;
use super::guard;
use super::schema::METADATA_CHILDREN;
use crate::conversation::Conversation;

/// Rows decoded at once; this bounds the memory a reader holds.
const ROWS_PER_BATCH: usize = 64;

/// Reads the first `limit` conversations of a file, or all.
pub fn read_conversations(
    path: &Path,
    limit: Option<usize>,
) -> Result<Vec<Conversation>, ConversationFileError> {
    ConversationReader::open(path)?
        .take(limit.unwrap_or(usize::MAX))
        .collect()
}

/// An iterator over the conversations of a file, in file order. After an error it ends.
pub struct ConversationReader {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    num_rows: usize,
    key_values: Vec<(String, String)>,
    rows_before: usize,
    current: Option<(BatchColumns, usize)>,
    failed: bool,
}

impl ConversationReader {
    /// Opens and checks a file: magic numbers, footer, claimed sizes and the columns' types.
    pub fn open(path: &Path) -> Result<Self, ConversationFileError> {
        let (file, size) = guard::open(path)?;
        let pages = file
            .try_clone()
            .map_err(|source| ConversationFileError::Io {
                path: path.to_owned(),
                source,
            })?;
        // The embedded arrow schema only restates widths that `columns` handles anyhow.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = guard::contained(path, || {
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        })?;
        let leaves = wanted_leaves(path, &builder)?;
        guard::contained(path, || {
            guard::check_claims(&pages, size, builder.metadata(), &leaves)
        })?;
        let metadata = builder.metadata().file_metadata();
        let key_values = metadata
            .key_value_metadata()
            .into_iter()
            .flatten()
            .map(|kv| (kv.key.clone(), kv.value.clone().unwrap_or_default()))
            .collect();
        let num_rows = builder
            .metadata()
            .row_groups()
            .iter()
            .map(|g| usize::try_from(g.num_rows()).unwrap_or(0))
            .sum();
        let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
        let batches = guard::contained(path, || {
            builder
                .with_projection(mask)
                .with_batch_size(ROWS_PER_BATCH)
                .build()
        })?;
        Ok(Self {
            path: path.to_owned(),
            batches,
            num_rows,
            key_values,
            rows_before: 0,
            current: None,
            failed: false,
        })
    }

    /// The number of conversations the file says it holds.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// A value of the file's key-value metadata.
    pub fn key_value(&self, key: &str) -> Option<&str> {
        self.key_values
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    fn advance(&mut self) -> Result<Option<Conversation>, ConversationFileError> {
        loop {
            if let Some((columns, next)) = &mut self.current {
                if *next < columns.rows {
                    let row = *next;
                    *next += 1;
                    return columns
                        .conversation(row)
                        .map(Some)
                        .map_err(|(field, reason)| ConversationFileError::Value {
                            path: self.path.clone(),
                            row: self.rows_before + row,
                            field,
                            reason,
                        });
                }
                self.rows_before += columns.rows;
                self.current = None;
            }
            let path = self.path.clone();
            let batches = &mut self.batches;
            let Some(batch) = guard::contained(&path, || batches.next().transpose())? else {
                if self.rows_before != self.num_rows {
                    return Err(ConversationFileError::malformed(
                        &path,
                        format!(
                            "its footer claims {} rows, {} were found",
                            self.num_rows, self.rows_before
                        ),
                    ));
                }
                return Ok(None);
            };
            let columns = guard::contained(&path, || {
                Ok::<_, std::convert::Infallible>(BatchColumns::new(&batch))
            })?
            .map_err(|(column, reason)| ConversationFileError::column(&path, &column, reason))?;
            self.current = Some((columns, 0));
        }
    }
}

impl Iterator for ConversationReader {
    type Item = Result<Conversation, ConversationFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance();
        self.failed = item.is_err();
        item.transpose()
    }
}

/// The leaf columns that are read; everything else in the file is left alone.
fn wanted_leaves(
    path: &Path,
    builder: &ParquetRecordBatchReaderBuilder<std::fs::File>,
) -> Result<Vec<usize>, ConversationFileError> {
    let schema = builder.parquet_schema();
    let mut leaves = Vec::new();
    let mut found_messages = false;
    for (i, column) in schema.columns().iter().enumerate() {
        let parts = column.path().parts();
        let wanted = match parts.first().map(String::as_str) {
            Some("messages") => {
                found_messages = true;
                true
            }
            Some("system_prompt" | "type") => true,
            // A metadata column that is null in every row is one leaf without children.
            Some("metadata") => parts
                .get(1)
                .is_none_or(|child| METADATA_CHILDREN.contains(&child.as_str())),
            _ => false,
        };
        if wanted {
            leaves.push(i);
        }
    }
    if !found_messages {
        let fields = schema.root_schema().get_fields();
        let present: Vec<&str> = fields.iter().map(|f| f.name()).collect();
        return Err(ConversationFileError::MissingColumn {
            path: path.to_owned(),
            column: "messages",
            present: present.join(", "),
        });
    }
    Ok(leaves)
}
