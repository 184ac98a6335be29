//! Several reports beside each other.

use crate::figure::{Entry, count, duration, escaped};
use crate::measurement::Measurement;

use super::facts::suite;
use super::html::{Table, condition, is_anchor};
use super::measurements::{Columns, unrelated_cell};

/// The reports with the letters that stand for them.
pub(super) fn key(entries: &[Entry<'_>]) -> String {
    let mut table = Table::default();
    for name in [
        "report",
        "suite",
        "model",
        "document",
        "questions",
        "machine",
        "date",
    ] {
        table.column(name, "", false);
    }
    for entry in entries {
        let report = entry.report;
        table.row("");
        let tag = escaped(&entry.tag);
        table.name(&format!("<a href=\"#report-{tag}\">{tag}</a>"));
        table.words(suite(report));
        table.words(&report.model);
        table.words(&match report.corpus.name.is_empty() {
            true => "–".to_owned(),
            false => format!(
                "{} ({} tokens)",
                report.corpus.name,
                count(report.corpus.tokens as u64)
            ),
        });
        table.words(&report.questions);
        table.words(&report.machine.cpu);
        table.word(&report.date);
    }
    table.html("reports")
}

/// The entries of each suite, in the order in which suites first come.
pub(super) fn by_suite<'a>(entries: &[Entry<'a>]) -> Vec<(&'a str, Vec<Entry<'a>>)> {
    let mut suites: Vec<(&str, Vec<Entry<'_>>)> = Vec::new();
    for entry in entries {
        let name = suite(entry.report);
        match suites.iter_mut().find(|s| s.0 == name) {
            Some(found) => found.1.push(entry.clone()),
            None => suites.push((name, vec![entry.clone()])),
        }
    }
    suites
}

/// One suite: every condition of every report.
pub(super) fn comparison(name: &str, entries: &[Entry<'_>]) -> String {
    let reports: Vec<_> = entries.iter().map(|entry| entry.report).collect();
    let columns = Columns::of(&reports);
    // The same condition of all reports together, anchors first.
    let mut names: Vec<(bool, &str)> = Vec::new();
    for row in entries.iter().flat_map(|entry| &entry.report.rows) {
        let name = (!is_anchor(row.kind), row.condition.as_str());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| name.0);
    let unrelated = entries
        .iter()
        .flat_map(|entry| &entry.report.rows)
        .any(|row| row.unrelated.is_some());

    let mut table = Table::default();
    table.column("condition", "", false);
    table.column("report", "", false);
    for column in &columns {
        column.head(&mut table);
    }
    if unrelated {
        table.column(
            "unrelated text",
            "perplexity, nearer to no document is better",
            true,
        );
    }
    table.column("rows", "slots or tokens of the document", true);
    table.column("build", "time", true);
    for (measured, wanted) in names {
        for entry in entries {
            let same =
                |row: &&Measurement| row.condition == wanted && is_anchor(row.kind) != measured;
            for row in entry.report.rows.iter().filter(same) {
                table.row(if measured { "" } else { "anchor" });
                table.name(&condition(&row.condition, row.kind));
                table.words(&entry.tag);
                for column in &columns {
                    column.cells(&mut table, entry.report, row);
                }
                if unrelated {
                    table.number(&unrelated_cell(entry.report, row));
                }
                table.number(&count(row.document_rows as u64));
                let build = row.build.map(|build| duration(build.seconds));
                table.number(&build.unwrap_or_default());
            }
        }
    }
    table.html(name)
}
