//! Log-probs of given texts.

use rayon::prelude::*;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::forward::Sequence;
use crate::log_probs::{TopLogprobs, log_sum, top};
use crate::request::{Score, ScoreRequest};

/// Rows of logits alive at a time.
const LOGIT_ROWS: usize = 128;

impl Engine {
    /// Scores every request's continuation, many in one pass. Common beginnings of the prompts
    /// behind the same cartridges are computed once.
    ///
    /// # Errors
    /// [`EngineError`]; if a request is refused, none is run.
    pub fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>, EngineError> {
        for (index, r) in requests.iter().enumerate() {
            self.check(index, &r.cartridges, &r.prompt, r.continuation.len())?;
            if let Err(id) = self.model.decoder.check_ids(&r.continuation) {
                return Err(EngineError::TokenId { request: index, id });
            }
        }
        let prompts: Vec<_> = requests
            .iter()
            .map(|r| (r.cartridges.as_slice(), r.prompt.as_slice()))
            .collect();
        self.share_prefixes(&prompts)?;
        let mut scores = Vec::with_capacity(requests.len());
        let mut from = 0;
        while from < requests.len() {
            let mut to = from;
            let mut rows = 0;
            while to < requests.len() && (to == from || rows < self.options.prefill_rows) {
                let r = &requests[to];
                let stored = self.residents.longest(&r.cartridges, &r.prompt);
                let new = r.prompt.len() - stored.map_or(0, |shared| shared.len);
                rows += new + r.continuation.len();
                to += 1;
            }
            scores.extend(self.score_group(&requests[from..to])?);
            from = to;
        }
        Ok(scores)
    }

    fn score_group(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>, EngineError> {
        let mut sequences: Vec<Sequence> = Vec::with_capacity(requests.len());
        for r in requests {
            match self.open(&r.cartridges, &r.prompt, r.continuation.len()) {
                Ok(sequence) => sequences.push(sequence),
                Err(error) => {
                    sequences.into_iter().for_each(|s| self.close(s));
                    return Err(error);
                }
            }
        }
        // The last id of a continuation is predicted, never fed.
        let fed: Vec<Vec<u32>> = requests
            .iter()
            .zip(&sequences)
            .map(|(r, sequence)| {
                let mut ids = r.prompt[sequence.shared_len()..].to_vec();
                let count = r.continuation.len().saturating_sub(1);
                ids.extend_from_slice(&r.continuation[..count]);
                ids
            })
            .collect();
        let mut work: Vec<_> = sequences
            .iter_mut()
            .zip(&fed)
            .map(|(sequence, ids)| (sequence, ids.as_slice()))
            .collect();
        let hidden = self.forward(&mut work);
        sequences.into_iter().for_each(|s| self.close(s));

        // (row of the residual stream, request, wanted id)
        let mut wanted = Vec::new();
        let mut end = 0;
        for (index, (r, ids)) in requests.iter().zip(&fed).enumerate() {
            end += ids.len();
            let count = r.continuation.len();
            for (i, id) in r.continuation.iter().enumerate() {
                wanted.push((end - count + i, index, *id));
            }
        }
        let mut scores: Vec<Score> = requests
            .iter()
            .map(|r| Score {
                logprobs: Vec::with_capacity(r.continuation.len()),
                top_logprobs: (r.top_logprobs > 0).then(|| TopLogprobs::new(r.top_logprobs)),
            })
            .collect();
        let vocab = self.model.decoder.config().vocab_size;
        for part in wanted.chunks(LOGIT_ROWS) {
            let rows: Vec<usize> = part.iter().map(|w| w.0).collect();
            let logits = self.logits(hidden.clone(), &rows)?;
            let results: Vec<_> = logits
                .par_chunks_exact(vocab)
                .zip(part)
                .map(|(logits, (_, index, id))| {
                    let sum = log_sum(logits, 1.0);
                    let logprob = (f64::from(logits[*id as usize]) - sum) as f32;
                    (
                        logprob,
                        top(logits, requests[*index].top_logprobs, 1.0, sum),
                    )
                })
                .collect();
            for ((_, index, _), (logprob, best)) in part.iter().zip(results) {
                scores[*index].logprobs.push(logprob);
                if let Some(table) = &mut scores[*index].top_logprobs {
                    table.push(&best);
                }
            }
        }
        Ok(scores)
    }
}
