//! `cartridges chat`: talk with a model, behind cartridges or not.

mod lines;
mod session;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use cartridges_engine::{Engine, EngineOptions, Sampling};
use clap::Args;
use serde_json::json;

use self::lines::{Line, Lines};
use self::session::{Answer, Ending, Session};
use crate::opening::{ModelArgs, RuntimeArgs, load_adapter, load_cartridge};
use crate::stop_flag;

/// Talk with a model that has read your text: ask questions behind a cartridge.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "In the conversation: /undo drops the last question and its answer, /clear \
starts anew, /help lists the commands, /quit or Ctrl-D ends. Ctrl-C stops an answer.

Examples:
  cartridges chat                                    the model alone
  cartridges chat --cartridge cartridges/handbook    behind a cartridge
  cartridges chat --cartridge a --cartridge b        behind two, one after the other
  cartridges chat --cartridge cartridges/handbook --prompt \"Who may sign?\" --json
  cartridges chat --system \"$(cat handbook.txt)\"    the text itself, to compare"
)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A cartridge before the conversation: a folder or a .pt file; may repeat, in this order.
    #[arg(long = "cartridge", value_name = "DIR")]
    cartridges: Vec<PathBuf>,
    /// An adapter of the model: a folder; may repeat, they add up.
    #[arg(long = "adapter", value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// A system message. Only without a cartridge, which stands in its place.
    #[arg(long, value_name = "TEXT", conflicts_with = "cartridges")]
    system: Option<String>,
    /// Ask this one question and end.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Longest answer, in tokens.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: u32,
    /// 0 always takes the most likely token; 1 draws from the model's own distribution.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Draw from this many most likely tokens only (0: all).
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw from the most likely tokens that together have this probability (1: all).
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// Leave out tokens less likely than this share of the most likely one (0: none).
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f32,
    /// Start of the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Accept cartridges and adapters made with other weights of the same shape, such as another quantisation.
    #[arg(long)]
    allow_other_weights: bool,
    /// With --prompt: one JSON object with text, finish, tokens and seconds.
    #[arg(long, requires = "prompt")]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If the model, a cartridge or an adapter cannot be used, or an answer fails.
pub fn run(args: ChatArgs, runtime: &RuntimeArgs) -> Result<()> {
    for (noun, paths) in [("cartridge", &args.cartridges), ("adapter", &args.adapters)] {
        if let Some(path) = paths.iter().find(|path| !path.exists()) {
            bail!("{noun} {} does not exist", path.display());
        }
    }
    let model = args.model.open(&runtime.open()?)?;
    let mut engine = Engine::new(model.clone(), EngineOptions::default());
    let mut handles = Vec::with_capacity(args.cartridges.len());
    for path in &args.cartridges {
        let (host, manifest) = load_cartridge(path, &model, args.allow_other_weights)?;
        handles.push(engine.add_cartridge(&host)?);
        eprintln!("cartridge {} · {} slots", path.display(), host.slots);
        if manifest.is_none() {
            eprintln!("note: a .pt file does not say for which weights it was made");
        }
    }
    let mut adapters = Vec::with_capacity(args.adapters.len());
    for path in &args.adapters {
        let (host, _) = load_adapter(path, &model, args.allow_other_weights)?;
        adapters.push(engine.add_adapter(&host)?);
        let (count, kib) = (host.patches().len(), host.byte_len() >> 10);
        eprintln!("adapter  {} · {count} patches · {kib} KiB", path.display());
    }
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        seed: args.seed,
    };
    // Only from here on: until now Ctrl-C ends the program.
    let stop = stop_flag();
    let mut session = Session::new(engine, handles, args.system.clone(), sampling, stop);
    session.adapters = adapters;
    session.max_new_tokens = args.max_new_tokens as usize;
    match &args.prompt {
        Some(prompt) => once(&mut session, prompt, args.json),
        None => converse(&mut session),
    }
}

