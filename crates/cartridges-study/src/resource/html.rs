//! Web pages: the text that a reader sees.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use html2text::render::TextDecorator;
use serde::{Deserialize, Serialize};

use super::error::ResourceError;
use super::material::Material;
use super::notes::Notes;
use super::read::{file_name, read_bytes};

/// The largest page that is read, in bytes.
const MAX_HTML_BYTES: u64 = 64 << 20;
/// How far into a page its own word on its encoding is looked for, in bytes, as browsers do.
const CHARSET_WINDOW: usize = 1024;
/// Columns of a text line: wide enough that paragraphs are not broken.
const WIDTH: usize = 100_000;
/// Columns of a line when the page cannot be laid out in the widest.
const NARROW_WIDTH: usize = 200;

/// An HTML file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HtmlConfig {
    /// The file.
    pub path: PathBuf,
}

impl HtmlConfig {
    pub(super) fn material(&self) -> Result<Material, ResourceError> {
        let mut notes = Notes::default();
        let bytes = read_bytes(&self.path, MAX_HTML_BYTES)?;
        let text = visible_text(&bytes, &self.path, &mut notes)?;
        let mut material = Material::running(file_name(&self.path), text);
        material.notes = notes;
        Ok(material)
    }
}

/// The visible text of a page: headings marked with `#`, lists with `*` or numbers, a paragraph a
/// line; no scripts, styles or addresses of links.
pub(super) fn visible_text(
    bytes: &[u8],
    path: &Path,
    notes: &mut Notes,
) -> Result<String, ResourceError> {
    let format = |reason: String| ResourceError::format(path, "HTML", reason);
    if bytes.len() as u64 > MAX_HTML_BYTES {
        return Err(ResourceError::TooLarge {
            path: path.to_owned(),
            limit: MAX_HTML_BYTES,
        });
    }
    let page = decode(bytes, path, notes);
    let rendered = catch_unwind(|| {
        let render = |width| {
            html2text::config::with_decorator(Plain)
                .no_table_borders()
                .allow_width_overflow()
                .string_from_read(page.as_bytes(), width)
        };
        render(WIDTH).or_else(|_| render(NARROW_WIDTH))
    });
    match rendered {
        Ok(Ok(text)) => Ok(tidy(&text)),
        Ok(Err(error)) => Err(format(error.to_string())),
        Err(_) => Err(format("the reader of web pages failed on it".to_owned())),
    }
}

/// Marks headings, quotations and list items, and nothing else.
struct Plain;

impl TextDecorator for Plain {
    type Annotation = ();

    fn decorate_link_start(&mut self, _url: &str) -> (String, ()) {
        Default::default()
    }

    fn decorate_link_end(&mut self) -> String {
        String::new()
    }

    fn decorate_em_start(&self) -> (String, ()) {
        Default::default()
    }

    fn decorate_em_end(&self) -> String {
        String::new()
    }

    fn decorate_strong_start(&self) -> (String, ()) {
        Default::default()
    }

    fn decorate_strong_end(&self) -> String {
        String::new()
    }

    fn decorate_strikeout_start(&self) -> (String, ()) {
        Default::default()
    }

    fn decorate_strikeout_end(&self) -> String {
        String::new()
    }

    fn decorate_code_start(&self) -> (String, ()) {
        Default::default()
    }

    fn decorate_code_end(&self) -> String {
        String::new()
    }

    fn decorate_preformat_first(&self) {}

    fn decorate_preformat_cont(&self) {}

    fn decorate_image(&mut self, _src: &str, title: &str) -> (String, ()) {
        (title.to_owned(), ())
    }

    fn header_prefix(&self, level: usize) -> String {
        "#".repeat(level) + " "
    }

    fn quote_prefix(&self) -> String {
        "> ".to_owned()
    }

    fn unordered_item_prefix(&self) -> String {
        "* ".to_owned()
    }

    fn ordered_item_prefix(&self, i: i64) -> String {
        format!("{i}. ")
    }

    fn make_subblock_decorator(&self) -> Self {
        Self
    }
}

/// The characters of a page, by its byte order mark, by what it says of itself, or as UTF-8 if it is.
fn decode(bytes: &[u8], path: &Path, notes: &mut Notes) -> String {
    let encoding = encoding_rs::Encoding::for_bom(bytes)
        .map(|(encoding, _)| encoding)
        .or_else(|| declared(&bytes[..bytes.len().min(CHARSET_WINDOW)]))
        .unwrap_or(match std::str::from_utf8(bytes) {
            Ok(_) => encoding_rs::UTF_8,
            Err(_) => encoding_rs::WINDOWS_1252,
        });
    let (text, _, errors) = encoding.decode(bytes);
    if errors {
        let name = file_name(path);
        notes.add("file has bytes that form no character, replaced", name);
    }
    text.into_owned()
}

/// The encoding that follows `charset=`.
fn declared(head: &[u8]) -> Option<&'static encoding_rs::Encoding> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let (_, rest) = head.split_once("charset=")?;
    let label: String = rest
        .trim_start_matches(['"', '\'', ' '])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .collect();
    encoding_rs::Encoding::for_label(label.as_bytes())
}

/// No spaces at the ends of lines, and at most one blank line in a row.
pub(super) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = 0;
    for line in text.lines().map(str::trim_end) {
        blank = if line.is_empty() { blank + 1 } else { 0 };
        if blank < 2 && !(out.is_empty() && line.is_empty()) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(page: &[u8]) -> String {
        visible_text(page, Path::new("page.html"), &mut Notes::default()).unwrap()
    }

    #[test]
    fn only_the_visible_text_is_read() {
        let page = "<html><head><title>T</title><style>p{color:red}</style></head><body>\
            <script>var hidden = 1;</script><h2>Tides &amp; lamps</h2>\
            <p>High water at <b>6</b>, see <a href='http://x.example/y'>the table</a>.</p>\
            <ul><li>red</li><li>green</li></ul>\
            <table><tr><td>a</td><td>b</td></tr></table><!-- hidden --></body></html>";
        let text = text(page.as_bytes());
        assert!(text.starts_with("## Tides & lamps\n"), "{text}");
        assert!(text.contains("High water at 6, see the table."), "{text}");
        assert!(text.contains("* red\n* green"), "{text}");
        for hidden in ["hidden", "color", "http", "<"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }

    #[test]
    fn paragraphs_stay_whole_and_encodings_are_found() {
        let long = "word ".repeat(400);
        let page = format!("<p>{long}</p><p>two</p>");
        assert_eq!(text(page.as_bytes()), format!("{}\n\ntwo", long.trim()));
        let page = b"<meta charset=\"iso-8859-1\"><p>caf\xe9</p>";
        assert_eq!(text(page), "café");
        assert_eq!(text(b"<p>caf\xe9</p>"), "café");
        assert_eq!(text("<p>café</p>".as_bytes()), "café");
    }

    #[test]
    fn deep_nesting_is_survived() {
        let page = format!("{}deep{}", "<div>".repeat(5000), "</div>".repeat(5000));
        assert_eq!(text(page.as_bytes()), "deep");
    }

    proptest! {
        #[test]
        fn odd_bytes_never_panic(
            page in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                "(<(p|table|tr|td|ul|li|/p|/td|a href=|h1|pre|!--|br)>?|[a-z& ;#0-9]{1,4}){0,60}"
                    .prop_map(String::into_bytes),
            ],
        ) {
            let _ = visible_text(&page, Path::new("x"), &mut Notes::default());
        }
    }
}
