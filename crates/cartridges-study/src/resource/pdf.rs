//! PDF files: the text of the pages.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use flate2::read::ZlibDecoder;
use pdf_extract::{Document as Pdf, PlainTextOutput, output_doc_page};
use serde::{Deserialize, Serialize};

use super::error::ResourceError;
use super::html::tidy;
use super::material::Material;
use super::notes::Notes;
use super::read::{MAX_TEXT_BYTES, file_name, read_bytes};

/// The largest PDF that is read, in bytes.
const MAX_PDF_BYTES: u64 = 256 << 20;
/// The most that the streams of a PDF may inflate to together, in bytes.
const MAX_INFLATED_BYTES: u64 = 2 << 30;
/// The most pages that are read.
const MAX_PAGES: usize = 50_000;
/// Stack of the thread that reads: the reader calls itself for nested objects.
const STACK_BYTES: usize = 64 << 20;

/// A PDF file with text in it; scanned pages have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PdfConfig {
    /// The file.
    pub path: PathBuf,
    /// Its password, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl PdfConfig {
    pub(super) fn material(&self) -> Result<Material, ResourceError> {
        let mut notes = Notes::default();
        let bytes = read_bytes(&self.path, MAX_PDF_BYTES)?;
        let password = self.password.as_deref().unwrap_or_default();
        let text = text_of_pages(bytes, &self.path, password, &mut notes)?;
        let mut material = Material::running(file_name(&self.path), text);
        material.notes = notes;
        Ok(material)
    }
}

/// The text of all pages, a blank line between them. Pages without text or that cannot be read are
/// noted.
///
/// The reader of PDF files can panic on a damaged one. It runs on a thread of its own, page by page,
/// and what it panics on is an error or a note here.
pub(super) fn text_of_pages(
    bytes: Vec<u8>,
    path: &Path,
    password: &str,
    notes: &mut Notes,
) -> Result<String, ResourceError> {
    let format = |reason: String| ResourceError::format(path, "PDF", reason);
    if bytes.len() as u64 > MAX_PDF_BYTES {
        return Err(ResourceError::TooLarge {
            path: path.to_owned(),
            limit: MAX_PDF_BYTES,
        });
    }
    if !bytes[..bytes.len().min(1024)]
        .windows(5)
        .any(|w| w == b"%PDF-")
    {
        return Err(format("it does not begin with %PDF-".to_owned()));
    }
    if inflated_bytes(&bytes, MAX_INFLATED_BYTES) > MAX_INFLATED_BYTES {
        return Err(format(format!(
            "its streams inflate to more than {MAX_INFLATED_BYTES} bytes"
        )));
    }
    let pages = thread::scope(|scope| {
        thread::Builder::new()
            .name("pdf".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || pages(&bytes, password))
            .map_err(|error| ResourceError::io(path)(error))?
            .join()
            .unwrap_or_else(|_| Err("the reader of PDF files failed on it".to_owned()))
            .map_err(format)
    })?;
    let mut text = String::new();
    for (number, page) in pages {
        match page {
            Ok(page) if page.trim().is_empty() => notes.add("page has no text", number.to_string()),
            Ok(page) => {
                if !text.is_empty() {
                    text.push_str("\n\n");
                }
                text.push_str(&tidy(&page));
            }
            Err(reason) => notes.add(
                "page cannot be read, left out",
                format!("{number}: {reason}"),
            ),
        }
        if text.len() as u64 > MAX_TEXT_BYTES {
            return Err(ResourceError::TooLarge {
                path: path.to_owned(),
                limit: MAX_TEXT_BYTES,
            });
        }
    }
    if text.is_empty() {
        return Err(format(
            "none of its pages has text; a scan has to go through text recognition first"
                .to_owned(),
        ));
    }
    Ok(text)
}

/// What all streams inflate to, counted up to `limit` and a little more. The reader of PDF files
/// inflates them whole, so it is counted beforehand.
fn inflated_bytes(bytes: &[u8], limit: u64) -> u64 {
    const KEYWORD: &[u8] = b"stream";
    let mut total = 0_u64;
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(KEYWORD.len())
        .position(|w| w == KEYWORD)
    {
        at += found + KEYWORD.len();
        let data = &bytes[at..];
        let data = data.strip_prefix(b"\r").unwrap_or(data);
        let data = data.strip_prefix(b"\n").unwrap_or(data);
        // RFC 1950: method 8, and a header that is a multiple of 31.
        let zlib = matches!(data, [a, b, ..]
            if a & 0x0f == 8 && (u16::from(*a) << 8 | u16::from(*b)) % 31 == 0);
        if zlib && total <= limit {
            let mut counter = Counter(0);
            // A damaged stream counts as far as it goes.
            let _ = io::copy(&mut ZlibDecoder::new(data).take(limit + 1), &mut counter);
            total = total.saturating_add(counter.0);
        }
    }
    total
}

