//! Conversations as one page that needs no other file and runs no script.

use cartridges_eval::escaped;

use super::colour::{BANDS, band};
use super::conversations::{DataSet, LENGTHS};
use super::samples::{Likelihood, Piece, Sample, SampleMessage};
use super::table::visible;

/// The page. Whatever comes from the data is text in it, never markup.
pub(super) fn page(name: &str, data: &DataSet) -> String {
    let name = shown(name);
    let mut body = format!("<h1>{name}</h1>\n<table>\n");
    for (field, value) in data.totals() {
        let (field, value) = (shown(field.trim_end()), shown(&value));
        body += &format!("<tr><th scope=\"row\">{field}</th><td>{value}</td></tr>\n");
    }
    body += "</table>\n";
    body += &table(&LENGTHS, &data.lengths());
    for (what, rows) in data.counts() {
        body += &table(&[what, "count"], &rows);
    }
    body += "<p>The teacher's probability of each token: ";
    for (i, (_, about, ..)) in BANDS.iter().enumerate() {
        body += &format!("<span class=\"b{i}\">{about}</span> ");
    }
    body += "</p>\n";
    for sample in &data.samples {
        body += &section(sample);
    }
    let bands: String = (BANDS.iter().enumerate())
        .map(|(i, (.., colour))| format!(".b{i}{{background:{colour}}}"))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{name}</title>\n<style>{STYLE}{bands}</style>\n\
         </head>\n<body>\n{body}</body>\n</html>\n"
    )
}

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
    padding:0 1rem;color:#1c1c1c;background:#fff}table{border-collapse:collapse;margin:1rem 0}\
    th,td{padding:.1rem .8rem .1rem 0;text-align:right}th:first-child,td:first-child{text-align:left}\
    h2{font-size:1rem;margin-top:2rem}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;\
    padding:.5rem;border:1px solid #ddd;font:inherit}dt{font-weight:600;margin-top:.5rem}\
    dd{margin:0}";

fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &[&str]| -> String {
        let cells = cells
            .iter()
            .map(|cell| format!("<{tag}>{}</{tag}>", shown(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let mut text = format!("<table>\n{}", cells("th", heads));
    for row in rows {
        text += &cells("td", &row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text + "</table>\n"
}

fn section(sample: &Sample) -> String {
    let mut text = format!("<h2>Row {}</h2>\n<dl>\n", sample.row);
    for (name, content) in [
        ("seed", &sample.seed_prompt),
        ("system", &sample.system_prompt),
    ] {
        if !content.is_empty() {
            text += &format!("<dt>{name}</dt><dd>{}</dd>\n", shown(content));
        }
    }
    for message in &sample.messages {
        let (role, shown) = (message.role, message_text(message));
        text += &format!("<dt>{role}</dt><dd><pre>{shown}</pre></dd>\n");
    }
    text + "</dl>\n"
}

fn message_text(message: &SampleMessage) -> String {
    match message.pieces.as_slice() {
        [] => shown(&message.content),
        pieces => pieces.iter().map(token).collect(),
    }
}

fn token(piece: &Piece) -> String {
    let text = shown(&piece.text);
    let Some(band) = band(piece.likelihood) else {
        return text;
    };
    let percent = |p: f32| format!("{:.1} %", 100.0 * p);
    let mut about = match piece.likelihood {
        Likelihood::Probability(p) => percent(p),
        Likelihood::NotAmongThem | Likelihood::NotStored => "not among the candidates".to_owned(),
    };
    for (candidate, p) in &piece.candidates {
        about += &format!("\n{candidate:?} {}", percent(*p));
    }
    format!(
        "<span class=\"b{band}\" title=\"{}\">{text}</span>",
        shown(&about)
    )
}

/// Text as HTML shows it, in an element or a quoted attribute.
fn shown(text: &str) -> String {
    escaped(&visible(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        let evil = "</pre><script>alert(1)</script>\" onmouseover='x' <img src=//h/x>&\u{0}";
        let piece = |likelihood| Piece {
            text: evil.to_owned(),
            likelihood,
            candidates: vec![(evil.to_owned(), 0.25)],
        };
        let message = |pieces| SampleMessage {
            role: "assistant",
            content: evil.to_owned(),
            pieces,
        };
        let mut data = DataSet::default();
        data.samples.push(Sample {
            row: 0,
            seed_prompt: evil.to_owned(),
            system_prompt: evil.to_owned(),
            messages: vec![
                message(Vec::new()),
                message(vec![
                    piece(Likelihood::Probability(0.25)),
                    piece(Likelihood::NotStored),
                ]),
            ],
        });
        let page = page(evil, &data);
        // What is left of the page without its text and attributes' values are the tags written here.
        let tags: Vec<&str> = page
            .split('<')
            .skip(1)
            .map(|t| t.split('>').next().unwrap())
            .collect();
        let known = [
            "!DOCTYPE", "html", "head", "meta", "title", "style", "body", "h1", "h2", "table",
            "tr", "th", "td", "p", "span", "dl", "dt", "dd", "pre",
        ];
        for tag in tags {
            let name = tag.trim_start_matches('/').split(' ').next().unwrap();
            assert!(known.contains(&name), "<{tag}>");
            // A quote that came from the text would make the number odd, or a word after it.
            assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
            let outside: String = tag.split('"').step_by(2).collect();
            assert!(!outside.contains("on") || name == "meta", "<{tag}>");
        }
        assert!(page.matches("&lt;script&gt;").count() >= 6);
        assert!(!page.contains('\u{0}'));
        assert!(!page.contains("src=\"") && !page.contains("href"));
    }
}
