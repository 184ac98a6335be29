//! Cancelling, timeouts, shutdown, measurements.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use cartridges_serve::ServerOptions;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Running, chat, options, start};

const CHAT: &str = "/v1/chat/completions";

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn forever(server: &Running, stream: bool) -> reqwest::RequestBuilder {
    let body = chat(
        "forever",
        json!({"max_tokens": 1_000_000, "stream": stream, "n": 2}),
    );
    server
        .http
        .post(format!("{}{CHAT}", server.url))
        .json(&body)
}

#[tokio::test]
async fn a_client_that_goes_cancels_its_jobs() {
    let server = start(options()).await;
    for stream in [false, true] {
        let request = forever(&server, stream);
        let task = tokio::spawn(async move {
            let mut response = request.send().await.unwrap();
            while let Ok(Some(_)) = response.chunk().await {}
        });
        until("the jobs run", || server.fake.running.load(SeqCst) == 2).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        task.abort();
        until("the jobs end", || server.fake.running.load(SeqCst) == 0).await;
    }
    assert_eq!(server.fake.cancelled.load(SeqCst), 4);
}

#[tokio::test]
async fn requests_may_not_take_for_ever() {
    let server = start(ServerOptions {
        request_timeout_seconds: 1,
        ..options()
    })
    .await;
    assert_eq!(forever(&server, false).send().await.unwrap().status(), 504);
    let text = forever(&server, true)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(text.contains("\"timeout\"") && !text.contains("[DONE]"));
    until("the jobs end", || server.fake.running.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn slow_senders_are_cut_off() {
    let server = start(ServerOptions {
        read_timeout_seconds: 1,
        ..options()
    })
    .await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    for (sent, answer) in [
        (head.clone(), ""),
        (
            format!("{head}Content-Length: 100\r\n\r\n{{"),
            "HTTP/1.1 408",
        ),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let read = stream.read_to_end(&mut got);
        let _ = tokio::time::timeout(Duration::from_secs(4), read)
            .await
            .expect("still open");
        assert!(String::from_utf8_lossy(&got).starts_with(answer), "{got:?}");
    }
}

#[tokio::test]
async fn shutdown_finishes_what_runs_and_refuses_the_rest() {
    let mut server = start(options()).await;
    let words = "word ".repeat(15);
    let body = chat(&format!("slow say:{words}"), json!({"max_tokens": 100}));
    let request = server
        .http
        .post(format!("{}{CHAT}", server.url))
        .json(&body)
        .send();
    let running = tokio::spawn(request);
    until("the job runs", || server.fake.running.load(SeqCst) == 1).await;
    server.stop.take().unwrap().send(()).unwrap();
    let response = running.await.unwrap().unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    let ended = tokio::time::timeout(Duration::from_secs(5), server.ended.take().unwrap());
    ended.await.expect("the server ends").unwrap();
    assert!(
        reqwest::get(format!("{}/health", server.url))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let mut server = start(ServerOptions {
        drain_timeout_seconds: 1,
        ..options()
    })
    .await;
    let running = tokio::spawn(forever(&server, true).send());
    let response = running.await.unwrap().unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(4), server.ended.take().unwrap());
    ended.await.expect("the server ends").unwrap();
    drop(response);
    until("the jobs end", || server.fake.running.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn measurements_and_lists_are_told() {
    let server = start(options()).await;
    server.json(CHAT, chat("x", json!({}))).await;
    server.get("/v1/files/made-up-by-a-client").await;
    let text = server.get("/metrics").await.text().await.unwrap();
    for part in [
        "cartridges_requests_total{route=\"/v1/chat/completions\",method=\"POST\",status=\"200\"} 1",
        "route=\"/v1/files/{id}\"",
        "cartridges_time_to_first_token_seconds_count 1",
        "cartridges_inter_token_seconds_count 3",
        "cartridges_generated_tokens_total 4",
        "cartridges_kv_rows_used 640",
        "cartridges_kv_rows_kept 320",
        "cartridges_tokens_per_second",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("made-up"));
    let list: Value = server.get("/v1/cartridges").await.json().await.unwrap();
    assert_eq!(list["data"][0]["id"], "faq");
    assert_eq!(list["data"][0]["tokens"], 128);
    let load: Value = server.get("/v1/load").await.json().await.unwrap();
    assert_eq!(load["kv_rows_total"], 4096);
    let openapi: Value = server.get("/openapi.json").await.json().await.unwrap();
    assert!(openapi["paths"]["/batch/cartridge/chat/completions"]["post"].is_object());
    assert_eq!(server.get("/ready").await.status(), 200);
}
