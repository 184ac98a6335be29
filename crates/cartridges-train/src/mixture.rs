//! Conversations of several files in the shares that were asked for.

use std::collections::HashSet;
use std::path::PathBuf;

use cartridges_study::conversation::Conversation;
use cartridges_study::parquet::{ConversationFileError, dataset_files, read_conversations};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::config::DataSource;
use crate::sieve::{Dropped, sieve};

/// Data that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MixtureError {
    /// A file cannot be read.
    #[error("reading conversations from {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ConversationFileError,
    },
    /// Nothing is left.
    #[error("the data holds no conversations")]
    Empty,
}

/// What was taken from one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// The file.
    pub path: PathBuf,
    /// Rows that were read, at most the source's limit.
    pub rows: usize,
    /// Those of them that were left out.
    pub dropped: Dropped,
    /// Conversations that came of them.
    pub conversations: usize,
}

/// Reads the sources in order and leaves out what they say. Of the `n` rows that are left, with weight `w`, `round(w · n)` conversations are taken:
/// all of them as often as the whole part of `w` says, and a sample drawn by the seed for the rest.
///
/// # Errors
/// [`MixtureError`], which names the file.
pub fn read_mixture(
    sources: &[DataSource],
    seed: u64,
) -> Result<(Vec<Conversation>, Vec<Taken>), MixtureError> {
    let mut all = Vec::new();
    let mut taken = Vec::with_capacity(sources.len());
    let mut seen = HashSet::new();
    for (i, source) in sources.iter().enumerate() {
        let rows = read_source(source).map_err(|error| MixtureError::Read {
            path: source.path.clone(),
            source: error,
        })?;
        let read = rows.len();
        let (rows, dropped) = sieve(rows, source, &mut seen);
        let chosen = choose(rows.len(), source.weight, seed.wrapping_add(i as u64));
        taken.push(Taken {
            path: source.path.clone(),
            rows: read,
            dropped,
            conversations: chosen.len(),
        });
        match chosen.len() == rows.len() {
            true => all.extend(rows),
            false => all.extend(chosen.into_iter().map(|row| rows[row].clone())),
        }
    }
    match all.is_empty() {
        true => Err(MixtureError::Empty),
        false => Ok((all, taken)),
    }
}

fn read_source(source: &DataSource) -> Result<Vec<Conversation>, ConversationFileError> {
    let limit = match source.limit {
        0 => usize::MAX,
        limit => limit,
    };
    let mut rows = Vec::new();
    for file in dataset_files(&source.path)? {
        rows.extend(read_conversations(&file, Some(limit - rows.len()))?);
    }
    Ok(rows)
}

/// The rows that are taken, in file order within every pass.
fn choose(rows: usize, weight: f64, seed: u64) -> Vec<usize> {
    let count = (weight * rows as f64).round() as usize;
    let mut chosen: Vec<usize> = (0..count - count % rows.max(1)).map(|n| n % rows).collect();
    let mut sample: Vec<usize> = (0..rows).collect();
    sample.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    sample.truncate(count - chosen.len());
    sample.sort_unstable();
    chosen.extend(sample);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use cartridges_study::conversation::{Message, Metadata, Role};
    use cartridges_study::parquet::write_conversations;

    fn conversation(text: String) -> Conversation {
        Conversation {
            messages: vec![Message {
                content: text,
                role: Role::User,
                token_ids: None,
                top_logprobs: None,
            }],
            system_prompt: String::new(),
            metadata: Metadata::default(),
            conversation_type: None,
        }
    }

    #[test]
    fn every_file_gives_its_share_and_the_seed_decides_which() {
        let folder = tempfile::tempdir().unwrap();
        let mut sources = Vec::new();
        for (name, rows) in [("a", 10), ("b", 10), ("c", 30)] {
            let path = folder.path().join(format!("{name}.parquet"));
            let all: Vec<Conversation> = (0..rows)
                .map(|i| conversation(format!("{name}{i}")))
                .collect();
            write_conversations(&path, &all).unwrap();
            sources.push(DataSource::new(path));
        }
        (sources[0].weight, sources[1].weight) = (0.5, 2.3);
        sources[2].limit = 4;
        let texts = |seed| -> Vec<String> {
            let (all, taken) = read_mixture(&sources, seed).unwrap();
            let counts: Vec<[usize; 2]> =
                (taken.iter()).map(|t| [t.rows, t.conversations]).collect();
            assert_eq!(counts, [[10, 5], [10, 23], [4, 4]]);
            let text = |c: Conversation| c.messages[0].content.clone();
            all.into_iter().map(text).collect()
        };
        let first = texts(1);
        assert_eq!(first, texts(1));
        assert_ne!(first, texts(2));
        assert_eq!(first[28..], ["c0", "c1", "c2", "c3"]);
        for i in 0..10 {
            let count = |text: String| first.iter().filter(|t| **t == text).count();
            assert!(count(format!("a{i}")) <= 1);
            assert!((2..=3).contains(&count(format!("b{i}"))));
        }
        // A folder in the reference's layout is one data set: the limit is for all its files.
        let parts = folder.path().join("repository/data");
        std::fs::create_dir_all(&parts).unwrap();
        for (i, source) in sources[..2].iter().enumerate() {
            std::fs::copy(&source.path, parts.join(format!("train-{i}.parquet"))).unwrap();
        }
        let mut whole = DataSource::new(folder.path().join("repository"));
        whole.limit = 12;
        let (all, _) = read_mixture(&[whole], 1).unwrap();
        let text: Vec<&str> = all.iter().map(|c| c.messages[0].content.as_str()).collect();
        assert_eq!(text[..10].concat(), "a0a1a2a3a4a5a6a7a8a9");
        assert_eq!(text[10..], ["b0", "b1"]);

        let missing = [DataSource::new(folder.path().join("d.parquet"))];
        let error = read_mixture(&missing, 1).unwrap_err().to_string();
        assert!(error.contains("d.parquet"), "{error}");
        assert!(read_mixture(&[], 1).is_err());
    }
}
