//! `serve`, spoken to over plain sockets.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

use cartridges_model::LanguageModel;
use cartridges_model::adapter::{HostAdapter, HostPatch, Target, save_adapter};

use super::chat::talking_model;
use super::*;

#[path = "serve/clients.rs"]
mod clients;
#[path = "serve/load.rs"]
mod load;

/// A running server with a model and a cartridge; killed when dropped.
struct Running {
    home: TempDir,
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn read(bytes: &[u8]) -> Self {
        let all = utf8(bytes);
        let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("{all:?}")),
            body: match head.to_lowercase().contains("transfer-encoding: chunked") {
                true => unchunked(body),
                false => body.to_owned(),
            },
            head: head.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn text(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        let text = &self.json()["choices"][0]["message"]["content"];
        text.as_str().unwrap().to_owned()
    }
}

fn place() -> TempDir {
    let home = TempDir::new().unwrap();
    let model = home.path().join("model");
    std::fs::create_dir(&model).unwrap();
    talking_model(&model);
    home
}

/// A cartridge of 24 arbitrary slots for the model.
fn lamp(model: &Path, folder: &Path) {
    let device = cartridges_ops::test_device();
    let identity = LanguageModel::load(model, text(model), &device, &mut |_, _| ())
        .unwrap()
        .identity;
    let wave = |from: f32| (0..24 * 8).map(|i| (from + i as f32).sin()).collect();
    let layer = HostLayer {
        key: wave(0.0),
        value: wave(0.5),
    };
    let host = HostCartridge::new(1, 8, 24, 1, vec![layer]).unwrap();
    let how = json!({ "program": "test", "corpus": "lamp.txt" });
    save(folder, &host, &identity, &how, CartridgeDtype::F32).unwrap();
}

/// An adapter that changes what the model says.
fn accent(model: &Path, folder: &Path) {
    let device = cartridges_ops::test_device();
    let model = LanguageModel::load(model, text(model), &device, &mut |_, _| ()).unwrap();
    let target: Target = "model.layers.0.mlp.down_proj".parse().unwrap();
    let (inputs, outputs) = target.widths(model.decoder.config()).unwrap();
    let wave = |count: usize| (0..count).map(|i| (i as f32).sin()).collect();
    let patch = HostPatch {
        bias: Some(wave(outputs)),
        ..HostPatch::low_rank(target, 1, wave(inputs), wave(outputs))
    };
    let host = HostAdapter::new(vec![patch]).unwrap();
    let how = json!({ "program": "test" });
    save_adapter(folder, &host, &model.identity, &how, CartridgeDtype::F32).unwrap();
}

fn start(home: TempDir, more: &[&str]) -> Running {
    let model = home.path().join("model");
    let (shelf, adapters) = (home.path().join("shelf"), home.path().join("adapters"));
    for folder in [&shelf, &adapters] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let mut child = program(&home)
        .args(["serve", "--model", text(&model), "--port", "0"])
        .args(["--cartridge-dir", text(&shelf)])
        .args(["--adapter-dir", text(&adapters)])
        .args(more)
        // Memory that was freed goes back at once, so that what is left can be seen.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .strip_prefix("serving  http://")
        .unwrap_or_else(|| panic!("{line:?}"))
        .trim()
        .to_owned();
    Running {
        home,
        child,
        address,
    }
}

impl Running {
    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn exchange(&self, request: &str) -> Reply {
        let mut bytes = Vec::new();
        self.send(request).read_to_end(&mut bytes).unwrap();
        Reply::read(&bytes)
    }

    fn get(&self, path: &str) -> Reply {
        let host = &self.address;
        self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
    }

    fn request(&self, path: &str, key: Option<&str>, body: &str) -> String {
        let key = key.map_or(String::new(), |key| {
            format!("Authorization: Bearer {key}\r\n")
        });
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{key}Content-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        self.exchange(&self.request(path, None, &body.to_string()))
    }

