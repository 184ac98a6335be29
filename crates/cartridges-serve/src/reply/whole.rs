//! The response to a request that is not streamed.

use serde_json::{Value, json};

use crate::answer::FinishReason;
use crate::api_error::Dialect;
use crate::app::{App, now};
use crate::reply::choice::Choice;
use crate::reply::fingerprint::fingerprint;
use crate::reply::logprobs::Logprobs;
use crate::request::{Form, Wanted};

/// The response's body.
pub(crate) fn whole(app: &App, wanted: &Wanted, choices: &[Choice]) -> Value {
    let packed = wanted.top_logprobs.filter(|_| wanted.in_fingerprint);
    let written: Vec<Value> = choices
        .iter()
        .enumerate()
        .map(|(index, choice)| write_choice(app, wanted, index, choice))
        .collect();
    json!({
        "id": new_id(wanted),
        "object": match wanted.endpoint.form {
            Form::Chat => "chat.completion",
            Form::Text => "text_completion",
        },
        "created": now(),
        "model": wanted.model,
        "choices": written,
        "usage": usage(wanted, choices),
        "system_fingerprint": fingerprint(choices, packed),
    })
}

fn write_choice(app: &App, wanted: &Wanted, index: usize, choice: &Choice) -> Value {
    let logprobs = Logprobs {
        inference: &*app.inference,
        dialect: wanted.endpoint.dialect,
    };
    let told = wanted.top_logprobs.is_some() && !wanted.in_fingerprint;
    let all = 0..choice.ids.len();
    let reason = choice.reason.map(FinishReason::as_str);
    match wanted.endpoint.form {
        Form::Chat => json!({
            "index": index,
            "message": {"role": "assistant", "content": choice.text},
            "logprobs": told.then(|| logprobs.chat(choice, all)),
            "finish_reason": reason,
        }),
        Form::Text => json!({
            "index": index,
            "text": choice.text,
            "logprobs": told.then(|| logprobs.text(choice, all)),
            "finish_reason": reason,
        }),
    }
}

/// A new response's id.
pub(crate) fn new_id(wanted: &Wanted) -> String {
    let id = uuid::Uuid::new_v4();
    match (wanted.endpoint.dialect, wanted.endpoint.form) {
        (Dialect::Tokasaurus, _) => id.to_string(),
        (Dialect::OpenAi, Form::Chat) => format!("chatcmpl-{}", id.simple()),
        (Dialect::OpenAi, Form::Text) => format!("cmpl-{}", id.simple()),
    }
}

/// How many tokens were used. OpenAI counts a prompt once, Tokasaurus once per answer.
pub(crate) fn usage(wanted: &Wanted, choices: &[Choice]) -> Value {
    let step = match wanted.endpoint.dialect {
        Dialect::OpenAi => wanted.n,
        Dialect::Tokasaurus => 1,
    };
    let counted = || choices.iter().step_by(step);
    let prompt: usize = counted().map(|choice| choice.prompt_tokens).sum();
    let cached: usize = counted().map(|choice| choice.cached_tokens).sum();
    let completion: usize = choices.iter().map(|choice| choice.ids.len()).sum();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}
