//! `cartridges compact`: a cartridge without any training.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use cartridges_engine::{Engine, EngineOptions};
use cartridges_eval::{Condition, MeasureOptions, QuestionList};
use cartridges_model::cartridge::{CartridgeDtype, save};
use clap::Args;
use serde_json::json;

use super::inspect::table::{bytes, fields};
use crate::opening::{ModelArgs, RuntimeArgs, read_corpus, writable_folder};
use crate::pipeline::{Init, MatchArgs, SizeArgs, StartArgs, ask, document_ids, read_data, start};
use crate::provenance::{program, sha256};

/// Make a cartridge of a text in closed form, without any training.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The text goes through the model twice: once to be read, once more, word for word, to \
ask for what it says. Then each head keeps the keys that answer best, and values that make up for the \
others. A text longer than the model's window is taken in chunks. What is left out is lost for good: \
`cartridges train` with the same text gets most of it back.\n\nExamples:\n  cartridges compact --corpus \
handbook.txt --ratio 0.25 --out cartridges/handbook\n  cartridges compact --corpus handbook.txt --tokens \
512 --data runs/handbook/dataset.parquet --questions questions.json --out cartridges/handbook"
)]
pub struct CompactArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text.
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// Conversations of `cartridges synthesize` about it, as further reference; may repeat.
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    size: SizeArgs,
    #[command(flatten)]
    matching: MatchArgs,
    /// Folder for the cartridge.
    #[arg(long, value_name = "DIR", env = "CARTRIDGES_OUTPUT_DIR")]
    out: PathBuf,
    /// Ask these questions behind it (JSON, see `cartridges quickstart --help`).
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// The result as JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If text, data, questions, model or folder cannot be used, or matching fails.
pub fn run(args: CompactArgs, runtime: &RuntimeArgs) -> Result<()> {
    let args_of_start = StartArgs {
        init: Init::Matching,
        size: args.size,
        matching: args.matching,
        ..StartArgs::default()
    };
    args_of_start.check()?;
    let questions = args
        .questions
        .as_deref()
        .map(QuestionList::from_file)
        .transpose()?;
    let text = read_corpus(&args.corpus)?;
    let conversations = match args.data.is_empty() {
        true => Vec::new(),
        false => read_data(&args.data)?,
    };
    writable_folder(&args.out)?;
    let model = args.model.open(&runtime.open()?)?;
    let tokens = document_ids(&model, &text)?.len();
    let begin = Instant::now();
    let made = start(&model, &args_of_start, Some(&text), &conversations, 0)?;
    let seconds = begin.elapsed().as_secs_f64();
    let made_by = json!({
        "program": program(),
        "corpus_sha256": sha256(&text),
        "start": made.how,
        "seconds": seconds,
    });
    let cartridge = &made.cartridge;
    save(
        &args.out,
        cartridge,
        &model.identity,
        &made_by,
        CartridgeDtype::F32,
    )?;

    let size = cartridge.byte_len(CartridgeDtype::F32);
    let share = cartridge.slots as f64 / tokens as f64;
    let errors: Vec<f64> = serde_json::from_value(made.how["output_errors"].clone())?;
    let error = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    let head_slots: Vec<usize> = serde_json::from_value(made.how["head_slots"].clone())?;
    let mut result = json!({
        "tokens": tokens,
        "chunks": made.how["chunks"],
        "slots": cartridge.slots,
        "head_slots": head_slots,
        "bytes": size,
        "share": share,
        "output_error": error,
        "seconds": seconds,
        "out": args.out,
    });
    let mut rows = vec![
        (
            "document",
            format!("{tokens} tokens, {} chunk(s)", made.how["chunks"]),
        ),
        (
            "cartridge",
            format!(
                "{} slots, {} in f32: {:.1} % of the document's keys and values",
                cartridge.slots,
                bytes(size as u64),
                100.0 * share
            ),
        ),
        ("slots of a head", of_heads(&head_slots)),
        (
            "output error",
            format!("{error:.3} of the attention output, mean over layers"),
        ),
        ("time", format!("{seconds:.1} s without loading the model")),
    ];
    if let Some(questions) = &questions {
        let mut engine = Engine::new(model.clone(), EngineOptions::default());
        let handle = engine.add_cartridge(cartridge)?;
        let condition = Condition::cartridge("cartridge", handle, cartridge.slots);
        let row = ask(
            &mut engine,
            &condition,
            questions,
            &MeasureOptions::default(),
        )?;
        let count = questions.questions.len();
        rows.push(("questions", format!("{count}: {}", row.in_words())));
        result["questions"] = json!({
            "count": count,
            "nll": row.nll.map(|e| e.value),
            "choice": row.choice_accuracy.map(|e| e.value),
            "generated": row.generated_accuracy.map(|e| e.value),
        });
    }
    rows.push(("written", args.out.display().to_string()));
    let mut stdout = io::stdout().lock();
    match args.json {
        true => writeln!(stdout, "{result:#}")?,
        false => write!(stdout, "{}", fields(&rows))?,
    }
    Ok(())
}

/// Slots of the heads in words; with fewer than the cartridge has, the rest is padding.
fn of_heads(slots: &[usize]) -> String {
    let (least, most) = (slots.iter().min(), slots.iter().max());
    match (least, most) {
        (Some(least), Some(most)) if least < most => {
            let mean = slots.iter().sum::<usize>() as f64 / slots.len() as f64;
            format!("{mean:.1} on average, {least} to {most}, the rest is padding")
        }
        _ => "all the same".to_owned(),
    }
}
