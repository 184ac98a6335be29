//! Checks before a parquet file is decoded: that it is whole, and that what it claims to hold could
//! come from bytes of its size.
//!
//! Run-length encoding lets a few bytes stand for billions of list entries. Page headers are walked
//! first, and a file that claims more entries than [`MAX_LEVELS_PER_BYTE`] per byte (beyond a floor
//! that every honest small file stays under) is refused before anything is allocated for them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use parquet::column::page::PageReader;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::error::ConversationFileError;

const MAGIC: &[u8; 4] = b"PAR1";
/// Magic, footer length and magic.
const SMALLEST: u64 = 12;
/// Entries that any file may claim per column chunk.
const LEVELS_FLOOR: u64 = 16 << 20;
/// Entries per byte of the file beyond the floor.
const MAX_LEVELS_PER_BYTE: u64 = 1024;

/// Runs a piece of the parquet crate. It has a long history of panics on broken files; one that is
/// left becomes an error here. (The panic's message still goes to the process's panic hook.)
pub(super) fn contained<T, E: std::fmt::Display>(
    path: &Path,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, ConversationFileError> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ConversationFileError::malformed(path, error)),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(ConversationFileError::malformed(
                path,
                format!("the parquet decoder gave up ({what})"),
            ))
        }
    }
}

/// Opens the file and checks size, magic numbers and footer length.
pub(super) fn open(path: &Path) -> Result<(File, u64), ConversationFileError> {
    let io = |source| ConversationFileError::Io {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(ConversationFileError::malformed(path, "it is not a file"));
    }
    let size = metadata.len();
    if size < SMALLEST {
        return Err(ConversationFileError::malformed(
            path,
            format!("it has {size} bytes, a parquet file has at least {SMALLEST}"),
        ));
    }
    let mut head = [0; 4];
    file.read_exact(&mut head).map_err(io)?;
    if &head != MAGIC {
        return Err(ConversationFileError::malformed(
            path,
            "it does not begin with PAR1",
        ));
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::End(-8)).map_err(io)?;
    file.read_exact(&mut tail).map_err(io)?;
    if &tail[4..] != MAGIC {
        return Err(ConversationFileError::malformed(
            path,
            "it does not end with PAR1: it was cut off, or its writer did not finish",
        ));
    }
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if footer > size - SMALLEST {
        return Err(ConversationFileError::malformed(
            path,
            format!("its footer claims {footer} of {size} bytes"),
        ));
    }
    file.rewind().map_err(io)?;
    Ok((file, size))
}

/// Checks what the footer and the page headers of the chosen leaf columns claim.
pub(super) fn check_claims(
    file: &File,
    size: u64,
    metadata: &ParquetMetaData,
    leaves: &[usize],
) -> Result<(), String> {
    let cap = LEVELS_FLOOR.saturating_add(size.saturating_mul(MAX_LEVELS_PER_BYTE));
    let shared = Arc::new(file.try_clone().map_err(|e| e.to_string())?);
    let mut rows = 0u64;
    for (group, row_group) in metadata.row_groups().iter().enumerate() {
        let group_rows = u64::try_from(row_group.num_rows())
            .map_err(|_| format!("row group {group} has a negative number of rows"))?;
        rows = rows.saturating_add(group_rows);
        if rows > cap {
            return Err(format!("it claims {rows} or more rows in {size} bytes"));
        }
        for &leaf in leaves {
            if leaf >= row_group.num_columns() {
                return Err(format!("row group {group} lacks column {leaf}"));
            }
            let column = row_group.column(leaf);
            let name = column.column_path().string();
            let place = || format!("column `{name}` of row group {group}");
            let start = column
                .dictionary_page_offset()
                .map_or(column.data_page_offset(), |d| {
                    d.min(column.data_page_offset())
                });
            let end = u64::try_from(start)
                .ok()
                .zip(u64::try_from(column.compressed_size()).ok())
                .and_then(|(start, length)| start.checked_add(length));
            if end.is_none_or(|end| end > size) {
                return Err(format!("{} lies outside the file", place()));
            }
            if column.num_values() < 0 || column.uncompressed_size() < 0 {
                return Err(format!("{} has a negative size", place()));
            }
            let mut levels = 0u64;
            let mut pages =
                SerializedPageReader::new(shared.clone(), column, group_rows as usize, None)
                    .map_err(|e| e.to_string())?;
            while let Some(page) = pages.peek_next_page().map_err(|e| e.to_string())? {
                levels = levels.saturating_add(page.num_levels.unwrap_or(0) as u64);
                if levels > cap {
                    return Err(format!(
                        "{} claims {levels} or more entries in a file of {size} bytes",
                        place()
                    ));
                }
                pages.skip_next_page().map_err(|e| e.to_string())?;
            }
        }
    }
    Ok(())
}
