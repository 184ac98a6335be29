//! Variable tracking: chains of assignments hidden in a long text (RULER, arXiv 2404.06654).

use std::path::PathBuf;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::burial::{Burial, Haystack};
use super::document::SharedCodec;
use super::error::ResourceError;
use super::haystack::Buried;
use super::material::Material;
use super::notes::Notes;
use super::words::{NUM_WORDS, ValueKind};

const KIND: &str = "variable_tracking";

/// How an assignment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssignmentFormat {
    /// `x = 1234567`
    Python,
    /// `let x = 1234567;`
    Javascript,
    /// `The variable x has the value 1234567.`
    Words,
    /// `VAR X = 1234567`
    Ruler,
}

/// A text with chains of assignments, made on the spot or read from a file of the reference's
/// generator. A context has a few runs of consecutive sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VariableTrackingConfig {
    /// What hides the assignments: `essay` (default) or `noise`.
    pub haystack: Haystack,
    /// The user's text, of any kind that is told by its name; for the haystack `essay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Length of the whole in tokens (default 100000).
    pub max_seq_length: usize,
    /// Chains, each with its own value (default 1).
    pub num_chains: usize,
    /// Assignments of a variable to a variable in a chain (default 4); it has one variable more.
    pub num_hops: usize,
    /// What values look like (default `numbers`).
    pub type_value: ValueKind,
    /// What names of variables look like (default `letters`).
    pub type_vars: ValueKind,
    /// How assignments are written (default `python`).
    pub assignment_format: AssignmentFormat,
    /// Seed of everything that is drawn (default 42).
    pub seed: u64,
    /// Fewest and most sentences of a run in a context (default 1 and 4).
    pub sentences_per_chunk: (usize, usize),
    /// Fewest and most runs of a context (default 1 and 1).
    pub chunks_per_prompt: (usize, usize),
    /// A file of the reference's generator, instead of making a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_path: Option<PathBuf>,
    /// The sample in that file (default 0).
    pub sample_idx: usize,
}

impl Default for VariableTrackingConfig {
    fn default() -> Self {
        Self {
            haystack: Haystack::Essay,
            path: None,
            max_seq_length: 100_000,
            num_chains: 1,
            num_hops: 4,
            type_value: ValueKind::Numbers,
            type_vars: ValueKind::Letters,
            assignment_format: AssignmentFormat::Python,
            seed: 42,
            sentences_per_chunk: (1, 4),
            chunks_per_prompt: (1, 1),
            sample_path: None,
            sample_idx: 0,
        }
    }
}

/// Values with their variables.
type Chains = Vec<(String, Vec<String>)>;

/// A made text and the chains in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailText {
    /// The text.
    pub text: String,
    /// Each value with the variables that have it, in the order of their assignments.
    pub chains: Vec<(String, Vec<String>)>,
}

impl VariableTrackingConfig {
    /// Makes the text; the same seed, haystack and tokenizer give the same one.
    ///
    /// # Errors
    /// If a field is out of its range, the haystack cannot be read, or the assignments alone are
    /// longer than the text may be.
    pub fn generate(&self, codec: &SharedCodec) -> Result<TrailText, ResourceError> {
        let (buried, chains) = self.made(codec, &mut Notes::default())?;
        Ok(TrailText {
            text: buried.text,
            chains,
        })
    }

