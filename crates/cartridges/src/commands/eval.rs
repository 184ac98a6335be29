//! `cartridges eval`: what cartridges and adapters hold of a text, and what one would do instead.

mod conditions;
mod kept;
mod served;
mod suite;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Result, bail};
use cartridges_engine::{Engine, EngineOptions};
use cartridges_eval::{Corpus, Machine, MeasureOptions, Measurement, Report, Suite, perplexity};
use cartridges_model::LanguageModel;
use clap::Args;
use serde_json::json;

use self::conditions::{Asked, ConditionArgs};
use self::kept::Kept;
use self::suite::SuiteArgs;
use crate::opening::{ModelArgs, RuntimeArgs, read_corpus, writable_folder};
use crate::pipeline::{ask, document_ids};
use crate::progress::progress;
use crate::provenance::{command, program, sha256, today};

/// Ask the same questions without a text, with it, behind cartridges and adapters, and as one would
/// otherwise.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Numbers per condition: NLL per token of the gold answers, how often the gold answer \
beats the others, how often the answer that the model writes is right, and the suite's own scores. With \
--out the same command goes on after it was stopped.\n\n\
Examples:\n  cartridges eval --questions questions.json --corpus handbook.txt --cartridge \
cartridges/handbook\n  cartridges eval longhealth --data benchmark_v5.json --only patient_01 --cartridge \
cartridges/p1 --baseline closed,icl,first-k,summary,retrieval --out reports/p1\n  cartridges eval mtob \
--data test_examples_ke.json --corpus grammar.txt --cartridge cartridges/kalamang\n  cartridges eval \
--questions a.json --questions b.json --cartridge cartridges/a --cartridge cartridges/b --together"
)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    suite: SuiteArgs,
    #[command(flatten)]
    behind: ConditionArgs,
    /// Servers that are asked the same questions (TOML, as for `synthesize --client`), with the cartridges
    /// that the file names before them.
    #[arg(long, value_name = "FILE", conflicts_with = "no_generate")]
    client: Option<PathBuf>,
    /// Do not let the model write answers: much faster.
    #[arg(long)]
    no_generate: bool,
    /// Answers per question, with a temperature.
    #[arg(long, value_name = "N", default_value_t = 1)]
    samples: usize,
    /// Temperature of the answers; 0 takes the likeliest word.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Most tokens of an answer. Default: the suite's.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// A text that has nothing to do with the document: its perplexity tells what else a condition
    /// changes.
    #[arg(long, value_name = "FILE")]
    unrelated: Option<PathBuf>,
    /// Put behind every question, under every condition alike. Default: the suite's.
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Seed of all that is drawn: other candidates, intervals, samples, what is hidden.
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
    args.behind.check()?;
    args.suite.check()?;
    if args.samples == 0 || (args.samples > 1 && args.temperature <= 0.0) {
        bail!("--samples must be at least 1, and more than one need a --temperature above 0");
    }
    let unrelated = args.unrelated.as_deref().map(read_corpus).transpose()?;
    let servers = args.client.as_deref().map(served::servers).transpose()?;
    if let Some(out) = &args.out {
        writable_folder(out)?;
    }
    let runtime = runtime.open()?;
    let model = args.model.open(&runtime)?;
    let mut suite = args.suite.load(&model, args.seed)?;
    args.adjust(&mut suite.options);
    let mut engine = Engine::new(model.clone(), EngineOptions::default());
    let conditions = args.behind.conditions(&mut engine, &suite)?;
    if conditions.is_empty() && servers.is_none() {
        bail!("nothing to ask behind: give --cartridge, --adapter or --corpus");
    }
    let mut kept = Kept::open(args.out.as_deref());
    let asking = asking(&model, &suite, unrelated.as_deref());
    let mut rows = Vec::with_capacity(conditions.len());
    for asked in conditions {
        let key = format!("{asking} {} {}", asked.condition.name, asked.digest);
        if let Some(row) = kept.get(&key) {
            eprintln!("measured {} (kept)", row.condition);
            rows.push(row.clone());
            continue;
        }
        let row = measured(&mut engine, &suite, &asked, unrelated.as_deref())?;
        kept.put(key, &row)?;
        rows.push(row);
    }
    if let Some(servers) = &servers {
        rows.push(served::served(servers, &model, &suite)?);
    }
    let report = Report {
        program: program(),
        model: model.identity.id.clone(),
        corpus: Corpus {
            name: args.suite.corpus_name(),
            sha256: suite.text.as_deref().map(sha256).unwrap_or_default(),
            tokens: match &suite.text {
                Some(text) => document_ids(&model, text)?.len(),
                None => 0,
            },
        },
        questions: suite.questions.id.clone(),
        date: today(),
        machine: Machine::this(runtime.threads),
        recipe: json!({
            "instruction": suite.options.instruction,
            "max_new_tokens": suite.options.max_new_tokens,
            "seed": suite.options.seed,
            "samples": suite.options.samples,
            "temperature": suite.options.temperature,
            "precision": model.decoder.precision().to_string(),
        }),
        rows,
        timings: Vec::new(),
        suite: suite.name.to_owned(),
        command: command(),
        throughput: Vec::new(),
    };
    if let Some(out) = &args.out {
        report.save(out)?;
    }
    kept.finish()?;
    let mut stdout = io::stdout().lock();
    match args.json {
        true => writeln!(stdout, "{}", serde_json::to_string_pretty(&report)?)?,
        false => {
            let (seed, samples) = (suite.options.seed, suite.options.samples);
            write!(stdout, "{}", report.table())?;
            writeln!(
                stdout,
                "\nseeds: 1 (seed {seed}) · answers to each question: {samples}"
            )?;
        }
    }
    Ok(())
}

impl EvalArgs {
    /// The suite's way of asking, as far as the command line says otherwise.
    fn adjust(&self, options: &mut MeasureOptions) {
        options.seed = self.seed;
        options.generate = !self.no_generate;
        options.samples = self.samples;
        options.temperature = self.temperature;
        if let Some(tokens) = self.max_new_tokens {
            options.max_new_tokens = tokens.max(1);
        }
        if let Some(instruction) = &self.instruction {
            options.instruction.clone_from(instruction);
        }
    }
}

/// Asks under one condition.
fn measured(
    engine: &mut Engine,
    suite: &Suite,
    asked: &Asked,
    unrelated: Option<&str>,
) -> Result<Measurement> {
    let mut row = ask(engine, &asked.condition, &suite.questions, &suite.options)?;
    row.build = asked.build;
    if let Some(text) = unrelated {
        let bar = progress(1, "reading", "tokens");
        row.unrelated = perplexity(engine, &asked.condition, text, &mut |done, all| {
            bar.set_total(all as u64);
            bar.set(done as u64, asked.condition.name.clone());
        })?;
    }
    Ok(row)
}

/// What all measurements are of: model, questions, and the way of asking.
fn asking(model: &LanguageModel, suite: &Suite, unrelated: Option<&str>) -> String {
    let all = json!([
        model.identity.weights_fingerprint,
        model.decoder.precision().to_string(),
        suite.questions,
        suite.options,
        suite.text,
        unrelated,
    ]);
    sha256(&all.to_string())
}
