//! `cartridges transmute`: what a text does to a model, as weight deltas.

mod background;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::Tensor;
use cartridges_engine::Flow;
use cartridges_model::LanguageModel;
use cartridges_model::adapter::{HostAdapter, save_adapter};
use cartridges_model::cartridge::{Cartridge, CartridgeDtype};
use cartridges_study::conversation::Conversation;
use cartridges_study::parquet::read_conversations;
use cartridges_transmute::{
    CorpusId, Material, PairOptions, RefineOptions, RidgeOptions, Sites, StatisticsFolder,
    StudentContext, SweepOptions, TargetStatistics, Weighting, pair, reference_adapter, refine,
    sweep, untrained, validation_divergence,
};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::interrupt::stop_flag;
use crate::opening::{
    ModelArgs, RuntimeArgs, from_word, load_adapter, load_cartridge, writable_folder,
};
use crate::progress::progress;
use crate::provenance::program;

/// Solve a thought adapter: weight deltas that make the model answer as if it saw the text.
///
/// The teacher reads each conversation with its text, the student without; layer by layer the deltas of
/// the maps of `--sites` are solved by regression on the states of both, and then refined by distillation. An
/// adapter is approximate: a trained cartridge usually is more faithful. It costs nothing when it is
/// used, and adds to a cartridge if it was solved behind one.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  cartridges synthesize --corpus handbook.txt --out runs/handbook\n  cartridges \
transmute --data runs/handbook/dataset.parquet --out adapters/handbook\n  \
cartridges chat --adapter adapters/handbook\n\nSlower, but it keeps more of the text and harms less beside it; the \
background is texts of many kinds:\n  cartridges transmute --data runs/handbook/dataset.parquet --out strong \\\n      \
--estimator zero --sites both --refine 150 --lr 2e-3 --refine-preserve 8 \\\n      \
--background story.txt --background paper.txt\n  cartridges adapter scale strong --by 0.7 --out adapters/handbook"
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
    /// Where the deltas come from: ridge, the closed form; zero, nothing, so that distillation trains them
    /// as LoRA; or reference, the estimator of the reference, to compare with.
    #[arg(long, value_enum, default_value_t = Estimator::Ridge)]
    estimator: Estimator,
    /// An adapter to refine, in place of solving one.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["estimator", "keep_statistics"])]
    from: Option<PathBuf>,
    /// Rank of the delta of each map.
    #[arg(long, value_name = "R", default_value_t = SweepOptions::default().rank)]
    rank: usize,
    /// Steps of distillation after the closed form; 0 for none.
    #[arg(long, value_name = "STEPS", default_value_t = RefineOptions::default().steps)]
    refine: usize,
    /// Learning rate of the distillation.
    #[arg(long, default_value_t = RefineOptions::default().lr)]
    lr: f64,
    /// Layers with a delta: upper, the upper half, which holds a text with far less harm to all else; all;
    /// or FIRST-LAST.
    #[arg(long, value_name = "LAYERS", default_value = "upper", value_parser = layers, overrides_with = "layers")]
    layers: LayerChoice,
    /// Maps with a delta: down (mlp.down_proj), output (self_attn.o_proj) or both.
    #[arg(long, default_value = "output", value_parser = from_word::<Sites>)]
    sites: Sites,
    /// What a token of an answer counts: uniform, or divergence, what the text changes there.
    #[arg(long, default_value = "uniform", value_parser = from_word::<Weighting>)]
    weighting: Weighting,
    /// What a token of a question counts against one of an answer.
    #[arg(long, value_name = "WEIGHT", default_value_t = SweepOptions::default().questions)]
    questions: f32,
    /// Ridge of the regression, relative to each input's energy. Default: at each map the one that serves the
    /// validation conversations best.
    #[arg(long)]
    ridge: Option<f64>,
    /// How much the background counts against the conversations in the closed form.
    #[arg(long, value_name = "WEIGHT", default_value_t = RidgeOptions::default().preserve)]
    preserve: f64,
    /// How much the background counts against the conversations in the distillation.
    #[arg(long, value_name = "WEIGHT", default_value_t = RefineOptions::default().background)]
    refine_preserve: f64,
    /// Texts at which the model is to stay as it is; may repeat. Without any, its own answers to general
    /// questions and its own texts are taken.
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

/// `--estimator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Estimator {
    /// The closed form.
    Ridge,
    /// Factors that change nothing.
    Zero,
    /// That of the reference, behind the final norm.
    Reference,
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

/// `--layers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerChoice {
    /// The upper half.
    Upper,
    /// All.
    All,
    /// From one to another.
    Range(usize, usize),
}

fn layers(text: &str) -> Result<LayerChoice, String> {
    let parts = text.split_once('-').unwrap_or((text, text));
    match (text, parts.0.parse(), parts.1.parse()) {
        ("upper", ..) => Ok(LayerChoice::Upper),
        ("all", ..) => Ok(LayerChoice::All),
        (_, Ok(first), Ok(last)) => Ok(LayerChoice::Range(first, last)),
        _ => Err(format!(
            "'{text}' is not upper, all, or FIRST-LAST such as 12-23"
        )),
    }
}

impl TransmuteArgs {
    fn sweep(&self, layers: usize) -> SweepOptions {
        SweepOptions {
            layers: match self.layers {
                LayerChoice::Upper => Some((layers / 2, layers.saturating_sub(1))),
                LayerChoice::All => None,
                LayerChoice::Range(first, last) => Some((first, last)),
            },
            sites: self.sites,
            rank: self.rank,
            weighting: self.weighting,
            questions: self.questions,
            ridge: RidgeOptions {
                ridge: self.ridge.unwrap_or(RidgeOptions::default().ridge),
                preserve: self.preserve,
                ..RidgeOptions::default()
            },
            search_ridge: self.ridge.is_none(),
            ..SweepOptions::default()
        }
    }

