//! Log-probs of given texts.

use rayon::prelude::*;

use crate::blocks::{BLOCK_ROWS, blocks_for};
use crate::engine::Engine;
use crate::error::{EngineError, RequestError};
use crate::log_probs::{TopLogprobs, log_sum, top};
use crate::request::{Score, ScoreRequest};
use crate::sequence::Sequence;

/// Rows of logits alive at a time.
const LOGIT_ROWS: usize = 128;

impl ScoreRequest {
    /// Whether the same stands before both and works on both.
    fn stands_with(&self, other: &Self) -> bool {
        self.cartridges == other.cartridges && self.adapters == other.adapters
    }
}

impl Engine {
    /// Scores every request's continuation, many in one pass. Common beginnings of the prompts
    /// behind the same cartridges are computed once.
    ///
    /// # Errors
    /// [`EngineError`]; if a request is refused, none is run.
    pub fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>, EngineError> {
        for (index, r) in requests.iter().enumerate() {
            let checked = self
                .check(&r.cartridges, &r.adapters, &r.prompt, r.continuation.len())
                .and_then(|()| {
                    let ids = self.model.decoder.check_ids(&r.continuation);
                    ids.map_err(RequestError::TokenId)
                });
            checked.map_err(|error| EngineError::Request { index, error })?;
        }
        self.store_common_prefixes(requests)?;
        self.store_repeated_prompts(requests)?;
        let mut scores = Vec::with_capacity(requests.len());
        let mut from = 0;
        while from < requests.len() {
            let mut opened = Vec::new();
            let mut rows = 0;
            while from + opened.len() < requests.len()
                && (opened.is_empty() || rows < self.options.prefill_rows)
            {
                let index = from + opened.len();
                let r = &requests[index];
                // The last id of a continuation is predicted, never fed.
                let fed = r.continuation.len().saturating_sub(1);
                let tokens = [r.prompt.as_slice(), &r.continuation[..fed]].concat();
                match self.open_now(r, &r.prompt, &tokens) {
                    Ok(sequence) => {
                        rows += sequence.unfilled();
                        opened.push(sequence);
                    }
                    // The others first.
                    Err(_) if !opened.is_empty() => break,
                    Err(error) => return Err(EngineError::Request { index, error }),
                }
            }
            let to = from + opened.len();
            scores.extend(self.score_group(&requests[from..to], opened)?);
            from = to;
        }
        Ok(scores)
    }

    /// A sequence that is not scheduled, behind what stands before `request`; what is stored of `prompt`
    /// is used.
    fn open_now(
        &mut self,
        request: &ScoreRequest,
        prompt: &[u32],
        tokens: &[u32],
    ) -> Result<Sequence, RequestError> {
        let before = self.before(&request.cartridges, &request.adapters)?;
        let matched = self.memory.tree.lookup(&before.root, prompt);
        let needed = blocks_for(tokens.len() - matched.tokens);
        match self
            .memory
            .take_after(matched.blocks.last().copied(), needed)
        {
            Some(own) => Ok(Sequence::new(before, matched, own, tokens.to_vec())),
            None => {
                self.memory.unpin(matched);
                Err(self.too_small(tokens.len()))
            }
        }
    }

    /// Runs a sequence that only others will read, in pieces.
    fn store_common_prefixes(&mut self, requests: &[ScoreRequest]) -> Result<(), EngineError> {
        let mut seen: Vec<&ScoreRequest> = Vec::new();
        for (index, first) in requests.iter().enumerate() {
            if seen.iter().any(|other| other.stands_with(first)) {
                continue;
            }
            seen.push(first);
            let mut behind = requests.iter().filter(|r| r.stands_with(first));
            let common = behind.clone().fold(first.prompt.len() - 1, |common, r| {
                let same = first
                    .prompt
                    .iter()
                    .zip(&r.prompt)
                    .take_while(|(a, b)| a == b);
                same.count().min(common).min(r.prompt.len() - 1)
            });
            let common = common / BLOCK_ROWS * BLOCK_ROWS;
            if behind.nth(1).is_none() || common == 0 {
                continue;
            }
            let prompt = &first.prompt;
            let opened = self.open_now(first, &prompt[..common + 1], &prompt[..common]);
            let mut sequence = opened.map_err(|error| EngineError::Request { index, error })?;
            while sequence.unfilled() > 0 {
                let count = sequence.unfilled().min(self.options.prefill_rows.max(1));
                self.forward(&mut [(&mut sequence, count)]);
            }
            self.close(sequence);
        }
        Ok(())
    }

    /// Runs every prompt that several requests in a row continue (candidates of one question) once,
    /// as far as it fills whole blocks.
    fn store_repeated_prompts(&mut self, requests: &[ScoreRequest]) -> Result<(), EngineError> {
        let same = |a: &ScoreRequest, b: &ScoreRequest| a.stands_with(b) && a.prompt == b.prompt;
        let mut opened: Vec<Sequence> = Vec::new();
        let mut rows = 0;
        let mut index = 0;
        for group in requests.chunk_by(same) {
            let first = &group[0];
            let at = index;
            index += group.len();
            let whole = (first.prompt.len() - 1) / BLOCK_ROWS * BLOCK_ROWS;
            if group.len() == 1 || whole == 0 {
                continue;
            }
            let (prompt, filled) = (&first.prompt[..whole + 1], &first.prompt[..whole]);
            let mut sequence = self.open_now(first, prompt, filled);
            if sequence.is_err() && !opened.is_empty() {
                // Room comes when the others are stored, and can be taken back.
                self.run_and_store(std::mem::take(&mut opened));
                rows = 0;
                sequence = self.open_now(first, prompt, filled);
            }
            let sequence = sequence.map_err(|error| EngineError::Request { index: at, error })?;
            rows += sequence.unfilled();
            opened.push(sequence);
            if rows >= self.options.prefill_rows {
                self.run_and_store(std::mem::take(&mut opened));
                rows = 0;
            }
        }
        self.run_and_store(opened);
        Ok(())
    }

    /// Runs sequences that only others will read.
    fn run_and_store(&mut self, mut sequences: Vec<Sequence>) {
        let mut work: Vec<_> = sequences
            .iter_mut()
            .map(|sequence| {
                let count = sequence.unfilled();
                (sequence, count)
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        if !work.is_empty() {
            self.forward(&mut work);
        }
        drop(work);
        for sequence in sequences {
            self.close(sequence);
        }
    }

    fn score_group(
        &mut self,
        requests: &[ScoreRequest],
        mut sequences: Vec<Sequence>,
    ) -> Result<Vec<Score>, EngineError> {
        let fed: Vec<usize> = sequences.iter().map(Sequence::unfilled).collect();
        let mut work: Vec<_> = sequences.iter_mut().zip(fed.iter().copied()).collect();
        let passed = self.forward(&mut work);
        for sequence in sequences {
            // Nobody asks for a scored text again.
            self.memory.unpin(sequence.matched);
            self.memory.release(sequence.own);
        }

        // (row of the residual stream, request, wanted id)
        let mut wanted = Vec::new();
        let mut end = 0;
        for (index, (r, fed)) in requests.iter().zip(&fed).enumerate() {
            end += fed;
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
            let logits = self.logits(&passed, &rows)?;
            // One NaN anywhere in a row makes its softmax meaningless.
            if let Some(at) = logits.iter().position(|x| x.is_nan()) {
                let index = part[at / vocab].1;
                let error = RequestError::NotFinite;
                return Err(EngineError::Request { index, error });
            }
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
