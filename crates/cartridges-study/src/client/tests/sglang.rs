use std::sync::Arc;

use serde_json::{Value, json};

use super::stand_in::{Act, StandIn, client, quick, request, teacher_request};
use crate::client::{
    ChatClient, ChatRequest, ClientConfig, ClientConfigError, FinishReason, HttpClient, Sample,
    ScoreRequest, SglangConfig, check_samples, check_scores,
};

fn config(server: &StandIn) -> SglangConfig {
    SglangConfig {
        urls: vec![server.url.clone()],
        model: "owner/m".to_owned(),
        fleet: quick(),
        ..SglangConfig::default()
    }
}

fn sglang(server: &StandIn) -> HttpClient {
    client(&ClientConfig::Sglang(config(server)))
}

/// An answer of two tokens, with some fields of `meta_info` changed.
fn reply(ids: &Value, change: &Value) -> Value {
    let mut meta = json!({
        "finish_reason": {"type": "stop", "matched": 9},
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "output_token_logprobs": [[-0.25, 3, null], [-0.5, 9, null]],
        "output_top_logprobs": [
            [[-0.25, 3, null], [-1.5, 4, null]],
            [[-0.5, 9, null], [-1.0, 8, null]],
        ],
    });
    for (name, value) in change.as_object().unwrap() {
        meta[name] = value.clone();
    }
    json!({"text": "Yes.", "output_ids": ids, "meta_info": meta})
}

fn teach(ids: Value, change: Value) -> Sample {
    let server = StandIn::start(move |_, _| Act::Json(200, reply(&ids, &change)));
    let requests = [teacher_request()];
    let mut samples = sglang(&server).complete(&requests, &mut |_| {}).unwrap();
    check_samples(&requests, &samples).unwrap();
    samples.remove(0)
}

#[test]
fn prompts_are_sent_as_ids() {
    let server = StandIn::start(|_, _| Act::Json(200, reply(&json!([3, 9]), &json!({}))));
    let mut config = config(&server);
    config.extra_body = json!({"sampling_params": {"top_k": 50}, "lora_path": "a"})
        .as_object()
        .unwrap()
        .clone();
    let mut client = client(&ClientConfig::Sglang(config));
    client.complete(&[teacher_request()], &mut |_| {}).unwrap();
    let thinking = ChatRequest {
        enable_thinking: Some(true),
        assistant_prefix: Some("Well".to_owned()),
        ..request(1)
    };
    client.complete(&[thinking], &mut |_| {}).unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /generate");
    assert_eq!(
        seen[0].body,
        json!({
            "input_ids": [1, 2],
            "sampling_params": {"temperature": 0.0, "max_new_tokens": 8, "top_k": 50},
            "return_logprob": true,
            "top_logprobs_num": 2,
            "return_text_in_logprobs": false,
            "lora_path": "a",
        })
    );
    assert_eq!(seen[1].body["input_ids"], json!([1, 2, 99, 77]));
    assert_eq!(seen[1].body["return_logprob"], json!(false));
}

#[test]
fn answers_are_read_with_or_without_the_prompts_ids() {
    for ids in [json!([3, 9]), json!([1, 2, 3, 9])] {
        let sample = teach(ids, json!({}));
        assert_eq!(sample.text, "Yes.");
        assert_eq!(sample.token_ids, [3, 9]);
        assert_eq!(sample.finish, FinishReason::Stop);
        let top = sample.top_logprobs.unwrap();
        assert_eq!(top.token_ids, [3, 4, 9, 8]);
        assert_eq!(top.logprobs, [-0.25, -1.5, -0.5, -1.0]);
    }
}

#[test]
fn text_is_enough_where_no_log_probs_are_asked_for() {
    let server = StandIn::start(|_, _| Act::Json(200, reply(&Value::Null, &json!({}))));
    let mut client = sglang(&server);
    let samples = client.complete(&[request(1)], &mut |_| {}).unwrap();
    assert_eq!(samples[0].text, "Yes.");
    assert_eq!(samples[0].finish, FinishReason::Stop);
    assert!(samples[0].token_ids.is_empty() && samples[0].top_logprobs.is_none());
}

