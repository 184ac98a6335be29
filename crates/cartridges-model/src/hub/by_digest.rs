//! Files at any address that are known by their SHA-256.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::blocking::Client;
use sha2::Sha256;

use super::{HubError, ResolveOptions};
use crate::atomic_file::write_atomic;
use crate::digest::{hex, is_sha256, of_file, pass_on};
use crate::is_loopback;

/// Above any data set of a benchmark.
const LONGEST: u64 = 4 << 30;

/// Fetches the file at an https address once and keeps it in the cache folder under its SHA-256; a file that
/// has another one is not kept. Later calls find it there, without a network.
///
/// # Errors
/// [`HubError`], if the address or the digest is none, nothing comes, or the content is another.
pub fn fetch_by_digest(
    address: &str,
    sha256: &str,
    options: &ResolveOptions,
) -> Result<PathBuf, HubError> {
    let bad = |hint: &str| HubError::BadReference {
        text: address.to_owned(),
        hint: hint.to_owned(),
    };
    let url = Url::parse(address).map_err(|_| bad("give an https address"))?;
    let here = url.host_str().is_some_and(is_loopback);
    if url.scheme() != "https" && !here {
        return Err(bad("give an https address"));
    }
    if !is_sha256(sha256) {
        return Err(bad(
            "its sha256 has 64 lower-case hexadecimal digits, as sha256sum prints them",
        ));
    }
    let name = url.path_segments().and_then(|mut parts| parts.next_back());
    let name = name.filter(|name| !name.is_empty()).unwrap_or("file");
    let path = options
        .models_folder()?
        .join("data")
        .join(sha256)
        .join(name);
    let found = |action| HubError::io(action, &path);
    if path.exists() && hex(&of_file::<Sha256>(&path).map_err(found("read"))?) == sha256 {
        return Ok(path);
    }
    if options.offline {
        return Err(HubError::Offline {
            what: address.to_owned(),
            hint: "Fetch it once with a network, or give a file".to_owned(),
        });
    }
    let unreachable = |error: reqwest::Error| HubError::Unreachable {
        endpoint: address.to_owned(),
        reason: error.without_url().to_string(),
        hint: "Try again, or give a file".to_owned(),
    };
    let mut client = Client::builder()
        .user_agent(concat!("cartridges/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(20))
        .timeout(Duration::from_secs(3600));
    if here {
        client = client.no_proxy();
    }
    let client = client.build().map_err(unreachable)?;
    let answer = client.get(url).send().and_then(|a| a.error_for_status());
    let mut answer = answer.map_err(unreachable)?.take(LONGEST);
    let mut problem = None;
    let written = write_atomic(&path, |sink| {
        problem = match pass_on::<Sha256>(&mut answer, sink)? {
            Err(error) => Some(HubError::Interrupted {
                file: address.to_owned(),
                reason: error.to_string(),
            }),
            Ok((digest, _)) if hex(&digest) != sha256 => Some(HubError::Digest {
                file: address.to_owned(),
                stated_by: "the caller",
                expected: sha256.to_owned(),
                actual: hex(&digest),
            }),
            Ok(_) => return Ok(()),
        };
        Err(io::ErrorKind::InvalidData.into())
    });
    match (written, problem) {
        (_, Some(problem)) => {
            // The folder would only say that something was tried.
            let _ = path.parent().map(fs::remove_dir);
            Err(problem)
        }
        (Err(error), None) => Err(found("write")(error.source)),
        (Ok(()), None) => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use sha2::Digest;

    use super::*;

    /// Answers so many requests with the same bytes.
    fn serve(body: &'static str, requests: usize) -> (String, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/set/file.json", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for _ in 0..requests {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = io::BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
                write!(stream, "{head}: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        (address, server)
    }

    #[test]
    fn a_file_is_fetched_once_and_only_with_its_digest() {
        let home = tempfile::tempdir().unwrap();
        let mut options = ResolveOptions {
            cache_dir: Some(home.path().to_owned()),
            ..ResolveOptions::default()
        };
        let (address, server) = serve("[1, 2]", 2);
        let right = hex(&Sha256::digest("[1, 2]"));
        let wrong = hex(&Sha256::digest("[1, 3]"));
        let error = fetch_by_digest(&address, &wrong, &options).unwrap_err();
        assert!(error.to_string().contains(&right), "{error}");
        assert!(!home.path().join("data").join(&wrong).exists());
        let path = fetch_by_digest(&address, &right, &options).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"[1, 2]");
        assert!(path.ends_with("file.json"));
        server.join().unwrap();
        // The server is gone.
        options.offline = true;
        assert_eq!(fetch_by_digest(&address, &right, &options).unwrap(), path);
        fs::write(&path, "[1, 9]").unwrap();
        let error = fetch_by_digest(&address, &right, &options).unwrap_err();
        assert!(matches!(error, HubError::Offline { .. }), "{error}");
    }

    #[test]
    fn what_is_no_address_or_digest_is_refused() {
        let options = ResolveOptions::default();
        let digest = "0".repeat(64);
        for (address, digest) in [
            ("http://example.org/x", digest.as_str()),
            ("file:///x", &digest),
            ("https://example.org/x", "abc"),
        ] {
            let error = fetch_by_digest(address, digest, &options).unwrap_err();
            assert!(matches!(error, HubError::BadReference { .. }), "{error}");
        }
    }
}