    /// What `chat --prompt` says to the same question.
    fn chat(&self, more: &[&str]) -> String {
        let model = self.home.path().join("model");
        let all = [
            &[
                "chat",
                "--model",
                text(&model),
                "--prompt",
                "Hello",
                "--json",
            ],
            &["--max-new-tokens", "12"][..],
            more,
        ]
        .concat();
        let json: Value = serde_json::from_str(&works(&all)).unwrap();
        json["text"].as_str().unwrap().to_owned()
    }
}

fn unchunked(body: &str) -> String {
    let mut rest = body.as_bytes();
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(utf8(&rest[..end]).trim(), 16).unwrap();
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    utf8(&whole)
}

fn hello() -> Value {
    json!({"model": "default", "temperature": 0, "max_tokens": 12,
        "messages": [{"role": "user", "content": "Hello"}]})
}

fn with(mut body: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn answers_are_those_of_chat_streamed_or_not_with_and_without_a_cartridge() {
    let server = start(place(), &[]);
    // The cartridge comes while the server runs.
    let model = server.home.path().join("model");
    lamp(&model, &server.home.path().join("shelf/lamp"));
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/ready").status, 200);
    assert_eq!(server.get("/ping").json(), json!({"message": "pong"}));
    let id = server.get("/v1/models").json()["data"][0]["id"].clone();
    assert_eq!(id, text(&model));

    let plain = server.post("/v1/chat/completions", &hello());
    assert_eq!(plain.text(), server.chat(&[]));
    assert!(plain.json()["usage"]["completion_tokens"].as_u64().unwrap() <= 12);

    let cartridge = json!({"cartridges": [{"id": "lamp", "source": "local"}]});
    let body = with(hello(), cartridge);
    let shelf = server.home.path().join("shelf/lamp");
    let wanted = server.chat(&["--cartridge", text(&shelf)]);
    assert_ne!(wanted, plain.text());
    for path in ["/v1/chat/completions", "/custom/cartridge/chat/completions"] {
        assert_eq!(server.post(path, &body).text(), wanted, "{path}");
    }
    let streamed = with(body.clone(), json!({"stream": true}));
    let streamed = server.post("/v1/chat/completions", &streamed);
    assert!(streamed.head.contains("text/event-stream"), "{streamed:?}");
    let events: Vec<&str> = streamed
        .body
        .lines()
        .filter_map(|l| l.strip_prefix("data: "))
        .collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let pieces: String = events[..events.len() - 1]
        .iter()
        .filter_map(|e| {
            let event: Value = serde_json::from_str(e).unwrap();
            let piece = event["choices"][0]["delta"]["content"].as_str();
            piece.map(str::to_owned)
        })
        .collect();
    assert_eq!(pieces, wanted);

    let list = server.get("/v1/cartridges").json();
    assert!(list.to_string().contains("lamp"), "{list}");
    let metrics = server.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("cartridge"), "{metrics:?}");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn an_adapter_changes_the_requests_that_name_it() {
    let server = start(place(), &[]);
    let (model, home) = (server.home.path().join("model"), server.home.path());
    let folder = home.join("adapters/accent");
    accent(&model, &folder);
    lamp(&model, &home.join("shelf/lamp"));
    let path = "/v1/chat/completions";
    let plain = server.post(path, &hello()).text();
    let named = with(hello(), json!({"adapter": "accent"}));
    let wanted = server.chat(&["--adapter", text(&folder)]);
    assert_ne!(wanted, plain);
    assert_eq!(server.post(path, &named).text(), wanted);
    assert_eq!(server.post(path, &hello()).text(), plain);
    // Behind a cartridge as well.
    let both = with(
        named,
        json!({"cartridges": [{"id": "lamp", "source": "local"}]}),
    );
    let shelf = home.join("shelf/lamp");
    let more = ["--cartridge", text(&shelf), "--adapter", text(&folder)];
    assert_eq!(server.post(path, &both).text(), server.chat(&more));
    for wrong in ["none", "../shelf/lamp", "lamp"] {
        let reply = server.post(path, &with(hello(), json!({"adapter": wrong})));
        assert_eq!(reply.status, 404, "{reply:?}");
    }
    std::fs::write(folder.join("adapter.safetensors"), b"short").unwrap();
    let reply = server.post(path, &with(hello(), json!({"adapter": "accent"})));
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(!reply.body.contains(text(home)), "{reply:?}");
}

#[test]
fn an_answer_has_the_form_that_is_asked_for() {
    let server = start(place(), &[]);
    let schema = json!({"type": "object", "properties": {"steps": {"type": "integer",
        "minimum": 10, "maximum": 99}}, "required": ["steps"], "additionalProperties": false});
    let form = json!({"max_tokens": 300, "temperature": 1, "seed": 4,
        "response_format": {"type": "json_schema",
        "json_schema": {"name": "steps", "schema": schema, "strict": true}}});
    let reply = server.post("/v1/chat/completions", &with(hello(), form));
    let value: Value = serde_json::from_str(&reply.text()).unwrap();
    assert!(
        (10..100).contains(&value["steps"].as_i64().unwrap()),
        "{value}"
    );
}

#[test]
fn hostile_requests_are_refused_and_harm_nobody() {
    let server = start(place(), &[]);
    let outside = server.home.path().join("outside");
    lamp(&server.home.path().join("model"), &outside);
    #[cfg(unix)]
    std::os::unix::fs::symlink(&outside, server.home.path().join("shelf/link")).unwrap();
    let named = |id: &str| {
        with(
            hello(),
            json!({"cartridges": [{"id": id, "source": "local"}]}),
        )
    };
    for id in ["nothing", "link", "../outside", "..", "/etc/passwd", ""] {
        let reply = server.post("/v1/chat/completions", &named(id));
        assert!((400..=422).contains(&reply.status), "{id}: {reply:?}");
        assert!(!reply.body.contains("shelf"), "{reply:?}");
    }
    // A damaged cartridge, and one for another model.
    let shelf = server.home.path().join("shelf");
    for (name, cut) in [("cut", 100), ("empty", 0)] {
        lamp(&server.home.path().join("model"), &shelf.join(name));
        let file = shelf.join(name).join("cartridge.safetensors");
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..cut]).unwrap();
        let reply = server.post("/v1/chat/completions", &named(name));
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.body.contains(name), "{reply:?}");
    }
    for body in [
        "",
        "{",
        "[]",
        "{\"messages\": []}",
        &"[".repeat(100_000),
        &with(hello(), json!({"max_tokens": 0})).to_string(),
        &with(hello(), json!({"max_tokens": 1_000_000})).to_string(),
        &with(hello(), json!({"temperature": -1})).to_string(),
        &with(hello(), json!({"n": 100_000})).to_string(),
        &with(hello(), json!({"adapter": "nothing"})).to_string(),
        &with(
            hello(),
            json!({"messages": [{"role": "user", "content": "word ".repeat(5000)}]}),
        )
        .to_string(),
    ] {
        let reply = server.exchange(&server.request("/v1/chat/completions", None, body));
        let shown: String = body.chars().take(60).collect();
        assert!((400..=422).contains(&reply.status), "{shown}: {reply:?}");
    }
    assert_eq!(server.get("/nonsense").status, 404);
    let wanted = server.chat(&[]);
    assert_eq!(server.post("/v1/chat/completions", &hello()).text(), wanted);
}

