//! `cartridges transmute`: what a text does to a model, as weight deltas.

mod background;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use burn::tensor::Tensor;
use cartridges_model::LanguageModel;
use cartridges_model::adapter::save_adapter;
use cartridges_model::cartridge::{Cartridge, CartridgeDtype};
use cartridges_study::conversation::Conversation;
use cartridges_study::parquet::read_conversations;
use cartridges_transmute::{
    CorpusId, Material, PairOptions, RefineOptions, RidgeOptions, Sites, StatisticsFolder,
    StudentContext, SweepOptions, TargetStatistics, Weighting, pair, refine, sweep,
};
use clap::Args;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde_json::json;

use crate::opening::{ModelArgs, RuntimeArgs, load_cartridge, writable_folder};
use crate::progress::progress;
use crate::provenance::program;

/// Solve a thought adapter: weight deltas that make the model answer as if it saw the text.
///
/// The teacher reads each conversation with its text, the student without; layer by layer the deltas of
/// `mlp.down_proj` are solved by regression on the states of both, and then refined by distillation. An
/// adapter is approximate: a trained cartridge usually is more faithful. It costs nothing when it is
/// used, and adds to a cartridge if it was solved behind one.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  cartridges synthesize --corpus handbook.txt --out runs/handbook\n  cartridges \
transmute --data runs/handbook/dataset.parquet --out adapters/handbook --rank 32 --refine 100\n  \
cartridges chat --adapter adapters/handbook"
)]
pub struct TransmuteArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Conversations of self-study (parquet), one file per corpus; may repeat.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Folder for the adapter and the report.
    #[arg(long, value_name = "DIR", env = "CARTRIDGES_OUTPUT_DIR")]
    out: PathBuf,
    /// Rank of the delta of each layer.
    #[arg(long, value_name = "R", default_value_t = SweepOptions::default().rank)]
    rank: usize,
    /// Steps of distillation after the closed form; 0 for none.
    #[arg(long, value_name = "STEPS", default_value_t = RefineOptions::default().steps)]
    refine: usize,
    /// Learning rate of the distillation.
    #[arg(long, default_value_t = RefineOptions::default().lr)]
    lr: f64,
    /// Layers with a delta, as FIRST-LAST; all by default.
    #[arg(long, value_name = "FIRST-LAST", value_parser = layers)]
    layers: Option<(usize, usize)>,
    /// Maps with a delta: down (mlp.down_proj), output (self_attn.o_proj) or both.
    #[arg(long, default_value = "down", value_parser = from_word::<Sites>)]
    sites: Sites,
    /// What a token of an answer counts: uniform, or divergence, what the text changes there.
    #[arg(long, default_value = "uniform", value_parser = from_word::<Weighting>)]
    weighting: Weighting,
    /// What a token of a question counts against one of an answer.
    #[arg(long, value_name = "WEIGHT", default_value_t = SweepOptions::default().questions)]
    questions: f32,
    /// Ridge of the regression, relative to each input's energy.
    #[arg(long, default_value_t = RidgeOptions::default().ridge)]
    ridge: f64,
    /// How much the background counts against the conversations.
    #[arg(long, default_value_t = RidgeOptions::default().preserve)]
    preserve: f64,
    /// Texts at which the model is to stay as it is; may repeat. Without any, its own answers to general
    /// questions are taken.
    #[arg(long, value_name = "FILE")]
    background: Vec<PathBuf>,
    /// What the student sees instead of the text: none, window:N (its first N tokens) or cartridge:DIR.
    #[arg(long, value_name = "WHAT", default_value = "none")]
    student_context: ContextChoice,
    /// Every so manieth conversation is kept for validation, which decides on each delta.
    #[arg(long, value_name = "N", default_value_t = 8)]
    validate_every: usize,
    /// At most so many conversations of each file.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Keep the statistics of each layer and corpus in OUT/statistics: they add up and can be taken out
    /// again. A file has the square of the feed-forward width times 8 bytes.
    #[arg(long)]
    keep_statistics: bool,
    /// Seed of the distillation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Accept a cartridge made with other weights of the same shape, such as another quantisation.
    #[arg(long)]
    allow_other_weights: bool,
}

/// `--student-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextChoice {
    /// Nothing.
    None,
    /// The first so many tokens of the text.
    Window(usize),
    /// A cartridge.
    Cartridge(PathBuf),
}

impl FromStr for ContextChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let window = |n: &str| n.parse().ok().filter(|n| *n > 0).map(Self::Window);
        let found = match text.split_once(':') {
            None if text == "none" => Some(Self::None),
            Some(("window", tokens)) => window(tokens),
            Some(("cartridge", dir)) if !dir.is_empty() => Some(Self::Cartridge(dir.into())),
            _ => None,
        };
        found.ok_or_else(|| format!("'{text}' is not none, window:N or cartridge:DIR"))
    }
}

impl fmt::Display for ContextChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Window(tokens) => write!(f, "window:{tokens}"),
            Self::Cartridge(dir) => write!(f, "cartridge:{}", dir.display()),
        }
    }
}

/// A setting by the word that stands for it in files.
fn from_word<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    T::deserialize(word.into_deserializer())
        .map_err(|error: serde::de::value::Error| error.to_string())
}

fn layers(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('-').unwrap_or((text, text));
    match (parts.0.parse(), parts.1.parse()) {
        (Ok(first), Ok(last)) => Ok((first, last)),
        _ => Err(format!("'{text}' is not FIRST-LAST, such as 4-20")),
    }
}

