//! `cartridges eval`: what cartridges and adapters hold of a document, by questions.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use cartridges_engine::{Engine, EngineOptions};
use cartridges_eval::{
    Condition, Corpus, Machine, MeasureOptions, QuestionList, Report, perplexity,
};
use cartridges_model::LanguageModel;
use cartridges_study::self_study::SelfStudyConfig;
use clap::Args;
use serde_json::json;

use crate::opening::{
    ModelArgs, RuntimeArgs, load_adapter, load_cartridge, read_corpus, writable_folder,
};
use crate::pipeline::{ask, document_ids};
use crate::provenance::{command, program, sha256, today};

/// Ask the same questions without the document, with it, and behind cartridges and adapters.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Three numbers per condition: NLL per token of the gold answers, how often the gold \
answer beats three others of the list, and how often the answer that the model writes is right.\n\n\
Examples:\n  cartridges eval --questions questions.json --corpus handbook.txt --cartridge \
cartridges/handbook\n  cartridges eval --questions questions.json --cartridge cartridges/a --cartridge \
cartridges/b --together"
)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Questions with short answers (JSON, see `cartridges quickstart --help`).
    #[arg(long, value_name = "FILE")]
    questions: PathBuf,
    /// The document they are about: adds the condition of having it in the context, and the share of
    /// the gap that each cartridge closes.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// A cartridge, a folder or a .pt file; may repeat, each is asked alone.
    #[arg(long = "cartridge", value_name = "DIR")]
    cartridges: Vec<PathBuf>,
    /// An adapter folder; may repeat, each is asked alone.
    #[arg(long = "adapter", value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// Also ask behind all cartridges and adapters at once, in the order given.
    #[arg(long)]
    together: bool,
    /// Accept cartridges and adapters made for other weights of the same shape.
    #[arg(long)]
    allow_other_weights: bool,
    /// Ask only the first N questions.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Leave out the condition without document.
    #[arg(long)]
    skip_no_document: bool,
    /// Do not let the model write answers: much faster.
    #[arg(long)]
    no_generate: bool,
    /// A text that has nothing to do with the document: its perplexity tells what else a condition
    /// changes.
    #[arg(long, value_name = "FILE")]
    unrelated: Option<PathBuf>,
    /// Put behind every question, under every condition alike.
    #[arg(long, value_name = "TEXT", default_value_t = MeasureOptions::default().instruction)]
    instruction: String,
    /// Seed of the other candidates and of the intervals.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for report.json (with every answer) and report.txt.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The report as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If questions, text, model, a cartridge or an adapter cannot be used, or Ctrl-C ends it.
pub fn run(args: EvalArgs, runtime: &RuntimeArgs) -> Result<()> {
    if args.together && args.cartridges.len() + args.adapters.len() < 2 {
        bail!("--together needs at least two of --cartridge and --adapter");
    }
    let mut questions = QuestionList::from_file(&args.questions)?;
    questions
        .questions
        .truncate(args.limit.unwrap_or(usize::MAX).max(1));
    let corpus = args.corpus.as_deref().map(read_corpus).transpose()?;
    let unrelated = args.unrelated.as_deref().map(read_corpus).transpose()?;
    if let Some(out) = &args.out {
        writable_folder(out)?;
    }
    let runtime = runtime.open()?;
    let model = args.model.open(&runtime)?;
    let mut engine = Engine::new(model.clone(), EngineOptions::default());
    let conditions = args.conditions(&mut engine, corpus.as_deref())?;
    if conditions.is_empty() {
        bail!("nothing to ask behind: give --cartridge, --adapter or --corpus");
    }
    let options = MeasureOptions {
        instruction: args.instruction.clone(),
        seed: args.seed,
        generate: !args.no_generate,
        ..MeasureOptions::default()
    };
    let rows = conditions
        .iter()
        .map(|condition| {
            let mut row = ask(&mut engine, condition, &questions, &options)?;
            if let Some(text) = &unrelated {
                row.unrelated = perplexity(&mut engine, condition, text)?;
            }
            Ok(row)
        })
        .collect::<Result<Vec<_>>>()?;
    let report = Report {
        program: program(),
        model: model.identity.id.clone(),
        corpus: about_corpus(&args, corpus.as_deref(), &model)?,
        questions: questions.id.clone(),
        date: today(),
        machine: Machine::this(runtime.threads),
        recipe: json!({
            "instruction": options.instruction,
            "max_new_tokens": options.max_new_tokens,
            "seed": options.seed,
            "precision": model.decoder.precision().to_string(),
        }),
        rows,
        timings: Vec::new(),
        suite: String::new(),
        command: command(),
        throughput: Vec::new(),
    };
    if let Some(out) = &args.out {
        report.save(out)?;
    }
    let mut stdout = io::stdout().lock();
    match args.json {
        true => writeln!(stdout, "{}", serde_json::to_string_pretty(&report)?)?,
        false => write!(stdout, "{}", report.table())?,
    }
    Ok(())
}

impl EvalArgs {
    /// What is asked behind, with all cartridges and adapters resident in the engine.
    fn conditions(&self, engine: &mut Engine, corpus: Option<&str>) -> Result<Vec<Condition>> {
        let model = Arc::clone(engine.model());
        let mut conditions = Vec::new();
        if !self.skip_no_document {
            conditions.push(Condition::no_document("no document"));
        }
        if let Some(text) = corpus {
            let system = SelfStudyConfig::default().system_prompt(text);
            conditions.push(Condition::document("document in context", system));
        }
        let mut together = Condition::no_document("together");
        for path in &self.cartridges {
            let (host, _) = load_cartridge(path, &model, self.allow_other_weights)?;
            let handle = engine.add_cartridge(&host)?;
            conditions.push(Condition::cartridge(name(path), handle, host.slots));
            together = together.with_cartridge(handle, host.slots);
        }
        for path in &self.adapters {
            let host = load_adapter(path, &model, self.allow_other_weights)?;
            let handle = engine.add_adapter(&host)?;
            conditions.push(Condition::no_document(name(path)).with_adapter(handle));
            together = together.with_adapter(handle);
        }
        if self.together {
            conditions.push(together);
        }
        Ok(conditions)
    }
}

/// The document as reports name it; all empty where none was given.
fn about_corpus(args: &EvalArgs, text: Option<&str>, model: &LanguageModel) -> Result<Corpus> {
    Ok(Corpus {
        name: args.corpus.as_deref().map(name).unwrap_or_default(),
        sha256: text.map(sha256).unwrap_or_default(),
        tokens: match text {
            Some(text) => document_ids(model, text)?.len(),
            None => 0,
        },
    })
}

/// The last part of a path.
fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
