//! Settings as YAML, as much of it as JSON can say.

use serde_json::Value;

/// Block style; texts are quoted as in JSON, which YAML reads as well.
pub(super) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

fn write(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                *text += &format!("{indent}{}:", key(name));
                nested(value, depth, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                *text += &format!("{indent}-");
                nested(item, depth, text);
            }
        }
        other => *text += &format!("{indent}{other}\n"),
    }
}

fn nested(value: &Value, depth: usize, text: &mut String) {
    let is_block = match value {
        Value::Object(entries) => !entries.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    match is_block {
        true => {
            text.push('\n');
            write(value, depth + 1, text);
        }
        false => *text += &format!(" {value}\n"),
    }
}

/// Plain where it cannot be taken for anything else.
fn key(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    match !name.is_empty() && name.bytes().all(plain) && !reserved.contains(&name) {
        true => name.to_owned(),
        false => Value::from(name).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_stay_texts_and_blocks_are_indented() {
        let value = json!({
            "name": "yes: \"no\"\n- x", "on": null, "list": [1, {"a": true}, []], "empty": {},
            "model": {"pretrained_model_name_or_path": "owner/name"},
        });
        let wanted = "name: \"yes: \\\"no\\\"\\n- x\"\n\"on\": null\nlist:\n  - 1\n  -\n    a: true\n  - []\n\
                      empty: {}\nmodel:\n  pretrained_model_name_or_path: \"owner/name\"\n";
        assert_eq!(yaml(&value), wanted);
    }
}
