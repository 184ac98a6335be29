//! Writes small GGUF files for tests, including wrong ones.

use super::value::{Array, Value};
use crate::weights::Dtype;

/// A GGUF file in the making.
#[derive(Clone, Default)]
pub(crate) struct TestGguf {
    entries: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
    version: Option<u32>,
    alignment: Option<u64>,
}

impl TestGguf {
    /// An empty file of version 3.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Writes another version number.
    pub(crate) fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// Writes and uses another alignment.
    pub(crate) fn alignment(mut self, alignment: u32) -> Self {
        self.alignment = Some(u64::from(alignment));
        self.entry("general.alignment", Value::Unsigned(u64::from(alignment)))
    }

    /// Adds a metadata entry, also if the key is there already.
    pub(crate) fn entry(mut self, key: &str, value: Value) -> Self {
        self.entries.push((key.to_owned(), value));
        self
    }

    /// Replaces or removes a metadata entry.
    pub(crate) fn set(mut self, key: &str, value: Option<Value>) -> Self {
        self.entries.retain(|(k, _)| k != key);
        match value {
            Some(value) => self.entry(key, value),
            None => self,
        }
    }

    /// Adds a u32.
    pub(crate) fn number(self, key: &str, value: u64) -> Self {
        self.entry(key, Value::Unsigned(value))
    }

    /// Adds a string.
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, Value::Text(value.to_owned()))
    }

    /// Adds a tensor by its row-major shape and raw bytes.
    pub(crate) fn tensor(mut self, name: &str, shape: &[u64], dtype: Dtype, raw: Vec<u8>) -> Self {
        let dimensions = shape.iter().rev().copied().collect();
        let code = dtype.ggml_code();
        self.tensors.push((name.to_owned(), dimensions, code, raw));
        self
    }

    /// Adds an f32 tensor.
    pub(crate) fn f32_tensor(self, name: &str, shape: &[u64], values: &[f32]) -> Self {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, shape, Dtype::F32, raw)
    }

    /// Gives the last tensor another type number, without changing its bytes.
    pub(crate) fn last_type(mut self, code: u32) -> Self {
        if let Some(last) = self.tensors.last_mut() {
            last.2 = code;
        }
        self
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let alignment = self.alignment.unwrap_or(32) as usize;
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.unwrap_or(3).to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            push_text(&mut out, key);
            push_value(&mut out, value);
        }
        let mut data = Vec::new();
        for (name, dimensions, code, raw) in &self.tensors {
            data.resize(data.len().next_multiple_of(alignment), 0);
            push_text(&mut out, name);
            out.extend((dimensions.len() as u32).to_le_bytes());
            for dimension in dimensions {
                out.extend(dimension.to_le_bytes());
            }
            out.extend(code.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(raw);
        }
        out.resize(out.len().next_multiple_of(alignment), 0);
        out.extend(data);
        out
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Whole numbers are written as 32 bits, as converters do.
fn push_value(out: &mut Vec<u8>, value: &Value) {
    let (code, raw) = match value {
        Value::Unsigned(v) => (4u32, (*v as u32).to_le_bytes().to_vec()),
        Value::Signed(v) => (5, (*v as i32).to_le_bytes().to_vec()),
        Value::Single(v) => (6, v.to_le_bytes().to_vec()),
        Value::Bool(v) => (7, vec![u8::from(*v)]),
        Value::Double(v) => (12, v.to_le_bytes().to_vec()),
        Value::Text(v) => {
            let mut raw = Vec::new();
            push_text(&mut raw, v);
            (8, raw)
        }
        Value::Array(items) => (9, array_bytes(items)),
    };
    out.extend(code.to_le_bytes());
    out.extend(raw);
}

fn array_bytes(items: &Array) -> Vec<u8> {
    let mut raw = Vec::new();
    let code: u32 = match items {
        Array::Unsigned(v) => {
            raw.extend(v.iter().flat_map(|v| (*v as u32).to_le_bytes()));
            4
        }
        Array::Signed(v) => {
            raw.extend(v.iter().flat_map(|v| (*v as i32).to_le_bytes()));
            5
        }
        Array::Float(v) => {
            raw.extend(v.iter().flat_map(|v| v.to_le_bytes()));
            12
        }
        Array::Bool(v) => {
            raw.extend(v.iter().map(|v| u8::from(*v)));
            7
        }
        Array::Text(v) => {
            v.iter().for_each(|v| push_text(&mut raw, v));
            8
        }
        Array::Nested(v) => {
            raw.extend(v.iter().flat_map(array_bytes));
            9
        }
    };
    let mut out = code.to_le_bytes().to_vec();
    out.extend((items.len() as u64).to_le_bytes());
    out.extend(raw);
    out
}
