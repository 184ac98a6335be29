//! Files and batches.

use std::time::Duration;

use cartridges_serve::ServerOptions;
use serde_json::{Value, json};

use crate::support::{Running, chat, options, start};

async fn upload(server: &Running, content: String, purpose: &str) -> (u16, Value) {
    let part = reqwest::multipart::Part::text(content).file_name("in.jsonl");
    let form = reqwest::multipart::Form::new()
        .text("purpose", purpose.to_owned())
        .part("file", part);
    let response = server
        .http
        .post(format!("{}/v1/files", server.url))
        .multipart(form)
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn line(id: usize, url: &str, body: Value) -> String {
    json!({"custom_id": format!("c{id}"), "method": "POST", "url": url, "body": body}).to_string()
}

async fn wait(server: &Running, id: &str) -> Value {
    for _ in 0..200 {
        let batch: Value = server
            .get(&format!("/v1/batches/{id}"))
            .await
            .json()
            .await
            .unwrap();
        if batch["status"] != "in_progress" {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the batch did not end");
}

#[tokio::test]
async fn a_batch_runs_to_its_end() {
    let server = start(options()).await;
    let url = "/v1/chat/completions";
    let lines = [
        line(0, url, chat("say:zero", json!({}))),
        line(1, url, chat("fail:invalid", json!({}))),
        line(2, url, chat("say:two", json!({}))),
    ];
    let (_, file) = upload(&server, lines.join("\n"), "batch").await;
    assert_eq!(
        (&file["object"], &file["purpose"]),
        (&json!("file"), &json!("batch"))
    );
    let request = json!({"input_file_id": file["id"], "endpoint": url, "completion_window": "24h",
        "metadata": {"a": "b"}});
    let (status, batch) = server.json("/v1/batches", request).await;
    assert_eq!(
        (status, &batch["status"]),
        (200, &json!("in_progress")),
        "{batch}"
    );
    let batch = wait(&server, batch["id"].as_str().unwrap()).await;
    assert_eq!(batch["status"], "completed", "{batch}");
    assert_eq!(
        batch["request_counts"],
        json!({"total": 3, "completed": 2, "failed": 1})
    );
    let output = batch["output_file_id"].as_str().unwrap();
    let text = server
        .get(&format!("/v1/files/{output}/content"))
        .await
        .text()
        .await
        .unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[2]["custom_id"], "c2");
    assert_eq!(lines[2]["id"], "tokasaurus");
    let answer = &lines[2]["response"]["body"]["choices"][0]["message"]["content"];
    assert_eq!(answer, "two");
    assert_eq!(lines[1]["response"]["status_code"], 400);
    let info: Value = server
        .get(&format!("/v1/files/{output}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(info["purpose"], "batch_output");
    let deleted = server
        .http
        .delete(format!("{}/v1/files/{output}", server.url));
    let deleted: Value = deleted.send().await.unwrap().json().await.unwrap();
    assert_eq!(deleted["deleted"], true);
    assert_eq!(
        server
            .get(&format!("/v1/files/{output}/content"))
            .await
            .status(),
        404
    );
}

#[tokio::test]
async fn cartridge_batches_run_too() {
    let server = start(options()).await;
    let url = "/v1/cartridge/completions";
    let body = json!({"model": "m", "prompt": "x", "cartridges": [{"id": "faq"}]});
    let (_, file) = upload(&server, line(0, url, body), "batch").await;
    let request = json!({"input_file_id": file["id"], "endpoint": url, "completion_window": "24h"});
    let (_, batch) = server.json("/v1/batches", request).await;
    let batch = wait(&server, batch["id"].as_str().unwrap()).await;
    assert_eq!(batch["request_counts"]["completed"], 1, "{batch}");
}

#[tokio::test]
async fn wrong_batches_are_refused() {
    let server = start(options()).await;
    let long =
        json!({"input_file_id": "x", "endpoint": "x", "metadata": {"a": "x".repeat(20_000)}});
    assert_eq!(server.json("/v1/batches", long).await.0, 400, "long notes");
    let url = "/v1/chat/completions";
    let create = |id: Value, url: &str| {
        server.json(
            "/v1/batches",
            json!({"input_file_id": id, "endpoint": url, "completion_window": "24h"}),
        )
    };
    assert_eq!(create(json!("none"), url).await.0, 404);
    let good = line(0, url, chat("x", json!({})));
    let (_, file) = upload(&server, good.clone(), "assistants").await;
    assert_eq!(create(file["id"].clone(), url).await.0, 400, "purpose");
    let (_, file) = upload(&server, good.clone(), "batch").await;
    assert_eq!(
        create(file["id"].clone(), "/v1/completions").await.0,
        400,
        "other path"
    );
    assert_eq!(
        create(file["id"].clone(), "/v1/files").await.0,
        400,
        "no such path"
    );
    let (_, file) = upload(&server, format!("{good}\nnonsense"), "batch").await;
    let (status, body) = create(file["id"].clone(), url).await;
    assert_eq!(status, 400);
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Line 2 did not parse"),
        "{body}"
    );
}

#[tokio::test]
async fn batches_can_be_cancelled() {
    let server = start(options()).await;
    let url = "/v1/chat/completions";
    let body = chat("forever", json!({"max_tokens": 100_000}));
    let (_, file) = upload(&server, line(0, url, body), "batch").await;
    let request = json!({"input_file_id": file["id"], "endpoint": url, "completion_window": "24h"});
    let (_, batch) = server.json("/v1/batches", request).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    let (status, batch) = server.json(&path, json!({})).await;
    assert_eq!((status, &batch["status"]), (200, &json!("cancelled")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        server
            .fake
            .cancelled
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn files_are_limited() {
    let server = start(ServerOptions {
        max_body_bytes: 2000,
        ..options()
    })
    .await;
    let (status, body) = upload(&server, "x".repeat(5000), "batch").await;
    assert_eq!(status, 413, "{body}");
}
