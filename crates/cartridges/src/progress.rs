//! Progress bars on stderr, hidden when it is not a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` steps; `unit` names what is counted. Shows rate and time left.
pub fn bar(total: u64, what: &str, unit: &str) -> ProgressBar {
    let template =
        format!("{{msg:<24}} {{bar:30}} {{pos}}/{{len}} {unit}  {{prefix}}  {{elapsed}} < {{eta}}");
    let style = ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─");
    let bar = ProgressBar::new(total).with_style(style);
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A spinner for work of unknown length.
pub fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