/// One question, one answer.
fn once(session: &mut Session, prompt: &str, as_json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let answer = session.ask(prompt, &mut |text| match as_json {
        true => Ok(()),
        false => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
    })?;
    match as_json {
        true => writeln!(
            out,
            "{}",
            json!({
                "text": answer.text,
                "finish": answer.ending.name(),
                "tokens": answer.tokens,
                "prompt_tokens": answer.prompt_tokens,
                "seconds": answer.seconds,
            })
        )?,
        false => writeln!(out)?,
    }
    out.flush()?;
    if !as_json {
        remark(&answer, session.max_new_tokens);
    }
    if answer.ending == Ending::Interrupted {
        bail!("interrupted");
    }
    Ok(())
}

/// Questions until there are no more.
fn converse(session: &mut Session) -> Result<()> {
    let mut lines = Lines::new(session.stop.clone())?;
    let interactive = lines.is_terminal();
    if interactive {
        eprintln!("/help lists the commands, Ctrl-D ends");
    }
    loop {
        let line = match lines.next("> ")? {
            Line::End => break,
            Line::Text(line) => line,
        };
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match command(line) {
            Some(Command::Quit) => break,
            Some(Command::Help) => eprintln!("{HELP}"),
            Some(Command::Clear) => {
                session.clear();
                eprintln!("started anew");
            }
            Some(Command::Undo) => match session.undo() {
                true => eprintln!("dropped the last question; {} left", session.exchanges()),
                false => eprintln!("there is nothing to drop"),
            },
            Some(Command::Unknown) => eprintln!("unknown command {line}\n{HELP}"),
            None => {
                let result = answer(session, line);
                // A Ctrl-C was for this answer only.
                session.stop.store(false, Ordering::Relaxed);
                match result {
                    // At a terminal a question that does not fit need not end the conversation.
                    Err(error) if interactive && !is_output_error(&error) => {
                        eprintln!("error: {error:#}");
                    }
                    result => result?,
                }
            }
        }
    }
    if interactive {
        eprintln!();
    }
    Ok(())
}

/// Streams the answer to one question.
fn answer(session: &mut Session, question: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let answer = session.ask(question, &mut |text| {
        out.write_all(text.as_bytes())?;
        out.flush()
    })?;
    writeln!(out)?;
    out.flush()?;
    remark(&answer, session.max_new_tokens);
    Ok(())
}

/// What there is to say about an answer besides its text.
fn remark(answer: &Answer, limit: usize) {
    match answer.ending {
        Ending::Length => eprintln!("[cut off after {limit} tokens; see --max-new-tokens]"),
        Ending::Interrupted => eprintln!("[interrupted]"),
        Ending::Stop => {}
    }
    if io::stderr().is_terminal() {
        eprintln!(
            "[{} tokens in {:.1} s, {:.1} tokens/s]",
            answer.tokens,
            answer.seconds,
            answer.tokens as f64 / answer.seconds.max(1e-9)
        );
    }
}

fn is_output_error(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some()
}

const HELP: &str = "/undo   drop the last question and its answer
/clear  forget the conversation
/quit   end (also Ctrl-D)
/help   this list";

/// What a line that starts with a slash asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Undo,
    Clear,
    Quit,
    Help,
    Unknown,
}

/// The command of a line; none if the line is for the model, as one that only begins with a path.
fn command(line: &str) -> Option<Command> {
    let word = line.strip_prefix('/')?;
    match word {
        "undo" => Some(Command::Undo),
        "clear" => Some(Command::Clear),
        "quit" | "exit" => Some(Command::Quit),
        "help" | "?" => Some(Command::Help),
        word if word.contains([' ', '/', '\t']) => None,
        _ => Some(Command::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_questions() {
        assert_eq!(command("/undo"), Some(Command::Undo));
        assert_eq!(command("/exit"), Some(Command::Quit));
        assert_eq!(command("/foo"), Some(Command::Unknown));
        assert_eq!(command("/etc/hosts is what?"), None);
        assert_eq!(command("undo"), None);
    }
}
