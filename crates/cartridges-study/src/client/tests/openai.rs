use serde_json::{Value, json};

use super::stand_in::{Act, StandIn, client, quick, request, sent_messages, teacher_request};
use crate::client::{
    ApiKey, ChatClient, ChatRequest, ClientConfig, FinishReason, HttpClient, MaxTokensField,
    OpenAiConfig, Sample, ScoreRequest, ThinkingField, check_samples, check_scores,
};

fn config(server: &StandIn) -> OpenAiConfig {
    OpenAiConfig {
        urls: vec![server.url.clone()],
        model: "m".to_owned(),
        fleet: quick(),
        ..OpenAiConfig::default()
    }
}

fn open_ai(server: &StandIn) -> HttpClient {
    client(&ClientConfig::Openai(config(server)))
}

fn reply(choice: Value) -> Value {
    json!({
        "id": "x",
        "choices": [choice],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    })
}

/// A token of `logprobs` with two candidates, by a function that writes ids.
fn entry(id: u32, other: u32, write: fn(u32) -> Value) -> Value {
    let with = |id: u32, logprob: f64| {
        let mut token = write(id);
        token["logprob"] = json!(logprob);
        token
    };
    let mut token = with(id, -0.25);
    token["top_logprobs"] = json!([with(id, -0.25), with(other, -1.5)]);
    token
}

fn as_text(id: u32) -> Value {
    json!({"token": format!("token_id:{id}"), "bytes": null})
}

fn as_number(id: u32) -> Value {
    json!({"id": id, "token": "?", "bytes": [63]})
}

fn ask(server: &StandIn, request: ChatRequest) -> Sample {
    let requests = [request];
    let mut samples = open_ai(server).complete(&requests, &mut |_| {}).unwrap();
    check_samples(&requests, &samples).unwrap();
    samples.remove(0)
}

/// Asks for log-probs and gets a choice without the usual fields that `change` sets.
fn teach(choice: Value) -> Sample {
    let server = StandIn::start(move |_, _| Act::Json(200, reply(choice.clone())));
    ask(&server, teacher_request())
}

fn choice(change: Value) -> Value {
    let mut choice = json!({
        "index": 0,
        "message": {"role": "assistant", "content": "Yes."},
        "finish_reason": "stop",
    });
    for (name, value) in change.as_object().unwrap() {
        choice[name] = value.clone();
    }
    choice
}

#[test]
fn requests_are_written_as_vllm_takes_them() {
    let server = StandIn::start(|_, _| Act::Json(200, reply(choice(json!({})))));
    let mut config = config(&server);
    config.api_key = Some(ApiKey::new("secret"));
    config.extra_body = json!({"top_k": -1, "chat_template_kwargs": {"tone": "dry"}})
        .as_object()
        .unwrap()
        .clone();
    let mut client = client(&ClientConfig::Openai(config));
    client.complete(&[teacher_request()], &mut |_| {}).unwrap();
    client
        .complete(&[request(1 << 40 | 5)], &mut |_| {})
        .unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].line, "POST /v1/chat/completions");
    assert_eq!(seen[0].authorization.as_deref(), Some("Bearer secret"));
    assert_eq!(
        seen[0].body,
        json!({
            "model": "m",
            "messages": sent_messages(),
            "temperature": 0.0,
            "max_completion_tokens": 8,
            "seed": 7,
            "logprobs": true,
            "top_logprobs": 2,
            "return_token_ids": true,
            "return_tokens_as_token_ids": true,
            "chat_template_kwargs": {"enable_thinking": false, "tone": "dry"},
            "top_k": -1,
        })
    );
    assert_eq!(
        seen[1].body,
        json!({
            "model": "m",
            "messages": sent_messages(),
            "temperature": 0.6,
            "max_completion_tokens": 8,
            "seed": 5,
            "return_token_ids": true,
            "top_k": -1,
            "chat_template_kwargs": {"tone": "dry"},
        })
    );
}

#[test]
fn requests_are_written_as_hosted_services_take_them() {
    let server = StandIn::start(|_, _| Act::Json(200, reply(choice(json!({})))));
    let config = OpenAiConfig {
        ask_token_ids: false,
        thinking: ThinkingField::ReasoningEffort,
        max_tokens_field: MaxTokensField::MaxTokens,
        ..config(&server)
    };
    let request = ChatRequest {
        enable_thinking: Some(true),
        assistant_prefix: Some("Well".to_owned()),
        ..request(1)
    };
    let mut client = client(&ClientConfig::Openai(config));
    client.complete(&[request], &mut |_| {}).unwrap();
    let mut messages = sent_messages();
    let begun = json!({"role": "assistant", "content": "Well"});
    messages.as_array_mut().unwrap().push(begun);
    let expected = json!({
        "model": "m",
        "messages": messages,
        "temperature": 0.6,
        "max_tokens": 8,
        "seed": 1,
        "reasoning_effort": "high",
        "continue_final_message": true,
        "add_generation_prompt": false,
    });
    let seen = &server.seen()[0];
    assert_eq!(seen.body, expected);
    assert_eq!(seen.authorization, None);
}

#[test]
fn ids_are_found_where_servers_put_them() {
    for (told, write) in [
        (Some(json!([3, 9])), as_text as fn(u32) -> Value),
        (None, as_text),
        (None, as_number),
    ] {
        let mut change = json!({
            "logprobs": {"content": [entry(3, 4, write), entry(9, 8, write)]},
            "finish_reason": "length",
        });
        change["token_ids"] = told.unwrap_or(Value::Null);
        let sample = teach(choice(change));
        assert_eq!(sample.text, "Yes.");
        assert_eq!(sample.token_ids, [3, 9]);
        assert_eq!(sample.finish, FinishReason::Length);
        let top = sample.top_logprobs.unwrap();
        assert_eq!((top.k, top.token_ids), (2, vec![3, 4, 9, 8]));
        assert_eq!(top.logprobs, [-0.25, -1.5, -0.25, -1.5]);
    }
}

