//! Against a stand-in for the server on 127.0.0.1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::*;

const KEY: &str = "0123456789abcdef";
/// `api:` and the key, in base64.
const SIGNED: &str = "Basic YXBpOjAxMjM0NTY3ODlhYmNkZWY=";

/// Method and path, authorization, body.
type Seen = Arc<Mutex<Vec<(String, String, String)>>>;

/// Answers every request by what `answer` makes of its path and body; gives the address and what came.
fn stand_in(
    answer: impl Fn(&str, &str, &str) -> (u16, Vec<u8>) + Send + Sync + 'static,
) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (seen, answer) = (Seen::default(), Arc::new(answer));
    let (log, own) = (seen.clone(), base.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (log, own, answer) = (log.clone(), own.clone(), answer.clone());
            thread::spawn(move || serve(&stream, &log, |path, body| answer(&own, path, body)));
        }
    });
    (base, seen)
}

fn serve(mut stream: &TcpStream, seen: &Seen, answer: impl Fn(&str, &str) -> (u16, Vec<u8>)) {
    let mut reader = BufReader::new(stream);
    let (mut first, mut key, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim().split_once(": ") {
            None => break,
            Some((name, value)) => match name.to_ascii_lowercase().as_str() {
                "authorization" => key = value.to_owned(),
                "content-length" => length = value.parse().unwrap(),
                _ => {}
            },
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let line = first.rsplit_once(' ').unwrap().0.to_owned();
    let path = line.split_once(' ').unwrap().1.to_owned();
    seen.lock().unwrap().push((line, key, body.clone()));
    let (status, content) = answer(&path, &body);
    let head = format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        content.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&content);
}

fn node(name: &str, url: &str, bytes: &Value, digest: &str) -> Value {
    json!({ "node": {
        "name": name, "directUrl": url, "sizeBytes": bytes, "updatedAt": "2026-01-02T03:04:05Z",
        "digest": digest, "md5": null,
    } })
}

/// An artifact of two pages, and a run.
fn answer(base: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
    if path != "/graphql" {
        return match path {
            "/storage/a" => (200, b"abc".to_vec()),
            "/storage/long" => (200, b"abcd".to_vec()),
            _ => (404, b"no such file".to_vec()),
        };
    }
    let body: Value = serde_json::from_str(body).unwrap();
    let variables = &body["variables"];
    let page = |edges: Vec<Value>, next: Option<&str>| json!({ "edges": edges, "pageInfo": { "hasNextPage": next.is_some(), "endCursor": next } });
    // RFC 1321: the digest of "abc" is 900150983cd24fb0d6963f7d28e17f72.
    let md5 = "kAFQmDzST7DWlj99KOF/cg==";
    let url = format!("{base}/storage/a");
    let artifact = |files: Value| json!({ "project": { "artifactCollection": { "artifactMembership": { "files": files } } } });
    let asked = body["query"].as_str().unwrap();
    let data = match variables["name"].as_str().unwrap() {
        "lamp" if variables["alias"] == "v3" && variables["cursor"].is_null() => {
            let first = node("data/a.parquet", "/storage/a", &json!(3), md5);
            artifact(page(vec![first], Some("c1")))
        }
        "lamp" if variables["alias"] == "v3" && variables["cursor"] == "c1" => {
            let broken = node(
                "data/b.parquet",
                &url,
                &json!("3"),
                "AAAAAAAAAAAAAAAAAAAAAA==",
            );
            let long = node("long", "/storage/long", &json!(3), "");
            artifact(page(vec![broken, long], None))
        }
        "1w8mwo34" if asked.contains("RunFiles") => {
            let hex = "900150983cd24fb0d6963f7d28e17f72";
            let file = node("cache-step64.pt", &url, &json!(3), hex);
            let out = node("../../out", &url, &json!(3), hex);
            json!({ "project": { "run": { "files": page(vec![file, out], None) } } })
        }
        "broken" => {
            return (
                200,
                json!({ "errors": [{ "message": "no lamp" }] })
                    .to_string()
                    .into(),
            );
        }
        "html" => return (200, b"<html>".to_vec()),
        "busy" => return (503, b"later".to_vec()),
        "closed" => return (401, b"{\"error\": \"who\"}".to_vec()),
        _ if asked.contains("RunFiles") => json!({ "project": null }),
        _ => json!({ "project": { "artifactCollection": null } }),
    };
    (200, json!({ "data": data }).to_string().into())
}

#[test]
fn artifacts_and_runs_are_read_and_checked() {
    let (base, seen) = stand_in(answer);
    let client = WandbClient::new(&format!("{base}/"), KEY).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source: WandbSource = "wandb:me/lamps/lamp:v3".parse().unwrap();
    let files = list_files(&client, &source).unwrap();
    let names: Vec<&str> = files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["data/a.parquet", "data/b.parquet", "long"]);
    let path = download(&client, &files[0], folder.path()).unwrap();
    assert_eq!(path, folder.path().join("data/a.parquet"));
    assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    let asked = seen.lock().unwrap().len();
    assert_eq!(asked, 3);
    // What is there is not fetched again.
    download(&client, &files[0], folder.path()).unwrap();
    assert_eq!(seen.lock().unwrap().len(), asked);
    for (file, problem) in [(&files[1], "its digest"), (&files[2], "4 bytes")] {
        let error = download(&client, file, folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(problem) && error.contains(&file.name),
            "{error}"
        );
        assert!(!folder.path().join(&file.name).exists());
    }
    let run: WandbSource = "me/lamps/1w8mwo34".parse().unwrap();
    let files = list_files(&client, &run).unwrap();
    let path = download(&client, &files[0], folder.path()).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"abc");
    let error = download(&client, &files[1], folder.path()).unwrap_err();
    assert!(error.to_string().contains("leads out"), "{error}");
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(_, key, _)| key == SIGNED), "{seen:?}");
    assert!(!format!("{client:?}").contains(KEY));
}

