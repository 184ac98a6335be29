//! Metadata values.

use super::cursor::Cursor;
use crate::weights::WeightsError;

/// How deep arrays may be nested; known files need one level.
const DEPTH_LIMIT: usize = 4;

/// A metadata value. Numbers are widened, so that a reader need not care which width was written.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// u8, u16, u32 or u64.
    Unsigned(u64),
    /// i8, i16, i32 or i64.
    Signed(i64),
    /// f32.
    Single(f32),
    /// f64.
    Double(f64),
    /// bool.
    Bool(bool),
    /// UTF-8 string.
    Text(String),
    /// Array of values of one type.
    Array(Array),
}

/// A metadata array.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// u8, u16, u32 or u64.
    Unsigned(Vec<u64>),
    /// i8, i16, i32 or i64.
    Signed(Vec<i64>),
    /// f32 or f64.
    Float(Vec<f64>),
    /// bool.
    Bool(Vec<bool>),
    /// UTF-8 strings.
    Text(Vec<String>),
    /// Arrays.
    Nested(Vec<Array>),
}

impl Array {
    /// Number of items.
    pub fn len(&self) -> usize {
        match self {
            Self::Unsigned(items) => items.len(),
            Self::Signed(items) => items.len(),
            Self::Float(items) => items.len(),
            Self::Bool(items) => items.len(),
            Self::Text(items) => items.len(),
            Self::Nested(items) => items.len(),
        }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Value {
    /// What the value is, short enough for a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unsigned(v) => v.to_string(),
            Self::Signed(v) => v.to_string(),
            Self::Single(v) => v.to_string(),
            Self::Double(v) => v.to_string(),
            Self::Bool(v) => v.to_string(),
            Self::Text(v) => format!("{:?}", v.chars().take(60).collect::<String>()),
            Self::Array(items) => format!("an array of {}", items.len()),
        }
    }
}

/// Reads the value of metadata entry `key`, type number first.
pub(super) fn read(cursor: &mut Cursor, key: &str) -> Result<Value, WeightsError> {
    let kind = cursor.u32("a metadata type")?;
    Ok(match kind {
        0 | 2 | 4 | 10 => Value::Unsigned(unsigned(cursor, kind, key)?),
        1 | 3 | 5 | 11 => Value::Signed(signed(cursor, kind, key)?),
        6 => Value::Single(cursor.fixed(key).map(f32::from_le_bytes)?),
        7 => Value::Bool(boolean(cursor, key)?),
        8 => Value::Text(cursor.text(key)?),
        9 => Value::Array(array(cursor, key, DEPTH_LIMIT)?),
        12 => Value::Double(cursor.fixed(key).map(f64::from_le_bytes)?),
        other => return Err(unknown_type(cursor, key, other)),
    })
}

fn array(cursor: &mut Cursor, key: &str, depth: usize) -> Result<Array, WeightsError> {
    if depth == 0 {
        return Err(cursor.error(format!(
            "metadata {key}: arrays nested more than {DEPTH_LIMIT} deep"
        )));
    }
    let kind = cursor.u32(key)?;
    let Some(least) = least_bytes(kind) else {
        return Err(unknown_type(cursor, key, kind));
    };
    let count = cursor.count(least, &format!("the length of array {key}"))?;
    // `count` is bounded by the bytes that follow, so these vectors are at most 8 times the file
    // (bytes widened to u64), and each item is read before the vector grows.
    Ok(match kind {
        0 | 2 | 4 | 10 => Array::Unsigned(collect(count, || unsigned(cursor, kind, key))?),
        1 | 3 | 5 | 11 => Array::Signed(collect(count, || signed(cursor, kind, key))?),
        6 => Array::Float(collect(count, || {
            cursor.fixed(key).map(|b| f64::from(f32::from_le_bytes(b)))
        })?),
        7 => Array::Bool(collect(count, || boolean(cursor, key))?),
        8 => Array::Text(collect(count, || cursor.text(key))?),
        9 => Array::Nested(collect(count, || array(cursor, key, depth - 1))?),
        12 => Array::Float(collect(count, || {
            cursor.fixed(key).map(f64::from_le_bytes)
        })?),
        other => return Err(unknown_type(cursor, key, other)),
    })
}

fn collect<T>(
    count: usize,
    mut item: impl FnMut() -> Result<T, WeightsError>,
) -> Result<Vec<T>, WeightsError> {
    (0..count).map(|_| item()).collect()
}

fn unknown_type(cursor: &Cursor, key: &str, kind: u32) -> WeightsError {
    cursor.error(format!("metadata {key} has the unknown type {kind}"))
}

/// The fewest bytes an item of a type takes.
fn least_bytes(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => 12,
        _ => return None,
    })
}

fn unsigned(cursor: &mut Cursor, kind: u32, key: &str) -> Result<u64, WeightsError> {
    Ok(match kind {
        0 => u64::from(u8::from_le_bytes(cursor.fixed(key)?)),
        2 => u64::from(u16::from_le_bytes(cursor.fixed(key)?)),
        4 => u64::from(cursor.u32(key)?),
        _ => cursor.u64(key)?,
    })
}

fn signed(cursor: &mut Cursor, kind: u32, key: &str) -> Result<i64, WeightsError> {
    Ok(match kind {
        1 => i64::from(i8::from_le_bytes(cursor.fixed(key)?)),
        3 => i64::from(i16::from_le_bytes(cursor.fixed(key)?)),
        5 => i64::from(i32::from_le_bytes(cursor.fixed(key)?)),
        _ => i64::from_le_bytes(cursor.fixed(key)?),
    })
}

fn boolean(cursor: &mut Cursor, key: &str) -> Result<bool, WeightsError> {
    match cursor.fixed(key)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(cursor.error(format!("metadata {key}: byte {other} is not a truth value"))),
    }
}
