//! One question behind a cartridge, through the library; `cartridges chat` is the whole conversation.
//!
//! ```console
//! cargo run --release --example cartridge_chat -- quickstart/cartridge "Who is the chief engineer?"
//! ```

use std::path::PathBuf;

use anyhow::Result;
use cartridges::prelude::*;
use cartridges::{ModelArgs, RuntimeArgs, load_cartridge};
use cartridges_engine::StopRules;
use cartridges_eval::prompt_ids;
use clap::Parser;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// A cartridge folder, or a .pt file of the paper's code.
    cartridge: PathBuf,
    /// What to ask.
    question: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = args.model.open(&args.runtime.open()?)?;
    let (cartridge, _) = load_cartridge(&args.cartridge, &model, false)?;
    let prompt = prompt_ids(&model.text, None, true, &[ChatMessage::user(args.question)])?;
    let stop = StopRules {
        ids: model.text.stop_ids(),
        strings: Vec::new(),
    };
    let mut engine = Engine::new(model, EngineOptions::default());
    let request = GenerateRequest {
        cartridges: vec![engine.add_cartridge(&cartridge)?],
        stop,
        ..GenerateRequest::new(prompt, 256)
    };
    for answer in engine.generate(&[request], &mut |_| cartridges_engine::Flow::Continue)? {
        println!("{}", answer.text);
    }
    Ok(())
}
