//! What a data set of conversations holds.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use cartridges_study::conversation::Conversation;
use cartridges_study::parquet::ConversationReader;
use serde::Serialize;

use super::Findings;
use super::table::{beginning, fields, table};

/// Conversations that are shown.
const SAMPLES: usize = 2;

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

#[derive(Debug, Serialize)]
struct SampleMessage {
    role: &'static str,
    content: String,
}

#[derive(Debug, Serialize)]
struct Sample {
    seed_prompt: String,
    system_prompt: String,
    messages: Vec<SampleMessage>,
}

/// All that is shown of a data set.
#[derive(Debug, Serialize)]
struct DataSet {
    rows: usize,
    messages: usize,
    tokens: usize,
    tokens_per_conversation: Spread,
    tokens_per_message: BTreeMap<&'static str, Spread>,
    /// Top-k entries over all messages, and token positions that have any.
    target_entries: usize,
    target_positions: usize,
    kinds: BTreeMap<String, usize>,
    seed_types: BTreeMap<String, usize>,
    resources: BTreeMap<String, usize>,
    finish_reasons: BTreeMap<String, usize>,
    samples: Vec<Sample>,
}

/// A parquet file of conversations.
pub(super) fn file(path: &Path) -> Result<Findings> {
    let data = read(path)?;
    let text = format!(
        "{}{}",
        fields(&[("conversations", path.display().to_string())]),
        show(&data)
    );
    let mut json = serde_json::to_value(&data)?;
    if let Some(object) = json.as_object_mut() {
        object.insert("kind".to_owned(), "conversations".into());
        object.insert("path".to_owned(), path.display().to_string().into());
    }
    Ok(Findings { json, text })
}

fn read(path: &Path) -> Result<DataSet> {
    let mut data = DataSet {
        rows: 0,
        messages: 0,
        tokens: 0,
        tokens_per_conversation: Spread::default(),
        tokens_per_message: BTreeMap::new(),
        target_entries: 0,
        target_positions: 0,
        kinds: BTreeMap::new(),
        seed_types: BTreeMap::new(),
        resources: BTreeMap::new(),
        finish_reasons: BTreeMap::new(),
        samples: Vec::new(),
    };
    let mut lengths = Vec::new();
    let mut by_role: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
    for conversation in ConversationReader::open(path)? {
        let conversation = conversation?;
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
        if data.samples.len() < SAMPLES {
            data.samples.push(sample(&conversation));
        }
    }
    data.tokens_per_conversation = Spread::of(lengths);
    data.tokens_per_message = by_role
        .into_iter()
        .map(|(r, n)| (r, Spread::of(n)))
        .collect();
    Ok(data)
}

fn sample(conversation: &Conversation) -> Sample {
    Sample {
        seed_prompt: beginning(&conversation.metadata.seed_prompt, 200),
        system_prompt: beginning(&conversation.system_prompt, 200),
        messages: conversation
            .messages
            .iter()
            .map(|message| SampleMessage {
                role: message.role.as_str(),
                content: beginning(&message.content, 400),
            })
            .collect(),
    }
}

fn show(data: &DataSet) -> String {
    let per_position = data.target_entries as f64 / data.target_positions.max(1) as f64;
    let mut text = fields(&[
        ("rows         ", data.rows.to_string()),
        ("messages", data.messages.to_string()),
        ("tokens", data.tokens.to_string()),
        (
            "targets",
            match data.target_entries {
                0 => "none (the tokens themselves are the targets)".to_owned(),
                entries => format!(
                    "{entries} at {} positions, {per_position:.1} each",
                    data.target_positions
                ),
            },
        ),
    ]);
    let spread = |name: &str, s: &Spread| {
        let mut row = vec![name.to_owned()];
        row.extend([s.min, s.median, s.max].map(|n| n.to_string()));
        row
    };
    let mut rows = vec![spread("conversation", &data.tokens_per_conversation)];
    rows.extend(
        data.tokens_per_message
            .iter()
            .map(|(role, s)| spread(role, s)),
    );
    text += &format!(
        "\n{}",
        table(&["tokens per", "min", "median", "max"], &rows)
    );
    for (what, counts) in [
        ("kind", &data.kinds),
        ("seed type", &data.seed_types),
        ("text", &data.resources),
        ("messages ended by", &data.finish_reasons),
    ] {
        if counts.is_empty() {
            continue;
        }
        let rows: Vec<Vec<String>> = counts
            .iter()
            .map(|(name, n)| vec![beginning(name, 60), n.to_string()])
            .collect();
        text += &format!("\n{}", table(&[what, "count"], &rows));
    }
    for (index, sample) in data.samples.iter().enumerate() {
        text += &format!("\nsample {}\n", index + 1);
        let mut lines = vec![("seed", sample.seed_prompt.clone())];
        lines.push(("system", sample.system_prompt.clone()));
        lines.extend(sample.messages.iter().map(|m| (m.role, m.content.clone())));
        lines.retain(|(_, content)| !content.is_empty());
        text += &fields(&lines);
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
