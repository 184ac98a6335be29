//! `cartridges bench`: how fast this machine is at the work of the other commands.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cartridges_engine::{Engine, EngineOptions, GenerateRequest, RequestId, StepEvent};
use cartridges_model::cartridge::random_vectors;
use clap::{Args, Subcommand};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::figure;
use crate::opening::{ModelArgs, RuntimeArgs};

/// Measure how fast this machine is.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  cartridges bench serve --model smollm2-135m")]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    Serve(ServeBench),
}

/// Many requests behind one cartridge, one after the other and together, and the same with the whole
/// document in the prompt, at the same budget of key/value memory. Prompts are random tokens, answers
/// have exactly the given length.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  cartridges bench serve --model smollm2-135m --requests 16 --cartridge-tokens 512"
)]
struct ServeBench {
    #[command(flatten)]
    model: ModelArgs,
    /// Requests.
    #[arg(long, default_value_t = 16, value_name = "N")]
    requests: usize,
    /// Slots of the cartridge.
    #[arg(long, default_value_t = 512, value_name = "N")]
    cartridge_tokens: usize,
    /// Tokens of the document that it stands for; 0 leaves the comparison out.
    #[arg(long, default_value_t = 2048, value_name = "N")]
    document_tokens: usize,
    /// Tokens of each question.
    #[arg(long, default_value_t = 32, value_name = "N")]
    prompt_tokens: usize,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 64, value_name = "N")]
    new_tokens: usize,
    /// Requests that are answered together.
    #[arg(long, default_value_t = 16, value_name = "N")]
    max_batch: usize,
    /// Tokens of key/value memory, the same for all.
    #[arg(long, default_value_t = 8192, value_name = "N")]
    kv_tokens: usize,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Also draw tokens per second as an SVG figure.
    #[arg(long, value_name = "FILE")]
    figure: Option<PathBuf>,
}

/// One row of the result.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    seconds: f64,
    requests_per_second: f64,
    tokens_per_second: f64,
    /// Seconds from the submission to the first token, 50th and 95th percentile.
    first_token_seconds: [f64; 2],
    /// Seconds between tokens, 50th and 95th percentile.
    between_tokens_seconds: [f64; 2],
    kv_rows: usize,
    preemptions: u64,
}

/// Runs the command.
///
/// # Errors
/// If the model cannot be used or the numbers do not fit it.
pub fn run(args: BenchArgs, runtime: &RuntimeArgs) -> Result<()> {
    match args.what {
        What::Serve(bench) => bench.run(runtime),
    }
}