/// Counts what is written to it.
struct Counter(u64);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Page = (u32, Result<String, String>);

fn pages(bytes: &[u8], password: &str) -> Result<Vec<Page>, String> {
    let mut pdf = Pdf::load_mem(bytes).map_err(|e| e.to_string())?;
    if pdf.is_encrypted() {
        pdf.decrypt(password)
            .map_err(|e| format!("it is encrypted and the password does not fit ({e})"))?;
    }
    let numbers: Vec<u32> = pdf.get_pages().into_keys().collect();
    if numbers.len() > MAX_PAGES {
        return Err(format!("it has more than {MAX_PAGES} pages"));
    }
    let mut out = Vec::with_capacity(numbers.len());
    for number in numbers {
        let mut text = String::new();
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut output = PlainTextOutput::new(&mut text);
            output_doc_page(&pdf, &mut output, number).map_err(|e| e.to_string())
        }));
        let page = match read {
            Ok(Ok(())) => Ok(text),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err("the reader of PDF files failed on it".to_owned()),
        };
        out.push((number, page));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A PDF with one page per text, written by hand.
    fn pdf(pages: &[&str]) -> Vec<u8> {
        let mut objects = vec!["<< /Type /Catalog /Pages 2 0 R >>".to_owned()];
        let kids: Vec<String> = (0..pages.len())
            .map(|i| format!("{} 0 R", 4 + 2 * i))
            .collect();
        objects.push(format!(
            "<< /Type /Pages /Kids [{}] /Count {} >>",
            kids.join(" "),
            pages.len()
        ));
        objects.push("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned());
        for (i, page) in pages.iter().enumerate() {
            let stream = match page.is_empty() {
                true => String::new(),
                false => format!("BT /F1 12 Tf 72 720 Td ({page}) Tj ET"),
            };
            objects.push(format!(
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {} 0 R \
                 /Resources << /Font << /F1 3 0 R >> >> >>",
                5 + 2 * i
            ));
            objects.push(format!(
                "<< /Length {} >>\nstream\n{stream}\nendstream",
                stream.len()
            ));
        }
        let mut out = "%PDF-1.4\n".to_owned();
        let mut offsets = Vec::new();
        for (i, object) in objects.iter().enumerate() {
            offsets.push(out.len());
            out += &format!("{} 0 obj\n{object}\nendobj\n", i + 1);
        }
        let table = out.len();
        out += &format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
        for offset in offsets {
            out += &format!("{offset:010} 00000 n \n");
        }
        out += &format!(
            "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n",
            objects.len() + 1
        );
        out.into_bytes()
    }

    fn read(bytes: Vec<u8>, notes: &mut Notes) -> Result<String, ResourceError> {
        text_of_pages(bytes, Path::new("a.pdf"), "", notes)
    }

    #[test]
    fn pages_are_read_in_order_and_empty_ones_are_noted() {
        let mut notes = Notes::default();
        let file = pdf(&["The lamp is red.", "", "The door is blue."]);
        let text = read(file, &mut notes).unwrap();
        assert_eq!(text, "The lamp is red.\n\nThe door is blue.");
        let notes = notes.finish();
        assert_eq!(notes[0].to_string(), "page has no text (1: 2)");
    }

    #[test]
    fn what_is_no_pdf_or_has_no_text_is_named() {
        for (bytes, named) in [
            (b"hello".to_vec(), "%PDF-"),
            (b"%PDF-1.4 and then nothing".to_vec(), "a.pdf"),
            (pdf(&[""]), "text recognition"),
        ] {
            let error = read(bytes, &mut Notes::default()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn what_streams_inflate_to_is_counted() {
        use flate2::{Compression, write::ZlibEncoder};
        use std::io::Write;
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(&vec![0; 3 << 20]).unwrap();
        let zeros = zlib.finish().unwrap();
        let stream = [b"stream\r\n", zeros.as_slice(), b"\nendstream"].concat();
        let file = [stream.as_slice(), b" stream\nplain endstream ", &stream].concat();
        assert_eq!(inflated_bytes(&file, 1 << 30), 6 << 20);
        assert!((1 << 20..2 << 20).contains(&inflated_bytes(&file, 1 << 20)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn damaged_files_never_panic(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
            cut in any::<prop::sample::Index>(), whole in any::<bool>(),
        ) {
            let mut file = pdf(&["The lamp is red."]);
            for (at, byte) in changes {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if !whole {
                file.truncate(cut.index(file.len()));
            }
            let _ = read(file, &mut Notes::default());
        }
    }
}
