//! Log-probs in OpenAI's form.
//!
//! OpenAI paths tell a token's text and bytes, Tokasaurus paths its string in the vocabulary and no
//! bytes.

use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::api_error::Dialect;
use crate::inference::Inference;
use crate::reply::choice::Choice;

/// What stands for a log-prob of minus infinity, which JSON cannot say.
const LEAST: f32 = -9999.0;

/// Writes log-probs.
#[derive(Clone, Copy)]
pub(crate) struct Logprobs<'a> {
    /// Knows the tokens.
    pub inference: &'a dyn Inference,
    /// Whose conventions.
    pub dialect: Dialect,
}

impl Logprobs<'_> {
    /// `logprobs` of a chat choice, for some of its tokens.
    pub fn chat(&self, choice: &Choice, tokens: Range<usize>) -> Value {
        let content = tokens.map(|at| {
            let mut token = self.named(choice.ids[at], choice.logprobs[at]);
            let top = choice.top[at]
                .iter()
                .map(|(id, logprob)| self.named(*id, *logprob));
            token.insert("top_logprobs".into(), top.map(Value::Object).collect());
            Value::Object(token)
        });
        json!({"content": content.collect::<Vec<_>>(), "refusal": null})
    }

    /// `logprobs` of a text choice, for some of its tokens.
    pub fn text(&self, choice: &Choice, tokens: Range<usize>) -> Value {
        let names = tokens.clone().map(|at| self.text_of(choice.ids[at]));
        let logprobs = tokens.clone().map(|at| finite(choice.logprobs[at]));
        let top = tokens.clone().map(|at| {
            let mut map = Map::new();
            for (id, logprob) in &choice.top[at] {
                // Two ids may have the same text; the likelier comes first and stays.
                map.entry(self.text_of(*id))
                    .or_insert(json!(finite(*logprob)));
            }
            Value::Object(map)
        });
        json!({
            "text_offset": choice.offsets[tokens.clone()],
            "token_logprobs": logprobs.collect::<Vec<_>>(),
            "tokens": names.collect::<Vec<_>>(),
            "top_logprobs": top.collect::<Vec<_>>(),
        })
    }

    fn named(&self, id: u32, logprob: f32) -> Map<String, Value> {
        let bytes = match self.dialect {
            Dialect::OpenAi => self.inference.token(id).bytes,
            Dialect::Tokasaurus => Vec::new(),
        };
        let mut token = Map::new();
        token.insert("token".into(), self.text_of(id).into());
        token.insert("bytes".into(), bytes.into());
        token.insert("logprob".into(), json!(finite(logprob)));
        token
    }

    fn text_of(&self, id: u32) -> String {
        let token = self.inference.token(id);
        match self.dialect {
            Dialect::OpenAi => String::from_utf8_lossy(&token.bytes).into_owned(),
            Dialect::Tokasaurus => token.raw,
        }
    }
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LEAST }
}
