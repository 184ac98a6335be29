//! What is compared: cartridges, adapters, and what one would do instead.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use cartridges_engine::Engine;
use cartridges_eval::{Build, Condition, ConditionKind, Retriever, Suite};
use cartridges_model::LanguageModel;
use cartridges_study::resource::file_name;
use cartridges_study::self_study::SelfStudyConfig;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::opening::{load_adapter, load_cartridge, read_json};
use crate::pipeline::summarize;

/// Tokens of a piece that retrieval finds.
const PIECE: usize = 64;
/// Rows that a prompt has besides document, question and answer.
const ROOM: usize = 64;

/// What one would do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Baseline {
    /// The question alone.
    Closed,
    /// The whole text in the context, or as much of its beginning as fits.
    Icl,
    /// Of the text's beginning as many tokens as the largest cartridge has slots.
    FirstK,
    /// A summary of that length, by the model itself.
    Summary,
    /// What BM25 finds for each question, of that length.
    Retrieval,
}

/// What is asked behind.
#[derive(Debug, Clone, Args)]
pub struct ConditionArgs {
    /// A cartridge, a folder or a .pt file; may repeat, each is asked alone.
    #[arg(long = "cartridge", value_name = "DIR")]
    cartridges: Vec<PathBuf>,
    /// An adapter folder; may repeat, each is asked alone.
    #[arg(long = "adapter", value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// Also ask behind all cartridges and adapters at once, in the order given.
    #[arg(long)]
    together: bool,
    /// What to compare with, with commas between; all but closed need the text.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "closed,icl")]
    baseline: Vec<Baseline>,
    /// Tokens of first-k, summary and retrieval. Default: the slots of the largest cartridge, or a tenth of
    /// the text.
    #[arg(long, value_name = "N")]
    baseline_tokens: Option<usize>,
    /// Leave out the condition without document.
    #[arg(long)]
    skip_no_document: bool,
    /// Accept cartridges and adapters made for other weights of the same shape.
    #[arg(long)]
    allow_other_weights: bool,
}

/// One condition, with what its report says besides.
pub struct Asked {
    /// The condition.
    pub condition: Condition,
    /// What it took to make it.
    pub build: Option<Build>,
    /// What tells it from others of the same name.
    pub digest: String,
}

impl Asked {
    fn of(condition: Condition, digest: impl Into<String>) -> Self {
        Self {
            condition,
            build: None,
            digest: digest.into(),
        }
    }
}

impl ConditionArgs {
    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// If `--together` has nothing to put together.
    pub fn check(&self) -> Result<()> {
        if self.together && self.cartridges.len() + self.adapters.len() < 2 {
            bail!("--together needs at least two of --cartridge and --adapter");
        }
        Ok(())
    }

    /// All conditions, with their cartridges and adapters resident in the engine; what one would do instead
    /// comes first.
    ///
    /// # Errors
    /// If a cartridge or an adapter cannot be used, or a baseline lacks the text.
    pub fn conditions(&self, engine: &mut Engine, suite: &Suite) -> Result<Vec<Asked>> {
        let model = Arc::clone(engine.model());
        let mut own = Vec::new();
        let mut together = Asked::of(Condition::no_document("together"), "");
        let mut most = 0;
        for path in &self.cartridges {
            let (host, _) = load_cartridge(path, &model, self.allow_other_weights)?;
            let handle = engine.add_cartridge(&host)?;
            most = most.max(host.slots);
            let condition = Condition::cartridge(file_name(path), handle, host.slots);
            own.push(made(condition, path, "cartridge"));
            together.condition = together.condition.with_cartridge(handle, host.slots);
        }
        for path in &self.adapters {
            let (host, _) = load_adapter(path, &model, self.allow_other_weights)?;
            let handle = engine.add_adapter(&host)?;
            let condition = Condition::no_document(file_name(path)).with_adapter(handle);
            own.push(made(condition, path, "adapter"));
            together.condition = together.condition.with_adapter(handle);
        }
        if self.together {
            let parts: Vec<&str> = own.iter().map(|asked| asked.digest.as_str()).collect();
            together.digest = parts.join(" ");
            own.push(together);
        }
        let mut all = self.baselines(&model, suite, most)?;
        all.extend(own);
        Ok(all)
    }