#[test]
fn the_key_goes_to_the_server_alone() {
    let (storage, seen) = stand_in(|_, _, _| (200, b"abc".to_vec()));
    let url = format!("{storage}/x?signature=1");
    let (base, _) = stand_in(move |_, _, _| {
        let file = node("x", &url, &json!(3), "");
        let files = json!({ "edges": [file], "pageInfo": { "hasNextPage": false } });
        let data = json!({ "project": { "artifactCollection": { "artifactMembership": { "files": files } } } });
        (200, json!({ "data": data }).to_string().into())
    });
    let client = WandbClient::new(&base, KEY).unwrap();
    let files = list_files(&client, &"a/b/c".parse().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    download(&client, &files[0], folder.path()).unwrap();
    assert_eq!(seen.lock().unwrap()[0].1, "");
}

#[test]
fn refusals_say_what_and_where() {
    let (base, _) = stand_in(answer);
    let client = WandbClient::new(&base, KEY).unwrap();
    let cases = [
        ("a/b/nothing:v1", "has no artifact a/b/nothing:v1", false),
        ("a/b/nothing", "has no artifact or run a/b/nothing", false),
        ("a/b/broken", "no lamp", false),
        ("a/b/html", "not JSON: <html>", false),
        ("a/b/busy", "status 503: later", true),
        ("a/b/closed", "WANDB_API_KEY", false),
    ];
    for (name, said, passes) in cases {
        let error = list_files(&client, &name.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains(&base), "{error}");
        assert_eq!(error.may_pass(), passes, "{error}");
    }
    let nobody = WandbClient::new("http://127.0.0.1:9", KEY).unwrap();
    let error = list_files(&nobody, &"a/b/c".parse().unwrap()).unwrap_err();
    assert!(
        error.may_pass() && error.to_string().contains("no connection"),
        "{error}"
    );
    assert!(WandbClient::new(&base, " ").is_err());
    for bad in [
        "wandb:",
        "a/b",
        "a/b/c/d",
        "a//c",
        "a/../c",
        "a/b/c:",
        "wandb:a/b/c:x/y",
    ] {
        assert!(bad.parse::<WandbSource>().is_err(), "{bad}");
    }
    let whole: WandbSource = "wandb://a/b/c:v0".parse().unwrap();
    assert_eq!(whole.to_string(), "a/b/c:v0");
}
