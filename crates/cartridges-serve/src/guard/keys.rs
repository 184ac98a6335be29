//! Checking of API keys.

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::options::ApiKey;

/// The digests of all keys. Digests have equal lengths, so comparing them tells nothing of a key's.
pub(crate) struct Keys {
    digests: Vec<[u8; 32]>,
}

impl Keys {
    /// The digests of the keys.
    pub fn new(keys: &[ApiKey]) -> Self {
        Self {
            digests: keys.iter().map(|key| digest(key.0.as_bytes())).collect(),
        }
    }

    /// Whether no key is needed.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// A name for the key a request shows, if it is one of ours. The time it takes does not tell
    /// which, or how much of it was right.
    pub fn check(&self, headers: &HeaderMap) -> Option<String> {
        let shown = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, shown) = shown.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let shown = digest(shown.trim_ascii());
        let mut found = Choice::from(0);
        for known in &self.digests {
            found |= known.ct_eq(&shown);
        }
        let name = || {
            shown
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        bool::from(found).then(name)
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_keys_are_taken() {
        let keys = Keys::new(&[ApiKey("one".into()), ApiKey("two".into())]);
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            keys.check(&headers)
        };
        assert!(check("Bearer one").is_some());
        assert_ne!(check("Bearer one"), check("bearer two"));
        for wrong in [
            "Bearer on",
            "Bearer onee",
            "Bearer ",
            "one",
            "Basic one",
            "",
        ] {
            assert!(check(wrong).is_none(), "{wrong}");
        }
        assert!(keys.check(&HeaderMap::new()).is_none());
    }
}