#[test]
fn replies_that_contradict_themselves_fail() {
    let ids = || json!([3, 9]);
    for (ids, change, expected) in [
        (
            json!([3]),
            json!({}),
            "output_ids has 1 ids, completion_tokens is 2",
        ),
        (Value::Null, json!({}), "output_ids is missing"),
        (json!([3, 7]), json!({}), "or for others"),
        (
            ids(),
            json!({"output_token_logprobs": [[-0.25, 3, null]]}),
            "output_token_logprobs has 1 entries for 2 tokens",
        ),
        (
            ids(),
            json!({"output_top_logprobs": [[[-0.25, 3, null], [-1.5, 4, null]], null]}),
            "0 candidates at position 1",
        ),
        (
            ids(),
            json!({"output_top_logprobs": [[[-0.25, -3, null]], []]}),
            "invalid value",
        ),
        (
            ids(),
            json!({"output_top_logprobs": null}),
            "0 rows, expected 2",
        ),
        (ids(), json!({"finish_reason": {"type": "abort"}}), "abort"),
        (
            ids(),
            json!({"completion_tokens": 99}),
            "completion_tokens is 99",
        ),
    ] {
        let FinishReason::Failed(error) = teach(ids, change).finish else {
            panic!("taken where {expected} was expected");
        };
        let message = error.to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn given_answers_are_scored_as_inputs() {
    let server = StandIn::start(|_, _| {
        let row = |id: u32| json!([[-0.5, id + 1, null], [-0.75, id, null]]);
        Act::Json(
            200,
            reply(
                &json!([]),
                &json!({
                    "completion_tokens": 0,
                    "input_token_logprobs": [[null, 2, null], [-0.75, 30, null], [-0.75, 40, null]],
                    "input_top_logprobs": [null, row(30), row(40)],
                }),
            ),
        )
    });
    let requests = [
        ScoreRequest {
            messages: request(1).messages,
            continuation_ids: vec![30, 40],
            top_logprobs: 2,
        },
        ScoreRequest {
            messages: request(1).messages,
            continuation_ids: Vec::new(),
            top_logprobs: 2,
        },
    ];
    let mut client = sglang(&server);
    let scores = client.score(&requests).unwrap();
    check_scores(&requests, &scores).unwrap();
    assert_eq!(scores[0].token_ids, [31, 30, 41, 40]);
    assert_eq!(scores[0].logprobs, [-0.5, -0.75, -0.5, -0.75]);
    let seen = server.seen();
    assert_eq!(seen.len(), 1, "nothing is asked about an empty answer");
    assert_eq!(
        seen[0].body,
        json!({
            "input_ids": [1, 2, 30, 40],
            "sampling_params": {"temperature": 0, "max_new_tokens": 0},
            "return_logprob": true,
            "logprob_start_len": 1,
            "top_logprobs_num": 2,
            "return_text_in_logprobs": false,
        })
    );
    let other = [ScoreRequest {
        continuation_ids: vec![30, 41],
        ..requests[0].clone()
    }];
    let error = client.score(&other).unwrap_err().to_string();
    assert!(error.contains("or for others"), "{error}");
}

#[test]
fn servers_are_checked_by_their_model() {
    let server = StandIn::start(|_, before| {
        let path = if before == 0 { "Owner/M" } else { "other" };
        Act::Json(
            200,
            json!({"model_path": path, "is_generation": before < 2}),
        )
    });
    let mut client = sglang(&server);
    client.check_servers().unwrap();
    let error = client.check_servers().unwrap_err().to_string();
    assert!(
        error.contains("it serves other, expected owner/m"),
        "{error}"
    );
    assert!(client.check_servers().is_err());
    assert_eq!(server.seen()[0].line, "GET /get_model_info");
}

#[test]
fn a_tokenizer_is_needed() {
    let server = StandIn::start(|_, _| Act::Close);
    let config = ClientConfig::Sglang(config(&server));
    let error = HttpClient::new(&config, None, Arc::default()).err();
    assert_eq!(error, Some(ClientConfigError::NoCodec));
}