    fn baselines(
        &self,
        model: &Arc<LanguageModel>,
        suite: &Suite,
        most: usize,
    ) -> Result<Vec<Asked>> {
        let mut all = Vec::new();
        let wanted = |baseline: Baseline| self.baseline.contains(&baseline);
        if wanted(Baseline::Closed) && !self.skip_no_document {
            all.push(Asked::of(Condition::no_document("no document"), ""));
        }
        let Some(text) = &suite.text else {
            let lacking = [Baseline::FirstK, Baseline::Summary, Baseline::Retrieval];
            if lacking.into_iter().any(wanted) {
                bail!("first-k, summary and retrieval need the text: give --corpus");
            }
            return Ok(all);
        };
        let system = |text: &str| SelfStudyConfig::default().system_prompt(text);
        let ids = model.text.encode(text, false)?;
        let beginning = |count: usize| -> Result<String> {
            match ids.get(..count) {
                Some(first) => Ok(model.text.decode(first, false)?),
                None => Ok(text.clone()),
            }
        };
        if wanted(Baseline::Icl) {
            let fits = room(model, suite)?;
            let name = match ids.len() > fits {
                true => format!("first {fits} tokens of {} in context", ids.len()),
                false => "document in context".to_owned(),
            };
            all.push(Asked::of(
                Condition::document(name, system(&beginning(fits)?)),
                "icl",
            ));
        }
        let slots = if most > 0 { most } else { ids.len() / 10 };
        let tokens = self.baseline_tokens.unwrap_or(slots).max(1);
        if wanted(Baseline::FirstK) {
            let condition = Condition::document(
                format!("first {tokens} tokens"),
                system(&beginning(tokens)?),
            );
            let condition = condition.called(ConditionKind::Beginning);
            all.push(Asked::of(condition, "first-k"));
        }
        if wanted(Baseline::Summary) {
            let summary = summarize(model, text, tokens)?.text;
            let name = format!("summary of {tokens} tokens");
            let condition = Condition::document(name, system(&summary));
            all.push(Asked::of(condition.called(ConditionKind::Summary), summary));
        }
        if wanted(Baseline::Retrieval) {
            const MARKER: &str = "\u{1}";
            let around = system(MARKER);
            let (before, behind) = around.split_once(MARKER).unwrap_or((&around, ""));
            let around = (before.to_owned(), behind.to_owned());
            let retriever = Retriever::new(text, &model.text, PIECE.min(tokens), tokens, around)?;
            let name = format!("retrieval of {tokens} tokens");
            all.push(Asked::of(Condition::retrieval(name, retriever), "bm25"));
        }
        Ok(all)
    }
}

/// Tokens of a document that fit before the longest question and its answer.
fn room(model: &LanguageModel, suite: &Suite) -> Result<usize> {
    let mut longest = 0;
    for question in &suite.questions.questions {
        let earlier = question.earlier.iter().flat_map(|(a, b)| [a, b]);
        let mut tokens = 0;
        for text in earlier.chain([&question.question, &suite.options.instruction]) {
            tokens += model.text.encode(text, false)?.len() + ROOM;
        }
        let answers = question.answers.iter().chain(&question.options);
        let mut answer = suite.options.max_new_tokens;
        for text in answers {
            answer = answer.max(model.text.encode(text, false)?.len());
        }
        longest = longest.max(tokens + answer);
    }
    let window = model.decoder.config().max_position_embeddings;
    let fits = window.saturating_sub(longest + ROOM);
    if fits == 0 {
        bail!("the questions alone fill the model's {window} positions");
    }
    Ok(fits)
}

/// A condition with what a folder says of itself.
fn made(condition: Condition, path: &Path, kind: &str) -> Asked {
    let manifest = path.join(format!("{kind}.json"));
    let about = read_json(&manifest, 64 << 20).unwrap_or(Value::Null);
    let seconds = about["made_by"]["seconds"].as_f64();
    let tensors = std::fs::metadata(path.join(format!("{kind}.safetensors")));
    let bytes = tensors.or_else(|_| std::fs::metadata(path));
    Asked {
        build: seconds.map(|seconds| Build {
            seconds,
            bytes: bytes.map_or(0, |file| file.len()),
        }),
        digest: match about["sha256"].as_str() {
            Some(digest) => digest.to_owned(),
            None => path.display().to_string(),
        },
        condition,
    }
}
