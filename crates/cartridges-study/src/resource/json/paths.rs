//! Paths into JSON values.

use serde_json::Value;

/// The values at a path, with the path of each. Keys and indices are joined with `/`, and `*` stands
/// for every key or index; a leading `/` and the escapes `~1` and `~0` of JSON pointers are understood.
pub(super) fn select<'a>(root: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let mut found = vec![(String::new(), root)];
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return found;
    }
    for step in path.split('/') {
        let key = step.replace("~1", "/").replace("~0", "~");
        found = found
            .into_iter()
            .flat_map(|(at, value)| match step {
                "*" => children(&at, value),
                _ => child(value, &key)
                    .map(|child| vec![(join(&at, &key), child)])
                    .unwrap_or_default(),
            })
            .collect();
    }
    found
}

fn child<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(key),
        Value::Array(values) => values.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

fn children<'a>(at: &str, value: &'a Value) -> Vec<(String, &'a Value)> {
    match value {
        Value::Object(fields) => fields.iter().map(|(k, v)| (join(at, k), v)).collect(),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .map(|(i, v)| (join(at, &i.to_string()), v))
            .collect(),
        _ => Vec::new(),
    }
}

/// A path with one more step.
pub(super) fn join(path: &str, step: &str) -> String {
    match path.is_empty() {
        true => step.to_owned(),
        false => format!("{path}/{step}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_values() {
        let root = json!({"a": [{"b": 1}, {"b": 2}, 3], "c/d": {"e": null}});
        let paths = |path| -> Vec<String> {
            select(&root, path)
                .into_iter()
                .map(|(at, value)| format!("{at}={value}"))
                .collect()
        };
        assert_eq!(paths("a/0/b"), ["a/0/b=1"]);
        assert_eq!(paths("/a/1"), [r#"a/1={"b":2}"#]);
        assert_eq!(paths("a/*/b"), ["a/0/b=1", "a/1/b=2"]);
        assert_eq!(paths("c~1d/e"), ["c/d/e=null"]);
        assert_eq!(paths("").len(), 1);
        assert!(paths("a/7").is_empty() && paths("a/x").is_empty());
    }
}