    fn refinement(&self) -> RefineOptions {
        RefineOptions {
            steps: self.refine,
            lr: self.lr,
            background: self.refine_preserve,
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
    };
    let begin = Instant::now();
    let start = args.start(&model, &material)?;
    let mut report = json!({
        "program": program(),
        "data": corpora.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        "student_context": args.student_context.to_string(),
        "pairing": pairing,
        "divergence": { "before": start.before, "start": start.after },
        "seconds": begin.elapsed().as_secs_f64(),
    });
    for (name, value) in start.how {
        report[name] = value;
    }
    let save = |adapter: &HostAdapter, report: &Value| {
        save_adapter(
            &args.out,
            adapter,
            &model.identity,
            report,
            CartridgeDtype::F32,
        )
    };
    save(&start.adapter, &report)?;
    let mut reached = start.after;
    let refining = args.refinement();
    if refining.steps > 0 && args.estimator != Estimator::Reference {
        report["refinement"] = json!(refining);
        let bar = progress(refining.steps as u64, "refining", "steps");
        let stop = stop_flag();
        let refined = refine(&material, &start.adapter, &refining, &mut |step, better| {
            bar.set(step.step as u64, format!("loss {:.4}", step.loss));
            if let Some(adapter) = better {
                report["divergence"]["refined"] = json!(step.look.map(|look| look.divergence));
                report["background_divergence"] = json!(step.look.map(|look| look.background));
                report["refined_steps"] = json!(step.step);
                report["seconds"] = json!(begin.elapsed().as_secs_f64());
                save(adapter, &report)?;
            }
            Ok(match stop.load(Ordering::Relaxed) {
                true => Flow::Stop,
                false => Flow::Continue,
            })
        })?;
        reached = refined.after.divergence;
        let (before, after) = (refined.before.background, refined.after.background);
        eprintln!(
            "background {before:.4} nats per token from the untouched model before the refinement, {after:.4} now"
        );
        if stop.load(Ordering::Relaxed) {
            bail!(
                "the refinement was stopped; the best so far is in {out}, and --from {out} goes on with it",
                out = args.out.display()
            );
        }
    }
    println!(
        "adapter of {} patches in {} · divergence from the teacher {:.4} nats per token without, {:.4} \
         at the start, {:.4} now",
        start.adapter.patches().len(),
        args.out.display(),
        start.before,
        start.after,
        reached,
    );
    if reached >= start.before {
        eprintln!(
            "warning: the model with this adapter is no nearer to the one that sees the text; give more \
             conversations, or refine longer (--from {} --refine STEPS)",
            args.out.display()
        );
    }
    Ok(())
}

/// An adapter before it is refined.
struct Start {
    adapter: HostAdapter,
    /// How it was made, by names in the report.
    how: Vec<(&'static str, Value)>,
    /// Divergence on the validation conversations without it.
    before: f64,
    /// The same with it.
    after: f64,
}

impl TransmuteArgs {
    fn start(&self, model: &LanguageModel, material: &Material<'_>) -> Result<Start> {
        let (adapter, how) = match (&self.from, self.estimator) {
            (Some(path), _) => {
                let (adapter, manifest) = load_adapter(path, model, false)?;
                (adapter, vec![("from", manifest.made_by)])
            }
            (None, Estimator::Ridge) => return self.solve(material),
            (None, Estimator::Zero) => {
                let layers = model.decoder.config().num_layers;
                let sweep = self.sweep(layers);
                let maps = sweep.targets(layers)?;
                let adapter = untrained(model.decoder.config(), &sweep, self.seed)?;
                (
                    adapter,
                    vec![("zero", json!({ "rank": sweep.rank, "targets": maps }))],
                )
            }
            (None, Estimator::Reference) => {
                let adapter = reference_adapter(material, None)?;
                (adapter, vec![("estimator", json!("reference"))])
            }
        };
        let (before, after) = validation_divergence(material, &adapter)?;
        Ok(Start {
            adapter,
            how,
            before,
            after,
        })
    }

    /// The closed form, with progress.
    fn solve(&self, material: &Material<'_>) -> Result<Start> {
        let layers = material.decoder.config().num_layers;
        let options = self.sweep(layers);
        let maps = options.targets(layers)?;
        let bar = progress(maps.len() as u64, "solving", "maps");
        let mut keep = |statistics: &TargetStatistics| match self.keep_statistics {
            true => StatisticsFolder::of(&self.out).save(statistics),
            false => Ok(()),
        };
        let mut solved = 0;
        let swept = sweep(material, &options, &mut keep, &mut |report| {
            solved += 1;
            let (fit, held) = (report.explained, report.held_out);
            bar.set(solved, format!("explained {fit:.2}, held out {held:.2}"));
        })?;
        let Some(adapter) = swept.adapter()? else {
            bail!(
                "no delta brought the student nearer to the teacher (divergence {:.4} nats per \
                 token): is the text in the conversations' system prompts, and is there enough data?",
                swept.before
            );
        };
        Ok(Start {
            adapter,
            how: vec![("sweep", json!(options)), ("targets", json!(swept.targets))],
            before: swept.before,
            after: swept.after,
        })
    }
}
