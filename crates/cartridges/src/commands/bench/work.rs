//! One training step, one prompt, one token of several answers: against the clock and the machine's ceilings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cartridges_engine::{CartridgeHandle, Engine, EngineOptions, GenerateRequest};
use cartridges_eval::Machine;
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::random_vectors;
use cartridges_train::{PackedRow, Recompute, Target, TrainConfig, Trainer};
use clap::Args;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ceilings::Ceilings;
use super::cost::{Rows, bytes_read, forward_operations, training_operations};
use super::measured::{Measured, Results};
use super::peak;
use super::requests::{answer, percentiles, random_ids};
use super::subject::SubjectArgs;
use crate::figure;
use crate::opening::{RuntimeArgs, from_word};
use crate::provenance::{command, program, today};

/// What all kinds of work have in common.
#[derive(Debug, Clone, Args)]
struct Common {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Layers of random weights, several with commas between, in place of the known model's.
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "shape")]
    layers: Vec<usize>,
    /// Slots of the cartridge, several with commas between.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "256")]
    prefix: Vec<usize>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write the JSON object to a file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also draw the times as an SVG figure.
    #[arg(long, value_name = "FILE")]
    figure: Option<PathBuf>,
}

/// A training step: forwards, the loss over eight candidates at half of the positions, backwards to the
/// cartridge, Adam. Conversations of equal length stand side by side and see the cartridge and themselves.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  cartridges bench train --shape smollm2-135m --seq 512,2048\n  cartridges bench train \
--shape smollm2-135m --layers 6,12,24 --out layers.json"
)]
pub struct TrainBench {
    #[command(flatten)]
    common: Common,
    /// Tokens of a step, several with commas between.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "512")]
    seq: Vec<usize>,
    /// Tokens of each conversation.
    #[arg(long, value_name = "N", default_value_t = 256)]
    segment: usize,
    /// Measured steps; one goes before them.
    #[arg(long, value_name = "N", default_value_t = 5)]
    steps: usize,
    /// What is computed twice to save memory: layers, nothing, or auto, which is nothing for short rows.
    #[arg(long, default_value = "auto", value_parser = from_word::<Recompute>)]
    recompute: Recompute,
}

/// A prompt behind a cartridge, to the first token of its answer.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  cartridges bench prefill --shape smollm2-135m --seq 512,2048")]
pub struct PrefillBench {
    #[command(flatten)]
    common: Common,
    /// Tokens of the prompt, several with commas between.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "512")]
    seq: Vec<usize>,
    /// Measured prompts; one goes before them.
    #[arg(long, value_name = "N", default_value_t = 5)]
    steps: usize,
}

/// The next token of answers that are written together, all behind the same cartridge.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  cartridges bench decode --shape smollm2-135m --precision q8 --batch 1,4,16"
)]
pub struct DecodeBench {
    #[command(flatten)]
    common: Common,
    /// Answers that are written together, several with commas between.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    batch: Vec<usize>,
    /// Tokens of each answer.
    #[arg(long, value_name = "N", default_value_t = 32)]
    tokens: usize,
}

impl TrainBench {
    pub(super) fn run(&self, runtime: &RuntimeArgs) -> Result<()> {
        let Self {
            seq,
            segment,
            steps,
            ..
        } = self;
        not_zero("--segment", &[*segment])?;
        not_zero("--steps", &[*steps])?;
        if let Some(seq) = seq
            .iter()
            .find(|seq| !seq.is_multiple_of(*segment) || **seq == 0)
        {
            bail!("--seq {seq} is no multiple of --segment {segment}");
        }
        self.common
            .run("train", runtime, seq, &|model, prefix, seq| {
                let row = random_row(model, seq, *segment);
                let rows = Rows::packed(seq / segment, *segment, prefix);
                let decoder = &model.decoder;
                let config = TrainConfig {
                    steps: steps + 1,
                    recompute: self.recompute,
                    ..TrainConfig::default()
                };
                let start = random_vectors(decoder, prefix, 1, 1)?;
                let mut trainer = Trainer::new(decoder, &start, vec![row], config)?;
                let mut times = Vec::new();
                for _ in 0..=*steps {
                    let begin = Instant::now();
                    trainer.step()?;
                    decoder.device().sync().ok().context("the device failed")?;
                    times.push(begin.elapsed().as_secs_f64());
                }
                Ok(Found {
                    seconds: percentiles(&mut times[1..])[0],
                    tokens: seq,
                    together: seq / segment,
                    operations: training_operations(decoder.config(), rows),
                    bytes: None,
                })
            })
    }
}