    fn burial(&self) -> Burial<'_> {
        Burial {
            kind: KIND,
            haystack: self.haystack,
            path: &self.path,
            max_seq_length: self.max_seq_length,
            sentences_per_chunk: self.sentences_per_chunk,
            chunks_per_prompt: self.chunks_per_prompt,
            sample_path: &self.sample_path,
            sample_idx: self.sample_idx,
        }
    }

    pub(super) fn material(&self, codec: &SharedCodec) -> Result<Material, ResourceError> {
        self.validate()?;
        self.burial()
            .material(|notes| Ok(self.made(codec, notes)?.0))
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let burial = self.burial();
        burial.validate()?;
        if self.haystack == Haystack::Needle {
            return Err(burial.wrong("haystack", "needle", "essay or noise"));
        }
        if self.num_chains == 0 {
            return Err(burial.wrong("num_chains", 0, "at least 1"));
        }
        let variables = self
            .num_hops
            .saturating_add(1)
            .saturating_mul(self.num_chains);
        // Half of the words there are, so that drawing them comes to an end.
        if variables > NUM_WORDS / 2 {
            let found = format!("{} with num_chains {}", self.num_hops, self.num_chains);
            let expected = "at most 1152 variables in all chains, one more per chain than hops";
            return Err(burial.wrong("num_hops", found, expected));
        }
        Ok(())
    }

    fn made(
        &self,
        codec: &SharedCodec,
        notes: &mut Notes,
    ) -> Result<(Buried, Chains), ResourceError> {
        self.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let length = self.num_hops + 1;
        let count = self.num_chains;
        let names = self.type_vars.draw_distinct(length * count, &[], &mut rng);
        let values = self.type_value.draw_distinct(count, &[], &mut rng);
        let names: Vec<String> = names.iter().map(|name| self.identifier(name)).collect();
        let chains: Chains = values
            .into_iter()
            .zip(names.chunks(length).map(<[String]>::to_vec))
            .collect();
        let groups: Vec<Vec<String>> = chains
            .iter()
            .map(|(value, names)| {
                let values = std::iter::once((value.as_str(), false))
                    .chain(names.iter().map(|name| (name.as_str(), true)));
                names
                    .iter()
                    .zip(values)
                    .map(|(name, (value, variable))| self.assignment(name, value, variable))
                    .collect()
            })
            .collect();
        // No chain is hay: it is refused above.
        let burial = self.burial();
        let buried = burial.hide(&groups, &mut String::new, codec, &mut rng, notes)?;
        Ok((buried, chains))
    }

    /// A drawn name as a variable's.
    fn identifier(&self, name: &str) -> String {
        let name = name.replace('-', "_");
        match name.starts_with(|c: char| c.is_ascii_digit()) {
            true => format!("v{name}"),
            false => name,
        }
    }

    fn assignment(&self, name: &str, value: &str, variable: bool) -> String {
        let quoted = match (variable, self.type_value) {
            (true, _) | (false, ValueKind::Numbers) => value.to_owned(),
            _ => format!("\"{value}\""),
        };
        match (self.assignment_format, variable) {
            (AssignmentFormat::Python, _) => format!("{name} = {quoted}\n"),
            (AssignmentFormat::Javascript, _) => format!("let {name} = {quoted};\n"),
            (AssignmentFormat::Words, false) => {
                format!("The variable {name} has the value {value}.")
            }
            (AssignmentFormat::Words, true) => {
                format!("The variable {name} has the value of the variable {value}.")
            }
            (AssignmentFormat::Ruler, false) => format!("VAR {name} = {value}\n"),
            (AssignmentFormat::Ruler, true) => format!("VAR {name} = VAR {value}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::test_codec::ByteCodec;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn codec() -> SharedCodec {
        Arc::new(ByteCodec)
    }

    fn config() -> VariableTrackingConfig {
        VariableTrackingConfig {
            haystack: Haystack::Noise,
            max_seq_length: 1500,
            num_chains: 2,
            num_hops: 3,
            ..VariableTrackingConfig::default()
        }
    }

    #[test]
    fn chains_can_be_followed_through_the_text() {
        let made = config().generate(&codec()).unwrap();
        assert!(
            (1350..=1500).contains(&made.text.len()),
            "{}",
            made.text.len()
        );
        assert_eq!(made.chains.len(), 2);
        for (value, names) in &made.chains {
            assert_eq!(names.len(), 4);
            let mut at = 0;
            let mut holder = value;
            for name in names {
                // Each assignment stands behind the one it needs.
                let line = format!("{name} = {holder}\n");
                at += made.text[at..].find(&line).unwrap() + line.len();
                holder = name;
            }
        }
        assert_eq!(config().generate(&codec()).unwrap(), made);
    }

    #[test]
    fn all_formats_are_written() {
        for (format, expected) in [
            (AssignmentFormat::Python, "B = A\n"),
            (AssignmentFormat::Javascript, "let B = A;\n"),
            (
                AssignmentFormat::Words,
                "The variable B has the value of the variable A.",
            ),
            (AssignmentFormat::Ruler, "VAR B = VAR A\n"),
        ] {
            let config = VariableTrackingConfig {
                assignment_format: format,
                ..config()
            };
            assert_eq!(config.assignment("B", "A", true), expected);
        }
        assert_eq!(config().identifier("quiet-river"), "quiet_river");
        assert_eq!(config().identifier("1234567"), "v1234567");
    }

    #[test]
    fn wrong_fields_are_named() {
        type Change = fn(&mut VariableTrackingConfig);
        let wrong: [(&str, Change); 5] = [
            ("max_seq_length", |c| c.max_seq_length = 9),
            ("num_chains", |c| c.num_chains = 0),
            ("num_hops", |c| c.num_hops = usize::MAX),
            ("haystack", |c| c.haystack = Haystack::Needle),
            ("path", |c| c.haystack = Haystack::Essay),
        ];
        for (field, change) in wrong {
            let mut config = config();
            change(&mut config);
            let error = config.generate(&codec()).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn odd_numbers_never_panic(max in 0usize..400, chains in 0usize..5, hops in 0usize..5) {
            let config = VariableTrackingConfig {
                max_seq_length: max,
                num_chains: chains,
                num_hops: hops,
                ..config()
            };
            if let Ok(made) = config.generate(&codec()) {
                prop_assert!(made.text.len() <= max);
            }
        }
    }
}
