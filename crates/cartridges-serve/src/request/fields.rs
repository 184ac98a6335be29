//! Which fields a body may have.
//!
//! A field that would change the answer and is not supported is refused by name; a field that
//! cannot change it is ignored; an unknown one is refused, for it may be a misspelled known one.

use serde_json::{Map, Value, json};

use crate::api_error::{ApiError, Dialect};

/// Chat or plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Messages in, a message out.
    Chat,
    /// Text in, text out.
    Text,
}

/// What a path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Chat or plain text.
    pub form: Form,
    /// Whose conventions.
    pub dialect: Dialect,
    /// Whether the field `cartridges` is known.
    pub cartridges: bool,
}

impl Endpoint {
    /// An OpenAI path.
    pub const fn open_ai(form: Form) -> Self {
        Self {
            form,
            dialect: Dialect::OpenAi,
            cartridges: true,
        }
    }

    /// A Tokasaurus path.
    pub const fn tokasaurus(form: Form, cartridges: bool) -> Self {
        Self {
            form,
            dialect: Dialect::Tokasaurus,
            cartridges,
        }
    }
}

/// Fields of both forms on every path.
const BOTH: &[&str] = &[
    "model",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "n",
    "presence_penalty",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "user",
    "metadata",
    "ignore_eos",
    "logprobs_in_fingerprint",
];
const CHAT: &[&str] = &[
    "messages",
    "top_logprobs",
    "max_completion_tokens",
    "response_format",
    "apply_chat_template_overrides",
];
const TEXT: &[&str] = &["prompt", "best_of", "echo", "suffix"];

/// Our own additions, on OpenAI paths.
const ADDED: &[&str] = &["adapter", "top_k", "min_p"];
const ADDED_CHAT: &[&str] = &["chat_template_kwargs", "reasoning_effort"];
const ADDED_TEXT: &[&str] = &["response_format"];

/// Fields of other servers and of OpenAI that do not change the answer of one model.
const HARMLESS: &[&str] = &[
    "modal_upstream_id",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
];

/// Fields that would change the answer, and the values besides null with which they do not.
fn unsupported(name: &str) -> Option<Vec<Value>> {
    Some(match name {
        "tools" | "functions" => vec![json!([])],
        "tool_choice" | "function_call" => vec![json!("none"), json!("auto")],
        "modalities" => vec![json!(["text"])],
        "audio" | "prediction" | "web_search_options" | "verbosity" => vec![],
        "logit_bias" => vec![json!({})],
        "frequency_penalty" | "presence_penalty" => vec![json!(0), json!(0.0)],
        "repetition_penalty" => vec![json!(1), json!(1.0)],
        "echo" => vec![json!(false)],
        "suffix" => vec![json!("")],
        "best_of" => vec![json!(1)],
        _ => return None,
    })
}

/// Refuses what cannot be honoured and gives the rest, with the dialect's defaults filled in.
pub(crate) fn screen(
    mut body: Map<String, Value>,
    endpoint: Endpoint,
) -> Result<Map<String, Value>, ApiError> {
    let open_ai = endpoint.dialect == Dialect::OpenAi;
    let (own, added) = match endpoint.form {
        Form::Chat => (CHAT, ADDED_CHAT),
        Form::Text => (TEXT, ADDED_TEXT),
    };
    for (name, value) in &body {
        let name = name.as_str();
        let known = BOTH.contains(&name)
            || own.contains(&name)
            || (endpoint.cartridges && name == "cartridges")
            || (open_ai && (ADDED.contains(&name) || added.contains(&name)));
        if let Some(neutral) = unsupported(name).filter(|_| known || open_ai) {
            if !value.is_null() && !neutral.contains(value) {
                let message = format!("`{name}` is not supported by this server");
                return Err(ApiError::field(name, message));
            }
        } else if !(known || open_ai && HARMLESS.contains(&name)) {
            return Err(ApiError::schema(name, format!("unknown field `{name}`")));
        }
    }
    for required in [
        "model",
        if endpoint.form == Form::Chat {
            "messages"
        } else {
            "prompt"
        },
    ] {
        if !body.contains_key(required) {
            return Err(ApiError::schema(
                required,
                format!("field `{required}` is missing"),
            ));
        }
    }
    body.retain(|name, _| unsupported(name).is_none() && !HARMLESS.contains(&name.as_str()));
    if endpoint.dialect == Dialect::Tokasaurus {
        let absent = if endpoint.form == Form::Chat {
            0.7
        } else {
            1.0
        };
        match body.get("temperature") {
            None => body.insert("temperature".into(), json!(absent)),
            Some(Value::Null) => body.insert("temperature".into(), json!(0)),
            Some(_) => None,
        };
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_chat(dialect: Dialect, more: Value) -> Result<Map<String, Value>, ApiError> {
        let mut body = json!({"model": "m", "messages": []});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let endpoint = Endpoint {
            form: Form::Chat,
            dialect,
            cartridges: false,
        };
        screen(body.as_object().unwrap().clone(), endpoint)
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        for (name, value) in [
            ("tools", json!([{"type": "function"}])),
            ("functions", json!([{}])),
            ("audio", json!({})),
            ("modalities", json!(["text", "audio"])),
            ("logit_bias", json!({"5": 1})),
            ("frequency_penalty", json!(0.1)),
            ("presence_penalty", json!(-1)),
            ("nonsense", json!(1)),
        ] {
            let error = try_chat(Dialect::OpenAi, json!({name: value})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name));
            assert!(error.message.contains(name));
            assert_eq!(error.status(Dialect::OpenAi), 400);
        }
    }

    #[test]
    fn what_cannot_change_the_answer_is_ignored() {
        let body = try_chat(
            Dialect::OpenAi,
            json!({"user": "u", "store": true, "tools": null, "logit_bias": {},
                   "presence_penalty": 0.0, "parallel_tool_calls": false, "tool_choice": "auto"}),
        )
        .unwrap();
        assert!(!body.contains_key("store") && !body.contains_key("tools"));
    }

    #[test]
    fn tokasaurus_paths_are_strict() {
        for name in ["cartridges", "tools", "store", "top_k", "adapter"] {
            let error = try_chat(Dialect::Tokasaurus, json!({name: null})).unwrap_err();
            assert_eq!(error.status(Dialect::Tokasaurus), 422, "{name}");
        }
        let error = try_chat(Dialect::Tokasaurus, json!({"presence_penalty": 1})).unwrap_err();
        assert_eq!(error.status(Dialect::Tokasaurus), 400);
    }

    #[test]
    fn tokasaurus_temperature_defaults() {
        let absent = try_chat(Dialect::Tokasaurus, json!({})).unwrap();
        assert_eq!(absent["temperature"], json!(0.7));
        let null = try_chat(Dialect::Tokasaurus, json!({"temperature": null})).unwrap();
        assert_eq!(null["temperature"], json!(0));
    }
}
