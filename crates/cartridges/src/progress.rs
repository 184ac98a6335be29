//! Progress of long work on stderr: a bar on a terminal, now and then a line elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// Without a terminal a line takes the bar's place, this often.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// How far one piece of work is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    unit: &'static str,
    started: Instant,
    /// When the last line was written; `None` on a terminal.
    told: Option<Mutex<Instant>>,
}

/// Progress over `total` steps; `unit` names what is counted. Shows rate and time left.
pub fn progress(total: u64, what: &'static str, unit: &'static str) -> Progress {
    let template =
        format!("{{msg:<24}} {{bar:30}} {{pos}}/{{len}} {unit}  {{prefix}}  {{elapsed}} < {{eta}}");
    let style = ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─");
    let bar = ProgressBar::new(total).with_style(style);
    bar.set_message(what);
    let terminal = std::io::stderr().is_terminal();
    if terminal {
        bar.enable_steady_tick(Duration::from_millis(500));
    }
    let now = Instant::now();
    Progress {
        bar,
        what,
        unit,
        started: now,
        told: (!terminal).then(|| Mutex::new(now)),
    }
}

impl Progress {
    /// Sets how much there is in all, once that is known.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Sets how much is done, with `note` (a rate, a loss) beside it.
    pub fn set(&self, done: u64, note: String) {
        self.bar.set_prefix(note);
        self.bar.set_position(done);
        let Some(told) = &self.told else {
            return;
        };
        let Ok(mut told) = told.lock() else {
            return;
        };
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            eprintln!("{}", self.line(done));
        }
    }

    /// Writes a line that stays.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    fn line(&self, done: u64) -> String {
        let total = self.bar.length().unwrap_or(done);
        let note = self.bar.prefix();
        let mut line = format!("{:<8} {done}/{total} {}", self.what, self.unit);
        if !note.is_empty() {
            line.push_str(&format!(" · {note}"));
        }
        if done > 0 && done < total {
            let left = self
                .started
                .elapsed()
                .mul_f64((total - done) as f64 / done as f64);
            line.push_str(&format!(" · about {} left", HumanDuration(left)));
        }
        line
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_left() {
        let mut progress = progress(40, "training", "steps");
        progress.started = Instant::now() - Duration::from_secs(60);
        progress.set(10, "loss 1.5".to_owned());
        let line = progress.line(10);
        assert!(
            line.starts_with("training 10/40 steps · loss 1.5"),
            "{line}"
        );
        assert!(line.ends_with("about 3 minutes left"), "{line}");
        assert!(!progress.line(40).contains("left"));
    }
}
