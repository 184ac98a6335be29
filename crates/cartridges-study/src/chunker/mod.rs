//! Cutting a text into the contexts that conversations are about.
//!
//! | chunker | cuts |
//! |---|---|
//! | [`TokenChunker`] | anywhere, measured in tokens |
//! | [`CharacterChunker`] | anywhere, measured in characters |
//! | [`SectionChunker`] | between paragraphs, measured in tokens; the section's heading goes along |

mod character;
mod choice;
mod chunks;
mod codec;
mod error;
mod section;
mod token;

pub use character::CharacterChunker;
pub use choice::Chunker;
pub use chunks::Chunks;
pub use codec::TokenCodec;
pub use error::ChunkError;
pub use section::SectionChunker;
pub use token::{TokenChunker, window_text};

#[cfg(test)]
pub(crate) mod test_codec;
