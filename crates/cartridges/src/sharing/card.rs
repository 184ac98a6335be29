//! The card of a repository: what it holds, how it was made, how it is used.

use cartridges_eval::Report;
use cartridges_model::adapter::AdapterManifest;
use cartridges_model::cartridge::{CartridgeManifest, ModelIdentity};
use cartridges_model::hub::{find_card, hub_id};
use serde_json::{Value, json};

use super::yaml::yaml;
use crate::commands::inspect::conversations::{DataSet, LENGTHS};
use crate::commands::inspect::table::bytes;

/// What a card says, except for the name of its repository.
pub(super) struct Card {
    /// One line: what it is.
    pub summary: String,
    /// For the hub: tags and the like.
    front: Value,
    /// Sections between the summary and the usage.
    body: String,
    /// About licences.
    licences: String,
    /// Commands; `REPO` stands for the repository.
    usage: &'static str,
}

impl Card {
    /// The card as `README.md`.
    pub(super) fn text(&self, repo: &str, licence: Option<&str>) -> String {
        let repo = repo.strip_prefix("datasets/").unwrap_or(repo);
        let mut front = self.front.clone();
        if let Some(licence) = licence {
            front["license"] = licence.into();
        }
        let stated = match licence {
            Some(licence) => format!("Published under: {}. ", inline(licence)),
            None => "Whoever published this has stated no licence. ".to_owned(),
        };
        format!(
            "---\n{}---\n\n# {repo}\n\n{}\n\n{}\n## Use\n\n{}\n## Licence\n\n{stated}{}\n",
            yaml(&front),
            self.summary,
            self.body,
            fenced("console", &self.usage.replace("REPO", repo)),
            self.licences,
        )
    }
}

/// A text as inline code, on one line.
fn inline(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("`{}`", text.replace('`', "'"))
}

/// A block of code; its fence is longer than any in the text.
fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        let cells = cells
            .iter()
            .map(|cell| cell.replace('|', "\\|").replace('<', "&lt;"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    let rule = vec!["---".to_owned(); heads.len()];
    let mut text = line(&heads) + &line(&rule);
    rows.iter().for_each(|row| text += &line(row));
    text + "\n"
}

fn pretty(value: &Value) -> String {
    fenced("json", &format!("{value:#}"))
}

/// The model and what its card says about its licence.
fn model_licence(model: &str) -> String {
    match find_card(model) {
        Ok(Some(card)) => format!(
            "The model {} is under {}.",
            inline(&card.hub.id),
            card.licence
        ),
        _ => format!(
            "The licence of the model {} applies as well.",
            inline(model)
        ),
    }
}

fn front(tags: &[&str], model: Option<&str>) -> Value {
    let mut front = json!({ "tags": tags });
    // The hub refuses a card that names a model which is none of its own.
    if let Some(id) = model.and_then(hub_id) {
        front["base_model"] = id.into();
    }
    front
}

/// Conversations, from what was counted, their run's plan and its report (null where there is none).
pub(super) fn about_dataset(data: &DataSet, plan: &Value, report: &Value) -> Card {
    let model = plan["model"].as_str();
    let mut front = front(&["cartridges", "self-study"], None);
    front["configs"] = json!([{
        "config_name": "default",
        "data_files": [{ "split": "train", "path": "data/*.parquet" }],
    }]);
    let mut body = String::from("## What is in it\n\n");
    let totals = data.totals().into_iter();
    let totals: Vec<Vec<String>> = totals
        .map(|(name, x)| vec![name.trim().to_owned(), x])
        .collect();
    body += &table(&["", ""], &totals);
    body += &table(&LENGTHS, &data.lengths());
    for (what, rows) in data.counts() {
        body += &table(&[what, "count"], &rows);
    }
    body += "Columns: `messages` (content, role, token ids, the teacher's most likely tokens with their \
             log-probabilities), `system_prompt` (what the teacher saw), `metadata`, `type`.\n\n";
    body += "## How it was made\n\n";
    body += &match model {
        Some(model) => format!(
            "The model {} talked with itself about a text.\n\n",
            inline(model)
        ),
        None => "Its files do not say.\n\n".to_owned(),
    };
    if plan["config"].is_object() {
        body += &pretty(&plan["config"]);
        body.push('\n');
    }
    if report["planned"].is_u64() {
        let outcome = json!({
            "planned": report["planned"], "finished": report["finished"], "dropped": report["dropped"],
        });
        body += &pretty(&outcome);
        body.push('\n');
    }
    let about_model = model.map(model_licence).unwrap_or_default();
    Card {
        summary: format!(
            "{} conversations of self-study, {} tokens, to train cartridges on.",
            data.rows, data.tokens
        ),
        front,
        body,
        licences: format!(
            "The conversations repeat the text they are about: its licence applies. {about_model}"
        ),
        usage: "cartridges train --data hf:REPO --init random --tokens 512 --out cartridges/mine\n\
                cartridges pull datasets/REPO --out data\n\
                cartridges inspect data",
    }
}

fn about_model(model: &ModelIdentity) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    vec![
        row(
            "base model",
            inline(&hub_id(&model.id).unwrap_or(model.id.clone())),
        ),
        row(
            "fingerprint of its weights",
            inline(&model.weights_fingerprint),
        ),
        row("layers", model.num_layers.to_string()),
    ]
}

