//! Papers of arXiv: their LaTeX source, fetched once and kept.
//!
//! What comes from <https://arxiv.org/src/ID> is an archive, or a single packed file, and stays in the
//! cache as it came. An identifier with a version (`2506.06266v2`) is the same for ever; one without
//! gives the version of the day on which it was first fetched.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cartridges_model::atomic_file::write_bytes;
use cartridges_model::hub::ResolveOptions;
use cartridges_model::is_loopback;
use reqwest::{Client, StatusCode, Url, redirect};
use tokio::runtime::{Builder, Handle};

use crate::client::chain;
use crate::resource::ResourceError;

/// Where sources are fetched; `CARTRIDGES_ARXIV` names another place.
const BASE: &str = "https://arxiv.org/src";
/// The variable that names another place.
const BASE_VARIABLE: &str = "CARTRIDGES_ARXIV";
/// The largest source that is fetched, in bytes.
const MAX_BYTES: usize = 512 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence while a source comes.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A paper's identifier, as `2506.06266`, `2506.06266v2` or `hep-th/9901001`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArxivId(String);

impl ArxivId {
    /// The identifier in a text: by itself, behind `arxiv:`, or in an address on arxiv.org.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let id = if let Some(id) = behind_scheme(text) {
            id
        } else if let Some((_, path)) = text.split_once("arxiv.org/") {
            let (_, id) = path.split_once('/')?;
            id.split(['?', '#']).next()?
        } else {
            text
        };
        let id = id.trim_matches('/');
        let id = id.strip_suffix(".pdf").unwrap_or(id);
        is_id(id).then(|| Self(id.to_owned()))
    }
}

impl fmt::Display for ArxivId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands behind `arxiv:`, however that is written.
pub(super) fn behind_scheme(text: &str) -> Option<&str> {
    let (scheme, id) = text.split_once(':')?;
    scheme.eq_ignore_ascii_case("arxiv").then_some(id)
}

