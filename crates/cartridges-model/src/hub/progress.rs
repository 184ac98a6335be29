//! The bar that shows a transfer, and the pulse that shows it is alive.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler, UploadEvent};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::ResolveOptions;

/// Without a terminal a line takes the bar's place, this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Progress of one transfer. Clones share it.
#[derive(Clone)]
pub(crate) struct Meter {
    bar: ProgressBar,
    what: String,
    state: Arc<Mutex<State>>,
    options: ResolveOptions,
}

struct State {
    started: Instant,
    changed: Instant,
    told: Instant,
    bytes: u64,
}

impl Meter {
    /// A meter of `total` bytes; it draws only on a terminal, and only if progress is wanted.
    pub(crate) fn start(what: &str, total: u64, options: &ResolveOptions) -> Self {
        let target = if options.progress && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        let now = Instant::now();
        Self {
            bar,
            what: what.to_owned(),
            state: Arc::new(Mutex::new(State {
                started: now,
                changed: now,
                told: now,
                bytes: 0,
            })),
            options: options.clone(),
        }
    }

    /// Sets how many bytes are there.
    pub(crate) fn set(&self, bytes: u64) {
        self.bar.set_position(bytes);
        if let Ok(mut state) = self.state.lock()
            && state.bytes != bytes
        {
            state.bytes = bytes;
            state.changed = Instant::now();
        }
    }

    /// How long nothing has moved.
    pub(crate) fn still_for(&self) -> Duration {
        self.state
            .lock()
            .map_or(Duration::ZERO, |state| state.changed.elapsed())
    }

    /// Says a line now and then where no bar is drawn.
    pub(crate) fn tell(&self) {
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        if !self.bar.is_hidden() || state.told.elapsed() < LINE_EVERY {
            return;
        }
        state.told = Instant::now();
        let seconds = state.started.elapsed().as_secs_f64().max(1e-3);
        // Precision lost above 2^53 bytes does not matter for a rate.
        let rate = (state.bytes as f64 / seconds) as u64;
        let total = self.bar.length().unwrap_or(0);
        let line = format!(
            "{}: {} of {}, {}/s",
            self.what,
            HumanBytes(state.bytes),
            HumanBytes(total),
            HumanBytes(rate)
        );
        drop(state);
        self.options.say(&line);
    }

    /// Says a line without tearing the bar.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| self.options.say(line));
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl ProgressHandler for Meter {
    fn on_progress(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Download(DownloadEvent::Progress { files }) => {
                if let Some(file) = files.last() {
                    self.set(file.bytes_completed);
                }
            }
            ProgressEvent::Download(DownloadEvent::AggregateProgress {
                bytes_completed, ..
            })
            | ProgressEvent::Upload(UploadEvent::Progress {
                bytes_completed, ..
            }) => self.set(*bytes_completed),
            _ => {}
        }
    }
}

/// A length for people.
pub(crate) fn human(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}
