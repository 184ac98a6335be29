//! Seed prompts: what agent A is asked to write.
//!
//! Each type asks for another kind of message, and draws its own variant, so that the conversations
//! about one text differ. The same model follows these prompts that will be trained, often a small
//! one: sentences are short, one demand each, and the last one says what to leave out.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The kinds of message that agent A can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedType {
    /// Put a part of the information into a format such as JSON.
    Structuring,
    /// Summarise a part.
    Summarization,
    /// Bring together what stands in several places.
    Aggregation,
    /// Ask for a fact.
    Question,
    /// Ask what someone with a practical task would ask.
    UseCase,
    /// Start something imaginative.
    Creative,
    /// Start any conversation about the information.
    Generic,
    /// One of the prompts that the configuration gives.
    Own,
}

impl SeedType {
    /// All types that have prompts here.
    pub const ALL: [SeedType; 7] = [
        SeedType::Structuring,
        SeedType::Summarization,
        SeedType::Aggregation,
        SeedType::Question,
        SeedType::UseCase,
        SeedType::Creative,
        SeedType::Generic,
    ];

    /// The name used in files and configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            SeedType::Structuring => "structuring",
            SeedType::Summarization => "summarization",
            SeedType::Aggregation => "aggregation",
            SeedType::Question => "question",
            SeedType::UseCase => "use_case",
            SeedType::Creative => "creative",
            SeedType::Generic => "generic",
            SeedType::Own => "own",
        }
    }
}

/// What the prompts for agent A are drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedPrompts {
    /// Types, drawn uniformly and with replacement.
    pub types: Vec<SeedType>,
    /// What [`SeedType::Own`] draws from, uniformly and with replacement.
    pub own: Vec<String>,
}

impl Default for SeedPrompts {
    /// All types but [`SeedType::Own`].
    fn default() -> Self {
        Self::from(&SeedType::ALL[..])
    }
}

impl From<&[SeedType]> for SeedPrompts {
    fn from(types: &[SeedType]) -> Self {
        Self {
            types: types.to_vec(),
            own: Vec::new(),
        }
    }
}

impl SeedPrompts {
    /// Whether a type that may be drawn has no prompt, or there are no types.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() || (self.own.is_empty() && self.types.contains(&SeedType::Own))
    }

    /// Draws `n` prompts; where there is nothing to draw, fewer.
    pub fn draw(&self, n: usize, rng: &mut impl Rng) -> Vec<SeedPrompt> {
        // All types first, so that a type's variants do not move the types of the others.
        let types: Vec<SeedType> = (0..n)
            .filter_map(|_| self.types.choose(rng).copied())
            .collect();
        types
            .into_iter()
            .filter_map(|seed_type| {
                let text = self.text(seed_type, rng)?;
                Some(SeedPrompt { seed_type, text })
            })
            .collect()
    }

    fn text(&self, seed_type: SeedType, rng: &mut impl Rng) -> Option<String> {
        Some(match seed_type {
            SeedType::Structuring => structuring(rng),
            SeedType::Summarization => pick(&SUMMARIZATION, rng).to_owned(),
            SeedType::Aggregation => pick(&AGGREGATION, rng).to_owned(),
            SeedType::Question => pick(&QUESTION, rng).to_owned(),
            SeedType::UseCase => pick(&USE_CASE, rng).to_owned(),
            SeedType::Creative => pick(&CREATIVE, rng).to_owned(),
            SeedType::Generic => pick(&GENERIC, rng).to_owned(),
            SeedType::Own => self.own.choose(rng)?.clone(),
        })
    }
}

/// Prompts from a text: paragraphs, with blank lines between them. Lines that begin with `#` are left
/// out.
pub fn own_prompts(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::trim_end)
        .collect();
    lines
        .split(|line| line.is_empty())
        .filter(|prompt| !prompt.is_empty())
        .map(|prompt| prompt.join("\n"))
        .collect()
}

/// A prompt for agent A.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedPrompt {
    /// Its type.
    pub seed_type: SeedType,
    /// The text that agent A gets as a user message.
    pub text: String,
}

const FORMATS: [&str; 6] = ["JSON", "YAML", "TOML", "INI", "XML", "plain text"];

/// Patterns for the message of a structuring prompt; `FORMAT` is replaced.
const STRUCTURING_PATTERNS: [&str; 2] = [
    "Put what [document] says about [part] into FORMAT. Keep all names, numbers, dates and times.",
    "Take [one aspect] of [part] in [document] and write it as FORMAT. \
     Leave out no name, number, date or time.",
];

const SUMMARIZATION: [&str; 2] = [
    "Write one message that asks an assistant to summarize a part of the information above. \
     Choose one part and name it. Mention the names, titles, ids or dates that show which part is \
     meant. Write only the message.",
    "Write one message that asks for a summary of one section of the information above. \
     Say which section, and say which document it is from. Write only the message.",
];

