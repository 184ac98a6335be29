//! Python's string and container methods for templates, charged before they do work that the
//! template engine would only see in their result.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// The engine's own price of data: one unit of fuel per this many bytes.
const BYTES_PER_FUEL: usize = 64;
/// Digits of the widths that a format string may ask for.
const LONGEST_WIDTH: usize = 4;

/// Takes the fuel for `bytes` bytes that are about to be made.
pub(super) fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64 + 1)
}

/// The engine's hook for methods that it does not know itself.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match method {
            "join" => return join(state, text, args),
            "replace" => charge_replace(state, text, args)?,
            "format" => charge_format(state, text, args)?,
            _ => charge(state, text.len())?,
        }
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// `separator.join(strings)`; as in Python, the items must be strings.
fn join(state: &State, separator: &str, args: &[Value]) -> Result<Value, Error> {
    let (items,): (&Value,) = from_args(args)?;
    let mut joined = String::new();
    for (index, item) in items.try_iter()?.enumerate() {
        let Some(text) = item.as_str() else {
            return Err(invalid(format!(
                "join: expected strings, found a {}",
                item.kind()
            )));
        };
        charge(state, separator.len() + text.len())?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
    }
    Ok(Value::from(joined))
}

fn charge_replace(state: &State, text: &str, args: &[Value]) -> Result<(), Error> {
    let old = args.first().and_then(Value::as_str).unwrap_or_default();
    let new = args.get(1).and_then(Value::as_str).unwrap_or_default();
    charge(
        state,
        text.len()
            .saturating_add(text.matches(old).count().saturating_mul(new.len())),
    )
}

fn charge_format(state: &State, text: &str, args: &[Value]) -> Result<(), Error> {
    let mut longest = 0;
    for arg in args {
        if arg.is_kwargs() {
            for name in arg.try_iter()? {
                longest = longest.max(scalar_length(&arg.get_item(&name)?)?);
            }
        } else {
            longest = longest.max(scalar_length(arg)?);
        }
    }
    let too_wide = text
        .split(|c: char| !c.is_ascii_digit())
        .any(|run| run.len() > LONGEST_WIDTH);
    if too_wide {
        return Err(invalid(format!(
            "format: a number of more than {LONGEST_WIDTH} digits"
        )));
    }
    let fields = text.matches('{').count();
    let widest = longest.saturating_add(10usize.pow(LONGEST_WIDTH as u32));
    charge(
        state,
        text.len().saturating_add(fields.saturating_mul(widest)),
    )
}

fn scalar_length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().map_or(0, str::len)),
        ValueKind::Number | ValueKind::Bool | ValueKind::None | ValueKind::Undefined => Ok(40),
        kind => Err(invalid(format!(
            "format: expected a string or number, found a {kind}"
        ))),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
