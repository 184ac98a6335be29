//! Figures of reports as SVG and PNG: pure functions from measurements to pictures.

mod canvas;
mod dots;
mod ink;
mod labels;
mod locality;
mod metric;
mod picture;
mod png;
mod quality;
mod scale;
mod scatter;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod throughput;

pub(crate) use dots::scores;
pub(crate) use ink::{PAGE_STYLE, class};
pub(crate) use locality::{locality, unrelated_change};
pub(crate) use metric::Metric;
pub use picture::{Figure, Ground};
pub use png::PngError;
pub(crate) use quality::{Against, Quality, quality};
pub(crate) use scale::signed_per_cent;
pub use text::escaped;
pub(crate) use text::{count, duration, number, per_cent};
pub(crate) use throughput::throughput;

use crate::report::Report;

/// A report with the short name that stands for it where several are shown; empty for a single one.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    /// Such as `A`.
    pub(crate) tag: String,
    /// Its place among all reports of the page, which gives it the same colour in every figure.
    pub(crate) index: usize,
    /// The report.
    pub(crate) report: &'a Report,
}

impl Entry<'_> {
    /// A name with the tag before it.
    pub(crate) fn tagged(&self, name: &str) -> String {
        match self.tag.is_empty() {
            true => name.to_owned(),
            false => format!("{} · {name}", self.tag),
        }
    }
}