impl ServeBench {
    fn run(&self, runtime: &RuntimeArgs) -> Result<()> {
        if self.requests == 0 || self.prompt_tokens == 0 || self.new_tokens == 0 {
            bail!("--requests, --prompt-tokens and --new-tokens must be at least 1");
        }
        if self.cartridge_tokens < 2 {
            bail!("--cartridge-tokens must be at least 2");
        }
        let runtime = runtime.open()?;
        let model = self.model.open(&runtime)?;
        let vocab = model.decoder.config().vocab_size as u32;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut ids =
            |count: usize| -> Vec<u32> { (0..count).map(|_| rng.random_range(0..vocab)).collect() };
        let questions: Vec<Vec<u32>> = (0..self.requests)
            .map(|_| ids(self.prompt_tokens))
            .collect();
        let document = ids(self.document_tokens);
        let cartridge = random_vectors(&model.decoder, self.cartridge_tokens, 1, 1)?;
        let fresh = || {
            let options = EngineOptions {
                max_batch: self.max_batch.max(1),
                max_kv_rows: self.kv_tokens,
                ..EngineOptions::default()
            };
            Engine::new(model.clone(), options)
        };

        let mut rows = Vec::new();
        let mut engine = fresh();
        let handle = engine.add_cartridge(&cartridge)?;
        let behind: Vec<GenerateRequest> = questions
            .iter()
            .map(|question| GenerateRequest {
                cartridges: vec![handle],
                ..GenerateRequest::new(question.clone(), self.new_tokens)
            })
            .collect();
        // Once unmeasured, so that memory is there.
        measure("warm-up", &mut engine, &behind[..1], true)?;
        engine.forget_prefixes();
        rows.push(measure(
            "cartridge, one by one",
            &mut engine,
            &behind,
            false,
        )?);
        engine.forget_prefixes();
        rows.push(measure("cartridge, together", &mut engine, &behind, true)?);
        drop(engine);

        if self.document_tokens > 0 {
            let whole = |salted: bool| -> Vec<GenerateRequest> {
                questions
                    .iter()
                    .enumerate()
                    .map(|(index, question)| {
                        let mut prompt = [document.as_slice(), question].concat();
                        if salted {
                            // Another first token, so that nothing is found again.
                            prompt[0] = index as u32 % vocab;
                        }
                        GenerateRequest::new(prompt, self.new_tokens)
                    })
                    .collect()
            };
            let (name, requests) = ("document, prefix cached", whole(false));
            rows.push(measure(name, &mut fresh(), &requests, true)?);
            let (name, requests) = ("document in every prompt", whole(true));
            rows.push(measure(name, &mut fresh(), &requests, true)?);
        }
        if let Some(path) = &self.figure {
            let bars: Vec<_> = rows.iter().map(|r| (r.name, r.tokens_per_second)).collect();
            let title = format!(
                "{} requests, {} slots for {} tokens, {} tokens of KV memory · {}",
                self.requests,
                self.cartridge_tokens,
                self.document_tokens,
                self.kv_tokens,
                model.identity.id
            );
            std::fs::write(path, figure::bars(&title, "tok/s", &bars))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        let mut out = std::io::stdout().lock();
        if self.json {
            let result = serde_json::json!({
                "bench": "serve",
                "model": model.identity.id,
                "device": runtime.choice.to_string(),
                "threads": runtime.threads,
                "precision": model.decoder.precision().to_string(),
                "requests": self.requests,
                "cartridge_tokens": self.cartridge_tokens,
                "document_tokens": self.document_tokens,
                "prompt_tokens": self.prompt_tokens,
                "new_tokens": self.new_tokens,
                "max_batch": self.max_batch,
                "kv_tokens": self.kv_tokens,
                "rows": rows,
            });
            writeln!(out, "{result}")?;
            return Ok(());
        }
        writeln!(
            out,
            "{:<26} {:>8} {:>8} {:>8} {:>16} {:>16} {:>8}",
            "", "seconds", "req/s", "tok/s", "first p50/p95 s", "next p50/p95 ms", "KV rows"
        )?;
        for row in &rows {
            let [first, late] = row.first_token_seconds;
            let [next, slow] = row.between_tokens_seconds.map(|s| 1e3 * s);
            writeln!(
                out,
                "{:<26} {:>8.2} {:>8.2} {:>8.1} {:>16} {:>16} {:>8}",
                row.name,
                row.seconds,
                row.requests_per_second,
                row.tokens_per_second,
                format!("{first:.2} / {late:.2}"),
                format!("{next:.1} / {slow:.1}"),
                row.kv_rows
            )?;
        }
        Ok(())
    }
}

/// Answers all requests, submitted at once or each when the one before is answered.
fn measure(
    name: &'static str,
    engine: &mut Engine,
    requests: &[GenerateRequest],
    together: bool,
) -> Result<Row> {
    let begin = Instant::now();
    let before = engine.stats().preemptions;
    let mut first = Vec::new();
    let mut between = Vec::new();
    let mut tokens = 0;
    for group in requests.chunks(if together { requests.len() } else { 1 }) {
        // When each was submitted, and when its last token came.
        let mut last: HashMap<RequestId, (Instant, bool)> = HashMap::new();
        for request in group {
            last.insert(engine.submit(request.clone())?, (Instant::now(), false));
        }
        let mut problem = None;
        while engine.step(&mut |event| match event {
            StepEvent::Token { request, .. } => {
                tokens += 1;
                if let Some((since, begun)) = last.get_mut(&request) {
                    let seconds = since.elapsed().as_secs_f64();
                    match begun {
                        true => between.push(seconds),
                        false => first.push(seconds),
                    }
                    (*since, *begun) = (Instant::now(), true);
                }
            }
            StepEvent::Failed { error, .. } => problem = Some(error),
            StepEvent::Started { .. } | StepEvent::Finished { .. } => {}
        })? {}
        if let Some(error) = problem {
            bail!("{name}: {error}");
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let stats = engine.stats();
    Ok(Row {
        name,
        seconds,
        requests_per_second: requests.len() as f64 / seconds,
        tokens_per_second: f64::from(tokens) / seconds,
        first_token_seconds: percentiles(&mut first),
        between_tokens_seconds: percentiles(&mut between),
        kv_rows: stats.kv_rows_high_water,
        preemptions: stats.preemptions - before,
    })
}

/// The 50th and 95th percentile.
fn percentiles(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (share * values.len() as f64).ceil() as usize;
        values.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
    };
    [at(0.5), at(0.95)]
}

#[cfg(test)]
mod tests {
    use super::percentiles;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentiles(&mut values), [50.0, 95.0]);
        assert_eq!(percentiles(&mut [3.0]), [3.0, 3.0]);
        assert_eq!(percentiles(&mut []), [0.0, 0.0]);
    }
}
