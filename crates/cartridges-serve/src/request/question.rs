//! What is asked: the fields that chat and text requests do not share.

use serde_json::{Map, Value};

use crate::api_error::{ApiError, Dialect};
use crate::job::Prompt;
use crate::request::body::{ChatFields, Common, PromptField, TextFields, read};
use crate::request::cartridge_blocks::take_blocks;
use crate::request::messages::read_messages;
use crate::request::plan::Planner;
use crate::request::sampling::{read_limit, read_top};

/// Tokens of a text completion that names no limit.
const TEXT_LIMIT: usize = 16;

/// What is asked.
pub(crate) struct Question {
    /// The prompts: one for a chat.
    pub prompts: Vec<Prompt>,
    /// Most tokens of an answer.
    pub limit: Option<usize>,
    /// How many log-probs per position; `None`: none.
    pub top_logprobs: Option<usize>,
}

impl Planner<'_> {
    /// The prompt, token limit and log-probs of a chat request.
    pub fn chat(
        &self,
        body: &Value,
        common: &mut Common,
        dialect: Dialect,
    ) -> Result<Question, ApiError> {
        let chat: ChatFields = read(body)?;
        let mut messages = read_messages(&chat.messages, dialect, self.options.max_messages)?;
        if let Some(named) = take_blocks(&mut messages) {
            common.cartridges = Some(named);
        }
        let mut template_keywords = Map::new();
        if let Some(effort) = chat.reasoning_effort {
            if effort == "none" {
                template_keywords.insert("enable_thinking".into(), false.into());
            }
            template_keywords.insert("reasoning_effort".into(), effort.into());
        }
        template_keywords.extend(chat.chat_template_kwargs.unwrap_or_default());
        template_keywords.extend(chat.apply_chat_template_overrides.unwrap_or_default());
        let old = read_limit("max_tokens", common.max_tokens)?;
        let new = read_limit("max_completion_tokens", chat.max_completion_tokens)?;
        let limit = match (old, new) {
            (Some(_), Some(_)) if dialect == Dialect::Tokasaurus || old != new => {
                let message = "only one of `max_tokens` and `max_completion_tokens` may be given";
                return Err(ApiError::field("max_tokens", message));
            }
            (old, new) => old
                .or(new)
                .or(self.inference.served().max_completion_tokens),
        };
        if limit.is_none() && dialect == Dialect::Tokasaurus {
            let message = "one of `max_tokens` and `max_completion_tokens` is needed";
            return Err(ApiError::field("max_completion_tokens", message));
        }
        let top = match (chat.logprobs.unwrap_or(false), chat.top_logprobs) {
            (false, None) => None,
            (false, Some(0)) if dialect == Dialect::OpenAi => None,
            (false, Some(_)) => {
                let message = "`top_logprobs` needs `logprobs` to be true";
                return Err(ApiError::field("top_logprobs", message));
            }
            (true, top) => Some(read_top(
                "top_logprobs",
                top.unwrap_or(0),
                self.most_logprobs(),
            )?),
        };
        let prompts = vec![Prompt::Chat {
            messages,
            template_keywords,
        }];
        Ok(Question {
            prompts,
            limit,
            top_logprobs: top,
        })
    }

    /// The prompts, token limit and log-probs of a text request.
    pub fn text(&self, body: &Value, common: &Common) -> Result<Question, ApiError> {
        let text: TextFields = read(body)?;
        let prompts: Vec<Prompt> = match text.prompt {
            None => return Err(ApiError::schema("prompt", "`prompt` must not be null")),
            Some(PromptField::Text(text)) => vec![Prompt::Text(text)],
            Some(PromptField::Texts(texts)) => texts.into_iter().map(Prompt::Text).collect(),
            Some(PromptField::Ids(ids)) => vec![Prompt::Ids(ids)],
            Some(PromptField::ManyIds(lists)) => lists.into_iter().map(Prompt::Ids).collect(),
        };
        let empty = |prompt: &Prompt| match prompt {
            Prompt::Ids(ids) => ids.is_empty(),
            Prompt::Text(_) | Prompt::Chat { .. } => false,
        };
        if prompts.is_empty() || prompts.iter().any(empty) {
            return Err(ApiError::field("prompt", "`prompt` must not be empty"));
        }
        let limit = read_limit("max_tokens", common.max_tokens)?.unwrap_or(TEXT_LIMIT);
        let read_logprobs = |top| read_top("logprobs", top, self.most_logprobs());
        let top = text.logprobs.map(read_logprobs).transpose()?;
        Ok(Question {
            prompts,
            limit: Some(limit),
            top_logprobs: top,
        })
    }

    fn most_logprobs(&self) -> usize {
        self.options
            .max_top_logprobs
            .min(self.inference.served().max_top_logprobs)
    }
}
