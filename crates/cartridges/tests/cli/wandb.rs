//! Data from Weights & Biases, runs that are sent there, and `--tui` where there is no terminal.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};

use super::stages::{Place, SYNTHESIZE, TRAIN};
use super::*;

/// A server with one artifact, `me/lamps/study:v0`, of one parquet file and one that is none; it takes
/// runs too.
fn server(parquet: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(&stream, &parquet);
        }
    });
    base
}

fn answer(mut stream: &TcpStream, parquet: &[u8]) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim().to_ascii_lowercase().split_once(": ") {
            None => break,
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let query = body["query"].as_str().unwrap_or_default();
    let node = |name: &str| {
        json!({ "node": {
            "name": name, "directUrl": "/file", "sizeBytes": parquet.len(), "updatedAt": "",
        } })
    };
    let edges = [node("dataset.parquet"), node("notes.txt")];
    let files = json!({ "edges": edges, "pageInfo": { "hasNextPage": false } });
    let membership = match (&body["variables"]["name"], &body["variables"]["alias"]) {
        (name, alias) if name == "study" && alias == "v0" => json!({ "files": files }),
        _ => Value::Null,
    };
    let reply = match query {
        _ if line.starts_with("GET /file ") => parquet.to_vec(),
        q if q.contains("artifactMembership") => {
            let data = json!({ "project": { "artifactCollection": { "artifactMembership": membership } } });
            json!({ "data": data }).to_string().into_bytes()
        }
        // Runs are refused.
        _ => {
            let _ = stream
                .write_all(b"HTTP/1.1 403 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            return;
        }
    };
    let head = format!(
        "HTTP/1.1 200 x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        reply.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&reply);
}

/// Exit code and stderr of the program with this server.
fn with_server(place: &Place, base: &str, words: &str, key: &str) -> (Option<i32>, String) {
    let output = program(&place.home)
        .args(place.args(words))
        .env("WANDB_BASE_URL", base)
        .env("WANDB_API_KEY", key)
        .env_remove("WANDB_MODE")
        .output()
        .unwrap();
    (output.status.code(), utf8(&output.stderr))
}

#[test]
fn data_of_an_artifact_trains_as_the_file_does() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    place.works(&format!("{TRAIN} --steps 2"));
    let parquet = std::fs::read(place.path("study/dataset.parquet")).unwrap();
    let base = server(parquet);
    let words = TRAIN
        .replace("path:study/dataset.parquet", "wandb:me/lamps/study:v0")
        .replace("path:cartridge", "path:remote");
    // The run is refused by the server, which stops nothing.
    place.write(
        "online.toml",
        "trackers = [\"wandb\"]\n[wandb]\nmode = \"online\"\n",
    );
    let online = format!("{words} --steps 2 --config path:online.toml --tui");
    let (code, stderr) = with_server(&place, &base, &online, "key");
    assert_eq!(code, Some(0), "{stderr}");
    for part in [
        "fetching dataset.parquet of wandb:me/lamps/study:v0",
        "--tui: there is no terminal",
        "status 403",
        "2 steps and 0 files were not sent",
        "wandb sync",
    ] {
        assert!(stderr.contains(part), "no `{part}` in {stderr}");
    }
    let read =
        |out: &str| std::fs::read(place.path(&format!("{out}/cartridge.safetensors"))).unwrap();
    assert!(read("remote") == read("cartridge"));

    let fails = |words: &str, key: &str, part: &str| {
        let (code, stderr) = with_server(&place, &base, words, key);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.lines().last().unwrap().contains(part), "{stderr}");
    };
    fails(&words, "", "WANDB_API_KEY is not set");
    fails(
        &words.replace(":v0", ":v1"),
        "key",
        "no artifact me/lamps/study:v1",
    );
    fails(
        &words.replace("me/lamps", "me"),
        "key",
        "ENTITY/PROJECT/NAME",
    );
    fails(
        &format!("{TRAIN} --config path:online.toml"),
        "",
        "WANDB_API_KEY is not set",
    );
}
