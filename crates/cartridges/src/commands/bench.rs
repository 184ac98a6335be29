//! `cartridges bench`: how fast this machine is at the work of the other commands.

mod ceilings;
mod cost;
mod measured;
mod peak;
mod requests;
mod serve;
mod subject;
mod work;

use anyhow::Result;
use clap::{Args, Subcommand};

pub(crate) use self::ceilings::{host_copy_gb_per_s, matmul_gflops};
use self::serve::ServeBench;
use self::work::{DecodeBench, PrefillBench, TrainBench};
use crate::opening::RuntimeArgs;

/// Measure how fast this machine is.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  cartridges bench decode --shape smollm2-135m --batch 1,16\n  cartridges bench serve --model \
smollm2-135m"
)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    Train(TrainBench),
    Prefill(PrefillBench),
    Decode(DecodeBench),
    Serve(ServeBench),
}

/// Runs the command.
///
/// # Errors
/// If the model cannot be used or the numbers do not fit it.
pub fn run(args: BenchArgs, runtime: &RuntimeArgs) -> Result<()> {
    match args.what {
        What::Train(bench) => bench.run(runtime),
        What::Prefill(bench) => bench.run(runtime),
        What::Decode(bench) => bench.run(runtime),
        What::Serve(bench) => bench.run(runtime),
    }
}
