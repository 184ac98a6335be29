//! The messages of a chat request.

use serde_json::{Map, Value};

use crate::api_error::{ApiError, Dialect};
use crate::job::{Message, Role};

/// Fields of a message that do not change what the model reads.
const HARMLESS: &[&str] = &["name", "annotations", "refusal", "id"];

/// Reads the messages; `most` is the limit.
pub(crate) fn read_messages(
    messages: &[Map<String, Value>],
    dialect: Dialect,
    most: usize,
) -> Result<Vec<Message>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::field(
            "messages",
            "at least one message is needed",
        ));
    }
    if messages.len() > most {
        let message = format!(
            "{} messages are more than the {most} allowed",
            messages.len()
        );
        return Err(ApiError::field("messages", message));
    }
    let read = |(at, message)| read_message(message, dialect, &format!("messages.{at}"));
    messages.iter().enumerate().map(read).collect()
}

fn read_message(
    message: &Map<String, Value>,
    dialect: Dialect,
    place: &str,
) -> Result<Message, ApiError> {
    for (name, value) in message {
        let known = name == "role" || name == "content" || HARMLESS.contains(&name.as_str());
        if !known && !value.is_null() {
            let message = format!("messages with `{name}` are not supported by this server");
            return Err(ApiError::field(format!("{place}.{name}"), message));
        }
    }
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        other => {
            let other = other.unwrap_or("nothing");
            let message = format!("role must be system, user or assistant, not {other}");
            return Err(ApiError::schema(format!("{place}.role"), message));
        }
    };
    let field = format!("{place}.content");
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => join_parts(parts, dialect, &field)?,
        _ => {
            return Err(ApiError::schema(
                field,
                "content must be a text or a list of text parts",
            ));
        }
    };
    Ok(Message { role, content })
}

/// The text of content that came in parts. Tokasaurus takes one part only.
fn join_parts(parts: &[Value], dialect: Dialect, field: &str) -> Result<String, ApiError> {
    if dialect == Dialect::Tokasaurus && parts.len() != 1 {
        return Err(ApiError::field(field, "content must have exactly one part"));
    }
    let mut content = String::new();
    for part in parts {
        let text = part.get("text").and_then(Value::as_str);
        match (part.get("type").and_then(Value::as_str), text) {
            (Some("text"), Some(text)) => content.push_str(text),
            (Some("text") | None, _) => {
                return Err(ApiError::schema(
                    field,
                    "a text part needs `type` and `text`",
                ));
            }
            (Some(other), _) => {
                let message = format!("only text parts are supported, not `{other}`");
                return Err(ApiError::field(field, message));
            }
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(messages: Value, dialect: Dialect) -> Result<Vec<Message>, ApiError> {
        let messages: Vec<Map<String, Value>> = serde_json::from_value(messages).unwrap();
        read_messages(&messages, dialect, 3)
    }

    #[test]
    fn content_may_come_in_parts() {
        let parts = json!([{"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
        assert_eq!(
            read(parts.clone(), Dialect::OpenAi).unwrap()[0].content,
            "ab"
        );
        let error = read(parts, Dialect::Tokasaurus).unwrap_err();
        assert_eq!(error.status(Dialect::Tokasaurus), 400);
        let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]);
        assert!(
            read(image, Dialect::OpenAi)
                .unwrap_err()
                .message
                .contains("image_url")
        );
    }

    #[test]
    fn wrong_messages_are_refused() {
        let user = json!({"role": "user", "content": "x"});
        assert!(read(json!([]), Dialect::OpenAi).is_err());
        assert!(read(json!([user, user, user, user]), Dialect::OpenAi).is_err());
        assert!(read(json!([{"role": "tool", "content": "x"}]), Dialect::OpenAi).is_err());
        assert!(read(json!([{"role": "user", "content": null}]), Dialect::OpenAi).is_err());
        let call = json!([{"role": "assistant", "content": "", "tool_calls": [{}]}]);
        assert!(
            read(call, Dialect::OpenAi)
                .unwrap_err()
                .message
                .contains("tool_calls")
        );
        let fine = json!([{"role": "developer", "content": "x", "tool_calls": null, "name": "n"}]);
        assert_eq!(read(fine, Dialect::OpenAi).unwrap()[0].role, Role::System);
    }
}
