//! A model's tokens as the grammar library wants them.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::error::ConstraintError;

/// The bytes a token stands for; None for special tokens, which are never part of a document.
pub type TokenBytes = Option<Vec<u8>>;

/// The library's tree holds at most 2²² nodes of at most 2¹⁰ levels, and ids of 24 bits; one byte
/// makes at most one node.
const MAX_BYTES: usize = (1 << 22) - 2;
const MAX_TOKEN_BYTES: usize = 1 << 10;
const MAX_TOKENS: usize = (1 << 24) - 2;

/// The vocabulary with the tokens that end an answer, and how many ordinary tokens it leaves out.
pub fn environment(
    vocabulary: &[TokenBytes],
    stop_ids: &[u32],
) -> Result<(TokEnv, usize), ConstraintError> {
    let size = vocabulary.len();
    let check = |what, found, limit| {
        if (1..=limit).contains(&found) {
            return Ok(());
        }
        Err(ConstraintError::Vocabulary { what, found, limit })
    };
    check("tokens", size, MAX_TOKENS)?;
    let Some(first) = stop_ids.first() else {
        return Err(ConstraintError::NoStopId);
    };
    if let Some(id) = stop_ids.iter().find(|id| **id as usize >= size) {
        return Err(ConstraintError::StopId { id: *id, size });
    }
    let mut left_out = 0;
    let mut words = Vec::with_capacity(size);
    for (id, bytes) in vocabulary.iter().enumerate() {
        // Without bytes a token has no place in the tree and so is never allowed.
        words.push(match bytes {
            Some(_) if stop_ids.contains(&(id as u32)) => Vec::new(),
            Some(bytes) if (1..=MAX_TOKEN_BYTES).contains(&bytes.len()) => bytes.clone(),
            Some(_) => {
                left_out += 1;
                Vec::new()
            }
            None => Vec::new(),
        });
    }
    check("bytes", words.iter().map(Vec::len).sum(), MAX_BYTES)?;
    let info = TokRxInfo::new(size as u32, *first);
    let tree = TokTrie::from(&info, &words).with_eos_tokens(stop_ids);
    Ok((Arc::new(ApproximateTokEnv::new(tree)), left_out))
}
