//! From files to files.

use std::path::{Path, PathBuf};

use cartridges_model::atomic_file::write_bytes;

use crate::figure::Ground;
use crate::report::Report;

use super::error::PageError;
use super::load::{load_reports, report_file};
use super::render::page;

/// Pixels for each unit of a figure: sharp on screens of twice the usual density.
const SCALE: f64 = 2.0;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageFiles {
    /// The page.
    pub page: PathBuf,
    /// Reports in it.
    pub reports: usize,
    /// Figures, each as SVG and PNG in `figures`.
    pub figures: usize,
}

/// Reads reports, each a file or a folder with `report.json`, and writes `report.html`, `report.json`
/// with all of them, and the figures into `out`.
///
/// # Errors
/// [`PageError`], before anything is written if it is about what was read.
pub fn write_page(
    paths: &[PathBuf],
    out: &Path,
    title: Option<&str>,
) -> Result<PageFiles, PageError> {
    let mut reports: Vec<Report> = Vec::new();
    for path in paths {
        reports.extend(load_reports(path)?);
    }
    let list = out.join("report.json");
    let real = |path: &Path| path.canonicalize().ok();
    let is_source = real(&list).is_some_and(|list| {
        let mut sources = paths.iter().filter_map(|path| real(&report_file(path)));
        sources.any(|source| source == list)
    });
    if is_source && paths.len() > 1 {
        return Err(PageError::WouldReplace { path: list });
    }
    let page = page(&reports, title);
    for figure in &page.figures {
        let file = |kind: &str| out.join("figures").join(format!("{}.{kind}", figure.name));
        let png = figure.png(Ground::Light, SCALE)?;
        write_bytes(&file("svg"), figure.svg(Ground::Reader).as_bytes())?;
        write_bytes(&file("png"), &png)?;
    }
    // A report that stands where its page goes is there already.
    if !is_source {
        let mut json = match reports.as_slice() {
            [only] => serde_json::to_vec_pretty(only)?,
            all => serde_json::to_vec_pretty(all)?,
        };
        json.push(b'\n');
        write_bytes(&list, &json)?;
    }
    let path = out.join("report.html");
    write_bytes(&path, page.html.as_bytes())?;
    Ok(PageFiles {
        page: path,
        reports: reports.len(),
        figures: page.figures.len(),
    })
}
