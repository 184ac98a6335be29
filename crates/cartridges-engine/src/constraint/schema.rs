//! What a JSON schema may be.

use llguidance::JsonCompileOptions;
use serde_json::Value;

use super::error::{ConstraintError, in_short};
use super::multiples::Multiples;

/// Bytes of a schema's text.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Levels of values within values in a schema's text.
pub const MAX_DEPTH: usize = 64;
/// Values of `minItems`, `maxLength` and other keywords that count.
pub const MAX_COUNT: f64 = 16_384.0;
/// Values of `minimum` and the like, up or down; the library reckons with 64 bits.
pub const MAX_BOUND: f64 = 9e18;

/// The key under which the library takes its options.
const OPTIONS: &str = "x-guidance";
const COUNTS: [&str; 6] = [
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];
const BOUNDS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];

/// How schemas are read: strictly, and without room for endless white space.
pub fn options() -> JsonCompileOptions {
    JsonCompileOptions {
        whitespace_pattern: Some(r"[\x20\x0A\x0D\x09]{1,64}".to_string()),
        coerce_one_of: false,
        lenient: false,
        ..JsonCompileOptions::default()
    }
}

/// Reads a schema and checks what the library does not.
pub fn parse(text: &str) -> Result<Value, ConstraintError> {
    if text.len() > MAX_SCHEMA_BYTES {
        return Err(ConstraintError::SchemaTooLong { bytes: text.len() });
    }
    let schema: Value = serde_json::from_str(text).map_err(ConstraintError::SchemaSyntax)?;
    let Value::Object(keys) = &schema else {
        return Err(ConstraintError::SchemaNotObject);
    };
    if keys.contains_key(OPTIONS) {
        return Err(ConstraintError::SchemaKey(OPTIONS));
    }
    let mut multiples = Multiples::default();
    let mut open = vec![(&schema, 1)];
    while let Some((value, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(ConstraintError::SchemaTooDeep);
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(keys) => {
                for (key, value) in keys {
                    check_size(key, value)?;
                    if let ("multipleOf", Some(value)) = (key.as_str(), value.as_f64()) {
                        multiples.add(value)?;
                    }
                    open.push((value, depth + 1));
                }
            }
            _ => {}
        }
    }
    multiples.check()?;
    Ok(schema)
}

fn check_size(keyword: &str, value: &Value) -> Result<(), ConstraintError> {
    let limit = match keyword {
        _ if COUNTS.contains(&keyword) => MAX_COUNT,
        _ if BOUNDS.contains(&keyword) => MAX_BOUND,
        _ => return Ok(()),
    };
    match value {
        Value::Number(number) if number.as_f64().is_none_or(|n| n.abs() > limit) => {
            Err(ConstraintError::SchemaSize {
                keyword: keyword.to_string(),
                value: number.to_string(),
                limit,
            })
        }
        _ => Ok(()),
    }
}

/// The library's message, where it needs no knowledge of the library.
pub fn in_words(message: &str) -> String {
    if message.contains("oneOf constraints are not supported") {
        let words = "oneOf needs options that exclude each other by their type or by a constant \
                     property; anyOf takes any options";
        return words.to_string();
    }
    in_short(message)
}
