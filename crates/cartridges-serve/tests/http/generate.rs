//! Chat and text completions on OpenAI paths.

use serde_json::{Value, json};

use crate::support::{chat, events, options, start};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[tokio::test]
async fn models_are_listed() {
    let server = start(options()).await;
    let models: Value = server.get("/v1/models").await.json().await.unwrap();
    assert_eq!(models["data"].as_array().unwrap().len(), 1);
    assert_eq!(models["data"][0]["id"], "fake/Model-1");
    assert_eq!(server.get("/v1/models/fake/Model-1").await.status(), 200);
    let missing = server.get("/v1/models/other").await;
    assert_eq!(missing.status(), 404);
    let body: Value = missing.json().await.unwrap();
    assert_eq!(body["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn a_chat_is_answered() {
    let server = start(options()).await;
    let (status, body) = server.json(CHAT, chat("say:hello there", json!({}))).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(
        body["choices"][0]["message"],
        json!({"role": "assistant", "content": "hello there"})
    );
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["choices"][0]["logprobs"], Value::Null);
    assert_eq!(body["usage"]["completion_tokens"], 3);
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 1);
    let print: Value = serde_json::from_str(body["system_fingerprint"].as_str().unwrap()).unwrap();
    assert_eq!(print["completion_ids"][0].as_array().unwrap().len(), 3);
    assert_eq!(print["packed_chosen_logprobs"], Value::Null);
}

#[tokio::test]
async fn several_answers_have_seeds_in_a_row_and_share_the_prompt() {
    let server = start(options()).await;
    let request = chat("one two", json!({"n": 3, "seed": 5, "max_tokens": 1}));
    let (_, body) = server.json(CHAT, request).await;
    let texts: Vec<&str> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["seed5 ", "seed6 ", "seed7 "]);
    assert_eq!(body["usage"]["prompt_tokens"], 2);
    assert_eq!(body["choices"][2]["finish_reason"], "length");
    assert_eq!(body["choices"][2]["index"], 2);
}

#[tokio::test]
async fn log_probs_come_in_openai_form() {
    let server = start(options()).await;
    let request = chat("say:hi", json!({"logprobs": true, "top_logprobs": 2}));
    let (_, body) = server.json(CHAT, request).await;
    let content = &body["choices"][0]["logprobs"]["content"];
    assert_eq!(content.as_array().unwrap().len(), 2);
    assert_eq!(content[0]["token"], "hi");
    assert_eq!(content[0]["bytes"], json!([104, 105]));
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let request = json!({"model": "default", "prompt": "say:hi you", "logprobs": 1});
    let (_, body) = server.json(TEXT, request).await;
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"][0], "hi ");
    assert_eq!(logprobs["text_offset"], json!([0, 3, 6]));
    assert_eq!(logprobs["token_logprobs"][1], -0.5);
    for wrong in [
        json!({"top_logprobs": 2}),
        json!({"logprobs": true, "top_logprobs": 11}),
    ] {
        assert_eq!(server.json(CHAT, chat("x", wrong)).await.0, 400);
    }
}

#[tokio::test]
async fn a_stream_is_real_events() {
    let server = start(options()).await;
    let request = chat(
        "say:a b c",
        json!({"stream": true, "n": 2, "stream_options": {"include_usage": true}}),
    );
    let response = server.post(CHAT, request).await;
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    let events = events(&response.text().await.unwrap());
    assert!(
        events
            .iter()
            .all(|event| event["object"] == "chat.completion.chunk")
    );
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    for index in 0..2 {
        let mut own = events
            .iter()
            .flat_map(|event| event["choices"].as_array().unwrap())
            .filter(|choice| choice["index"] == index);
        let text: String = own
            .clone()
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, "a b c");
        assert_eq!(own.next_back().unwrap()["finish_reason"], "stop");
    }
    let last = events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 8);
    assert_eq!(events[0]["usage"], Value::Null);
}

