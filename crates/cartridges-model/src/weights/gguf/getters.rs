//! Typed access to metadata. Absent is `None`; present with another type is an error, never a default.

use std::fmt::Display;

use super::Gguf;
use super::value::{Array, Value};
use crate::weights::WeightsError;

impl Gguf {
    /// A string.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, WeightsError> {
        self.typed(key, "text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number that is not negative, stored in any integer type.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        self.typed(key, "a whole number, not negative", |value| match value {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// [`Gguf::unsigned`], or a per-layer array whose items are all the same such number.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn uniform(&self, key: &str) -> Result<Option<u64>, WeightsError> {
        if !matches!(self.metadata.get(key), Some(Value::Array(_))) {
            return self.unsigned(key);
        }
        self.typed(
            key,
            "the same number for every layer",
            |value| match value {
                Value::Array(Array::Unsigned(items)) => same(items),
                Value::Array(Array::Signed(items)) => {
                    same(items).and_then(|n| u64::try_from(n).ok())
                }
                _ => None,
            },
        )
    }

    /// A number. A stored f32 is read as its shortest decimal (`1e-5`, not `9.99999974737875e-6`),
    /// which is what the `config.json` it was converted from says.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn number(&self, key: &str) -> Result<Option<f64>, WeightsError> {
        self.typed(key, "a number", |value| match value {
            Value::Single(number) => Some(number.to_string().parse().unwrap_or((*number).into())),
            Value::Double(number) => Some(*number),
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// An array of strings.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, WeightsError> {
        self.typed(key, "an array of texts", |value| match value {
            Value::Array(Array::Text(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of whole numbers that fit `i32`, stored in any integer type.
    ///
    /// # Errors
    /// If the entry is something else.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, WeightsError> {
        self.typed(key, "an array of 32-bit numbers", |value| match value {
            Value::Array(Array::Signed(items)) => narrow(items),
            Value::Array(Array::Unsigned(items)) => narrow(items),
            _ => None,
        })
    }

    /// An error about entry `key`.
    pub(super) fn metadata_error(
        &self,
        key: &str,
        found: impl Display,
        expected: impl Into<String>,
    ) -> WeightsError {
        WeightsError::Metadata {
            file: self.file.clone(),
            key: key.to_owned(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// The error for an entry that must be there.
    pub(super) fn missing(&self, key: &str, expected: &str) -> WeightsError {
        self.metadata_error(key, "missing", expected)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(self.metadata_error(key, value.describe(), expected)),
        }
    }
}

fn same<T: Copy + PartialEq>(items: &[T]) -> Option<T> {
    let first = *items.first()?;
    items.iter().all(|item| *item == first).then_some(first)
}

fn narrow<T: Copy + TryInto<i32>>(items: &[T]) -> Option<Vec<i32>> {
    items.iter().map(|item| (*item).try_into().ok()).collect()
}
