//! Codecs for tests.

use super::TokenCodec;

/// One token per byte, so that characters can be cut.
pub(crate) struct ByteCodec;

impl TokenCodec for ByteCodec {
    fn encode(&self, text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().map(|&id| id as u8).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// One token per word with the white space before it; ids are interned at first sight.
#[derive(Default)]
pub(crate) struct WordCodec {
    words: std::sync::Mutex<Vec<String>>,
}

impl TokenCodec for WordCodec {
    fn encode(&self, text: &str) -> Vec<u32> {
        let mut words = self.words.lock().unwrap();
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let word_at = rest
                .find(|c: char| !c.is_whitespace())
                .unwrap_or(rest.len());
            let end = rest[word_at..]
                .find(char::is_whitespace)
                .map_or(rest.len(), |n| word_at + n);
            let (word, tail) = rest.split_at(end);
            rest = tail;
            let id = words.iter().position(|w| w == word).unwrap_or_else(|| {
                words.push(word.to_owned());
                words.len() - 1
            });
            ids.push(id as u32);
        }
        ids
    }

    fn decode(&self, ids: &[u32]) -> String {
        let words = self.words.lock().unwrap();
        ids.iter().map(|&id| words[id as usize].as_str()).collect()
    }
}