#[tokio::test]
async fn text_streams_too() {
    let server = start(options()).await;
    let request = json!({"model": "default", "prompt": ["say:a b", "say:c"], "stream": true,
        "logprobs": 0});
    let events = events(&server.post(TEXT, request).await.text().await.unwrap());
    let text = |index: usize| -> String {
        events
            .iter()
            .map(|event| &event["choices"][0])
            .filter(|choice| choice["index"] == index)
            .filter_map(|choice| choice["text"].as_str())
            .collect()
    };
    assert_eq!((text(0).as_str(), text(1).as_str()), ("a b", "c"));
    assert_eq!(
        events[0]["choices"][0]["logprobs"]["token_logprobs"],
        json!([-0.5])
    );
}

#[tokio::test]
async fn a_stream_that_fails_says_so() {
    let server = start(options()).await;
    let request = chat("say:a fail-later:late b", json!({"stream": true}));
    let text = server.post(CHAT, request).await.text().await.unwrap();
    assert!(
        text.contains("\"error\"") && !text.contains("[DONE]"),
        "{text}"
    );
    let request = chat("fail:long", json!({"stream": true}));
    assert_eq!(
        server.post(CHAT, request).await.status(),
        400,
        "before the first event"
    );
}

#[tokio::test]
async fn everything_asked_for_reaches_the_engine() {
    let server = start(options()).await;
    let request = json!({"model": "default", "messages": [
            {"role": "system", "content": "be <cartridge>{\"id\": \"c/d\"}</cartridge> brief"},
            {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}],
        "cartridges": [{"id": "zzz"}], "adapter": "calm", "top_k": 4, "min_p": 0.1, "top_p": 0.5,
        "temperature": 0.25, "stop": "END", "max_completion_tokens": 2, "ignore_eos": true,
        "chat_template_kwargs": {"enable_thinking": true}, "user": "someone",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}});
    let (status, body) = server.json(CHAT, request).await;
    assert_eq!(status, 200, "{body}");
    let job = server.fake.last.lock().unwrap().clone().unwrap();
    assert_eq!(
        job.cartridges
            .iter()
            .map(|c| c.id.as_str())
            .collect::<Vec<_>>(),
        ["c-d"]
    );
    assert_eq!(job.adapter.as_deref(), Some("calm"));
    assert_eq!(
        (job.top_k, job.min_p, job.top_p, job.temperature),
        (4, 0.1, 0.5, 0.25)
    );
    assert_eq!(
        (job.stop, job.max_new_tokens, job.ignore_eos),
        (vec!["END".into()], Some(2), true)
    );
    let schema = cartridges_serve::Constraint::JsonSchema("{\"type\":\"object\"}".into());
    assert_eq!(job.constraint, Some(schema));
    let cartridges_serve::Prompt::Chat {
        messages,
        template_keywords,
    } = job.prompt
    else {
        panic!("not a chat");
    };
    assert_eq!(messages[1].content, "hi");
    assert!(!messages[0].content.contains("cartridge"));
    assert_eq!(template_keywords["enable_thinking"], true);
}

#[tokio::test]
async fn errors_are_openai_errors() {
    let server = start(options()).await;
    for (text, status) in [
        ("fail:invalid", 400),
        ("fail:missing", 404),
        ("fail:long", 400),
        ("fail:busy", 429),
        ("fail:down", 503),
        ("fail:late", 504),
        ("fail:x", 500),
    ] {
        let response = server.post(CHAT, chat(text, json!({}))).await;
        assert_eq!(response.status(), status, "{text}");
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 429
        );
        let body: Value = response.json().await.unwrap();
        assert!(body["error"]["message"].is_string(), "{body}");
    }
    let (_, body) = server.json(CHAT, chat("fail:long", json!({}))).await;
    assert_eq!(body["error"]["code"], "context_length_exceeded");
    let (status, body) = server.json(CHAT, chat("x", json!({"tools": [1]}))).await;
    assert_eq!((status, &body["error"]["param"]), (400, &json!("tools")));
    let (status, body) = server.json(CHAT, chat("x", json!({"model": "gpt"}))).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let (status, _) = server
        .json(CHAT, chat("x", json!({"temperature": "hot"})))
        .await;
    assert_eq!(status, 400);
    assert_eq!(server.get(CHAT).await.status(), 405);
    assert_eq!(server.get("/nowhere").await.status(), 404);
}
