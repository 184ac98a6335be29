//! What a condition does to text that has nothing to do with the document.

use std::sync::Arc;

use cartridges_engine::{Engine, ScoreRequest};

use crate::condition::Condition;
use crate::error::EvalError;

/// Tokens that are read at a time.
const PIECE: usize = 256;

/// Perplexity of a text, read in pieces of 256 tokens behind the condition's cartridges and adapters,
/// without a chat template. Of each piece all tokens but the first are predicted. `None` for a condition
/// with a document in a system message, or a text of less than two tokens. `progress` gets tokens read and
/// tokens in all.
///
/// # Errors
/// [`EvalError`], if the text cannot be encoded or a log-prob is not finite.
pub fn perplexity(
    engine: &mut Engine,
    condition: &Condition,
    text: &str,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Option<f64>, EvalError> {
    if condition.system.is_some() || condition.retriever.is_some() {
        return Ok(None);
    }
    let model = Arc::clone(engine.model());
    let ids = model.text.encode(text, false)?;
    let (mut sum, mut tokens) = (0.0, 0);
    for piece in ids.chunks(PIECE).filter(|piece| piece.len() > 1) {
        let (prompt, continuation) = piece.split_at(1);
        let request = ScoreRequest {
            cartridges: condition.cartridges.clone(),
            adapters: condition.adapters.clone(),
            prompt: prompt.to_vec(),
            continuation: continuation.to_vec(),
            top_logprobs: 0,
        };
        progress(tokens, ids.len());
        for score in engine.score(&[request])? {
            sum += score.logprobs.iter().copied().map(f64::from).sum::<f64>();
            tokens += score.logprobs.len();
        }
    }
    if !sum.is_finite() {
        return Err(EvalError::NotFinite {
            condition: condition.name.clone(),
            question: "unrelated text".to_owned(),
            value: sum,
        });
    }
    Ok((tokens > 0).then(|| (-sum / tokens as f64).exp()))
}