#[test]
fn a_request_may_name_a_remote_place_only_where_that_is_allowed() {
    let far = with(
        hello(),
        json!({"cartridges": [{"id": "owner/name", "source": "huggingface"}]}),
    );
    let strict = start(place(), &[]);
    let reply = strict.post("/v1/chat/completions", &far);
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.body.contains("not allowed"), "{reply:?}");
    // The tests' programs run without a network.
    let open = start(place(), &["--allow-remote", "huggingface"]);
    let reply = open.post("/v1/chat/completions", &far);
    assert_eq!(reply.status, 404, "{reply:?}");
    assert!(reply.body.contains("could not be fetched"), "{reply:?}");
}

#[test]
fn a_public_address_and_every_route_need_a_key() {
    let home = place();
    let model = home.path().join("model");
    let public = [
        "serve",
        "--model",
        text(&model),
        "--port",
        "0",
        "--host",
        "0.0.0.0",
    ];
    fails(&public, &["0.0.0.0", "key"]);
    let keys = home.path().join("keys");
    std::fs::write(&keys, "\n# nothing\n").unwrap();
    let unlocked = [&public[..], &["--api-key-file", text(&keys)]].concat();
    fails(&unlocked, &["keys", "no key"]);
    std::fs::write(&keys, "first-key\nsecond-key\n").unwrap();
    let path = text(&keys).to_owned();
    let server = start(home, &["--api-key-file", &path]);
    let body = hello().to_string();
    for (key, status) in [
        (None, 401),
        (Some("wrong"), 401),
        (Some("first-key"), 200),
        (Some("second-key"), 200),
    ] {
        let request = server.request("/v1/chat/completions", key, &body);
        assert_eq!(server.exchange(&request).status, status, "{key:?}");
    }
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(server.get("/metrics").status, 401);
    assert_eq!(server.get("/health").status, 200);
}

