//! Many requests about one document: behind a cartridge, with an adapter, and with the document in the
//! prompt.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use cartridges_engine::{Engine, EngineOptions, GenerateRequest};
use cartridges_eval::{ConditionKind, Corpus, Machine, Report, Throughput};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::random_vectors;
use cartridges_transmute::{SweepOptions, untrained};
use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::requests::{answer, random_ids};
use super::subject::SubjectArgs;
use crate::figure;
use crate::opening::{RuntimeArgs, writable_folder};
use crate::provenance::{command, program, today};

/// Many requests behind one cartridge, with an adapter, with the whole document in the prompt and its prefix
/// kept, and with it anew in every prompt: all at the same budget of key/value memory. Prompts are random
/// tokens, answers have exactly the given length.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  cartridges bench serve --model smollm2-135m --requests 16 --cartridge-tokens 512\n  \
cartridges bench serve --document-tokens 1024,2048,4096 --max-batch 1,4,16 --out reports/speed"
)]
pub struct ServeBench {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Requests.
    #[arg(long, default_value_t = 16, value_name = "N")]
    requests: usize,
    /// Slots of the cartridge.
    #[arg(long, default_value_t = 512, value_name = "N")]
    cartridge_tokens: usize,
    /// Rank of the adapter's deltas, one at each o_proj; 0 leaves it out.
    #[arg(long, default_value_t = 32, value_name = "R")]
    adapter_rank: usize,
    /// Tokens of the document that they stand for, several with commas between; 0 leaves the comparison out.
    #[arg(long, default_value = "2048", value_delimiter = ',', value_name = "N")]
    document_tokens: Vec<usize>,
    /// Tokens of each question.
    #[arg(long, default_value_t = 32, value_name = "N")]
    prompt_tokens: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 64, value_name = "N")]
    new_tokens: usize,
    /// Requests that are answered together, several with commas between.
    #[arg(long, default_value = "1,16", value_delimiter = ',', value_name = "N")]
    max_batch: Vec<usize>,
    /// Tokens of key/value memory, the same for all.
    #[arg(long, default_value_t = 8192, value_name = "N")]
    kv_tokens: usize,
    /// Folder for report.json, which `cartridges report` makes a page of.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Also draw tokens per second as an SVG figure.
    #[arg(long, value_name = "FILE")]
    figure: Option<PathBuf>,
}

/// What stands before the requests.
#[derive(Clone, Copy)]
struct Before {
    kind: ConditionKind,
    name: &'static str,
    document_tokens: usize,
    /// Rows of keys and values for them.
    rows: usize,
    /// Whether these are kept between requests.
    cached: bool,
}

impl ServeBench {
    fn check(&self) -> Result<()> {
        if self.requests == 0 || self.prompt_tokens == 0 || self.new_tokens == 0 {
            bail!("--requests, --prompt-tokens and --new-tokens must be at least 1");
        }
        if self.cartridge_tokens < 2 {
            bail!("--cartridge-tokens must be at least 2");
        }
        if self.max_batch.contains(&0) {
            bail!("--max-batch must be at least 1");
        }
        Ok(())
    }

    pub(super) fn run(&self, runtime: &RuntimeArgs) -> Result<()> {
        self.check()?;
        if let Some(out) = &self.out {
            writable_folder(out)?;
        }
        let runtime = runtime.open()?;
        let model = self.subject.open(&runtime, None)?;
        let rows = self.rows(&model)?;
        if let Some(path) = &self.figure {
            let label = |row: &Throughput| format!("{}, {} at a time", row.condition, row.batch);
            let bars: Vec<(String, f64)> = rows
                .iter()
                .map(|row| (label(row), row.tokens_per_second))
                .collect();
            let title = format!(
                "{} requests, {} slots for {:?} tokens, {} tokens of KV memory · {}",
                self.requests,
                self.cartridge_tokens,
                self.document_tokens,
                self.kv_tokens,
                model.identity.id
            );
            figure::save_bars(path, &title, "tok/s", &bars)?;
        }
        let report = Report {
            program: program(),
            model: model.identity.id.clone(),
            corpus: Corpus {
                name: "random tokens".to_owned(),
                sha256: String::new(),
                tokens: self.document_tokens.iter().copied().max().unwrap_or(0),
            },
            questions: String::new(),
            suite: "throughput".to_owned(),
            command: command(),
            date: today(),
            machine: Machine::this(runtime.threads),
            recipe: json!({
                "device": runtime.choice.to_string(),
                "precision": model.decoder.precision().to_string(),
                "adapter_rank": self.adapter_rank,
            }),
            rows: Vec::new(),
            timings: Vec::new(),
            throughput: rows,
        };
        if let Some(out) = &self.out {
            report.save(out)?;
        }
        let mut out = std::io::stdout().lock();
        match self.json {
            true => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
            false => write!(out, "{}", report.table())?,
        }
        Ok(())
    }

