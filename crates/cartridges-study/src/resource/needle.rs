//! Needles in a haystack: facts hidden in a long text (Hsieh et al., "RULER", arXiv 2404.06654).

use std::path::PathBuf;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::burial::{Burial, Haystack};
use super::document::SharedCodec;
use super::error::ResourceError;
use super::haystack::{Buried, check_range};
use super::material::Material;
use super::notes::Notes;
use super::words::{NUM_WORDS, ValueKind};

const KIND: &str = "niah";
/// The most keys; half of the words there are, so that drawing them comes to an end.
const MAX_KEYS: usize = NUM_WORDS / 2;
/// The most values of a key.
const MAX_VALUES: usize = 100;

/// A text with hidden facts, made on the spot or read from a file of the reference's generator. A
/// context has a few runs of consecutive sentences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NiahConfig {
    /// What hides the needles (default `essay`).
    pub haystack: Haystack,
    /// The user's text, of any kind that is told by its name; for the haystack `essay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Length of the whole in tokens (default 100000).
    pub max_seq_length: usize,
    /// Keys (default 1).
    pub num_needle_k: usize,
    /// Fewest and most values per key (default 1 and 1).
    pub num_needle_v: (usize, usize),
    /// What keys look like (default `words`).
    pub type_needle_k: ValueKind,
    /// What values look like (default `numbers`).
    pub type_needle_v: ValueKind,
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

impl Default for NiahConfig {
    fn default() -> Self {
        Self {
            haystack: Haystack::Essay,
            path: None,
            max_seq_length: 100_000,
            num_needle_k: 1,
            num_needle_v: (1, 1),
            type_needle_k: ValueKind::Words,
            type_needle_v: ValueKind::Numbers,
            seed: 42,
            sentences_per_chunk: (1, 4),
            chunks_per_prompt: (1, 1),
            sample_path: None,
            sample_idx: 0,
        }
    }
}

/// Keys with their values.
type Needles = Vec<(String, Vec<String>)>;

/// A made text and what is hidden in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedleText {
    /// The text.
    pub text: String,
    /// Each key with its values.
    pub needles: Vec<(String, Vec<String>)>,
}

