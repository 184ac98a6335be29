use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::stand_in::{Act, StandIn, client, quick, request, sent_messages, teacher_request};
use crate::client::{
    CartridgeSource, ChatClient, ChatRequest, ClientConfig, ClientError, FinishReason, HttpClient,
    RemoteCartridge, Sample, ScoreRequest, TokasaurusConfig, check_samples,
};

/// The packed ids of the reference description's example, section 12.2.
const IDS: &str = "CwAAAAwAAAANAAAAFQAAABYAAAAXAAAAHwAAACAAAAAhAAAA";

fn config(server: &StandIn) -> TokasaurusConfig {
    TokasaurusConfig {
        urls: vec![server.url.clone()],
        fleet: quick(),
        ..TokasaurusConfig::default()
    }
}

fn tokasaurus(server: &StandIn) -> HttpClient {
    client(&ClientConfig::Tokasaurus(config(server)))
}

fn floats(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

/// The reply to section 12.1's example, with some fields of the fingerprint changed.
fn reply(change: &Value) -> Value {
    let row = [-0.125, -2.5, -4.0];
    let mut fingerprint = json!({
        "completion_ids": [[11, 21, 31]],
        "packed_chosen_logprobs": [floats(&[-0.125; 3])],
        "packed_topk_indices": [IDS],
        "packed_topk_logprobs": [floats(&[row, row, row].concat())],
    });
    for (name, value) in change.as_object().unwrap() {
        fingerprint[name] = value.clone();
    }
    json!({
        "id": "x",
        "object": "chat.completion",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "Yes."},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        "system_fingerprint": fingerprint.to_string(),
    })
}

fn teach(change: Value) -> Sample {
    let server = StandIn::start(move |_, _| Act::Json(200, reply(&change)));
    let requests = [ChatRequest {
        top_logprobs: Some(3),
        ..teacher_request()
    }];
    let mut client = tokasaurus(&server);
    let mut samples = client.complete(&requests, &mut |_| {}).unwrap();
    check_samples(&requests, &samples).unwrap();
    samples.remove(0)
}

#[test]
fn requests_go_to_the_json_paths() {
    let server = StandIn::start(|_, _| Act::Json(200, reply(&json!({}))));
    let mut config = config(&server);
    config.urls[0].push_str("/v1");
    client(&ClientConfig::Tokasaurus(config.clone()))
        .complete(&[teacher_request()], &mut |_| {})
        .unwrap();
    config.cartridges = vec![RemoteCartridge {
        id: "owner/name".to_owned(),
        source: CartridgeSource::Huggingface,
        force_redownload: false,
    }];
    client(&ClientConfig::Tokasaurus(config))
        .complete(&[request(1)], &mut |_| {})
        .unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /v1/chat/completions");
    assert_eq!(
        seen[0].body,
        json!({
            "model": "default",
            "messages": sent_messages(),
            "temperature": 0.0,
            "max_completion_tokens": 8,
            "seed": 7,
            "logprobs_in_fingerprint": true,
            "logprobs": true,
            "top_logprobs": 2,
            "apply_chat_template_overrides": {"enable_thinking": false},
        })
    );
    let last = seen.last().unwrap();
    assert_eq!(last.line, "POST /custom/cartridge/chat/completions");
    assert_eq!(
        last.body,
        json!({
            "model": "default",
            "messages": sent_messages(),
            "temperature": 0.6,
            "max_completion_tokens": 8,
            "seed": 1,
            "logprobs_in_fingerprint": true,
            "cartridges": [
                {"id": "owner/name", "source": "huggingface", "force_redownload": false},
            ],
        })
    );
}

#[test]
fn the_fingerprint_is_unpacked() {
    let sample = teach(json!({}));
    assert_eq!(sample.text, "Yes.");
    assert_eq!(sample.token_ids, [11, 21, 31]);
    assert_eq!(sample.finish, FinishReason::Stop);
    let top = sample.top_logprobs.unwrap();
    assert_eq!(top.k, 3);
    assert_eq!(top.token_ids, [11, 12, 13, 21, 22, 23, 31, 32, 33]);
    assert_eq!(top.logprobs[3..6], [-0.125, -2.5, -4.0]);
}

#[test]
fn fingerprints_that_make_no_sense_fail() {
    let nan = [0.0, f32::NAN, -1.0].repeat(3);
    for (change, expected) in [
        (
            json!({"completion_ids": [[11, 21]]}),
            "has 9 entries, expected 2 x 3",
        ),
        (
            json!({"completion_ids": []}),
            "completion_ids is for 0 choices",
        ),
        (json!({"completion_ids": [[11, -1, 3]]}), "invalid value"),
        (
            json!({"completion_ids": [(0..9).collect::<Vec<_>>()]}),
            "9 tokens where 8",
        ),
        (
            json!({"packed_topk_indices": null}),
            "packed_topk_indices is missing",
        ),
        (json!({"packed_topk_indices": ["CwAAAAw="]}), "has 5 bytes"),
        (
            json!({"packed_topk_indices": ["?"]}),
            "packed_topk_indices: ",
        ),
        (
            json!({"packed_topk_logprobs": [floats(&nan)]}),
            "position 0 is not a number",
        ),
        (
            json!({"packed_topk_logprobs": [floats(&[-1.0; 8])]}),
            "has 8 entries",
        ),
    ] {
        let FinishReason::Failed(error) = teach(change).finish else {
            panic!("taken where {expected} was expected");
        };
        let message = error.to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn ids_come_without_log_probs_too() {
    let change = json!({
        "packed_chosen_logprobs": null, "packed_topk_indices": null, "packed_topk_logprobs": null,
    });
    let server = StandIn::start(move |_, _| Act::Json(200, reply(&change)));
    let samples = tokasaurus(&server)
        .complete(&[request(1)], &mut |_| {})
        .unwrap();
    assert_eq!(samples[0].token_ids, [11, 21, 31]);
    assert_eq!(samples[0].top_logprobs, None);
}

#[test]
fn text_is_enough_where_no_log_probs_are_asked_for() {
    for told in [json!(null), json!("fp_44709d6fcb")] {
        let body = json!({
            "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 2},
            "system_fingerprint": told,
        });
        let server = StandIn::start(move |_, _| Act::Json(200, body.clone()));
        let mut client = tokasaurus(&server);
        let asked = [request(1), teacher_request()];
        let samples = client.complete(&asked, &mut |_| {}).unwrap();
        assert_eq!(samples[0].text, "Yes.");
        assert!(samples[0].token_ids.is_empty());
        assert!(
            matches!(&samples[1].finish, FinishReason::Failed(e) if e.to_string().contains("system_fingerprint"))
        );
        assert_eq!(client.statistics().servers[0].completion_tokens, 2);
    }
}

#[test]
fn given_answers_are_not_scored() {
    let server = StandIn::start(|_, _| Act::Close);
    let mut client = tokasaurus(&server);
    let requests = [ScoreRequest {
        messages: request(1).messages,
        continuation_ids: vec![1],
        top_logprobs: 2,
    }];
    assert!(matches!(
        client.score(&requests),
        Err(ClientError::Unsupported(_))
    ));
    assert!(client.can_score().is_err() && server.seen().is_empty());
}
