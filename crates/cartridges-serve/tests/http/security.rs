//! Keys, origins, limits.

use cartridges_serve::{ApiKey, Server, ServerOptions};
use serde_json::{Value, json};

use crate::fake::Fake;
use crate::support::{chat, options, start};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_key_is_needed_nearly_everywhere() {
    let server = start(ServerOptions {
        api_keys: vec![ApiKey("k1".into())],
        ..options()
    })
    .await;
    for path in ["/health", "/ready", "/"] {
        assert_eq!(server.get(path).await.status(), 200, "{path}");
    }
    for path in [
        "/v1/models",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v1/cartridges",
        "/v1/load",
        "/ping",
        "/v1/files",
        "/v1/batches",
        "/nowhere",
    ] {
        assert_eq!(server.get(path).await.status(), 401, "{path}");
    }
    let (status, body) = server
        .json("/batch/chat/completions", json!({"requests": []}))
        .await;
    assert_eq!(status, 401);
    assert!(body["detail"].is_string());
    let with = |key: &str| {
        server
            .http
            .get(format!("{}/v1/models", server.url))
            .bearer_auth(key)
            .send()
    };
    assert_eq!(with("k1").await.unwrap().status(), 200);
    assert_eq!(with("k2").await.unwrap().status(), 401);
}

#[tokio::test]
async fn files_of_one_key_are_not_seen_by_another() {
    let keys = vec![ApiKey("k1".into()), ApiKey("k2".into())];
    let server = start(ServerOptions {
        api_keys: keys,
        ..options()
    })
    .await;
    let form = reqwest::multipart::Form::new()
        .text("purpose", "batch")
        .part("file", reqwest::multipart::Part::text("x").file_name("f"));
    let url = format!("{}/v1/files", server.url);
    let file = server
        .http
        .post(&url)
        .bearer_auth("k1")
        .multipart(form)
        .send()
        .await
        .unwrap();
    let file: Value = file.json().await.unwrap();
    let path = format!("{url}/{}", file["id"].as_str().unwrap());
    let get = |key: &str| server.http.get(&path).bearer_auth(key).send();
    assert_eq!(get("k1").await.unwrap().status(), 200);
    assert_eq!(get("k2").await.unwrap().status(), 404);
}

#[tokio::test]
async fn foreign_pages_and_names_are_refused() {
    let server = start(options()).await;
    let url = format!("{}{CHAT}", server.url);
    let post = |name: &'static str, value: &'static str| {
        server
            .http
            .post(&url)
            .json(&chat("x", json!({})))
            .header(name, value)
            .send()
    };
    assert_eq!(post("host", "evil.example").await.unwrap().status(), 403);
    assert_eq!(
        post("origin", "http://evil.example")
            .await
            .unwrap()
            .status(),
        403
    );
    assert_eq!(post("x-other", "x").await.unwrap().status(), 200);
    let form = server
        .http
        .post(&url)
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(form.send().await.unwrap().status(), 415);
}

#[tokio::test]
async fn public_addresses_need_a_key() {
    let public = || ServerOptions {
        host: "0.0.0.0".into(),
        ..options()
    };
    let bind = |options| Server::bind(options, std::sync::Arc::new(Fake::default()));
    let error = bind(public()).await.err().unwrap().to_string();
    assert!(error.contains("API key"), "{error}");
    assert!(
        bind(ServerOptions {
            force_public: true,
            ..public()
        })
        .await
        .is_ok()
    );
    let keyed = ServerOptions {
        api_keys: vec![ApiKey("k".into())],
        ..public()
    };
    assert!(bind(keyed).await.is_ok());
    let server = bind(options()).await.unwrap();
    assert!(server.url().starts_with("http://127.0.0.1:"));
}

#[tokio::test]
async fn sizes_are_limited() {
    let server = start(ServerOptions {
        max_body_bytes: 3000,
        max_messages: 2,
        max_queue: 5,
        ..options()
    })
    .await;
    let (status, body) = server.json(CHAT, chat(&"x".repeat(4000), json!({}))).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (413, &json!("request_too_large"))
    );
    let message = json!({"role": "user", "content": "x"});
    let many = json!({"messages": [message, message, message]});
    assert_eq!(server.json(CHAT, chat("", many)).await.0, 400);
    let deep = format!("{}{}", "[".repeat(400), "]".repeat(400));
    let request = server.http.post(format!("{}{CHAT}", server.url));
    let request = request
        .header("content-type", "application/json")
        .body(deep);
    assert_eq!(request.send().await.unwrap().status(), 400);
    server
        .fake
        .queued
        .store(5, std::sync::atomic::Ordering::SeqCst);
    let response = server.post(CHAT, chat("x", json!({}))).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn a_panic_fails_one_request_and_tells_nothing() {
    let server = start(options()).await;
    let response = server.post(CHAT, chat("panic", json!({}))).await;
    assert_eq!(response.status(), 500);
    let text = response.text().await.unwrap();
    assert!(
        text.contains("internal error") && !text.contains("secret"),
        "{text}"
    );
    assert_eq!(server.json(CHAT, chat("x", json!({}))).await.0, 200);
}

#[tokio::test]
async fn pages_carry_a_policy() {
    let server = start(options()).await;
    for path in ["/", "/docs"] {
        let response = server.get(path).await;
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert!(response.headers().contains_key("x-request-id"));
        assert!(response.text().await.unwrap().contains("<title>"));
    }
}
