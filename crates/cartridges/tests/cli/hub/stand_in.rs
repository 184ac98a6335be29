//! As much of the hub's HTTP interface as pushing and pulling need, on 127.0.0.1, with its content in
//! memory.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The one token that may write, as the account `owner`.
pub const TOKEN: &str = "hf_right";

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
struct Repo {
    files: Files,
    private: bool,
    commits: usize,
}

#[derive(Default)]
struct State {
    /// By `models/owner/name` or `datasets/owner/name`.
    repos: BTreeMap<String, Repo>,
    hangs_up: bool,
}

pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state: Arc<Mutex<State>> = Arc::default();
        let own = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&own);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { endpoint, state }
    }

    pub fn files(&self, repo: &str) -> Files {
        self.state.lock().unwrap().repos[repo].files.clone()
    }

    pub fn names(&self) -> Vec<String> {
        self.state.lock().unwrap().repos.keys().cloned().collect()
    }

    pub fn is_private(&self, repo: &str) -> bool {
        self.state.lock().unwrap().repos[repo].private
    }

    pub fn commits(&self, repo: &str) -> usize {
        self.state.lock().unwrap().repos[repo].commits
    }

    /// Makes a repository public.
    pub fn publish(&self, repo: &str) {
        self.state
            .lock()
            .unwrap()
            .repos
            .get_mut(repo)
            .unwrap()
            .private = false;
    }

    /// Fills a repository, past all checks.
    pub fn put(&self, repo: &str, files: &[(&str, &[u8])]) {
        let mut state = self.state.lock().unwrap();
        let repo = state.repos.entry(repo.to_owned()).or_default();
        repo.files = files
            .iter()
            .map(|(name, x)| ((*name).to_owned(), x.to_vec()))
            .collect();
        repo.commits += 1;
    }

    /// Whether commits end in the middle.
    pub fn hang_up(&self, does: bool) {
        self.state.lock().unwrap().hangs_up = does;
    }
}

struct Request {
    method: String,
    path: String,
    may_write: bool,
    body: Vec<u8>,
}

fn request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let (mut length, mut may_write) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => may_write = value.trim() == format!("Bearer {TOKEN}"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        path: path.split('?').next()?.to_owned(),
        may_write,
        body,
    })
}

/// Status, further headers, body.
type Reply = (u16, String, Vec<u8>);

fn said(value: Value) -> Reply {
    let head = "Content-Type: application/json\r\n".to_owned();
    (200, head, value.to_string().into_bytes())
}

fn refused(status: u16, code: &str) -> Reply {
    (
        status,
        format!("X-Request-Id: 1\r\nX-Error-Code: {code}\r\n"),
        Vec::new(),
    )
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let Some(asked) = request(&stream) else {
        return;
    };
    let mut state = state.lock().unwrap();
    if asked.path.contains("/commit/") && state.hangs_up {
        return;
    }
    let (status, head, body) = answer(&asked, &mut state);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes());
    if asked.method != "HEAD" {
        let _ = stream.write_all(&body);
    }
}

fn answer(asked: &Request, state: &mut State) -> Reply {
    let is_post = asked.method == "POST";
    if is_post && !asked.may_write {
        return refused(401, "");
    }
    if asked.path == "/api/repos/create" {
        return create(&serde_json::from_slice(&asked.body).unwrap(), state);
    }
    if asked.path.ends_with(".git/info/lfs/objects/batch") {
        return said(json!({ "transfer": "basic", "objects": [] }));
    }
    // /api/KIND/OWNER/NAME/VERB/... or /[datasets/]OWNER/NAME/resolve/COMMIT/PATH
    let path = asked.path.trim_start_matches('/');
    let full = match (path.strip_prefix("api/"), path.starts_with("datasets/")) {
        (Some(rest), _) => rest.to_owned(),
        (None, true) => path.to_owned(),
        (None, false) => format!("models/{path}"),
    };
    let parts: Vec<&str> = full.splitn(6, '/').collect();
    let name = parts[..3].join("/");
    let Some(repo) = state.repos.get_mut(&name) else {
        return refused(404, "RepoNotFound");
    };
    if repo.private && !asked.may_write {
        return refused(401, "RepoNotFound");
    }
    let commit = format!("{:040x}", repo.commits);
    match parts.get(3).copied() {
        None | Some("revision") => said(
            json!({ "_id": "1", "id": parts[1..3].join("/"), "sha": commit, "private": repo.private }),
        ),
        Some("tree") => {
            let entry = |(path, bytes): (&String, &Vec<u8>)| json!({ "type": "file", "oid": "1", "size": bytes.len(), "path": path });
            said(repo.files.iter().map(entry).collect())
        }
        Some("resolve") => match parts.get(5).and_then(|path| repo.files.get(*path)) {
            None => refused(404, "EntryNotFound"),
            Some(bytes) => {
                // As a blob's name in git: the same for the same content.
                let sum = bytes
                    .iter()
                    .fold(7u64, |a, b| a.wrapping_mul(31).wrapping_add(u64::from(*b)));
                let head = format!("X-Repo-Commit: {commit}\r\nETag: \"{sum:040x}\"\r\n");
                (200, head, bytes.clone())
            }
        },
        Some("preupload") => {
            let asked: Value = serde_json::from_slice(&asked.body).unwrap();
            let mode = |file: &Value| {
                let path = file["path"].as_str().unwrap();
                let is_large = path.ends_with(".parquet") || path.ends_with(".safetensors");
                json!({ "path": path, "uploadMode": if is_large { "lfs" } else { "regular" } })
            };
            let files: Value = asked["files"]
                .as_array()
                .unwrap()
                .iter()
                .map(mode)
                .collect();
            said(json!({ "files": files }))
        }
        Some("commit") => {
            let mut new = repo.files.clone();
            for line in asked
                .body
                .split(|b| *b == b'\n')
                .filter(|line| !line.is_empty())
            {
                let line: Value = serde_json::from_slice(line).unwrap();
                if line["key"] == "file" {
                    let (path, content) = (&line["value"]["path"], &line["value"]["content"]);
                    let content = STANDARD.decode(content.as_str().unwrap()).unwrap();
                    new.insert(path.as_str().unwrap().to_owned(), content);
                }
            }
            repo.files = new;
            repo.commits += 1;
            said(json!({ "commitOid": format!("{:040x}", repo.commits) }))
        }
        _ => refused(404, ""),
    }
}

fn create(wanted: &Value, state: &mut State) -> Reply {
    if wanted["organization"] != "owner" {
        return refused(403, "");
    }
    let name = format!(
        "{}s/owner/{}",
        wanted["type"].as_str().unwrap(),
        wanted["name"].as_str().unwrap()
    );
    if state.repos.contains_key(&name) {
        return refused(409, "");
    }
    let private = wanted["private"] == true;
    state.repos.insert(
        name,
        Repo {
            private,
            ..Repo::default()
        },
    );
    said(json!({ "url": "http://hub/" }))
}
