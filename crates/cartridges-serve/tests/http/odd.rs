//! Bodies that nobody sends on purpose.

use serde_json::{Value, json};

use crate::support::{chat, options, start};

#[tokio::test]
async fn odd_values_are_never_a_fault_of_the_server() {
    let server = start(options()).await;
    let chat = chat("x", json!({"max_tokens": 1}));
    let text = json!({"model": "default", "prompt": "x", "max_tokens": 1});
    let batch = json!({"requests": [chat]});
    let paths = [
        ("/v1/chat/completions", &chat),
        ("/v1/completions", &text),
        ("/custom/cartridge/chat/completions", &chat),
        ("/custom/cartridge/completions", &text),
        ("/batch/cartridge/chat/completions", &batch),
        ("/v1/batches", &batch),
    ];
    let fields = [
        "model",
        "messages",
        "prompt",
        "requests",
        "cartridges",
        "adapter",
        "n",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "logprobs",
        "top_logprobs",
        "max_tokens",
        "max_completion_tokens",
        "response_format",
        "apply_chat_template_overrides",
        "logit_bias",
        "best_of",
        "input_file_id",
        "\u{0}",
    ];
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1e308),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}\u{202e}é"),
        json!([]),
        json!([null]),
        json!([[]]),
        json!([1, "a"]),
        json!({}),
        json!({"id": "..", "type": "json_schema", "role": "user"}),
        json!([{"id": "/", "source": 1, "role": "user", "content": [{}]}]),
    ];
    for (path, whole) in paths {
        for field in fields {
            for value in &values {
                let mut body = whole.clone();
                body[field] = value.clone();
                let response = server.post(path, body.clone()).await;
                let status = response.status().as_u16();
                assert!(
                    matches!(status, 200 | 400 | 404 | 422),
                    "{path} {status} {body}"
                );
                if status != 200 {
                    let told: Value = response.json().await.unwrap();
                    assert!(told.get("error").is_some() || told.get("detail").is_some());
                }
            }
        }
    }
}
