//! `cartridges bench`: how fast this machine is at the work of the other commands.

mod requests;
mod serve;

use anyhow::Result;
use clap::{Args, Subcommand};

use self::serve::ServeBench;
use crate::opening::RuntimeArgs;

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

/// Runs the command.
///
/// # Errors
/// If the model cannot be used or the numbers do not fit it.
pub fn run(args: BenchArgs, runtime: &RuntimeArgs) -> Result<()> {
    match args.what {
        What::Serve(bench) => bench.run(runtime),
    }
}