/// Whether it has arXiv's present form or that of before April 2007.
fn is_id(id: &str) -> bool {
    let digits = |text: &str, count: std::ops::RangeInclusive<usize>| {
        count.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    let bare = match id.rsplit_once('v') {
        Some((bare, version)) if digits(version, 1..=3) => bare,
        _ => id,
    };
    if let Some((month, number)) = bare.split_once('.')
        && digits(month, 4..=4)
    {
        // Five digits since 2015.
        let count = if month < "1501" { 4 } else { 5 };
        return digits(number, count..=count);
    }
    bare.split_once('/').is_some_and(|(archive, number)| {
        let letters = |c: char| c.is_ascii_alphabetic() || c == '-' || c == '.';
        digits(number, 7..=7) && !archive.is_empty() && archive.chars().all(letters)
    })
}

/// Where papers come from and where they are kept.
pub(super) struct Arxiv {
    /// Address before `/ID`.
    base: String,
    cache: PathBuf,
    offline: bool,
}

impl Arxiv {
    /// The place that the environment names; the models' cache has a folder for papers. `id` is what it is
    /// wanted for.
    pub(super) fn from_env(offline: bool, id: &ArxivId) -> Result<Self, ResourceError> {
        let options = ResolveOptions::from_env();
        let cache = options
            .models_folder()
            .map_err(|error| Self::error(&id.0, error))?;
        let base = std::env::var(BASE_VARIABLE).ok();
        Ok(Self {
            base: base.filter(|b| !b.is_empty()).unwrap_or(BASE.to_owned()),
            cache: cache.join("arxiv"),
            offline: offline || options.offline,
        })
    }

    fn error(id: &str, reason: impl ToString) -> ResourceError {
        ResourceError::Paper {
            id: id.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// The paper's source on this machine.
    pub(super) fn source(&self, id: &ArxivId) -> Result<PathBuf, ResourceError> {
        let ArxivId(id) = id;
        let path = self.cache.join(format!("{}.gz", id.replace('/', "_")));
        if path.is_file() {
            return Ok(path);
        }
        let url = format!("{}/{id}", self.base.trim_end_matches('/'));
        let by_hand = format!(
            "fetch {url} where there is a network, and name the file instead (or put it at {})",
            path.display()
        );
        if self.offline {
            let reason = format!("it is not in the cache and this run is offline; {by_hand}");
            return Err(Self::error(id, reason));
        }
        tracing::info!(url, "fetching the source of a paper");
        let bytes = fetch(&url).map_err(|problem| match problem {
            Problem::Refused(reason) => Self::error(id, reason),
            Problem::Unreachable(reason) => Self::error(id, format!("{reason}; {by_hand}")),
        })?;
        if bytes.starts_with(b"%PDF") {
            let reason = "arXiv has only a PDF of it, no LaTeX source; name the PDF instead";
            return Err(Self::error(id, reason));
        }
        let packed = bytes.starts_with(&[0x1f, 0x8b]);
        if !packed && bytes.get(257..262) != Some(b"ustar") {
            let reason = format!("what {url} gives is no archive");
            return Err(Self::error(id, reason));
        }
        write_bytes(&path, &bytes).map_err(|error| Self::error(id, error))?;
        Ok(path)
    }
}

enum Problem {
    /// Asking again changes nothing.
    Refused(String),
    /// No network, or a server that is not well.
    Unreachable(String),
}

fn fetch(url: &str) -> Result<Vec<u8>, Problem> {
    if Handle::try_current().is_ok() {
        let reason = "papers cannot be fetched inside an asynchronous task";
        return Err(Problem::Refused(reason.to_owned()));
    }
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Problem::Unreachable(error.to_string()))?;
    let result = runtime.block_on(download(url));
    // A look-up of a name that hangs must not hold the caller.
    runtime.shutdown_background();
    result
}

async fn download(url: &str) -> Result<Vec<u8>, Problem> {
    let failed = |error: reqwest::Error| {
        Problem::Unreachable(format!("{url} does not answer: {}", chain(&error)))
    };
    let address = Url::parse(url).map_err(|error| Problem::Refused(format!("{url}: {error}")))?;
    let mut client = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(STALL_TIMEOUT)
        .user_agent(concat!("cartridges/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::limited(5));
    if address.host_str().is_some_and(is_loopback) {
        client = client.no_proxy();
    }
    let client = client.build().map_err(failed)?;
    let mut response = client.get(address).send().await.map_err(failed)?;
    match response.status() {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND => {
            return Err(Problem::Refused(format!("there is no such paper at {url}")));
        }
        status => return Err(Problem::Unreachable(format!("{url} answers {status}"))),
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            let reason = format!("its source is larger than {MAX_BYTES} bytes");
            return Err(Problem::Refused(reason));
        }
        bytes.extend_from_slice(&chunk);
    }
    // One that breaks off is an error of the connection.
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::resource::LatexConfig;

    fn gz(text: &str) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    }

    /// A server that answers every path with what `reply` gives for it, sending `sent` of its bytes.
    fn serve(
        reply: impl Fn(&str) -> (u16, Vec<u8>) + Send + 'static,
        cut: usize,
    ) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/src/", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&count);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                let mut lines = BufReader::new(&stream).lines();
                let first = lines.next().unwrap().unwrap();
                while lines.next().unwrap().is_ok_and(|line| !line.is_empty()) {}
                let (status, body) = reply(first.split(' ').nth(1).unwrap());
                let head = format!(
                    "HTTP/1.1 {status} S\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&body[..body.len() - cut.min(body.len())]);
            }
        });
        (url, count)
    }

    fn place(base: &str, offline: bool) -> (tempfile::TempDir, Arxiv) {
        let cache = tempfile::tempdir().unwrap();
        let arxiv = Arxiv {
            base: base.to_owned(),
            cache: cache.path().join("arxiv"),
            offline,
        };
        (cache, arxiv)
    }

    fn id(text: &str) -> ArxivId {
        ArxivId::parse(text).unwrap()
    }

    #[test]
    fn identifiers_are_found_in_every_usual_form() {
        for (text, expected) in [
            ("2506.06266", "2506.06266"),
            ("arXiv:2506.06266v2", "2506.06266v2"),
            ("https://arxiv.org/abs/2506.06266", "2506.06266"),
            ("https://arxiv.org/pdf/2506.06266v1.pdf", "2506.06266v1"),
            ("http://export.arxiv.org/src/0704.0001/?x=1", "0704.0001"),
            ("arxiv:hep-th/9901001", "hep-th/9901001"),
            (
                "https://arxiv.org/abs/math.GT/0309136v1",
                "math.GT/0309136v1",
            ),
        ] {
            assert_eq!(id(text).0, expected, "{text}");
        }
        for text in [
            "",
            "paper.tex",
            "arxiv:",
            "arxiv:../../x",
            "arxiv:\u{212a}",
            "2506.0626",
            "arxiv:a b/1234567",
        ] {
            assert_eq!(ArxivId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_paper_is_fetched_once() {
        let paper = "\\documentclass{article}\\begin{document}Lamps.\\end{document}";
        let (base, asked) = serve(
            move |path| match path {
                "/src/hep-th/9901001" => (200, gz(paper)),
                _ => (404, Vec::new()),
            },
            0,
        );
        let (cache, arxiv) = place(&base, false);
        let path = arxiv.source(&id("hep-th/9901001")).unwrap();
        assert_eq!(path, cache.path().join("arxiv/hep-th_9901001.gz"));
        assert!(
            LatexConfig::new(&path)
                .material()
                .unwrap()
                .text
                .contains("Lamps.")
        );
        assert_eq!(arxiv.source(&id("hep-th/9901001")).unwrap(), path);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // What is there needs no network.
        let offline = Arxiv {
            offline: true,
            ..arxiv
        };
        assert_eq!(offline.source(&id("hep-th/9901001")).unwrap(), path);
        let error = offline.source(&id("2506.06266")).unwrap_err().to_string();
        for part in ["2506.06266", "offline", &base, "name the file"] {
            assert!(error.contains(part), "no {part}: {error}");
        }
    }

    #[test]
    fn what_is_no_source_is_told_and_not_kept() {
        for (status, body, cut, said) in [
            (404, Vec::new(), 0, "no such paper"),
            (503, b"later".to_vec(), 0, "503"),
            (200, b"%PDF-1.7".to_vec(), 0, "only a PDF"),
            (200, b"<html>robots</html>".to_vec(), 0, "no archive"),
            (200, gz(&"x".repeat(5000)), 10, "does not answer"),
        ] {
            let (base, _) = serve(move |_| (status, body.clone()), cut);
            let (cache, arxiv) = place(&base, false);
            let error = arxiv.source(&id("2506.06266")).unwrap_err().to_string();
            assert!(
                error.contains(said) && error.contains("2506.06266"),
                "{said}: {error}"
            );
            assert!(!cache.path().join("arxiv/2506.06266.gz").exists());
        }
        let nobody = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let (_cache, arxiv) = place(&format!("http://{nobody}"), false);
        let error = arxiv.source(&id("2506.06266")).unwrap_err().to_string();
        assert!(
            error.contains("does not answer") && error.contains("name the file"),
            "{error}"
        );
    }
}
