//! Tokasaurus' paths.

use serde_json::{Value, json};

use crate::support::{chat, options, start};

const CHAT: [&str; 2] = [
    "/custom/cartridge/chat/completions",
    "/v1/cartridge/chat/completions",
];
const TEXT: [&str; 2] = ["/custom/cartridge/completions", "/v1/cartridge/completions"];
const PLAIN: [&str; 2] = [
    "/custom/synchronous-batch-completions",
    "/batch/chat/completions",
];
const BATCH: [&str; 2] = [
    "/custom/cartridge/synchronous-batch-completions",
    "/batch/cartridge/chat/completions",
];

#[tokio::test]
async fn ping_pongs() {
    let server = start(options()).await;
    let body: Value = server.get("/ping").await.json().await.unwrap();
    assert_eq!(body, json!({"message": "pong"}));
}

#[tokio::test]
async fn cartridges_are_sorted_and_found_locally() {
    let server = start(options()).await;
    for path in CHAT {
        let cartridges = json!([{"id": "manual"}, {"id": "faq", "source": "huggingface"}]);
        let request = chat(
            "x",
            json!({"model": "any", "cartridges": cartridges, "max_tokens": 9}),
        );
        let (status, body) = server.json(path, request).await;
        assert_eq!(status, 200, "{body}");
        let text = body["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(text.starts_with("[faq] [manual] "), "{text}");
        assert_eq!(body["model"], "any");
    }
    for path in TEXT {
        let request = json!({"model": "m", "prompt": [1, 2], "cartridges": [{"id": "faq"}], "n": 2,
            "top_p": 0.9});
        let (status, body) = server.json(path, request).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["object"], "text_completion");
        assert_eq!(body["choices"][0]["text"], "[faq] tok0 tok1 tok2 ");
        assert_eq!(body["usage"]["prompt_tokens"], 4, "counted once per answer");
    }
}

#[tokio::test]
async fn log_probs_name_vocabulary_strings() {
    let server = start(options()).await;
    let request = chat(
        "say:a b",
        json!({"max_tokens": 9, "logprobs": true, "top_logprobs": 1}),
    );
    let (_, body) = server.json(CHAT[0], request).await;
    let content = &body["choices"][0]["logprobs"]["content"];
    assert_eq!(content[0]["token"], "aĠ");
    assert_eq!(content[0]["bytes"], json!([]));
}

#[tokio::test]
async fn errors_have_details() {
    let server = start(options()).await;
    let tries = [
        (json!({"max_tokens": 1, "nonsense": 1}), 422),
        (json!({"max_tokens": "x"}), 422),
        (
            json!({"max_tokens": 1, "cartridges": [{"id": "a", "source": "s3"}]}),
            422,
        ),
        (json!({"max_tokens": 1, "cartridges": [{"id": ""}]}), 400),
        (
            json!({"max_tokens": 1, "cartridges": [{"id": "elsewhere"}]}),
            400,
        ),
        (
            json!({"max_tokens": 1, "cartridges": [{"id": "missing", "source": "local"}]}),
            400,
        ),
        (json!({"max_tokens": 1, "max_completion_tokens": 1}), 400),
        (json!({"max_tokens": 0}), 400),
        (json!({"max_tokens": 1, "frequency_penalty": 1}), 400),
        (json!({"max_tokens": 1, "top_logprobs": 1}), 400),
        (
            json!({"max_tokens": 1, "messages": [{"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}),
            400,
        ),
    ];
    for (more, wanted) in tries {
        let (status, body) = server.json(CHAT[0], chat("x", more.clone())).await;
        assert_eq!(status, wanted, "{more} gave {body}");
        assert!(
            body["detail"].is_string() || body["detail"].is_array(),
            "{body}"
        );
    }
    let (status, _) = server
        .json(
            PLAIN[0],
            json!({"requests": [chat("x", json!({"cartridges": []}))]}),
        )
        .await;
    assert_eq!(status, 422, "no cartridges on the plain path");
}

#[tokio::test]
async fn batches_are_pickles_or_json() {
    let server = start(options()).await;
    let one = |text: &str| {
        chat(
            text,
            json!({"max_completion_tokens": 9, "temperature": 0.0, "logprobs": true,
            "top_logprobs": 2, "logprobs_in_fingerprint": true,
            "apply_chat_template_overrides": {"enable_thinking": false}}),
        )
    };
    let body = json!({"requests": [one("say:first"), one("say:second")]});
    for path in PLAIN.into_iter().chain(BATCH) {
        let bytes = server.post(path, body.clone()).await.bytes().await.unwrap();
        assert!(
            bytes.starts_with(b"\x80\x02](") && bytes.ends_with(b"e."),
            "{path}"
        );
        let dict = bytes.starts_with(b"\x80\x02](}");
        assert_eq!(dict, path.contains("cartridge"), "{path}");
        let request = server
            .http
            .post(format!("{}{path}", server.url))
            .json(&body);
        let response = request
            .header("accept", "application/json")
            .send()
            .await
            .unwrap();
        let items: Value = response.json().await.unwrap();
        assert_eq!(items[1]["choices"][0]["message"]["content"], "second");
        assert_eq!(items[0]["choices"][0]["logprobs"], Value::Null);
        let print: Value =
            serde_json::from_str(items[0]["system_fingerprint"].as_str().unwrap()).unwrap();
        assert!(print["packed_topk_indices"][0].is_string());
    }
    let mixed = json!({"requests": [one("say:first"), one("fail:invalid")]});
    assert_eq!(
        server.json(BATCH[1], mixed).await.0,
        400,
        "one wrong request fails all"
    );
    let (status, _) = server.json(BATCH[1], json!({"requests": 1})).await;
    assert_eq!(status, 422);
    let empty = server.post(PLAIN[0], json!({"requests": []})).await;
    assert_eq!(empty.bytes().await.unwrap(), &b"\x80\x02]."[..]);
}