#[cfg(unix)]
#[test]
fn it_finishes_what_runs_when_asked_to_end_and_answers_the_same_after_a_kill() {
    let mut server = start(place(), &[]);
    let shelf = server.home.path().join("shelf/lamp");
    lamp(&server.home.path().join("model"), &shelf);
    let body = with(
        hello(),
        json!({"cartridges": [{"id": "lamp", "source": "local"}]}),
    );
    let wanted = server.post("/v1/chat/completions", &body).text();
    let long = with(
        body.clone(),
        json!({"max_tokens": 300, "temperature": 1, "seed": 5}),
    );
    let mut open = server.send(&server.request("/v1/chat/completions", None, &long.to_string()));
    while server.get("/v1/load").json()["running"] == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    let id = server.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut reply = String::new();
    open.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));

    let home = std::mem::replace(&mut server.home, TempDir::new().unwrap());
    let mut again = start(home, &[]);
    drop(again.send(&again.request("/v1/chat/completions", None, &long.to_string())));
    again.child.kill().unwrap();
    again.child.wait().unwrap();
    let home = std::mem::replace(&mut again.home, TempDir::new().unwrap());
    let third = start(home, &[]);
    assert_eq!(third.post("/v1/chat/completions", &body).text(), wanted);
}

#[test]
fn bench_serve_measures_all_ways() {
    let home = place();
    let model = home.path().join("model");
    let args = [
        "bench",
        "serve",
        "--model",
        text(&model),
        "--json",
        "--requests",
        "3",
    ];
    let sizes = [
        "--cartridge-tokens",
        "20",
        "--document-tokens",
        "40,60",
        "--new-tokens",
        "5",
    ];
    let drawn = home.path().join("bench.svg");
    let figure = ["--figure", text(&drawn)];
    let json: Value = serde_json::from_str(&works(&[&args[..], &sizes, &figure].concat())).unwrap();
    let svg = std::fs::read_to_string(&drawn).unwrap();
    // A cartridge, an adapter, and documents of two lengths, kept and anew, each in two batches.
    assert_eq!(svg.matches("<rect").count(), 12, "{svg}");
    let rows = json["throughput"].as_array().unwrap();
    assert_eq!(rows.len(), 12);
    for row in rows {
        let seconds = row["seconds"].as_f64().unwrap();
        let rate = row["tokens_per_second"].as_f64().unwrap();
        assert!((rate * seconds - 15.0).abs() < 1e-6, "{row}");
        assert!(row["kv_rows"].as_u64().unwrap() <= 8192);
    }
    assert_eq!(
        (&rows[0]["kind"], &rows[1]["kind"]),
        (&json!("cartridge"), &json!("adapter"))
    );
    assert_eq!(
        (&rows[2]["rows"], &rows[4]["rows"]),
        (&json!(40), &json!(60))
    );
    fails(
        &["bench", "serve", "--model", text(&model), "--requests", "0"],
        &["--requests"],
    );
}
