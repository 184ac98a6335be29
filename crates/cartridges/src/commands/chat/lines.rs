//! Lines from the person or the pipe.

use std::io::{self, BufRead, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Result;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

/// How often Ctrl-C is looked for while a pipe is silent.
const PATIENCE: Duration = Duration::from_millis(100);

/// What was read.
pub(super) enum Line {
    /// A line without its end.
    Text(String),
    /// Ctrl-C, Ctrl-D, or the end of the input.
    End,
}

/// Where lines come from.
pub(super) enum Lines {
    /// A terminal, with editing and history.
    Terminal(Box<DefaultEditor>),
    /// Anything else, read in a thread so that Ctrl-C is seen between lines.
    Plain {
        lines: Receiver<io::Result<String>>,
        stop: Arc<AtomicBool>,
    },
}

impl Lines {
    pub(super) fn new(stop: Arc<AtomicBool>) -> Result<Self> {
        if io::stdin().is_terminal() {
            return Ok(Self::Terminal(Box::new(DefaultEditor::new()?)));
        }
        let (sender, lines) = sync_channel(1);
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(move || {
                for line in io::stdin().lock().lines() {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self::Plain { lines, stop })
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line; `prompt` is shown on a terminal only.
    pub(super) fn next(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Self::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => {
                    if !line.trim().is_empty() {
                        // A line that the history does not take is still a line.
                        let _ = editor.add_history_entry(line.as_str());
                    }
                    Ok(Line::Text(line))
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(Line::End),
                Err(error) => Err(error.into()),
            },
            Self::Plain { lines, stop } => loop {
                match lines.recv_timeout(PATIENCE) {
                    Ok(line) => return Ok(Line::Text(line?)),
                    Err(RecvTimeoutError::Disconnected) => return Ok(Line::End),
                    Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                        return Ok(Line::End);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            },
        }
    }
}
