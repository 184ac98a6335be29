//! Which conversations of a file are left out.

use std::collections::HashSet;

use cartridges_study::conversation::{Conversation, Role};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::DataSource;

/// Conversations that were left out, by the first reason that held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Dropped {
    /// An answer says nothing, or there is none.
    pub empty: usize,
    /// An answer ended at the limit of its length.
    pub cut_off: usize,
    /// All messages say what an earlier conversation's say.
    pub duplicates: usize,
}

impl Dropped {
    /// All together.
    pub fn total(&self) -> usize {
        self.empty + self.cut_off + self.duplicates
    }
}

/// Digest of what a conversation says; the text that the teacher saw is not part of it, since the
/// cartridge does not see it.
type Said = [u8; 32];

/// What is left of `rows`, in their order. `seen` holds what was said so far, in sources before this one
/// too.
pub(crate) fn sieve(
    rows: Vec<Conversation>,
    source: &DataSource,
    seen: &mut HashSet<Said>,
) -> (Vec<Conversation>, Dropped) {
    let mut dropped = Dropped::default();
    let mut kept = Vec::with_capacity(rows.len());
    for row in rows {
        // Later sources may ask, so every row is remembered.
        let is_new = seen.insert(said(&row));
        let count = match () {
            () if source.drop_empty && is_empty(&row) => &mut dropped.empty,
            () if source.drop_cut_off && is_cut_off(&row) => &mut dropped.cut_off,
            () if source.drop_duplicates && !is_new => &mut dropped.duplicates,
            () => {
                kept.push(row);
                continue;
            }
        };
        *count += 1;
    }
    (kept, dropped)
}

fn said(row: &Conversation) -> Said {
    let mut hash = Sha256::new();
    for message in &row.messages {
        for text in [message.role.as_str(), &message.content] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    hash.finalize().into()
}

fn is_empty(row: &Conversation) -> bool {
    let mut answers = row.messages.iter().filter(|m| m.role == Role::Assistant);
    let says = |content: &str| !content.trim().is_empty();
    answers.clone().count() == 0 || answers.any(|m| !says(&m.content))
}

fn is_cut_off(row: &Conversation) -> bool {
    let ends = row.metadata.finish_reasons.iter().flatten();
    ends.zip(&row.messages)
        .any(|(end, message)| message.role == Role::Assistant && end == "length")
}

#[cfg(test)]
mod tests {
    use cartridges_study::conversation::{Message, Metadata};

    use super::*;

    fn row(question: &str, answer: Option<&str>, ends: &[&str]) -> Conversation {
        let message = |role, content: &str| Message {
            content: content.to_owned(),
            role,
            token_ids: None,
            top_logprobs: None,
        };
        let mut messages = vec![message(Role::User, question)];
        messages.extend(answer.map(|answer| message(Role::Assistant, answer)));
        let ends: Vec<String> = ends.iter().map(ToString::to_string).collect();
        Conversation {
            messages,
            system_prompt: question.to_owned(),
            metadata: Metadata {
                finish_reasons: (!ends.is_empty()).then_some(ends),
                ..Metadata::default()
            },
            conversation_type: None,
        }
    }

    fn rows() -> Vec<Conversation> {
        vec![
            row("a", Some("b"), &["stop", "stop"]),
            row("a", Some("b"), &[]),
            row("ab", Some(""), &["stop", "stop"]),
            row("c", Some(" \n"), &[]),
            row("d", None, &["stop"]),
            // Only the question hit its limit.
            row("e", Some("f"), &["length", "stop"]),
            row("e", Some("g"), &["stop", "length"]),
        ]
    }

    #[test]
    fn every_kind_is_dropped_and_counted_only_where_it_is_asked_for() {
        let left = |source: &DataSource| {
            let (left, dropped) = sieve(rows(), source, &mut HashSet::new());
            assert_eq!(left.len() + dropped.total(), 7);
            let questions: String = left.iter().map(|r| r.system_prompt.as_str()).collect();
            (
                questions,
                [dropped.duplicates, dropped.empty, dropped.cut_off],
            )
        };
        let mut source = DataSource::new("x");
        assert_eq!(left(&source), ("aaabcdee".to_owned(), [0, 0, 0]));
        source.drop_duplicates = true;
        assert_eq!(left(&source), ("aabcdee".to_owned(), [1, 0, 0]));
        source.drop_empty = true;
        assert_eq!(left(&source), ("aee".to_owned(), [1, 3, 0]));
        source.drop_cut_off = true;
        assert_eq!(left(&source), ("ae".to_owned(), [1, 3, 1]));
    }

    #[test]
    fn earlier_files_count_too() {
        let mut seen = HashSet::new();
        let mut source = DataSource::new("x");
        sieve(rows(), &source, &mut seen);
        source.drop_duplicates = true;
        let (left, dropped) = sieve(rows(), &source, &mut seen);
        assert_eq!((left.len(), dropped.duplicates), (0, 7));
    }
}