#[test]
fn without_ids_the_text_is_kept_and_counted() {
    let plain = |id: u32| json!({"token": format!("t{id}"), "bytes": null});
    let content = json!([entry(3, 4, plain), entry(9, 8, plain)]);
    for change in [
        json!({"logprobs": {"content": content}}),
        json!({"logprobs": null}),
        json!({"logprobs": null, "token_ids": [3, 9]}),
    ] {
        let change = choice(change);
        let server = StandIn::start(move |_, _| Act::Json(200, reply(change.clone())));
        let mut client = open_ai(&server);
        let requests = [teacher_request()];
        let samples = client.complete(&requests, &mut |_| {}).unwrap();
        check_samples(&requests, &samples).unwrap();
        assert_eq!(samples[0].text, "Yes.");
        assert!(samples[0].token_ids.is_empty() && samples[0].top_logprobs.is_none());
        assert_eq!(samples[0].finish, FinishReason::Stop);
        assert_eq!(client.statistics().answers_without_ids, 1);
    }
}

#[test]
fn an_answer_without_log_probs_keeps_its_ids() {
    let told = choice(json!({"token_ids": [3, 9]}));
    let server = StandIn::start(move |_, _| Act::Json(200, reply(told.clone())));
    let mut client = open_ai(&server);
    let samples = client.complete(&[request(1)], &mut |_| {}).unwrap();
    assert_eq!(samples[0].token_ids, [3, 9]);
    let statistics = client.statistics();
    assert_eq!(statistics.answers_without_ids, 0);
    assert_eq!(statistics.servers[0].prompt_tokens, 5);
    assert_eq!(statistics.servers[0].completion_tokens, 2);
}

#[test]
fn replies_that_contradict_themselves_fail() {
    let two = || vec![entry(3, 4, as_text), entry(9, 8, as_text)];
    let mut positive = two();
    positive[0]["top_logprobs"][0]["logprob"] = json!(0.5);
    let mut few = two();
    few[1]["top_logprobs"].as_array_mut().unwrap().pop();
    let mut missing = two();
    missing[0]["top_logprobs"][1]["logprob"] = Value::Null;
    let many: Vec<Value> = (0..9).map(|id| entry(id, 99, as_text)).collect();
    for (change, expected) in [
        (
            json!({"logprobs": {"content": two()}, "token_ids": [3]}),
            "token_ids has 1 ids",
        ),
        (
            json!({"logprobs": {"content": two()}, "token_ids": [3, 8]}),
            "or others",
        ),
        (
            json!({"logprobs": {"content": positive}}),
            "number of at most 0",
        ),
        (
            json!({"logprobs": {"content": few}}),
            "1 candidates at position 1",
        ),
        (
            json!({"logprobs": {"content": missing}}),
            "invalid type: null",
        ),
        (
            json!({"logprobs": {"content": many}}),
            "9 tokens where 8 were allowed",
        ),
        (json!({"finish_reason": null}), "no finish reason"),
        (json!({"finish_reason": "content_filter"}), "content_filter"),
        (json!({"message": 1}), "invalid type"),
    ] {
        let FinishReason::Failed(error) = teach(choice(change)).finish else {
            panic!("taken where {expected} was expected");
        };
        let message = error.to_string();
        assert!(message.starts_with("the answer does not fit the request: http://"));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn given_answers_are_scored_by_plain_completions() {
    let server = StandIn::start(|_, _| {
        let at = |id: &str, other: &str| {
            json!({
                other: {"logprob": -0.5, "rank": 1, "decoded_token": "?"},
                id: {"logprob": -2.0, "rank": 7, "decoded_token": "?"},
                "900": {"logprob": -1.25, "rank": 2, "decoded_token": "?"},
            })
        };
        let prompt_logprobs = json!([null, at("2", "5"), at("30", "31"), at("40", "41")]);
        let choice = json!({"text": "", "prompt_logprobs": prompt_logprobs});
        Act::Json(200, reply(choice))
    });
    let requests = [ScoreRequest {
        messages: request(1).messages,
        continuation_ids: vec![30, 40],
        top_logprobs: 2,
    }];
    let mut client = open_ai(&server);
    client.can_score().unwrap();
    let scores = client.score(&requests).unwrap();
    check_scores(&requests, &scores).unwrap();
    assert_eq!(scores[0].token_ids, [31, 900, 41, 900]);
    assert_eq!(scores[0].logprobs, [-0.5, -1.25, -0.5, -1.25]);
    let seen = &server.seen()[0];
    assert_eq!(seen.line, "POST /v1/completions");
    let expected = json!({
        "model": "m",
        "prompt": [1, 2, 30, 40],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 2,
    });
    assert_eq!(seen.body, expected);

    let other = [ScoreRequest {
        continuation_ids: vec![30, 39],
        ..requests[0].clone()
    }];
    let error = client.score(&other).unwrap_err().to_string();
    assert!(error.contains("position 1 does not tell"), "{error}");
}

#[test]
fn servers_are_checked_by_their_list_of_models() {
    let server = StandIn::start(|_, before| {
        let id = if before == 0 { "M" } else { "other" };
        Act::Json(200, json!({"object": "list", "data": [{"id": id}]}))
    });
    let mut client = open_ai(&server);
    client.check_servers().unwrap();
    let error = client.check_servers().unwrap_err().to_string();
    assert!(error.contains("it serves other, expected m"), "{error}");
    assert_eq!(server.seen()[0].line, "GET /v1/models");
}