impl TransmuteArgs {
    fn sweep(&self) -> SweepOptions {
        SweepOptions {
            layers: self.layers,
            sites: self.sites,
            rank: self.rank,
            weighting: self.weighting,
            questions: self.questions,
            ridge: RidgeOptions {
                ridge: self.ridge,
                preserve: self.preserve,
                ..RidgeOptions::default()
            },
            ..SweepOptions::default()
        }
    }

    fn refinement(&self) -> RefineOptions {
        RefineOptions {
            steps: self.refine,
            lr: self.lr,
            seed: self.seed,
            ..RefineOptions::default()
        }
    }

    fn pairing(&self) -> PairOptions {
        PairOptions {
            student: match self.student_context {
                ContextChoice::None => StudentContext::None,
                ContextChoice::Window(tokens) => StudentContext::Window(tokens),
                ContextChoice::Cartridge(_) => StudentContext::Cartridge,
            },
            ..PairOptions::default()
        }
    }

    /// The conversations of each file with the file's identity.
    fn conversations(&self) -> Result<Vec<(CorpusId, Vec<Conversation>)>> {
        let read = |path: &PathBuf| {
            let bytes =
                std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            Ok((CorpusId::of(&bytes), read_conversations(path, self.limit)?))
        };
        let all: Vec<(CorpusId, Vec<Conversation>)> =
            self.data.iter().map(read).collect::<Result<_>>()?;
        for (at, (id, _)) in all.iter().enumerate() {
            if all[..at].iter().any(|(known, _)| known == id) {
                bail!("{} is given twice", self.data[at].display());
            }
        }
        Ok(all)
    }

    /// Keys and values of the student's cartridge, layer by layer; none without one.
    fn past(&self, model: &LanguageModel) -> Result<Vec<(Tensor<3>, Tensor<3>)>> {
        let ContextChoice::Cartridge(path) = &self.student_context else {
            return Ok(Vec::new());
        };
        let (host, _) = load_cartridge(path, model, self.allow_other_weights)?;
        let cartridge = Cartridge::from_host(&host, model.decoder.device());
        Ok((0..cartridge.num_layers())
            .map(|l| cartridge.layer(l))
            .collect())
    }
}

/// Runs the command.
///
/// # Errors
/// If data, model or folder cannot be used, or no delta brings the student nearer to the teacher.
pub fn run(args: TransmuteArgs, runtime: &RuntimeArgs) -> Result<()> {
    writable_folder(&args.out)?;
    let corpora = args.conversations()?;
    let model = args.model.open(&runtime.open()?)?;
    let past = args.past(&model)?;
    let pairing = args.pairing();
    let all = corpora
        .iter()
        .flat_map(|(id, all)| all.iter().map(|c| (*id, c)));
    let vocab_size = model.decoder.config().vocab_size;
    let mut fit = pair(all, &model.text, vocab_size, &pairing)?;
    let validation = fit.split_off(args.validate_every);
    if validation.positions() == 0 {
        bail!(
            "no conversation is left for validation: give more data or a smaller --validate-every"
        );
    }
    let background = background::texts(&model, &args.background)?;
    eprintln!(
        "transmute {} positions to fit, {} to validate, {} of background · {} conversations left out",
        fit.positions(),
        validation.positions(),
        background.iter().map(Vec::len).sum::<usize>(),
        fit.left_out,
    );
    let material = Material {
        decoder: &model.decoder,
        past: &past,
        fit: &fit,
        validation: &validation,
        background: &background,
        sink: pairing.sink,
    };
    let options = args.sweep();
    let bar = progress(
        options.maps(model.decoder.config().num_layers) as u64,
        "solving",
        "maps",
    );
    let mut keep = |statistics: &TargetStatistics| match args.keep_statistics {
        true => StatisticsFolder::of(&args.out).save(statistics),
        false => Ok(()),
    };
    let mut solved = 0;
    let swept = sweep(&material, &options, &mut keep, &mut |report| {
        solved += 1;
        let note = format!(
            "explained {:.2}, held out {:.2}",
            report.explained, report.held_out
        );
        bar.set(solved, note);
    })?;
    drop(bar);
    let Some(mut adapter) = swept.adapter()? else {
        bail!(
            "no delta brought the student nearer to the teacher (divergence {:.4} nats per \
             token): is the text in the conversations' system prompts, and is there enough data?",
            swept.before
        );
    };
    let mut reached = swept.after;
    let refining = args.refinement();
    if refining.steps > 0 {
        let bar = progress(refining.steps as u64, "refining", "steps");
        let refined = refine(&material, &adapter, &refining, &mut |step| {
            bar.set(step.step as u64, format!("loss {:.4}", step.loss));
        })?;
        reached = refined.after;
        adapter = refined.adapter;
    }
    let made_by = json!({
        "program": program(),
        "data": corpora.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        "student_context": args.student_context.to_string(),
        "pairing": pairing,
        "sweep": options,
        "refinement": refining,
        "targets": swept.targets,
        "divergence": { "before": swept.before, "closed_form": swept.after, "refined": reached },
    });
    save_adapter(
        &args.out,
        &adapter,
        &model.identity,
        &made_by,
        CartridgeDtype::F32,
    )?;
    println!(
        "adapter of {} patches in {} · divergence from the teacher {:.4} nats per token without, {:.4} \
         with the closed form, {:.4} refined",
        adapter.patches().len(),
        args.out.display(),
        swept.before,
        swept.after,
        reached,
    );
    Ok(())
}
