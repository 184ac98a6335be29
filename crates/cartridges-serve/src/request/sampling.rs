//! The checked values of the fields that both forms have.

use serde_json::Value;

use crate::api_error::{ApiError, Dialect};
use crate::job::Constraint;
use crate::options::ServerOptions;
use crate::request::body::{Common, OneOrMany};

/// Longest stop text in bytes.
const MAX_STOP_BYTES: usize = 1024;

/// How the next token is chosen and when to end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampling {
    /// See [`crate::Job`].
    pub temperature: f32,
    /// See [`crate::Job`].
    pub top_p: f32,
    /// See [`crate::Job`].
    pub top_k: usize,
    /// See [`crate::Job`].
    pub min_p: f32,
    /// See [`crate::Job`].
    pub stop: Vec<String>,
    /// How many answers.
    pub n: usize,
}

/// Checks and gives the sampling fields.
pub(crate) fn read_sampling(
    common: &Common,
    dialect: Dialect,
    options: &ServerOptions,
) -> Result<Sampling, ApiError> {
    let hottest = match dialect {
        Dialect::OpenAi => 2.0,
        Dialect::Tokasaurus => 1000.0,
    };
    let top_k = match common.top_k.unwrap_or(0) {
        -1 => 0,
        value => usize::try_from(value).map_err(|_| {
            ApiError::field("top_k", "must be a positive number, or 0 or -1 for off")
        })?,
    };
    let n = common.n.unwrap_or(1);
    let n = usize::try_from(n)
        .ok()
        .filter(|n| (1..=options.max_n).contains(n))
        .ok_or_else(|| ApiError::field("n", format!("must be 1 to {}", options.max_n)))?;
    let top_p = number("top_p", common.top_p, 1.0, 0.0, 1.0)?;
    if top_p == 0.0 {
        return Err(ApiError::field("top_p", "must be above 0"));
    }
    Ok(Sampling {
        temperature: number("temperature", common.temperature, 1.0, 0.0, hottest)?,
        top_p,
        top_k,
        min_p: number("min_p", common.min_p, 0.0, 0.0, 1.0)?,
        stop: read_stop(common.stop.as_ref(), options.max_stop)?,
        n,
    })
}

fn number(
    name: &str,
    value: Option<f64>,
    left_out: f64,
    least: f64,
    most: f64,
) -> Result<f32, ApiError> {
    let value = value.unwrap_or(left_out);
    match (least..=most).contains(&value) {
        true => Ok(value as f32),
        false => Err(ApiError::field(
            name,
            format!("must be {least} to {most}, not {value}"),
        )),
    }
}

fn read_stop(stop: Option<&OneOrMany>, most: usize) -> Result<Vec<String>, ApiError> {
    let stop = match stop {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text.clone()],
        Some(OneOrMany::Many(texts)) => texts.clone(),
    };
    if stop.len() > most {
        let message = format!("{} stop texts are more than the {most} allowed", stop.len());
        return Err(ApiError::field("stop", message));
    }
    if stop
        .iter()
        .any(|text| text.is_empty() || text.len() > MAX_STOP_BYTES)
    {
        let message = format!("a stop text must have 1 to {MAX_STOP_BYTES} bytes");
        return Err(ApiError::field("stop", message));
    }
    Ok(stop)
}

/// A token limit that a request names, if it does.
pub(crate) fn read_limit(name: &str, value: Option<i64>) -> Result<Option<usize>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    match usize::try_from(value) {
        Ok(limit) if limit > 0 => Ok(Some(limit)),
        _ => Err(ApiError::field(name, "must be at least 1")),
    }
}

/// A number of log-probs per position.
pub(crate) fn read_top(name: &str, value: i64, most: usize) -> Result<usize, ApiError> {
    usize::try_from(value)
        .ok()
        .filter(|count| *count <= most)
        .ok_or_else(|| ApiError::field(name, format!("must be 0 to {most}")))
}

/// The constraint that `response_format` names.
pub(crate) fn read_constraint(
    format: Option<&Value>,
    max_schema_bytes: usize,
) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = format else {
        return Ok(None);
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Constraint::JsonObject)),
        Some("json_schema") => {
            let field = "response_format.json_schema.schema";
            let schema = format
                .get("json_schema")
                .and_then(|named| named.get("schema"));
            let Some(schema) = schema.filter(|schema| schema.is_object() || schema.is_boolean())
            else {
                return Err(ApiError::schema(
                    field,
                    format!("`{field}` must be a JSON Schema"),
                ));
            };
            let text = schema.to_string();
            if text.len() > max_schema_bytes {
                let message = format!(
                    "a schema of {} bytes is larger than the {max_schema_bytes} allowed",
                    text.len()
                );
                return Err(ApiError::field(field, message));
            }
            Ok(Some(Constraint::JsonSchema(text)))
        }
        _ => Err(ApiError::schema(
            "response_format.type",
            "`response_format.type` must be text, json_object or json_schema",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(mut common: Value, dialect: Dialect) -> Result<Sampling, ApiError> {
        common["model"] = json!("m");
        let common: Common = serde_json::from_value(common).unwrap();
        read_sampling(&common, dialect, &ServerOptions::default())
    }

    #[test]
    fn ranges_are_checked() {
        for (name, value) in [
            ("temperature", json!(-0.1)),
            ("temperature", json!(2.1)),
            ("top_p", json!(0)),
            ("top_p", json!(1.5)),
            ("top_k", json!(-2)),
            ("min_p", json!(2)),
            ("n", json!(0)),
            ("n", json!(17)),
            ("stop", json!("")),
            ("stop", json!(vec!["x"; 17])),
        ] {
            let error = read(json!({name: value}), Dialect::OpenAi).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name));
        }
        let sampling = read(json!({"top_k": -1, "stop": "x"}), Dialect::OpenAi).unwrap();
        assert_eq!(
            (sampling.top_k, sampling.temperature, sampling.n),
            (0, 1.0, 1)
        );
        assert!(read(json!({"temperature": 3}), Dialect::Tokasaurus).is_ok());
    }

    #[test]
    fn response_formats() {
        let read = |value: Value| read_constraint(Some(&value), 40);
        assert_eq!(read(json!({"type": "text"})).unwrap(), None);
        assert_eq!(
            read(json!({"type": "json_object"})).unwrap(),
            Some(Constraint::JsonObject)
        );
        let schema = json!({"type": "json_schema", "json_schema": {
            "name": "n", "strict": true, "schema": {"type": "object"}}});
        let wanted = Constraint::JsonSchema("{\"type\":\"object\"}".into());
        assert_eq!(read(schema).unwrap(), Some(wanted));
        let long =
            json!({"type": "json_schema", "json_schema": {"schema": {"title": "x".repeat(40)}}});
        assert!(read(long).unwrap_err().message.contains("larger"));
        assert!(read(json!({"type": "json_schema"})).is_err());
        assert!(read(json!({"type": "xml"})).is_err());
        assert!(read(json!("json_object")).is_err());
    }
}
