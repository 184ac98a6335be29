//! What texts with something hidden in them have in common, whatever is hidden.

use std::path::{Path, PathBuf};

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::document::SharedCodec;
use super::error::ResourceError;
use super::haystack::{Buried, MAX_TOKENS, NOISE, bury, check_range, essay, sample};
use super::material::{Material, Shape};
use super::notes::Notes;
use super::read::file_name;

/// What hides the needles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Haystack {
    /// The user's own text.
    #[default]
    Essay,
    /// A few sentences over and over.
    Noise,
    /// Other needles.
    Needle,
}

/// The settings that do not depend on what is hidden; see the configurations that they come from.
pub(super) struct Burial<'a> {
    /// The resource's name in files of settings.
    pub(super) kind: &'static str,
    pub(super) haystack: Haystack,
    pub(super) path: &'a Option<PathBuf>,
    pub(super) max_seq_length: usize,
    pub(super) sentences_per_chunk: (usize, usize),
    pub(super) chunks_per_prompt: (usize, usize),
    pub(super) sample_path: &'a Option<PathBuf>,
    pub(super) sample_idx: usize,
}

impl Burial<'_> {
    pub(super) fn wrong(
        &self,
        field: &'static str,
        found: impl ToString,
        expected: &'static str,
    ) -> ResourceError {
        ResourceError::Field {
            kind: self.kind,
            field,
            found: found.to_string(),
            expected,
        }
    }

    pub(super) fn validate(&self) -> Result<(), ResourceError> {
        let expected = "two numbers from 1 to 10000, the first not above the second";
        for (name, range) in [
            ("sentences_per_chunk", self.sentences_per_chunk),
            ("chunks_per_prompt", self.chunks_per_prompt),
        ] {
            check_range(self.kind, name, range, 10_000, expected)?;
        }
        if !(1..=MAX_TOKENS).contains(&self.max_seq_length) {
            let expected = "1 to 10000000 tokens";
            return Err(self.wrong("max_seq_length", self.max_seq_length, expected));
        }
        if self.haystack == Haystack::Essay && self.path.is_none() && self.sample_path.is_none() {
            let expected = "a text file, or another haystack";
            return Err(self.wrong("path", "missing", expected));
        }
        Ok(())
    }

    /// The text of the reference's file if one is named, or else the one that `make` makes.
    pub(super) fn material(
        &self,
        make: impl FnOnce(&mut Notes) -> Result<Buried, ResourceError>,
    ) -> Result<Material, ResourceError> {
        let mut notes = Notes::default();
        let (name, buried) = match self.sample_path {
            Some(path) => (file_name(path), sample(path, self.sample_idx)?),
            None => (self.kind.to_owned(), make(&mut notes)?),
        };
        Ok(Material {
            name,
            text: buried.text,
            shape: Shape::Sentences {
                intro: "The following are pieces of a longer text.".to_owned(),
                sentences: buried.sentences,
                per_run: self.sentences_per_chunk,
                runs: self.chunks_per_prompt,
            },
            notes,
        })
    }

    /// Hides groups of sentences in hay: the user's text, noise, or the needles that `needle` makes.
    pub(super) fn hide(
        &self,
        groups: &[Vec<String>],
        needle: &mut dyn FnMut() -> String,
        codec: &SharedCodec,
        rng: &mut impl Rng,
        notes: &mut Notes,
    ) -> Result<Buried, ResourceError> {
        let path: Option<&Path> = self.path.as_deref();
        let essay = match (self.haystack, path) {
            (Haystack::Essay, Some(path)) => essay(path, codec, notes)?,
            _ => Vec::new(),
        };
        let mut hay = |i: usize| match self.haystack {
            Haystack::Essay if !essay.is_empty() => {
                (essay[i % essay.len()].clone(), i >= essay.len())
            }
            Haystack::Needle => (needle(), false),
            _ => (NOISE[i % NOISE.len()].to_owned(), false),
        };
        let max = self.max_seq_length;
        let buried = bury(groups, &mut hay, max, &**codec, rng, notes);
        let expected = "at least the length of all that is hidden";
        buried.ok_or_else(|| self.wrong("max_seq_length", max, expected))
    }
}
