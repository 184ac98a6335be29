//! Writing of Python pickles; they are never read here.
//!
//! Protocol 2, and only what cannot do harm: None, booleans, numbers, strings, lists, dicts and
//! `types.SimpleNamespace` objects with a state.

use serde_json::{Map, Value};

use crate::api_error::ApiError;

/// Deepest nesting, so that no input can exhaust the stack.
const MAX_DEPTH: usize = 64;

/// What a JSON object becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objects {
    /// A `SimpleNamespace`, whose fields are attributes.
    Namespaces,
    /// A dict, but namespaces inside it.
    DictOfNamespaces,
}

/// The pickle of a list.
pub(crate) fn pickle_list(items: &[Value], objects: Objects) -> Result<Vec<u8>, ApiError> {
    let mut out = vec![0x80, 2];
    out.push(b']');
    if !items.is_empty() {
        out.push(b'(');
        for item in items {
            write(&mut out, item, objects, 0)?;
        }
        out.push(b'e');
    }
    out.push(b'.');
    Ok(out)
}

fn write(out: &mut Vec<u8>, value: &Value, objects: Objects, depth: usize) -> Result<(), ApiError> {
    if depth > MAX_DEPTH {
        return Err(ApiError::internal(
            "a response is nested too deeply to be pickled",
        ));
    }
    match value {
        Value::Null => out.push(b'N'),
        Value::Bool(true) => out.push(0x88),
        Value::Bool(false) => out.push(0x89),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => write_int(out, number),
            (None, Some(number)) => {
                out.push(b'G');
                out.extend(number.to_be_bytes());
            }
            (None, None) => return Err(ApiError::internal("a number cannot be pickled")),
        },
        Value::String(text) => write_text(out, text)?,
        Value::Array(items) => {
            out.push(b']');
            if !items.is_empty() {
                out.push(b'(');
                for item in items {
                    write(out, item, Objects::Namespaces, depth + 1)?;
                }
                out.push(b'e');
            }
        }
        Value::Object(map) => match objects {
            Objects::DictOfNamespaces => write_dict(out, map, depth)?,
            Objects::Namespaces => {
                // The class, called without arguments, then given its attributes.
                out.extend(b"ctypes\nSimpleNamespace\n)\x81");
                write_dict(out, map, depth)?;
                out.push(b'b');
            }
        },
    }
    Ok(())
}

fn write_dict(out: &mut Vec<u8>, map: &Map<String, Value>, depth: usize) -> Result<(), ApiError> {
    out.push(b'}');
    if !map.is_empty() {
        out.push(b'(');
        for (name, value) in map {
            write_text(out, name)?;
            write(out, value, Objects::Namespaces, depth + 1)?;
        }
        out.push(b'u');
    }
    Ok(())
}

fn write_int(out: &mut Vec<u8>, number: i64) {
    match i32::try_from(number) {
        Ok(number) => {
            out.push(b'J');
            out.extend(number.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 8]);
            out.extend(number.to_le_bytes());
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) -> Result<(), ApiError> {
    let length = u32::try_from(text.len())
        .map_err(|_| ApiError::internal("a text is too long to be pickled"))?;
    out.push(b'X');
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_those_of_protocol_2() {
        assert_eq!(
            pickle_list(&[], Objects::Namespaces).unwrap(),
            b"\x80\x02]."
        );
        let item = json!({"a": [1, null, true], "b": 5_000_000_000_i64});
        let plain = pickle_list(std::slice::from_ref(&item), Objects::DictOfNamespaces).unwrap();
        let wanted = b"\x80\x02](}(X\x01\0\0\0a](J\x01\0\0\0N\x88eX\x01\0\0\0b\
                       \x8a\x08\x00\xf2\x05\x2a\x01\0\0\0ue.";
        assert_eq!(plain, wanted);
        let named = pickle_list(&[item], Objects::Namespaces).unwrap();
        assert!(named.starts_with(b"\x80\x02](ctypes\nSimpleNamespace\n)\x81}("));
        assert!(named.ends_with(b"ube."));
    }

    #[test]
    fn depth_is_bounded() {
        let mut value = json!(1);
        for _ in 0..100 {
            value = json!([value]);
        }
        assert!(pickle_list(&[value], Objects::Namespaces).is_err());
    }
}
