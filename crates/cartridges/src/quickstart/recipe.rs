//! The settings of the whole job.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cartridges_eval::MeasureOptions;
use cartridges_model::atomic_file::write_bytes;
use cartridges_study::seed_prompt::SeedType;
use cartridges_study::self_study::SelfStudyConfig;
use cartridges_train::{Recompute, TrainConfig};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::opening::settings;

/// What can be set from the command line.
#[derive(Debug, Clone, Args)]
pub struct RecipeArgs {
    /// TOML file with settings that differ from the recipe (`recipe.toml` in the output shows all of
    /// them); flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Conversations of self-study.
    #[arg(long, value_name = "N")]
    conversations: Option<usize>,
    /// Optimizer steps.
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Slots of the cartridge as a share of the document's tokens.
    #[arg(long, value_name = "SHARE")]
    ratio: Option<f64>,
    /// Slots of the cartridge, instead of a share.
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Put behind every question when measuring, under every condition alike.
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Seed of everything that is drawn.
    #[arg(long)]
    seed: Option<u64>,
    /// Leave out the second, small cartridge of a tenth of the document's tokens.
    #[arg(long)]
    no_tenth: bool,
}

/// The resolved settings; saved in the report.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Self-study.
    pub study: SelfStudyConfig,
    /// Training.
    pub train: TrainConfig,
    /// Slots as a share of the document's tokens.
    pub ratio: f64,
    /// Slots, instead of a share.
    pub slots: Option<usize>,
    /// Query vectors per head that matching looks at.
    pub max_queries: usize,
    /// Optimizer steps of the cartridge of a tenth of the document's tokens (0: none is made).
    pub tenth_steps: usize,
    /// Ask at most this many questions; by default all.
    pub questions: Option<usize>,
    /// Put behind every question when measuring, under every condition alike.
    pub instruction: String,
}

impl RecipeArgs {
    /// Defaults for the demo, or for a quick look, with the flags on top.
    pub fn resolve(&self, smoke: bool) -> Result<Recipe> {
        let mut recipe = if smoke { smoke_recipe() } else { full_recipe() };
        if let Some(path) = &self.config {
            recipe = changed(&recipe, settings(path)?)
                .with_context(|| format!("settings in {}", path.display()))?;
        }
        if let Some(n) = self.conversations {
            recipe.study.num_conversations = n;
        }
        if let Some(n) = self.steps {
            recipe.train.steps = n;
        }
        if let Some(ratio) = self.ratio {
            if !(ratio > 0.0 && ratio <= 1.0) {
                bail!("--ratio is {ratio}, expected more than 0, at most 1");
            }
            recipe.ratio = ratio;
        }
        if self.tokens.is_some_and(|n| n < 2) {
            bail!("--tokens must be at least 2: one slot is frozen and one must be trained");
        }
        recipe.slots = self.tokens.or(recipe.slots);
        if let Some(lr) = self.lr {
            recipe.train.lr = lr;
        }
        if let Some(instruction) = &self.instruction {
            recipe.instruction.clone_from(instruction);
        }
        if let Some(seed) = self.seed {
            recipe.study.seed = seed;
            recipe.train.seed = seed;
        }
        if self.no_tenth {
            recipe.tenth_steps = 0;
        }
        recipe.study.validate()?;
        recipe.train.validate()?;
        Ok(recipe)
    }
}

impl Recipe {
    /// Writes the settings to `recipe.toml` in the folder.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let text = toml::to_string_pretty(self)?;
        let path = folder.join("recipe.toml");
        Ok(write_bytes(&path, text.as_bytes())?)
    }
}

/// A recipe with some settings, in tables as deep as the recipe's, replaced.
fn changed(recipe: &Recipe, changes: toml::Table) -> Result<Recipe> {
    fn put(into: &mut toml::Table, changes: toml::Table) {
        for (name, value) in changes {
            match (into.get_mut(&name), value) {
                (Some(toml::Value::Table(inner)), toml::Value::Table(changes)) => {
                    put(inner, changes);
                }
                (_, value) => {
                    into.insert(name, value);
                }
            }
        }
    }
    let mut all = toml::Table::try_from(recipe)?;
    put(&mut all, changes);
    Ok(all.try_into()?)
}

/// Fits a bare laptop: see `docs/quickstart-notes.md` for what was tried.
fn full_recipe() -> Recipe {
    Recipe {
        study: SelfStudyConfig {
            num_conversations: 56,
            batch_size: 32,
            batches_in_parallel: 2,
            max_completion_tokens_a: 64,
            max_completion_tokens_b: 96,
            coverage_share: 0.8,
            brief_share: 0.7,
            seed_types: vec![
                SeedType::Structuring,
                SeedType::Summarization,
                SeedType::Question,
                SeedType::UseCase,
                SeedType::Creative,
            ],
            verbatim_repeats: 1,
            gaps_per_sentence: 6,
            ..SelfStudyConfig::default()
        },
        train: TrainConfig {
            steps: 170,
            packed_seq_length: 512,
            recompute: Recompute::Nothing,
            verbatim_weight: 2.0,
            save_every: 20,
            ..TrainConfig::default()
        },
        ratio: 0.25,
        slots: None,
        max_queries: 8192,
        tenth_steps: 40,
        questions: None,
        instruction: MeasureOptions::default().instruction,
    }
}

/// Everything once, in about a minute.
fn smoke_recipe() -> Recipe {
    let full = full_recipe();
    Recipe {
        study: SelfStudyConfig {
            num_conversations: 4,
            gaps_per_sentence: 1,
            batch_size: 4,
            max_completion_tokens_a: 24,
            max_completion_tokens_b: 24,
            verbatim_stride: 64,
            ..full.study
        },
        train: TrainConfig {
            steps: 2,
            packed_seq_length: 256,
            ..full.train
        },
        max_queries: 2048,
        tenth_steps: 0,
        questions: Some(4),
        ..full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_settings_of_a_recipe_can_be_changed() {
        let change = |text: &str| changed(&full_recipe(), toml::from_str(text).unwrap());
        let recipe = change("tenth_steps = 3\n[study]\nwords_per_gap = 7").unwrap();
        assert_eq!((recipe.tenth_steps, recipe.study.words_per_gap), (3, 7));
        assert_eq!(recipe.study.num_conversations, 56);
        assert_eq!(recipe.train, full_recipe().train);
        for wrong in ["steps = 3", "[study]\ngaps = 3", "ratio = \"a\""] {
            assert!(change(wrong).is_err(), "{wrong}");
        }
    }
}
