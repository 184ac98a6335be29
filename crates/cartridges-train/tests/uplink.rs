//! Online runs of Weights & Biases against a stand-in for the server: what is sent, and that no server
//! can stop training.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cartridges_model::wandb::WandbClient;
use cartridges_train::*;
use serde_json::{Value, json};

/// A request: its line, the authorization, the body.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    key: String,
    body: String,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Answers like the server; the first `refusals` requests get `status` instead.
fn server(status: u16, refusals: usize, has_lines: u64) -> (String, Arc<Mutex<Vec<Seen>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, own) = (seen.clone(), base.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let request = read(&stream);
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            match log.len() <= refusals {
                true => write(&stream, status, &json!({"error": "not now"})),
                false => write(&stream, 200, &answer(&request, &own, has_lines)),
            }
        }
    });
    (base, seen)
}

fn answer(request: &Seen, own: &str, has_lines: u64) -> Value {
    if !request.line.starts_with("POST /graphql") {
        return json!({});
    }
    let asked = request.json();
    let query = asked["query"].as_str().unwrap();
    let data = match query {
        q if q.contains("upsertBucket(") => json!({ "upsertBucket": { "bucket": {
            "id": "b1", "name": asked["variables"]["name"], "displayName": "glowing-lamp-1",
            "project": { "name": "lamps", "entity": { "name": "me" } },
            "historyLineCount": has_lines,
        }, "inserted": true } }),
        q if q.contains("createRunFiles(") => json!({ "createRunFiles": {
            "runID": "b1", "uploadHeaders": ["X-Kept: yes"],
            "files": [{ "name": "x", "uploadUrl": format!("{own}/store/table") }],
        } }),
        other => panic!("{other}"),
    };
    json!({ "data": data })
}

fn read(stream: &TcpStream) -> Seen {
    let mut reader = BufReader::new(stream);
    let (mut line, mut key, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut line).unwrap();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" | "x-kept" => key = value.to_owned(),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Seen {
        line: line.trim().to_owned(),
        key,
        body: String::from_utf8(body).unwrap(),
    }
}

fn write(mut stream: &TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}

fn report(step: usize) -> StepReport {
    StepReport {
        step,
        total: 5,
        loss: 1.5 / step as f64,
        lr: 1e-3,
        grad_norm: 0.25,
        tokens: 40,
        targets: 10,
        on_policy_kl: None,
        epoch: 0,
        rows: step,
        total_tokens: 40 * step,
        total_targets: 10 * step,
        seconds: 0.125,
    }
}

/// A run of five steps and a table, sent to `base`; how long it took.
fn run(folder: &Path, base: &str) -> Duration {
    let config = WandbConfig {
        project: "lamps".to_owned(),
        name: "first".to_owned(),
        tags: vec!["a".to_owned()],
        ..WandbConfig::default()
    };
    let client = WandbClient::new(base, "secret").unwrap();
    let mut tracker = WandbOffline::new(folder, config).online(client);
    let settings = json!({ "lr": 1e-3 });
    let sizes = Sizes {
        trainable_slots: 5,
        trainable_parameters: 960,
    };
    let start = RunStart {
        step: 0,
        total: 5,
        sizes,
        settings: &settings,
    };
    let begin = Instant::now();
    tracker.begin(&start).unwrap();
    for step in 1..=5 {
        tracker.step(&report(step)).unwrap();
    }
    let table = Table {
        name: "generate_x/table".to_owned(),
        columns: vec!["pred".to_owned()],
        rows: vec![vec![json!("Edda Falk")]],
    };
    tracker.table(5, &table).unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "training waited for the network"
    );
    tracker.end().unwrap();
    begin.elapsed()
}

