//! What a data set of conversations holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cartridges_study::parquet::{ConversationReader, dataset_files};
use serde::Serialize;

use super::samples::{Sample, Tokens};
use super::table::{beginning, fields, table};
use super::{Findings, View, colour, page};

/// Least, middle and largest of some numbers.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Spread {
    min: usize,
    median: usize,
    max: usize,
}

impl Spread {
    fn of(mut numbers: Vec<usize>) -> Self {
        numbers.sort_unstable();
        match numbers.as_slice() {
            [] => Self::default(),
            [first, ..] => Self {
                min: *first,
                median: numbers[numbers.len() / 2],
                max: numbers[numbers.len() - 1],
            },
        }
    }
}

/// All that is shown of a data set.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DataSet {
    pub(crate) rows: usize,
    messages: usize,
    pub(crate) tokens: usize,
    tokens_per_conversation: Spread,
    tokens_per_message: BTreeMap<&'static str, Spread>,
    /// Top-k entries over all messages, and token positions that have any.
    target_entries: usize,
    target_positions: usize,
    kinds: BTreeMap<String, usize>,
    seed_types: BTreeMap<String, usize>,
    resources: BTreeMap<String, usize>,
    finish_reasons: BTreeMap<String, usize>,
    pub(super) samples: Vec<Sample>,
}

/// A parquet file of conversations, or a folder of them.
pub(super) fn file(path: &Path, view: &View) -> Result<Findings> {
    let tokens = view.tokens(path)?;
    let data = read(&dataset_files(path)?, view.samples, tokens.as_ref())?;
    let text = format!(
        "{}{}",
        fields(&[("conversations", path.display().to_string())]),
        show(&data, view.colour, tokens.is_some())
    );
    let html = page::page(&path.display().to_string(), &data);
    let mut json = serde_json::to_value(&data)?;
    if let Some(object) = json.as_object_mut() {
        object.insert("kind".to_owned(), "conversations".into());
        object.insert("path".to_owned(), path.display().to_string().into());
    }
    Ok(Findings {
        json,
        text,
        html: Some(html),
    })
}

/// Counts what the files hold together.
///
/// # Errors
/// If one cannot be read; every row is looked at.
pub(crate) fn read(files: &[PathBuf], samples: usize, tokens: Option<&Tokens>) -> Result<DataSet> {
    let mut data = DataSet::default();
    let readers: Vec<ConversationReader> = files
        .iter()
        .map(|file| ConversationReader::open(file))
        .collect::<Result<_, _>>()?;
    // Spread over the whole: its beginning is often of one kind.
    let rows: usize = readers.iter().map(ConversationReader::num_rows).sum();
    let wanted: Vec<usize> = (0..samples.min(rows))
        .map(|i| i * rows / samples.min(rows))
        .collect();
    let mut lengths = Vec::new();
    let mut by_role: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
    for conversation in readers.into_iter().flatten() {
        let conversation = conversation?;
        if wanted.get(data.samples.len()) == Some(&data.rows) {
            data.samples
                .push(Sample::of(data.rows, &conversation, tokens)?);
        }
        data.rows += 1;
        lengths.push(conversation.num_tokens());
        for message in &conversation.messages {
            data.messages += 1;
            if let Some(ids) = &message.token_ids {
                data.tokens += ids.len();
                by_role
                    .entry(message.role.as_str())
                    .or_default()
                    .push(ids.len());
            }
            if let Some(top) = &message.top_logprobs {
                data.target_entries += top.len();
                // Entries are sorted by position.
                data.target_positions += top.token_idx.chunk_by(|a, b| a == b).count();
            }
        }
        let about = &conversation.metadata;
        let unknown = || "(not stated)".to_owned();
        let kind = about
            .kind
            .map_or_else(unknown, |kind| kind.as_str().to_owned());
        *data.kinds.entry(kind).or_default() += 1;
        let seed_type = about.seed_type.clone().unwrap_or_else(unknown);
        *data.seed_types.entry(seed_type).or_default() += 1;
        let resource = about.resource.clone().unwrap_or_else(unknown);
        *data.resources.entry(resource).or_default() += 1;
        for reason in about.finish_reasons.iter().flatten() {
            *data.finish_reasons.entry(reason.clone()).or_default() += 1;
        }
    }
    data.tokens_per_conversation = Spread::of(lengths);
    data.tokens_per_message = by_role
        .into_iter()
        .map(|(r, n)| (r, Spread::of(n)))
        .collect();
    Ok(data)
}

impl DataSet {
    /// What it holds in all, by name.
    pub(crate) fn totals(&self) -> Vec<(&'static str, String)> {
        let per_position = self.target_entries as f64 / self.target_positions.max(1) as f64;
        let targets = match self.target_entries {
            0 => "none (the tokens themselves are the targets)".to_owned(),
            entries => format!(
                "{entries} at {} positions, {per_position:.1} each",
                self.target_positions
            ),
        };
        vec![
            ("rows         ", self.rows.to_string()),
            ("messages", self.messages.to_string()),
            ("tokens", self.tokens.to_string()),
            ("targets", targets),
        ]
    }

    /// Least, middle and largest number of tokens of a conversation and of each speaker's messages.
    pub(crate) fn lengths(&self) -> Vec<Vec<String>> {
        let spread = |name: &str, s: &Spread| {
            let mut row = vec![name.to_owned()];
            row.extend([s.min, s.median, s.max].map(|n| n.to_string()));
            row
        };
        std::iter::once(spread("conversation", &self.tokens_per_conversation))
            .chain(
                self.tokens_per_message
                    .iter()
                    .map(|(role, s)| spread(role, s)),
            )
            .collect()
    }

    /// How often there is what, by what is counted.
    pub(crate) fn counts(&self) -> Vec<(&'static str, Vec<Vec<String>>)> {
        [
            ("kind", &self.kinds),
            ("seed type", &self.seed_types),
            ("text", &self.resources),
            ("messages ended by", &self.finish_reasons),
        ]
        .into_iter()
        .filter(|(_, counts)| !counts.is_empty())
        .map(|(what, counts)| {
            let rows = counts.iter();
            let rows = rows.map(|(name, n)| vec![beginning(name, 60), n.to_string()]);
            (what, rows.collect())
        })
        .collect()
    }
}

/// Heads of the table of lengths.
pub(crate) const LENGTHS: [&str; 4] = ["tokens per", "min", "median", "max"];

fn show(data: &DataSet, coloured: bool, with_tokens: bool) -> String {
    let mut text = fields(&data.totals());
    text += &format!("\n{}", table(&LENGTHS, &data.lengths()));
    for (what, rows) in data.counts() {
        text += &format!("\n{}", table(&[what, "count"], &rows));
    }
    if coloured && with_tokens {
        text += &format!("\n{}\n", colour::legend());
    }
    for sample in &data.samples {
        text += &colour::sample(sample, coloured);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(vec![]), Spread::default());
        let spread = Spread::of(vec![5, 1, 9]);
        assert_eq!((spread.min, spread.median, spread.max), (1, 5, 9));
    }
}