    fn rows(&self, model: &Arc<LanguageModel>) -> Result<Vec<Throughput>> {
        let vocab = model.decoder.config().vocab_size as u32;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut ids = |count: usize| random_ids(&mut rng, count, vocab);
        let questions: Vec<Vec<u32>> = (0..self.requests)
            .map(|_| ids(self.prompt_tokens))
            .collect();
        let cartridge = random_vectors(&model.decoder, self.cartridge_tokens, 1, 1)?;
        let deltas = SweepOptions {
            rank: self.adapter_rank.max(1),
            ..SweepOptions::default()
        };
        let adapter = untrained(model.decoder.config(), &deltas, 1)?;
        let plain = |prompt: Vec<u32>| GenerateRequest::new(prompt, self.new_tokens);
        let mut rows = Vec::new();
        for &batch in &self.max_batch {
            let fresh = || {
                let options = EngineOptions {
                    max_batch: batch,
                    max_kv_rows: self.kv_tokens,
                    ..EngineOptions::default()
                };
                Engine::new(model.clone(), options)
            };
            let mut add = |engine: &mut Engine, before: Before, requests: Vec<GenerateRequest>| {
                let found = answer(before.name, engine, &requests, true)?;
                rows.push(Throughput {
                    condition: before.name.to_owned(),
                    kind: before.kind,
                    document_tokens: before.document_tokens,
                    rows: before.rows,
                    cached: before.cached,
                    batch,
                    requests: requests.len(),
                    prompt_tokens: self.prompt_tokens,
                    new_tokens: self.new_tokens,
                    kv_budget: self.kv_tokens,
                    kv_rows: found.kv_rows,
                    seconds: found.seconds,
                    tokens_per_second: found.tokens as f64 / found.seconds,
                    first_token_seconds: found.first_token_seconds,
                    between_tokens_seconds: found.between_tokens_seconds,
                    preemptions: found.preemptions,
                });
                anyhow::Ok(())
            };
            // What stands for the document costs the same whatever its length.
            let longest = self.document_tokens.iter().copied().max().unwrap_or(0);
            let mut engine = fresh();
            let handle = engine.add_cartridge(&cartridge)?;
            let behind: Vec<GenerateRequest> = questions
                .iter()
                .map(|question| GenerateRequest {
                    cartridges: vec![handle],
                    ..plain(question.clone())
                })
                .collect();
            // Once unmeasured, so that memory is there.
            answer("warm-up", &mut engine, &behind[..1], true)?;
            engine.forget_prefixes();
            let before = Before {
                kind: ConditionKind::Cartridge,
                name: "cartridge",
                document_tokens: longest,
                rows: self.cartridge_tokens,
                cached: false,
            };
            add(&mut engine, before, behind)?;
            drop(engine);
            if self.adapter_rank > 0 {
                let mut engine = fresh();
                let handle = engine.add_adapter(&adapter)?;
                let adapted = questions.iter().map(|question| GenerateRequest {
                    adapters: vec![handle],
                    ..plain(question.clone())
                });
                let before = Before {
                    kind: ConditionKind::Adapter,
                    name: "adapter",
                    rows: 0,
                    ..before
                };
                add(&mut engine, before, adapted.collect())?;
            }
            for &length in self.document_tokens.iter().filter(|length| **length > 0) {
                let document = ids(length);
                let whole = |salted: bool| {
                    let each = questions.iter().enumerate();
                    each.map(|(index, question)| {
                        let mut prompt = [document.as_slice(), question].concat();
                        if salted {
                            // Another first token, so that nothing is found again.
                            prompt[0] = index as u32 % vocab;
                        }
                        plain(prompt)
                    })
                    .collect()
                };
                let anew = Before {
                    kind: ConditionKind::Document,
                    name: "document, anew",
                    document_tokens: length,
                    rows: length,
                    cached: false,
                };
                let cached = Before {
                    name: "document, cached",
                    cached: true,
                    ..anew
                };
                add(&mut fresh(), cached, whole(false))?;
                add(&mut fresh(), anew, whole(true))?;
            }
        }
        Ok(rows)
    }
}
