//! A stand-in for the hub on 127.0.0.1, for tests: as much of its HTTP interface as a download needs.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

use super::{ModelCard, ResolveOptions};
use crate::digest::hex;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const ID: &str = "owner/name";

/// A file that the stand-in has.
#[derive(Clone)]
pub struct Item {
    pub path: &'static str,
    pub body: Vec<u8>,
    /// Kept as a large file: with a sha256, behind a redirect.
    pub large: bool,
    /// What is sent in place of `body`, under the length and digest of `body`.
    pub sent: Option<Vec<u8>>,
}

impl Item {
    pub fn small(path: &'static str, body: &str) -> Self {
        Self {
            path,
            body: body.as_bytes().to_vec(),
            large: false,
            sent: None,
        }
    }

    pub fn large(path: &'static str, body: &[u8]) -> Self {
        Self {
            path,
            body: body.to_vec(),
            large: true,
            sent: None,
        }
    }
}

/// How the stand-in behaves.
#[derive(Clone, Default)]
pub struct Manner {
    pub items: Vec<Item>,
    /// Answer everything with this status.
    pub refuse: Option<(u16, &'static str)>,
    /// Revision that exists besides the commit; `main` if empty.
    pub revision: &'static str,
}

/// One request: method, path, authorization.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
}

pub struct StandIn {
    pub endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl StandIn {
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, own) = (Arc::clone(&seen), endpoint.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, log, own) = (manner.clone(), Arc::clone(&log), own.clone());
                thread::spawn(move || serve(stream, &manner, &log, &own));
            }
        });
        Self { endpoint, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How often a file's content was sent.
    pub fn sent(&self, path: &str) -> usize {
        let end = format!("/{path}");
        self.seen()
            .iter()
            .filter(|s| s.method == "GET" && s.path.ends_with(&end))
            .filter(|s| !s.path.starts_with("/cdn/"))
            .count()
    }
}

fn serve(stream: TcpStream, manner: &Manner, log: &Mutex<Vec<Seen>>, own: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else {
        return;
    };
    let mut authorization = None;
    for line in lines.by_ref() {
        let Ok(line) = line else { return };
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    log.lock().unwrap().push(Seen {
        method: method.to_owned(),
        path: path.to_owned(),
        authorization,
    });
    answer(stream, manner, method, path, own);
}

fn answer(stream: TcpStream, manner: &Manner, method: &str, path: &str, own: &str) {
    let reply = |head: String, length: usize, body: &[u8]| {
        let mut stream = &stream;
        let head = format!("HTTP/1.1 {head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        if method == "GET" {
            let _ = stream.write_all(body);
        }
        let _ = stream.flush();
    };
    let json = |text: String| {
        reply(
            "200 OK\r\nContent-Type: application/json\r\n".to_owned(),
            text.len(),
            text.as_bytes(),
        );
    };
    if let Some((status, code)) = manner.refuse {
        let named = match code {
            "" => String::new(),
            code => format!("X-Error-Code: {code}\r\n"),
        };
        return reply(format!("{status} No\r\n{named}"), 0, b"");
    }
    let missing = |code: &str| reply(format!("404 Not Found\r\nX-Error-Code: {code}\r\n"), 0, b"");
    let revision = if manner.revision.is_empty() {
        "main"
    } else {
        manner.revision
    };
    let known = |asked: &str| asked == revision || asked == COMMIT;
    let plain = path.split('?').next().unwrap();

    if let Some(rest) = plain.strip_prefix("/api/models/") {
        let Some(rest) = rest.strip_prefix(&format!("{ID}/")) else {
            return missing("RepoNotFound");
        };
        let (kind, asked) = rest.split_once('/').unwrap();
        if !known(asked) {
            return missing("RevisionNotFound");
        }
        if kind == "revision" {
            return json(format!(r#"{{"_id":"1","id":"{ID}","sha":"{COMMIT}"}}"#));
        }
        let entries: Vec<String> = manner.items.iter().map(tree_entry).collect();
        return json(format!("[{}]", entries.join(",")));
    }
    let find = |name: &str| manner.items.iter().find(|i| i.path == name);
    if let Some(item) = plain.strip_prefix("/cdn/").and_then(find) {
        let body = item.sent.as_ref().unwrap_or(&item.body);
        return reply("200 OK\r\n".to_owned(), item.body.len(), body);
    }
    let resolve = plain
        .strip_prefix(&format!("/{ID}/resolve/"))
        .and_then(|rest| rest.split_once('/'));
    let Some(item) = resolve
        .filter(|(asked, _)| known(asked))
        .and_then(|(_, n)| find(n))
    else {
        return missing("EntryNotFound");
    };
    let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
    if item.large {
        let (digest, length) = (sha256(&item.body), item.body.len());
        let linked = format!("X-Linked-Etag: \"{digest}\"\r\nX-Linked-Size: {length}\r\n");
        let to = format!("Location: {own}/cdn/{}\r\n", item.path);
        return reply(
            format!("302 Found\r\n{commit}{linked}{to}ETag: \"other\"\r\n"),
            0,
            b"",
        );
    }
    let etag = format!("ETag: \"{}\"\r\n", &sha256(&item.body)[..40]);
    let body = item.sent.as_ref().unwrap_or(&item.body);
    reply(format!("200 OK\r\n{commit}{etag}"), item.body.len(), body);
}

fn tree_entry(item: &Item) -> String {
    let (path, size) = (item.path, item.body.len());
    let lfs = if item.large {
        let oid = sha256(&item.body);
        format!(r#","lfs":{{"oid":"{oid}","size":{size},"pointerSize":134}}"#)
    } else {
        String::new()
    };
    format!(r#"{{"type":"file","oid":"1","size":{size},"path":"{path}"{lfs}}}"#)
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Everything that a test of `resolve` needs: folders of its own and the lines that were said.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub said: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            said: Arc::default(),
        }
    }

    pub fn options(&self, endpoint: &str) -> ResolveOptions {
        let said = Arc::clone(&self.said);
        ResolveOptions {
            cache_dir: Some(self.dir.path().join("models")),
            hub_cache: Some(self.dir.path().join("hub")),
            endpoint: Some(endpoint.to_owned()),
            token: Some("hf_test".to_owned()),
            notice: Some(Arc::new(move |line| {
                said.lock().unwrap().push(line.to_owned());
            })),
            ..ResolveOptions::default()
        }
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// All files under a folder of the bench, except locks and empty folders.
    pub fn files(&self, under: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![self.dir.path().join(under)];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let kind = entry.file_type().unwrap();
                if entry.file_name() == ".locks" {
                    continue;
                }
                if kind.is_dir() {
                    open.push(entry.path());
                } else {
                    found.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        found.sort();
        found
    }
}

/// An address that refuses connections.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A card made for a test, with the shape of some model.
pub fn test_card(text: &str) -> &'static ModelCard {
    const SHAPE: &str = "architecture = 'llama', vocab_size = 512, hidden_size = 64, \
         intermediate_size = 128, num_layers = 2, num_heads = 4, num_kv_heads = 2, head_dim = 16, \
         rms_norm_eps = 1e-5, rope = { theta = 10000.0 }, max_position_embeddings = 512, \
         tie_word_embeddings = true, qkv_bias = false, qk_norm = false";
    let text = format!("shape = {{ {SHAPE} }}\n{text}");
    Box::leak(Box::new(ModelCard::parse(&text).unwrap()))
}