/// What arrived: the history's lines in their order, each at the place it was sent to.
fn history(seen: &[Seen], from: u64) -> Vec<Value> {
    let mut lines = Vec::new();
    for post in seen.iter().filter(|s| s.line.contains("file_stream")) {
        let file = &post.json()["files"]["wandb-history.jsonl"];
        let Some(content) = file["content"].as_array() else {
            continue;
        };
        assert_eq!(file["offset"], from + lines.len() as u64);
        let parse = |line: &Value| serde_json::from_str::<Value>(line.as_str().unwrap()).unwrap();
        lines.extend(content.iter().map(parse));
    }
    lines
}

fn offline_lines(folder: &Path) -> Vec<Value> {
    let part = std::fs::read_dir(folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = std::fs::read_to_string(part.join("files/wandb-history.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn everything_of_a_run_is_sent() {
    let (base, seen) = server(200, 0, 7);
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &base);
    let seen = seen.lock().unwrap();
    // `api:secret` in base64; files go to where the server says, without the key.
    let puts: Vec<&Seen> = seen.iter().filter(|s| s.line.starts_with("PUT")).collect();
    assert_eq!(
        (puts.len(), puts[0].line.as_str()),
        (1, "PUT /store/table HTTP/1.1")
    );
    assert_eq!(puts[0].key, "yes");
    assert_eq!(
        puts[0].json(),
        json!({ "columns": ["pred"], "data": [["Edda Falk"]] })
    );
    let signed = seen.iter().filter(|s| s.line.starts_with("POST"));
    assert!(signed.clone().all(|s| s.key == "Basic YXBpOnNlY3JldA=="));
    let begun = seen[0].json();
    let variables = &begun["variables"];
    assert_eq!(
        (&variables["project"], &variables["displayName"]),
        (&json!("lamps"), &json!("first"))
    );
    assert_eq!(
        (&variables["entity"], &variables["tags"]),
        (&Value::Null, &json!(["a"]))
    );
    let config: Value = serde_json::from_str(variables["config"].as_str().unwrap()).unwrap();
    assert_eq!(config["lr"]["value"], 1e-3);
    assert_eq!(config["num_trainable_params"]["value"], 960);
    let id = variables["name"].as_str().unwrap();
    let stream = format!("POST /files/me/lamps/{id}/file_stream HTTP/1.1");
    let streams: Vec<&Seen> = seen.iter().filter(|s| s.line == stream).collect();
    assert_eq!(history(&seen, 7), offline_lines(folder.path()));
    let last = streams[streams.len() - 1].json();
    assert_eq!(
        (&last["complete"], &last["exitcode"]),
        (&json!(true), &json!(0))
    );
    let mut summaries = streams.iter().filter_map(|s| {
        let json = s.json();
        Some(
            json["files"]["wandb-summary.json"]["content"][0]
                .as_str()?
                .to_owned(),
        )
    });
    let summary: Value = serde_json::from_str(&summaries.next_back().unwrap()).unwrap();
    assert_eq!(
        (&summary["train/loss"], &summary["_step"]),
        (&json!(0.3), &json!(5))
    );
    assert_eq!(summary["generate_x/table"]["_type"], "table-file");
}

#[test]
fn a_server_that_is_busy_gets_it_later() {
    let (base, seen) = server(503, 2, 0);
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &base);
    let seen = seen.lock().unwrap();
    assert_eq!(history(&seen[2..], 0), offline_lines(folder.path()));
    assert_eq!(seen.last().unwrap().json()["complete"], true);
}

#[test]
fn no_server_stops_a_run() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let (refusing, seen) = server(401, usize::MAX, 0);
    for (base, longest) in [
        (refusing, 3),
        (nobody, 12),
        (format!("http://{}", hanging.local_addr().unwrap()), 12),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let took = run(folder.path(), &base);
        assert!(took < Duration::from_secs(longest), "{base}: {took:?}");
        assert_eq!(offline_lines(folder.path()).len(), 5);
    }
    // It was not asked again.
    assert_eq!(seen.lock().unwrap().len(), 1);
}
