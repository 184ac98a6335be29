//! How a text is matched in closed form, from the command line.

use anyhow::{Result, bail};
use cartridges_model::cartridge::matching::{KeyChoice, MatchOptions, SlotShares, ValueChoice};
use clap::{Args, ValueEnum};
use serde::Serialize;

/// Slots of a cartridge.
#[derive(Debug, Clone, Args)]
pub struct SizeArgs {
    /// Slots of the cartridge, instead of a share of the document's tokens.
    #[arg(long = "tokens", value_name = "N")]
    pub slots: Option<usize>,
    /// Slots as a share of the document's tokens, used when --tokens is not given.
    #[arg(long, default_value_t = 0.25)]
    pub ratio: f64,
    /// First slots that are not trained (the attention sink).
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub frozen: usize,
}

impl Default for SizeArgs {
    fn default() -> Self {
        Self {
            slots: None,
            ratio: 0.25,
            frozen: 1,
        }
    }
}

impl SizeArgs {
    /// Slots for a document of `length` tokens.
    ///
    /// # Errors
    /// If the number would be zero or smaller than the frozen ones need.
    pub fn slots_for(&self, length: usize) -> Result<usize> {
        let slots = match self.slots {
            Some(slots) => slots,
            None if self.ratio > 0.0 && self.ratio <= 1.0 => {
                ((length as f64 * self.ratio) as usize).max(self.frozen + 1)
            }
            None => bail!("--ratio is {}, expected more than 0, at most 1", self.ratio),
        };
        if slots <= self.frozen {
            bail!(
                "--tokens is {slots} with {} frozen, expected at least one slot to train",
                self.frozen
            );
        }
        Ok(slots)
    }
}

/// Which of the document's keys stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchKeys {
    /// Those with the largest attention.
    Mass,
    /// One by one the key that lowers the remaining error most (orthogonal matching pursuit).
    Omp,
}

/// What becomes of the chosen keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchValues {
    /// They stay as they are.
    Keep,
    /// Values by least squares, the lost mass in the keys, and refinement of both.
    Fit,
}

/// What asks the document while it is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchQueries {
    /// The text once more, word for word.
    Repetition,
    /// Conversations of self-study, as many tokens as the text has.
    SelfStudy,
    /// The text once more, and conversations worth a tenth of it.
    Both,
}

/// How heads, and the chunks of a long document, share the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchSlots {
    /// All heads alike, chunks by their tokens.
    Even,
    /// All heads alike, chunks in every head by what it attends to.
    Attention,
    /// Over all heads and chunks, each slot where it explains most: --tokens is then the mean, and heads
    /// with fewer slots than the largest are padded.
    Uneven,
}

/// How matching works.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
pub struct MatchArgs {
    /// Which keys of the document stay when it is matched.
    #[arg(long = "match-keys", value_enum, default_value_t = MatchKeys::Omp, value_name = "HOW")]
    pub keys: MatchKeys,
    /// What becomes of them and their values.
    #[arg(long = "match-values", value_enum, default_value_t = MatchValues::Fit, value_name = "HOW")]
    pub values: MatchValues,
    /// Rounds of refinement of keys and values.
    #[arg(long = "match-refine", default_value_t = 5, value_name = "N")]
    pub refine: usize,
    /// What asks the document; conversations come from --data.
    #[arg(long = "match-queries", value_enum, default_value_t = MatchQueries::Both, value_name = "WHAT")]
    pub queries: MatchQueries,
    /// How heads share the slots, and the chunks of a document that is longer than --match-chunk.
    #[arg(long = "match-slots", value_enum, default_value_t = MatchSlots::Even, value_name = "HOW")]
    pub shares: MatchSlots,
    /// Most slots of one head with --match-slots uneven, and so the cartridge's rows at most; twice the mean
    /// when not given.
    #[arg(long = "match-most", value_name = "N")]
    pub most: Option<usize>,
    /// Longest chunk of a document that is matched at once, in tokens; the model's window allows less
    /// where it is short.
    #[arg(long = "match-chunk", default_value_t = 8192, value_name = "N")]
    pub chunk_tokens: usize,
    /// Most query vectors per head that matching looks at.
    #[arg(long, default_value_t = 8192, value_name = "N")]
    pub max_queries: usize,
}

impl Default for MatchArgs {
    fn default() -> Self {
        Self {
            keys: MatchKeys::Omp,
            values: MatchValues::Fit,
            refine: 5,
            queries: MatchQueries::Both,
            shares: MatchSlots::Even,
            most: None,
            chunk_tokens: 8192,
            max_queries: 8192,
        }
    }
}

impl MatchArgs {
    /// The closed form's settings.
    pub fn options(&self) -> MatchOptions {
        MatchOptions {
            key_choice: match self.keys {
                MatchKeys::Mass => KeyChoice::TopAttention,
                MatchKeys::Omp => KeyChoice::Pursuit,
            },
            value_choice: match self.values {
                MatchValues::Keep => ValueChoice::Keep,
                MatchValues::Fit => ValueChoice::Fit,
            },
            slot_shares: match self.shares {
                MatchSlots::Even => SlotShares::Even,
                MatchSlots::Attention => SlotShares::Attention,
                MatchSlots::Uneven => SlotShares::Uneven,
            },
            most_slots: self.most,
            key_refine_rounds: self.refine,
            ..MatchOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_closed_form() {
        assert_eq!(MatchArgs::default().options(), MatchOptions::default());
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            matching: MatchArgs,
        }
        let line = <Line as clap::Parser>::parse_from(["x"]);
        assert_eq!(line.matching, MatchArgs::default());
    }
}
