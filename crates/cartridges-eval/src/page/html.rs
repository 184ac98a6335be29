//! Pieces of HTML.

use crate::figure::{Figure, escaped};
use crate::measurement::ConditionKind;
use crate::statistics::Estimate;

/// A table that scrolls in a box of its own where the screen is narrow.
#[derive(Debug, Default)]
pub(super) struct Table {
    head: String,
    body: String,
}

impl Table {
    /// A column with its name and, in small letters, its unit and which way is better. Numbers stand to
    /// the right.
    pub(super) fn column(&mut self, name: &str, hint: &str, numeric: bool) {
        let class = if numeric { " class=\"n\"" } else { "" };
        let hint = match hint.is_empty() {
            true => String::new(),
            false => format!("<small>{}</small>", escaped(hint)),
        };
        self.head.push_str(&format!(
            "<th scope=\"col\"{class}>{}{hint}</th>",
            escaped(name)
        ));
    }

    /// Begins a row; what follows are its cells.
    pub(super) fn row(&mut self, class: &str) {
        self.body
            .push_str(&format!("</tr>\n<tr class=\"{class}\">"));
    }

    /// A cell that names its row. The text is HTML.
    pub(super) fn name(&mut self, html: &str) {
        self.body
            .push_str(&format!("<th scope=\"row\">{html}</th>"));
    }

    /// A cell with a number or with nothing. The text is HTML.
    pub(super) fn number(&mut self, html: &str) {
        let html = if html.is_empty() { "–" } else { html };
        self.body.push_str(&format!("<td class=\"n\">{html}</td>"));
    }

    /// A cell with a word that is not to be broken.
    pub(super) fn word(&mut self, text: &str) {
        self.body
            .push_str(&format!("<td class=\"nobreak\">{}</td>", escaped(text)));
    }

    /// A cell with words.
    pub(super) fn words(&mut self, text: &str) {
        self.body.push_str(&format!("<td>{}</td>", escaped(text)));
    }

    /// The table.
    pub(super) fn html(&self, label: &str) -> String {
        // The first row closed one that was never opened.
        let body = self.body.strip_prefix("</tr>\n").unwrap_or("");
        let end = if body.is_empty() { "" } else { "</tr>" };
        format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table>\n\
             <thead><tr>{}</tr></thead>\n<tbody>\n{body}{end}\n</tbody></table></div>\n",
            escaped(label),
            self.head,
        )
    }
}

/// A number with its interval below, each as `told` writes it.
pub(super) fn interval(found: Option<Estimate>, told: impl Fn(f64) -> String) -> String {
    let told = |value| escaped(&told(value));
    found.map_or_else(String::new, |e| {
        let (value, low, high) = (told(e.value), told(e.low), told(e.high));
        format!("{value}<small>{low} to {high}</small>")
    })
}

/// A condition's name behind its marker.
pub(super) fn condition(name: &str, kind: ConditionKind) -> String {
    let (sign, word) = match kind {
        ConditionKind::None => ("○", "no document"),
        ConditionKind::Document => ("■", "document"),
        ConditionKind::Cartridge => ("●", "cartridge"),
        ConditionKind::Adapter => ("▲", "adapter"),
        ConditionKind::Beginning => ("◆", "beginning of the document"),
        ConditionKind::Summary => ("▼", "summary"),
        ConditionKind::Retrieval => ("✚", "retrieval"),
    };
    format!(
        "<span class=\"sign {}\" title=\"{word}\">{sign}</span> {}",
        crate::figure::class(kind),
        escaped(name)
    )
}

/// Whether a condition is what others are compared with.
pub(super) fn is_anchor(kind: ConditionKind) -> bool {
    matches!(kind, ConditionKind::None | ConditionKind::Document)
}

/// A term and what there is to say of it; nothing for an empty text.
pub(super) fn fact(out: &mut String, term: &str, text: &str) {
    if !text.is_empty() {
        out.push_str(&format!(
            "<div><dt>{}</dt><dd>{}</dd></div>\n",
            escaped(term),
            escaped(text)
        ));
    }
}

/// Figures side by side where there is room.
pub(super) fn figures(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut out = "<div class=\"figures\">\n".to_owned();
    for figure in figures {
        out.push_str(&format!(
            "<figure id=\"{}\" class=\"{}\"><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n{}</div>\
             <figcaption>{}</figcaption></figure>\n",
            escaped(&figure.name),
            // Panels need the room of two.
            if figure.name.ends_with("throughput") { "wide" } else { "" },
            escaped(&figure.title),
            figure.inline(),
            escaped(&figure.caption),
        ));
    }
    out.push_str("</div>\n");
    out
}

/// Something that is folded away until it is asked for. The body is HTML.
pub(super) fn folded(summary: &str, body: &str) -> String {
    format!(
        "<details><summary>{}</summary>\n{body}</details>\n",
        escaped(summary)
    )
}
