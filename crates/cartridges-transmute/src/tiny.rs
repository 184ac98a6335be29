//! A tiny model and conversations of random ids, for tests.

use std::path::{Path, PathBuf};

use cartridges_model::decoder::{Decoder, ModelConfig};
use cartridges_model::weights::Weights;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::extract::{Group, Pairs, Turns};
use crate::statistics::CorpusId;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

pub fn load(folder: &Path) -> Decoder {
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open_folder(folder).unwrap();
    Decoder::load(
        config,
        &weights,
        &cartridges_ops::test_device(),
        &mut |_, _| (),
    )
    .unwrap()
}

pub fn decoder() -> Decoder {
    load(&fixture("tiny-qwen2"))
}

fn ids(rng: &mut impl Rng, count: usize) -> Vec<u32> {
    (0..count).map(|_| rng.random_range(0..200)).collect()
}

/// Conversations of 12 ids.
pub fn texts(seed: u64, count: usize) -> Vec<Vec<u32>> {
    let turns = &pairs(seed, 1, count, true).groups[0].turns;
    turns.iter().map(|turns| turns.ids.clone()).collect()
}

/// `groups` prompts of 20 ids with `each` conversations of 12; the student has three ids instead, or the
/// same prompt.
pub fn pairs(seed: u64, groups: usize, each: usize, prompted: bool) -> Pairs {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let corpus = CorpusId::of(&seed.to_le_bytes());
    let groups = (0..groups).map(|_| {
        let teacher = ids(&mut rng, 20);
        let student = match prompted {
            true => teacher[..3].to_vec(),
            false => teacher.clone(),
        };
        let turns = (0..each).map(|_| Turns {
            corpus,
            ids: ids(&mut rng, 12),
            fit: (4..11).collect(),
            first: 0,
        });
        Group {
            turns: turns.collect(),
            teacher,
            student,
        }
    });
    Pairs {
        groups: groups.collect(),
        left_out: 0,
    }
}
