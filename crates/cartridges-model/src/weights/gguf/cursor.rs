//! Reading little-endian fields from untrusted bytes.

use crate::weights::WeightsError;

/// A position in a file; every read is checked against its end before anything is allocated.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], file: &'a str) -> Self {
        Self { bytes, at: 0, file }
    }

    /// The next byte's offset in the file.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// An error at this position.
    pub(super) fn error(&self, reason: impl Into<String>) -> WeightsError {
        WeightsError::Header {
            file: self.file.to_owned(),
            at: self.at,
            reason: reason.into(),
        }
    }

    pub(super) fn take(&mut self, length: u64, what: &str) -> Result<&'a [u8], WeightsError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length)
            .ok()
            .and_then(|n| rest.get(..n))
            .ok_or_else(|| {
                self.error(format!(
                    "{what} takes {length} bytes, the file has {} more",
                    rest.len()
                ))
            })?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N], WeightsError> {
        let mut field = [0; N];
        field.copy_from_slice(self.take(N as u64, what)?);
        Ok(field)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, WeightsError> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, WeightsError> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    /// A count of items that take at least `least` bytes each; refused if they cannot all follow.
    pub(super) fn count(&mut self, least: usize, what: &str) -> Result<usize, WeightsError> {
        let count = self.u64(what)?;
        self.fits(count, least, what)
    }

    /// Refuses `count` items of at least `least` bytes each that cannot all follow.
    pub(super) fn fits(&self, count: u64, least: usize, what: &str) -> Result<usize, WeightsError> {
        let rest = self.bytes.len() - self.at;
        usize::try_from(count)
            .ok()
            .filter(|n| n.checked_mul(least).is_some_and(|bytes| bytes <= rest))
            .ok_or_else(|| {
                self.error(format!(
                    "{what} is {count}, more than the file's {rest} further bytes can hold"
                ))
            })
    }

    /// A length-prefixed UTF-8 string.
    pub(super) fn text(&mut self, what: &str) -> Result<String, WeightsError> {
        let length = self.u64(what)?;
        let raw = self.take(length, what)?;
        match std::str::from_utf8(raw) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(self.error(format!("{what} is not UTF-8: {e}"))),
        }
    }
}