fn measurements(report: Option<&Report>) -> String {
    let Some(report) = report else {
        return String::new();
    };
    format!(
        "## Measured\n\nQuestions {} about {}, {}:\n\n{}\n",
        inline(&report.questions),
        inline(&report.corpus.name),
        inline(&report.date),
        fenced("text", &report.table())
    )
}

/// A cartridge.
pub(super) fn about_cartridge(manifest: &CartridgeManifest, report: Option<&Report>) -> Card {
    let model = &manifest.base_model;
    let values = 2 * model.num_layers * model.num_kv_heads * model.head_dim * manifest.slots;
    let size = bytes((values * manifest.dtype.size()) as u64);
    let mut rows = about_model(model);
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row(
        "key/value heads",
        format!("{} of {}", model.num_kv_heads, model.head_dim),
    );
    row(
        "slots",
        format!("{}, {} of them frozen", manifest.slots, manifest.frozen),
    );
    row("size", format!("{size} as {}", manifest.dtype));
    let body = format!(
        "## What is in it\n\n{}`cartridge.safetensors` and `cartridge.json` are for this program; \
         `cartridge.pt` (bfloat16) and `config.yaml` are the same for the paper's code and its server.\n\n\
         ## How it was made\n\n{}\n{}",
        table(&["", ""], &rows),
        pretty(&manifest.made_by),
        measurements(report),
    );
    Card {
        summary: format!(
            "A cartridge: {} trained keys and values per layer and head that stand before every request, in \
             place of a text.",
            manifest.slots
        ),
        front: front(&["cartridges", "kv-cache"], Some(&model.id)),
        body,
        licences: format!(
            "A cartridge holds much of the text that it was made of: the text's licence applies. {}",
            model_licence(&model.id)
        ),
        usage: "cartridges pull REPO --out cartridges/mine\n\
                cartridges chat --cartridge cartridges/mine\n\
                cartridges serve --cartridge-dir cartridges",
    }
}

/// A thought adapter.
pub(super) fn about_adapter(manifest: &AdapterManifest, report: Option<&Report>) -> Card {
    let model = &manifest.base_model;
    let mut rows = about_model(model);
    rows.push(vec![
        "patches".to_owned(),
        manifest.patches.len().to_string(),
    ]);
    rows.push(vec!["stored as".to_owned(), manifest.dtype.to_string()]);
    Card {
        summary: format!(
            "A thought adapter: weight deltas at {} linear maps that stand for a prompt.",
            manifest.patches.len()
        ),
        front: front(&["cartridges", "adapter"], Some(&model.id)),
        body: format!(
            "## What is in it\n\n{}## How it was made\n\n{}\n{}",
            table(&["", ""], &rows),
            pretty(&manifest.made_by),
            measurements(report),
        ),
        licences: format!(
            "An adapter holds some of the text that it was made of: the text's licence applies. {}",
            model_licence(&model.id)
        ),
        usage: "cartridges pull REPO --out adapters/mine\n\
                cartridges chat --adapter adapters/mine",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_cannot_end_its_block() {
        assert_eq!(fenced("x", "a"), "```x\na\n```\n");
        assert_eq!(fenced("", "```\nb"), "````\n```\nb\n````\n");
        assert_eq!(inline("a`\n# b"), "`a' # b`");
        let cell = vec!["a|<b>".to_owned()];
        assert_eq!(table(&["h"], &[cell]), "| h |\n| --- |\n| a\\|&lt;b> |\n\n");
    }
}
