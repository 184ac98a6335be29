//! The page.

use crate::figure::{Entry, Figure, PAGE_STYLE, escaped};
use crate::report::Report;

use super::comparison::{by_suite, comparison, key};
use super::costs::costs;
use super::facts::{facts, in_short, settings, suite};
use super::measurements::measurements;
use super::questions::questions;
use super::speed::speed;
use super::{figures, html};

const STYLE: &str = include_str!("style.css");

/// A page with its figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The whole file; it asks for nothing else.
    pub html: String,
    /// The figures in it, in their order.
    pub figures: Vec<Figure>,
}

/// The page of some reports, in the order given. Without a title it has one of its own.
pub fn page(reports: &[Report], title: Option<&str>) -> Page {
    let several = reports.len() > 1;
    let entries: Vec<Entry<'_>> = reports
        .iter()
        .enumerate()
        .map(|(index, report)| Entry {
            tag: if several {
                letters(index)
            } else {
                String::new()
            },
            index,
            report,
        })
        .collect();
    let title = match (title, reports) {
        (Some(title), _) => title.to_owned(),
        (None, [only]) => format!("{}: {}", suite(only), only.model),
        (None, _) => format!("{} reports compared", reports.len()),
    };
    let mut all = Vec::new();
    let mut body = format!("<header><h1>{}</h1>\n", escaped(&title));
    body.push_str(
        "<p>What a language model knows of a document: without it, with it in the context, and with what stands for \
         it. <span class=\"nobreak\"><span class=\"sign cf-none\">○</span> no document</span> and \
         <span class=\"nobreak\"><span class=\"sign cf-document\">■</span> document</span> are the anchors; \
         everything else is to be read between them.</p></header>\n",
    );
    if several {
        body.push_str("<section><h2>Reports</h2>\n");
        body.push_str(&key(&entries));
        body.push_str("</section>\n");
        let found = figures::of_all(&entries);
        if !found.is_empty() {
            body.push_str("<section><h2>All together</h2>\n");
            body.push_str(&html::figures(&found));
            body.push_str("</section>\n");
        }
        all.extend(found);
        for (index, (name, entries)) in by_suite(&entries).into_iter().enumerate() {
            // Throughput is compared above.
            if entries.iter().all(|entry| entry.report.rows.is_empty()) {
                continue;
            }
            body.push_str(&format!("<section><h2>Compared: {}</h2>\n", escaped(name)));
            body.push_str(&comparison(name, &entries));
            // Alone, its figures are in its own section.
            if entries.len() > 1 {
                let found = figures::of_suite(index + 1, name, &entries);
                body.push_str(&html::figures(&found));
                all.extend(found);
            }
            body.push_str("</section>\n");
        }
    }
    for entry in &entries {
        let prefix = match several {
            true => format!("report-{}-", entry.tag.to_lowercase()),
            false => String::new(),
        };
        let found = figures::of_one(&prefix, entry);
        body.push_str(&section(entry, &entries, &found));
        all.extend(found);
    }
    Page {
        html: format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
             <meta name=\"color-scheme\" content=\"light dark\"/>\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
             <title>{}</title>\n<style>\n{STYLE}{PAGE_STYLE}\n</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
             </body>\n</html>\n",
            escaped(&title)
        ),
        figures: all,
    }
}

fn section(entry: &Entry<'_>, all: &[Entry<'_>], found: &[Figure]) -> String {
    let report = entry.report;
    let tag = escaped(&entry.tag);
    let heading = match tag.is_empty() {
        true => "What was run".to_owned(),
        false => format!("{tag} · {}", escaped(suite(report))),
    };
    let mut out = format!("<section id=\"report-{tag}\"><h2>{heading}</h2>\n");
    out.push_str(&facts(report));
    if !report.rows.is_empty() {
        out.push_str("<h3>Measurements</h3>\n");
        out.push_str(&in_short(entry));
        out.push_str(&measurements(entry));
    } else if report.throughput.is_empty() {
        out.push_str("<p>Nothing was measured.</p>\n");
    }
    if !found.is_empty() {
        out.push_str("<h3>Figures</h3>\n");
        out.push_str(&html::figures(found));
    }
    out.push_str(&costs(entry, all));
    out.push_str("<h3>In detail</h3>\n");
    out.push_str(&speed(report));
    out.push_str(&questions(report));
    out.push_str(&settings(report));
    out.push_str("</section>\n");
    out
}

/// A to Z, then AA and on.
fn letters(index: usize) -> String {
    let last = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => last.to_string(),
        more => format!("{}{last}", letters(more - 1)),
    }
}