const AGGREGATION: [&str; 3] = [
    "Write one question whose answer needs facts from more than one place in the information above. \
     Name the people, places or things it is about. Write only the question.",
    "Write one message that asks an assistant to list everything of one kind in the information \
     above, for example all people, all dates, all rules or all numbers. Say what to list and which \
     document is meant. Write only the message.",
    "Write one question that compares two things in the information above. Name both things. \
     Write only the question.",
];

const QUESTION: [&str; 3] = [
    "Write one question about a fact in the information above. Name the people, places, ids, titles \
     or dates it is about, so that it has one clear answer. Write only the question.",
    "Write one question for someone who knows the information above by heart but cannot see it. \
     Do not write \"the text\" or \"above\": name what you ask about. Write only the question.",
    "You are testing a person on the information above. Pick one section and ask one question about \
     a detail in it. Name the section or its subject. Write only the question.",
];

const USE_CASE: [&str; 2] = [
    "Think of a person who has a task for which the information above is needed. Write the question \
     or request that this person would send to an assistant. Use the real names. \
     Write only the question or request.",
    "Who would use the information above at work, and for what? Write one message in which this \
     person asks an assistant for help with it. Use the real names. Write only the message.",
];

const CREATIVE: [&str; 2] = [
    "Write one question that starts a creative conversation about the information above, for example \
     a story, a poem or a \"what if\". Use names from it. Write only the question.",
    "Ask an assistant to write something imaginative with the people, places or things in the \
     information above. Use their names. Write only the request.",
];

const GENERIC: [&str; 1] = [
    "Write one message that starts a conversation about the information above. \
     Ask something or request something. Write only the message.",
];

fn pick<'a>(variants: &[&'a str], rng: &mut impl Rng) -> &'a str {
    variants[rng.random_range(0..variants.len())]
}

fn structuring(rng: &mut impl Rng) -> String {
    let format = pick(&FORMATS, rng);
    let pattern = pick(&STRUCTURING_PATTERNS, rng).replace("FORMAT", format);
    format!(
        "Write one message that asks an assistant to put a part of the information above into \
         {format}. Name the part and the document. The message can look like this, with your own \
         words in place of the brackets:\n\n{pattern}\n\nWrite only the message."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    #[test]
    fn every_type_has_its_variants() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (seed_type, variants) in [
            (SeedType::Structuring, 12),
            (SeedType::Summarization, 2),
            (SeedType::Aggregation, 3),
            (SeedType::Question, 3),
            (SeedType::UseCase, 2),
            (SeedType::Creative, 2),
            (SeedType::Generic, 1),
        ] {
            let texts: BTreeSet<String> = (0..400)
                .map(|_| SeedPrompts::default().text(seed_type, &mut rng).unwrap())
                .collect();
            assert_eq!(texts.len(), variants, "{seed_type:?}");
            for text in texts {
                assert!(text.contains("Write only"), "{text}");
                assert!(!text.contains("FORMAT") && !text.contains("  "), "{text}");
                assert!(text.len() < 500, "{text}");
            }
        }
    }

    #[test]
    fn types_are_drawn_from_the_given_ones_and_repeatably() {
        let rng = || ChaCha8Rng::seed_from_u64(9);
        let draw = || SeedPrompts::default().draw(200, &mut rng());
        let seen: BTreeSet<&str> = draw().iter().map(|p| p.seed_type.as_str()).collect();
        assert_eq!(seen.len(), 7);
        assert_eq!(draw(), draw());
        assert!(SeedPrompts::from(&[][..]).draw(3, &mut rng()).is_empty());
        let json = serde_json::to_string(&SeedType::UseCase).unwrap();
        assert_eq!(json, "\"use_case\"");
    }

    #[test]
    fn own_prompts_are_paragraphs_drawn_as_a_type() {
        let own = own_prompts("# Two prompts\n\nAsk about tides.\nName one.\n \n\nAsk who rows.\n");
        assert_eq!(own, ["Ask about tides.\nName one.", "Ask who rows."]);
        assert!(own_prompts("\n# nothing\n").is_empty());
        let prompts = SeedPrompts {
            types: vec![SeedType::Own, SeedType::Question],
            own,
        };
        let drawn = prompts.draw(200, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(drawn.len(), 200);
        let mine = drawn.iter().filter(|p| p.seed_type == SeedType::Own);
        let texts: BTreeSet<&str> = mine.clone().map(|p| p.text.as_str()).collect();
        assert_eq!(texts.len(), 2);
        assert!((70..130).contains(&mine.count()));
        for types in [&[SeedType::Own][..], &[SeedType::Own, SeedType::Question]] {
            assert!(SeedPrompts::from(types).is_empty());
        }
    }
}