impl NiahConfig {
    /// Makes the text; the same seed, haystack and tokenizer give the same one.
    ///
    /// # Errors
    /// If a field is out of its range, the haystack cannot be read, or the needles alone are longer
    /// than the text may be.
    pub fn generate(&self, codec: &SharedCodec) -> Result<NeedleText, ResourceError> {
        let (buried, needles) = self.made(codec, &mut Notes::default())?;
        Ok(NeedleText {
            text: buried.text,
            needles,
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
        check_range(
            KIND,
            "num_needle_v",
            self.num_needle_v,
            MAX_VALUES,
            "two numbers from 1 to 100, the first not above the second",
        )?;
        if !(1..=MAX_KEYS).contains(&self.num_needle_k) {
            let expected = "a number from 1 to 1152";
            return Err(burial.wrong("num_needle_k", self.num_needle_k, expected));
        }
        Ok(())
    }

    fn made(
        &self,
        codec: &SharedCodec,
        notes: &mut Notes,
    ) -> Result<(Buried, Needles), ResourceError> {
        self.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let sentence = |key: &str, value: &str| {
            let kind = self.type_needle_v.plural();
            format!("One of the special magic {kind} for {key} is: {value}.")
        };
        let keys = self
            .type_needle_k
            .draw_distinct(self.num_needle_k, &[], &mut rng);
        let mut needles = Vec::with_capacity(keys.len());
        for key in &keys {
            let (low, high) = self.num_needle_v;
            let count = rng.random_range(low..=high);
            let values = self.type_needle_v.draw_distinct(count, &[], &mut rng);
            needles.push((key.clone(), values));
        }
        let mut groups: Vec<Vec<String>> = needles
            .iter()
            .flat_map(|(key, values)| values.iter().map(|v| vec![sentence(key, v)]))
            .collect();
        groups.shuffle(&mut rng);
        let mut others = ChaCha8Rng::seed_from_u64(self.seed);
        others.set_stream(1);
        let mut other = || {
            let key = self.type_needle_k.draw_distinct(1, &keys, &mut others);
            let value = self.type_needle_v.draw(&mut others);
            sentence(&key.concat(), &value)
        };
        let burial = self.burial();
        let buried = burial.hide(&groups, &mut other, codec, &mut rng, notes)?;
        Ok((buried, needles))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::test_codec::ByteCodec;
    use crate::resource::loaded::{Drawing, LoadedResource};
    use crate::resource::{Resource, config::ResourceConfig};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn codec() -> SharedCodec {
        Arc::new(ByteCodec)
    }

    fn config() -> NiahConfig {
        NiahConfig {
            haystack: Haystack::Noise,
            max_seq_length: 2000,
            num_needle_k: 3,
            num_needle_v: (2, 2),
            ..NiahConfig::default()
        }
    }

    #[test]
    fn every_needle_is_there_once_and_the_length_is_kept() {
        for haystack in [Haystack::Noise, Haystack::Needle] {
            let config = NiahConfig {
                haystack,
                ..config()
            };
            let made = config.generate(&codec()).unwrap();
            assert!(
                (1800..=2000).contains(&made.text.len()),
                "{}",
                made.text.len()
            );
            assert_eq!(made.needles.len(), 3);
            for (key, values) in &made.needles {
                assert_eq!(values.len(), 2);
                for value in values {
                    let needle = format!("One of the special magic numbers for {key} is: {value}.");
                    assert_eq!(made.text.matches(&needle).count(), 1);
                }
                let about = format!("for {key} is");
                assert_eq!(made.text.matches(&about).count(), 2);
            }
            assert_eq!(config.generate(&codec()).unwrap(), made);
            let other = NiahConfig { seed: 43, ..config };
            assert_ne!(other.generate(&codec()).unwrap().needles, made.needles);
        }
    }

    #[test]
    fn the_users_text_is_the_haystack_and_is_repeated_if_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("essay.txt");
        let essay = "The lamp was lit at dusk every day. The keeper wrote the hour in a book.";
        std::fs::write(&path, essay).unwrap();
        let mut config = config();
        config.haystack = Haystack::Essay;
        assert!(config.generate(&codec()).is_err());
        config.path = Some(path);
        let source = ResourceConfig::Niah(config);
        let material = source.material(&codec()).unwrap();
        let resource = LoadedResource::new(material, codec(), &Drawing::default()).unwrap();
        assert!(resource.notes()[0].what.contains("repeated"));
        let text = resource.document().unwrap().text().to_owned();
        assert!(text.matches("lamp was lit").count() > 10);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let (context, _) = resource.sample(&mut rng, 1).unwrap();
            let run = context.split_once("\n\n").unwrap().1;
            assert!(text.contains(run) && run.ends_with('.'), "{run}");
            assert!((1..=4).contains(&run.matches('.').count()), "{run}");
        }
    }

    #[test]
    fn a_sample_of_the_reference_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("niah.json");
        let file = r#"{"config": {}, "samples": [{"context": "A. Some text is here now."}]}"#;
        std::fs::write(&path, file).unwrap();
        let mut config = config();
        config.sample_path = Some(path);
        let material = config.material(&codec()).unwrap();
        assert_eq!(material.text, "A. Some text is here now.");
        config.sample_idx = 1;
        let error = config.material(&codec()).err().unwrap().to_string();
        assert!(error.contains("samples/1/context"), "{error}");
    }

    #[test]
    fn wrong_fields_are_named() {
        type Change = fn(&mut NiahConfig);
        let wrong: [(&str, Change); 5] = [
            ("max_seq_length", |c| c.max_seq_length = 50),
            ("num_needle_k", |c| c.num_needle_k = 5000),
            ("num_needle_v", |c| c.num_needle_v = (3, 2)),
            ("sentences_per_chunk", |c| c.sentences_per_chunk = (0, 2)),
            ("chunks_per_prompt", |c| c.chunks_per_prompt = (1, 20_000)),
        ];
        for (field, change) in wrong {
            let mut config = config();
            change(&mut config);
            let error = config.generate(&codec()).unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn odd_haystacks_never_panic(
            text in "\\PC{0,120}", max in 1usize..600, keys in 0usize..4, values in 0usize..4,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("essay.txt");
            std::fs::write(&path, text).unwrap();
            let config = NiahConfig {
                haystack: Haystack::Essay,
                path: Some(path),
                max_seq_length: max,
                num_needle_k: keys,
                num_needle_v: (values, 2),
                ..NiahConfig::default()
            };
            if let Ok(made) = config.generate(&codec()) {
                prop_assert!(made.text.len() <= max);
            }
        }
    }
}