impl PrefillBench {
    pub(super) fn run(&self, runtime: &RuntimeArgs) -> Result<()> {
        not_zero("--seq", &self.seq)?;
        not_zero("--steps", &[self.steps])?;
        let name = "prefill";
        self.common
            .run(name, runtime, &self.seq, &|model, prefix, seq| {
                let mut behind = Behind::new(model, prefix, 1, seq + 1)?;
                let mut times = Vec::new();
                for step in 0..=self.steps {
                    let requests = behind.requests(1, seq, 1, step as u64);
                    let found = answer("prompt", &mut behind.engine, &requests, false)?;
                    behind.engine.forget_prefixes();
                    times.push(found.first_token_seconds[0]);
                }
                let rows = Rows {
                    predicting: 1,
                    ..Rows::packed(1, seq, prefix)
                };
                Ok(Found {
                    seconds: percentiles(&mut times[1..])[0],
                    tokens: seq,
                    together: 1,
                    operations: forward_operations(model.decoder.config(), rows),
                    bytes: None,
                })
            })
    }
}

impl DecodeBench {
    pub(super) fn run(&self, runtime: &RuntimeArgs) -> Result<()> {
        not_zero("--batch", &self.batch)?;
        if self.tokens < 4 {
            bail!("--tokens must be at least 4, so that there is something to measure");
        }
        let (name, tokens) = ("decode", self.tokens);
        self.common
            .run(name, runtime, &self.batch, &|model, prefix, batch| {
                let mut behind = Behind::new(model, prefix, batch, tokens + 1)?;
                // Once unmeasured, so that memory is there.
                let short = behind.requests(batch, 1, 2, 0);
                answer("warm-up", &mut behind.engine, &short, true)?;
                let requests = behind.requests(batch, 1, tokens, 1);
                let found = answer("answers", &mut behind.engine, &requests, true)?;
                // On average half of an answer is there.
                let own = 1 + tokens / 2;
                let rows = Rows {
                    tokens: batch,
                    predicting: batch,
                    pairs: batch * (prefix + own),
                };
                Ok(Found {
                    seconds: found.between_tokens_seconds[0],
                    tokens: batch,
                    together: batch,
                    operations: forward_operations(model.decoder.config(), rows),
                    bytes: Some(bytes_read(&model.decoder, prefix + batch * own)),
                })
            })
    }
}

/// What one piece of work took, and what it needs.
struct Found {
    seconds: f64,
    tokens: usize,
    together: usize,
    operations: f64,
    bytes: Option<f64>,
}

/// Measures a model behind so many slots, at one size.
type Measure<'a> = dyn Fn(&Arc<LanguageModel>, usize, usize) -> Result<Found> + 'a;

