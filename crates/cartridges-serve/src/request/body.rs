//! The bodies of generation requests.
//!
//! Which fields may be there is decided by [`super::fields`]; these structs only give the types,
//! so each reads its own fields out of the same object.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api_error::ApiError;
use crate::job::Source;

/// Fields of both forms.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct Common {
    /// Name of the model, or `default`.
    pub model: String,
    /// Sampling temperature; 0 is greedy.
    pub temperature: Option<f64>,
    /// Nucleus sampling; 1 is off.
    pub top_p: Option<f64>,
    /// Only the most likely this many; 0 or -1 is off.
    pub top_k: Option<i64>,
    /// Only tokens at least this likely compared with the likeliest; 0 is off.
    pub min_p: Option<f64>,
    /// The same request with the same seed gives the same answer.
    pub seed: Option<i64>,
    /// Texts that end the answer: one or a list.
    #[schema(value_type = Option<Vec<String>>)]
    pub stop: Option<OneOrMany>,
    /// How many answers.
    pub n: Option<i64>,
    /// Whether to send the answer as it grows, as server-sent events.
    pub stream: Option<bool>,
    /// Settings of a stream.
    pub stream_options: Option<StreamOptions>,
    /// Most tokens to generate.
    pub max_tokens: Option<i64>,
    /// Whether end-of-turn tokens are ordinary tokens.
    pub ignore_eos: Option<bool>,
    /// Whether log-probs go, packed, into `system_fingerprint`.
    pub logprobs_in_fingerprint: Option<bool>,
    /// Cartridges that stand before the prompt.
    pub cartridges: Option<Vec<CartridgeField>>,
    /// Name of a thought adapter.
    pub adapter: Option<String>,
    /// The form the answer must have: `text`, `json_object` or `json_schema`.
    #[schema(value_type = Option<Object>)]
    pub response_format: Option<Value>,
}

/// Fields of a chat request.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct ChatFields {
    /// The conversation: objects with `role` and `content`, a text or a list of text parts.
    #[schema(value_type = Vec<Object>)]
    pub messages: Vec<Map<String, Value>>,
    /// Whether to tell the log-probs of the answer's tokens.
    pub logprobs: Option<bool>,
    /// How many log-probs per position.
    pub top_logprobs: Option<i64>,
    /// Most tokens to generate.
    pub max_completion_tokens: Option<i64>,
    /// More variables for the chat template, such as `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    pub apply_chat_template_overrides: Option<Map<String, Value>>,
    /// The same, by the name that other servers use.
    #[schema(value_type = Option<Object>)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Given to the chat template; `none` also sets `enable_thinking` to false.
    pub reasoning_effort: Option<String>,
}

/// Fields of a text request.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct TextFields {
    /// A text, a list of texts, a list of token ids, or a list of such lists.
    #[schema(value_type = String)]
    pub prompt: Option<PromptField>,
    /// How many log-probs per position.
    pub logprobs: Option<i64>,
}

/// A chat request.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "only describes the body")]
pub(crate) struct ChatRequest {
    #[serde(flatten)]
    chat: ChatFields,
    #[serde(flatten)]
    common: Common,
}

/// A text request.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "only describes the body")]
pub(crate) struct CompletionRequest {
    #[serde(flatten)]
    text: TextFields,
    #[serde(flatten)]
    common: Common,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// What a text request continues.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum PromptField {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// One list of ids.
    Ids(Vec<u32>),
    /// Several lists of ids.
    ManyIds(Vec<Vec<u32>>),
}

/// Settings of a stream.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
pub(crate) struct StreamOptions {
    /// Whether the last event tells how many tokens were used.
    pub include_usage: Option<bool>,
}

/// A cartridge as a request names it.
#[derive(Debug, Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CartridgeField {
    /// Its name.
    pub id: String,
    /// `local`, `huggingface` or `wandb`. Left out: `local` on OpenAI paths, `wandb` on others.
    #[schema(value_type = Option<String>)]
    pub source: Option<Source>,
    /// Whether to fetch it anew.
    pub force_redownload: Option<bool>,
}

/// Reads the fields of `T` out of a body; an error names the field.
pub(crate) fn read<T: DeserializeOwned>(body: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(body).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let message = match path.is_empty() {
            true => error.inner().to_string(),
            false => format!("`{path}`: {}", error.inner()),
        };
        ApiError::schema(path.replace('[', ".").replace(']', ""), message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_name_the_field() {
        let error = read::<Common>(&json!({"model": "m", "temperature": "hot"})).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("temperature"));
        let body = json!({"model": "m", "cartridges": [{"id": "a"}, {"id": "b", "source": "s3"}]});
        let error = read::<Common>(&body).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("cartridges.1.source"));
    }

    #[test]
    fn prompts_have_four_forms() {
        let prompt = |value: Value| read::<TextFields>(&json!({"prompt": value}));
        assert!(matches!(
            prompt(json!("a")).unwrap().prompt,
            Some(PromptField::Text(_))
        ));
        assert!(matches!(
            prompt(json!(["a"])).unwrap().prompt,
            Some(PromptField::Texts(_))
        ));
        assert!(matches!(
            prompt(json!([1, 2])).unwrap().prompt,
            Some(PromptField::Ids(_))
        ));
        assert!(matches!(
            prompt(json!([[1], [2]])).unwrap().prompt,
            Some(PromptField::ManyIds(_))
        ));
        assert!(prompt(json!([-1])).is_err());
        assert!(prompt(json!({})).is_err());
    }
}
