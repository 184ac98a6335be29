//! Small figures as SVG, readable on light and dark ground.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cartridges_eval::escaped;

const WIDTH: f64 = 720.0;
const LABEL: f64 = 240.0;
const ROW: f64 = 34.0;
const TOP: f64 = 54.0;

/// Writes [`bars`] to a file.
///
/// # Errors
/// If it cannot be written.
pub fn save_bars(path: &Path, title: &str, unit: &str, rows: &[(String, f64)]) -> Result<()> {
    let written = fs::write(path, bars(title, unit, rows));
    written.with_context(|| format!("writing {}", path.display()))
}

/// Horizontal bars, one for each `(label, value)`, the longest over the whole width. Values are finite
/// and not negative.
fn bars(title: &str, unit: &str, rows: &[(impl AsRef<str>, f64)]) -> String {
    let most = rows
        .iter()
        .map(|row| row.1)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = TOP + ROW * rows.len() as f64 + 12.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"14\" role=\"img\">\n\
         <style>text{{fill:#1c2733}}rect{{fill:#2b6cb0}}@media(prefers-color-scheme:dark)\
         {{text{{fill:#e6edf3}}rect{{fill:#6cb0f0}}}}</style>\n\
         <title>{title}</title>\n\
         <text x=\"8\" y=\"26\" font-size=\"14\" font-weight=\"600\">{title}</text>\n",
        title = escaped(title),
    );
    for (index, (label, value)) in rows.iter().enumerate() {
        let y = TOP + ROW * index as f64;
        let length = (WIDTH - LABEL - 110.0) * value / most;
        let (middle, label) = (y + 17.0, escaped(label.as_ref()));
        // A string takes whatever is written to it.
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{middle}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LABEL}\" y=\"{y}\" width=\"{length:.1}\" height=\"24\" rx=\"3\"/>\
             <text x=\"{end:.1}\" y=\"{middle}\">{value:.1} {unit}</text>",
            x = LABEL - 10.0,
            end = LABEL + length + 8.0,
            unit = escaped(unit),
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::bars;

    #[test]
    fn bars_are_as_long_as_their_values_and_text_is_escaped() {
        let svg = bars(
            "a < b & c",
            "tok/s",
            &[("one", 10.0), ("two", 20.0), ("none", 0.0)],
        );
        assert!(svg.contains("a &lt; b &amp; c"), "{svg}");
        let widths: Vec<f64> = svg
            .split("<rect")
            .skip(1)
            .map(|part| {
                let width = part.split("width=\"").nth(1).unwrap();
                width.split('"').next().unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(widths[1], 2.0 * widths[0]);
        assert_eq!(widths[2], 0.0);
        assert!(svg.contains("20.0 tok/s"), "{svg}");
    }
}
