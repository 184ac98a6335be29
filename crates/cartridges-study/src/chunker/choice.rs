//! The choice of a chunker, as it stands in a configuration.

use serde::{Deserialize, Serialize};

use super::{CharacterChunker, ChunkError, SectionChunker, TokenChunker};

/// How a text is cut. In a configuration, `type` is `token` (which may be left out), `character` or
/// `section`; the other fields are those of the chunker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub enum Chunker {
    /// Anywhere, measured in tokens.
    Token(TokenChunker),
    /// Anywhere, measured in characters.
    Character(CharacterChunker),
    /// Between paragraphs, measured in tokens.
    Section(SectionChunker),
}

impl Default for Chunker {
    fn default() -> Self {
        Self::Token(TokenChunker::default())
    }
}

impl From<TokenChunker> for Chunker {
    fn from(chunker: TokenChunker) -> Self {
        Self::Token(chunker)
    }
}

impl From<CharacterChunker> for Chunker {
    fn from(chunker: CharacterChunker) -> Self {
        Self::Character(chunker)
    }
}

impl From<SectionChunker> for Chunker {
    fn from(chunker: SectionChunker) -> Self {
        Self::Section(chunker)
    }
}

impl Chunker {
    /// Checks the limits.
    pub fn validate(&self) -> Result<(), ChunkError> {
        match self {
            Self::Token(chunker) => chunker.validate(),
            Self::Character(chunker) => chunker.validate(),
            Self::Section(chunker) => chunker.validate(),
        }
    }

    /// Tokens of the longest chunk; an estimate where characters are counted.
    pub fn max_tokens(&self) -> usize {
        match self {
            Self::Token(chunker) => chunker.max_tokens_per_chunk,
            Self::Character(chunker) => chunker.estimated_tokens(),
            Self::Section(chunker) => chunker.max_tokens_per_chunk,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Token,
    Character,
    Section,
}

/// All fields of all chunkers: a table without `type` was a token chunker before there were others.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_tokens_per_chunk: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens_per_chunk: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_size: Option<usize>,
}

impl TryFrom<Fields> for Chunker {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let Fields {
            kind,
            min_tokens_per_chunk: min,
            max_tokens_per_chunk: max,
            chunk_size,
        } = fields;
        let kind = kind.unwrap_or(Kind::Token);
        if kind == Kind::Character {
            if min.is_some() || max.is_some() {
                return Err(
                    "a chunker of type \"character\" has the field chunk_size, not \
                     min_tokens_per_chunk or max_tokens_per_chunk"
                        .to_owned(),
                );
            }
            let default = CharacterChunker::default();
            return Ok(Self::Character(CharacterChunker {
                chunk_size: chunk_size.unwrap_or(default.chunk_size),
            }));
        }
        if chunk_size.is_some() {
            return Err(
                "chunk_size belongs to a chunker of type \"character\"; the others have \
                 min_tokens_per_chunk and max_tokens_per_chunk"
                    .to_owned(),
            );
        }
        let default = TokenChunker::default();
        let min_tokens_per_chunk = min.unwrap_or(default.min_tokens_per_chunk);
        let max_tokens_per_chunk = max.unwrap_or(default.max_tokens_per_chunk);
        Ok(match kind {
            Kind::Section => Self::Section(SectionChunker {
                min_tokens_per_chunk,
                max_tokens_per_chunk,
            }),
            Kind::Token | Kind::Character => Self::Token(TokenChunker {
                min_tokens_per_chunk,
                max_tokens_per_chunk,
            }),
        })
    }
}

impl From<Chunker> for Fields {
    fn from(chunker: Chunker) -> Self {
        match chunker {
            Chunker::Token(c) => Self {
                min_tokens_per_chunk: Some(c.min_tokens_per_chunk),
                max_tokens_per_chunk: Some(c.max_tokens_per_chunk),
                ..Self::default()
            },
            Chunker::Character(c) => Self {
                kind: Some(Kind::Character),
                chunk_size: Some(c.chunk_size),
                ..Self::default()
            },
            Chunker::Section(c) => Self {
                kind: Some(Kind::Section),
                min_tokens_per_chunk: Some(c.min_tokens_per_chunk),
                max_tokens_per_chunk: Some(c.max_tokens_per_chunk),
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_layout_is_a_token_chunker_and_is_written_as_before() {
        let token = Chunker::Token(TokenChunker {
            min_tokens_per_chunk: 512,
            max_tokens_per_chunk: 2048,
        });
        let read: Chunker = toml::from_str("max_tokens_per_chunk = 2048").unwrap();
        assert_eq!(read, token);
        assert_eq!(
            serde_json::to_string(&token).unwrap(),
            r#"{"min_tokens_per_chunk":512,"max_tokens_per_chunk":2048}"#
        );
        assert_eq!(
            toml::from_str::<Chunker>("").unwrap(),
            Chunker::Token(TokenChunker::default())
        );
    }

    #[test]
    fn every_type_survives_toml_and_foreign_fields_are_refused() {
        for chunker in [
            Chunker::Token(TokenChunker::default()),
            Chunker::Character(CharacterChunker { chunk_size: 7 }),
            Chunker::Section(SectionChunker {
                min_tokens_per_chunk: 3,
                max_tokens_per_chunk: 9,
            }),
        ] {
            let text = toml::to_string(&chunker).unwrap();
            assert_eq!(toml::from_str::<Chunker>(&text).unwrap(), chunker);
        }
        for (text, named) in [
            (
                "type = \"character\"\nmin_tokens_per_chunk = 3",
                "chunk_size",
            ),
            ("chunk_size = 3", "character"),
            ("overlap = 3", "overlap"),
            ("type = \"words\"", "words"),
        ] {
            let error = toml::from_str::<Chunker>(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert_eq!(
            Chunker::Character(CharacterChunker { chunk_size: 1000 }).max_tokens(),
            250
        );
    }
}