impl Common {
    fn run(
        &self,
        work: &'static str,
        runtime: &RuntimeArgs,
        sizes: &[usize],
        measure: &Measure<'_>,
    ) -> Result<()> {
        if let Some(few) = self.prefix.iter().find(|slots| **slots < 2) {
            bail!("--prefix {few}: a cartridge has at least 2 slots");
        }
        not_zero("--layers", &self.layers)?;
        let runtime = runtime.open()?;
        let depths: Vec<Option<usize>> = match self.layers.as_slice() {
            [] => vec![None],
            layers => layers.iter().copied().map(Some).collect(),
        };
        let mut rows = Vec::new();
        let mut about = None;
        for depth in depths {
            let model = self.subject.open(&runtime, depth)?;
            let decoder = &model.decoder;
            for &prefix in &self.prefix {
                for &size in sizes {
                    peak::reset();
                    let found = measure(&model, prefix, size)?;
                    let per_s = |count: f64| count / found.seconds / 1e9;
                    rows.push(Measured {
                        layers: decoder.config().num_layers,
                        prefix,
                        tokens: found.tokens,
                        together: found.together,
                        seconds: found.seconds,
                        tokens_per_s: found.tokens as f64 / found.seconds,
                        gflops: per_s(found.operations),
                        gb_per_s: found.bytes.map(per_s),
                        peak_bytes: peak::bytes(),
                        weight_bytes: decoder.resident_bytes() as u64,
                    });
                }
            }
            about.get_or_insert_with(|| (model.identity.id.clone(), decoder.precision()));
        }
        let Some((model, precision)) = about else {
            unreachable!("there is at least one depth");
        };
        if let Some(path) = &self.figure {
            let bar = |row: &Measured| {
                let Measured { layers, prefix, .. } = row;
                let label = format!("{layers} layers, {prefix} slots, {} tokens", row.tokens);
                (label, 1e3 * row.seconds)
            };
            let bars: Vec<(String, f64)> = rows.iter().map(bar).collect();
            let title = format!("{}, {precision} · {model}", work);
            figure::save_bars(path, &title, "ms", &bars)?;
        }
        let results = Results {
            work,
            model,
            precision: precision.to_string(),
            device: runtime.choice.to_string(),
            machine: Machine::this(runtime.threads),
            program: program(),
            command: command(),
            date: today(),
            ceilings: Ceilings::measure(&runtime, precision)?,
            rows,
        };
        results.show(self.json, self.out.as_deref())
    }
}

/// An engine with a cartridge of random keys and values.
struct Behind {
    engine: Engine,
    handle: CartridgeHandle,
    vocab: u32,
}

impl Behind {
    /// For `batch` requests of at most `rows` tokens with their answers.
    fn new(model: &Arc<LanguageModel>, prefix: usize, batch: usize, rows: usize) -> Result<Self> {
        /// Room for the rounding to blocks.
        const SPARE: usize = 64;
        let options = EngineOptions {
            max_batch: batch,
            max_kv_rows: 2 * (prefix + SPARE + batch * (rows + SPARE)),
            prefill_rows: batch * rows,
            ..EngineOptions::default()
        };
        let mut engine = Engine::new(model.clone(), options);
        let handle = engine.add_cartridge(&random_vectors(&model.decoder, prefix, 1, 1)?)?;
        Ok(Self {
            engine,
            handle,
            vocab: model.decoder.config().vocab_size as u32,
        })
    }

    /// Requests with prompts of random tokens and answers of exactly `new` tokens.
    fn requests(&self, count: usize, prompt: usize, new: usize, seed: u64) -> Vec<GenerateRequest> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut ids = || random_ids(&mut rng, prompt, self.vocab);
        (0..count)
            .map(|_| GenerateRequest {
                cartridges: vec![self.handle],
                ..GenerateRequest::new(ids(), new)
            })
            .collect()
    }
}

/// Conversations of random tokens side by side, with eight candidates at every other position.
fn random_row(model: &LanguageModel, seq: usize, segment: usize) -> PackedRow {
    const CANDIDATES: u32 = 8;
    let vocab = model.decoder.config().vocab_size as u32;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut row = PackedRow {
        ids: random_ids(&mut rng, seq, vocab),
        lengths: vec![segment; seq / segment],
        ..PackedRow::default()
    };
    for first in (0..seq).step_by(segment) {
        for position in (first + 1..first + segment).step_by(2) {
            row.positions += 1.0;
            let candidate = rng.random_range(0..vocab);
            row.targets.extend((0..CANDIDATES).map(|next| Target {
                position: position as u32,
                id: (candidate + next) % vocab,
                weight: 1.0 / CANDIDATES as f32,
            }));
        }
    }
    row
}

fn not_zero(name: &str, values: &[usize]) -> Result<()> {
    if values.contains(&0) {
        bail!("{name} must be at least 1");
    }
    Ok(())
}
