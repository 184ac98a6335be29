//! `cartridges report`: reports of evaluations as one page with figures.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use cartridges_eval::write_page;
use clap::Args;

use crate::opening::writable_folder;

/// Show one report, or compare several, as one page that needs no other file.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Writes report.html, the figures as SVG and PNG in figures/, and report.json with all \
reports, which can be given again. Nothing is measured and no model is loaded.\n\n\
Examples:\n  cartridges report runs/quickstart --out pages/quickstart\n  cartridges report runs/a runs/b \
old/report.json --out pages/compared --title 'Slots against quality'"
)]
pub struct ReportArgs {
    /// A report.json of `cartridges eval --out` or `cartridges quickstart`, or a folder with one; all are
    /// compared.
    #[arg(value_name = "FILE|DIR", required = true)]
    reports: Vec<PathBuf>,
    /// Folder for the page, its figures and the list of reports.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Title of the page.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If a file is no report, or the page cannot be written.
pub fn run(args: ReportArgs) -> Result<()> {
    writable_folder(&args.out)?;
    let written = write_page(&args.reports, &args.out, args.title.as_deref())?;
    tracing::info!(
        "{} reports, {} figures as SVG and PNG",
        written.reports,
        written.figures
    );
    writeln!(io::stdout(), "{}", written.page.display())?;
    Ok(())
}
