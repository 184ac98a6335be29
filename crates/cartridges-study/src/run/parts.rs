//! Part files: finished conversations on their way to the data set.
//!
//! Their key-value metadata holds what has no row: dropped tasks and counts.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::conversation::Conversation;
use crate::parquet::{
    ConversationFileError, ConversationReader, StreamOptions, write_conversation_stream,
};
use crate::self_study::{BatchesOutcome, Counts, Dropped};

const INFO_KEY: &str = "cartridges.part";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartInfo {
    plan_sha256: String,
    dropped: Vec<Dropped>,
    counts: Counts,
}

/// A part that was read through.
pub(super) struct Part {
    pub path: PathBuf,
    /// Tasks with a conversation in it.
    pub tasks: BTreeSet<usize>,
    pub dropped: Vec<Dropped>,
    pub counts: Counts,
}

/// The number of a part file, from its name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("part-")?.split('.').next()?;
    digits.parse().ok()
}

pub(super) fn file_name(number: u64) -> String {
    format!("part-{number:05}.parquet")
}

/// The part files of a folder in order, and the number for the next one (damaged ones keep theirs).
pub(super) fn list(folder: &Path) -> io::Result<(Vec<PathBuf>, u64)> {
    let mut parts = Vec::new();
    let mut next = 0;
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(number) = number(name) else { continue };
        next = next.max(number.saturating_add(1));
        if name.ends_with(".parquet") {
            parts.push((number, entry.path()));
        }
    }
    parts.sort();
    Ok((parts.into_iter().map(|(_, path)| path).collect(), next))
}

/// Writes the finished work of some batches.
pub(super) fn write(
    path: &Path,
    plan_sha256: &str,
    outcome: &BatchesOutcome,
) -> Result<Part, ConversationFileError> {
    let info = PartInfo {
        plan_sha256: plan_sha256.to_owned(),
        dropped: outcome.dropped.clone(),
        counts: outcome.counts,
    };
    let json =
        serde_json::to_string(&info).map_err(|e| ConversationFileError::Encode(e.to_string()))?;
    let options = StreamOptions {
        tool_calls: (outcome.conversations.iter()).any(|c| !c.metadata.tool_calls.is_empty()),
        key_values: vec![(INFO_KEY.to_owned(), json)],
    };
    write_conversation_stream(
        path,
        &options,
        outcome.conversations.iter().cloned().map(Ok),
    )?;
    Ok(Part {
        path: path.to_owned(),
        tasks: outcome.conversations.iter().filter_map(task_of).collect(),
        dropped: info.dropped,
        counts: info.counts,
    })
}

/// Reads a part through, so that what is counted as finished can also be read later.
pub(super) fn read(
    path: &Path,
    plan_sha256: &str,
    num_tasks: usize,
) -> Result<Part, ConversationFileError> {
    let malformed = |reason: String| ConversationFileError::malformed(path, reason);
    let reader = ConversationReader::open(path)?;
    let info = reader
        .key_value(INFO_KEY)
        .ok_or_else(|| malformed(format!("it lacks the metadata `{INFO_KEY}`")))?;
    let info: PartInfo = serde_json::from_str(info)
        .map_err(|error| malformed(format!("metadata `{INFO_KEY}`: {error}")))?;
    if info.plan_sha256 != plan_sha256 {
        return Err(malformed("it belongs to another plan".to_owned()));
    }
    let mut tasks = BTreeSet::new();
    for conversation in reader {
        let task = task_of(&conversation?)
            .filter(|&task| task < num_tasks)
            .ok_or_else(|| malformed("a row has no task of this plan".to_owned()))?;
        tasks.insert(task);
    }
    if let Some(dropped) = info.dropped.iter().find(|d| d.task >= num_tasks) {
        return Err(malformed(format!("task {} is not planned", dropped.task)));
    }
    Ok(Part {
        path: path.to_owned(),
        tasks,
        dropped: info.dropped,
        counts: info.counts,
    })
}

fn task_of(conversation: &Conversation) -> Option<usize> {
    usize::try_from(conversation.metadata.task?).ok()
}

/// The conversations of all parts in task order, each task once. Parts whose tasks lie apart are
/// read one after the other; only parts that overlap are held in memory together.
pub(super) fn merged(
    parts: &[Part],
) -> impl Iterator<Item = Result<Conversation, ConversationFileError>> {
    let mut ranges: Vec<(usize, usize, &Path)> = parts
        .iter()
        .filter_map(|p| Some((*p.tasks.first()?, *p.tasks.last()?, p.path.as_path())))
        .collect();
    ranges.sort();
    let mut groups: Vec<(usize, Vec<&Path>)> = Vec::new();
    for (first, last, path) in ranges {
        match groups.last_mut() {
            Some((end, paths)) if first <= *end => {
                paths.push(path);
                *end = last.max(*end);
            }
            _ => groups.push((last, vec![path])),
        }
    }
    groups.into_iter().flat_map(|(_, paths)| {
        let read = || -> Result<Vec<Conversation>, ConversationFileError> {
            let mut rows = Vec::new();
            for path in paths {
                for row in ConversationReader::open(path)? {
                    rows.push(row?);
                }
            }
            rows.sort_by_key(|c| c.metadata.task);
            rows.dedup_by_key(|c| c.metadata.task);
            Ok(rows)
        };
        match read() {
            Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }
    })
}
