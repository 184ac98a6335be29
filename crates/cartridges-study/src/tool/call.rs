//! Calls as models write them: JSON between `<tool_call>` tags, the form of Hermes and Qwen.

use serde_json::{Map, Value};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A call as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// The text between the tags.
    pub raw: String,
    /// The tool's name and its arguments; or why they cannot be read.
    pub parsed: Result<(String, Value), String>,
}

/// All calls in a text. The last one may lack its closing tag: models like to end there.
pub(super) fn requests(text: &str) -> Vec<Request> {
    let mut parts = text.split(OPEN);
    parts.next();
    parts
        .map(|part| {
            let raw = part.split(CLOSE).next().unwrap_or(part).trim();
            Request {
                raw: raw.to_owned(),
                parsed: parse(raw),
            }
        })
        .collect()
}

fn parse(raw: &str) -> Result<(String, Value), String> {
    let value: Value =
        serde_json::from_str(raw).map_err(|error| format!("the call is not JSON: {error}"))?;
    let name = value.get("name").and_then(Value::as_str);
    let name = name.ok_or("the call has no name")?.to_owned();
    let arguments = match value.get("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        // Some models write the object as text.
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|error| format!("the arguments are not JSON: {error}"))?,
        Some(other) => other.clone(),
    };
    match arguments.is_object() {
        true => Ok((name, arguments)),
        false => Err("the arguments are not an object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_found_closed_or_not() {
        let text = "Let me look.\n<tool_call>\n{\"name\": \"retrieve\", \"arguments\": {\"query\": \
                    \"lamp\"}}\n</tool_call> and <tool_call>{\"name\": \"b\", \"arguments\": \
                    \"{\\\"x\\\": 1}\"}";
        let found = requests(text);
        let parsed: Vec<_> = found.iter().map(|r| r.parsed.clone().unwrap()).collect();
        assert_eq!(
            parsed,
            [
                ("retrieve".to_owned(), json!({"query": "lamp"})),
                ("b".to_owned(), json!({"x": 1})),
            ]
        );
        assert!(found[0].raw.starts_with('{') && found[0].raw.ends_with('}'));
        assert!(requests("No tool is needed.").is_empty());
    }

    #[test]
    fn calls_that_make_no_sense_say_why() {
        for (text, said) in [
            ("<tool_call>", "not JSON"),
            ("<tool_call>{\"name\": \"a\", \"argum", "not JSON"),
            ("<tool_call>{\"arguments\": {}}", "no name"),
            ("<tool_call>[1]", "no name"),
            (
                "<tool_call>{\"name\": \"a\", \"arguments\": 3}",
                "not an object",
            ),
            (
                "<tool_call>{\"name\": \"a\", \"arguments\": \"x\"}",
                "not JSON",
            ),
        ] {
            let found = requests(text);
            let error = found[0].parsed.clone().unwrap_err();
            assert!(found.len() == 1 && error.contains(said), "{text}: {error}");
        }
        let bare = requests("<tool_call>{\"name\": \"a\"}</tool_call>");
        assert_eq!(bare[0].parsed, Ok(("a".to_owned(), json!({}))));
    }
}
