//! The command line.
#![recursion_limit = "256"]

use std::ffi::{c_int, c_long};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use cartridges::commands::{
    adapter, bench, chat, compact, convert, doctor, eval, inspect, logits, pull, push, report,
    serve, synthesize, train, transmute,
};
use cartridges::{RuntimeArgs, quickstart};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Give a language model a long text once, as a cartridge: trained keys and values that stand
/// before every question.
#[derive(Debug, Parser)]
#[command(
    name = "cartridges",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Start here:\n  cartridges doctor       what this machine can do\n  \
cartridges quickstart   from a text to a cartridge that answers, with the numbers\n\n\
Results go to stdout, everything else to stderr. `cartridges COMMAND --help` has examples."
)]
struct Cli {
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Say more on stderr; twice for even more. RUST_LOG is the fine control.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Quickstart(Box<quickstart::QuickstartArgs>),
    Synthesize(Box<synthesize::SynthesizeArgs>),
    Train(Box<train::TrainArgs>),
    Transmute(Box<transmute::TransmuteArgs>),
    Adapter(Box<adapter::AdapterArgs>),
    Compact(Box<compact::CompactArgs>),
    Chat(Box<chat::ChatArgs>),
    Serve(Box<serve::ServeArgs>),
    Eval(Box<eval::EvalArgs>),
    Report(Box<report::ReportArgs>),
    Bench(Box<bench::BenchArgs>),
    Convert(Box<convert::ConvertArgs>),
    Inspect(Box<inspect::InspectArgs>),
    Push(Box<push::PushArgs>),
    Pull(Box<pull::PullArgs>),
    Logits(Box<logits::LogitsArgs>),
    Doctor(Box<doctor::DoctorArgs>),
}

fn main() -> ExitCode {
    keep_freed_memory();
    std::panic::set_hook(Box::new(report_panic));
    let cli = Cli::parse();
    start_logging(cli.verbose);
    let runtime = &cli.runtime;
    let result = match cli.command {
        Command::Quickstart(args) => quickstart::run(*args, runtime),
        Command::Synthesize(args) => synthesize::run(*args, runtime),
        Command::Train(args) => train::run(*args, runtime),
        Command::Transmute(args) => transmute::run(*args, runtime),
        Command::Adapter(args) => adapter::run(*args, runtime),
        Command::Compact(args) => compact::run(*args, runtime),
        Command::Serve(args) => serve::run(*args, runtime),
        Command::Chat(args) => chat::run(*args, runtime),
        Command::Eval(args) => eval::run(*args, runtime),
        Command::Report(args) => report::run(*args),
        Command::Bench(args) => bench::run(*args, runtime),
        Command::Convert(args) => convert::run(*args, runtime),
        Command::Inspect(args) => inspect::run(*args, runtime),
        Command::Push(args) => push::run(*args, runtime),
        Command::Pull(args) => pull::run(*args, runtime),
        Command::Logits(args) => logits::run(*args, runtime),
        Command::Doctor(args) => doctor::run(*args, runtime),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has enough of it, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Our own writes to stdout fail with a plain I/O error; one inside another error came from
/// elsewhere, such as a connection.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// An error and its causes in one line. A cause that its effect has already named is left out.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = one_line(&cause.to_string());
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn start_logging(verbose: u8) {
    let filter = match (verbose, std::env::var("RUST_LOG")) {
        (0, Ok(wanted)) if !wanted.is_empty() => EnvFilter::new(wanted),
        (0, _) => EnvFilter::new("warn"),
        (1, _) => EnvFilter::new("warn,cartridges=info"),
        (2, _) => EnvFilter::new("warn,cartridges=debug"),
        (_, _) => EnvFilter::new("info,cartridges=trace"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// A fault of this program, in one line.
fn report_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    // `println!` panics where a pipe is closed; see `is_broken_pipe`.
    if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
        std::process::exit(0);
    }
    let place = info
        .location()
        .map(|at| format!(" ({at})"))
        .unwrap_or_default();
    let _ = writeln!(
        io::stderr(),
        "internal error: {}{place}; please report it at {}/issues",
        one_line(text),
        env!("CARGO_PKG_REPOSITORY"),
    );
}

/// Keeps freed memory instead of giving it back to the system after a while: tensors of one layer
/// are the next layer's, and getting zeroed pages anew costs more than computing on them.
/// `MIMALLOC_PURGE_DELAY` overrides it.
fn keep_freed_memory() {
    /// `mi_option_purge_delay`, the same number in versions 2 and 3 of mimalloc.
    const PURGE_DELAY: c_int = 15;
    const NEVER: c_long = -1;
    unsafe extern "C" {
        /// In the library that the `mimalloc` crate links.
        fn mi_option_set(option: c_int, value: c_long);
    }
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the signature is that of mimalloc.h; there is no other thread yet, which is all
        // that this function asks for. An option out of range is ignored.
        unsafe { mi_option_set(PURGE_DELAY, NEVER) };
    }
}
