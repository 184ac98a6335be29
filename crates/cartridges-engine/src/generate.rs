//! Decoding many requests together.

use std::collections::VecDeque;

use cartridges_model::text::StreamDecoder;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::engine::{CartridgeHandle, Engine};
use crate::error::EngineError;
use crate::forward::Sequence;
use crate::log_probs::{TopLogprobs, log_sum, top};
use crate::request::{Completion, Event, FinishReason, Flow, GenerateRequest};

/// A common beginning of this many tokens is worth a pass of its own.
const WORTH_SHARING: usize = 16;

/// One request while it runs.
struct Active<'a> {
    index: usize,
    request: &'a GenerateRequest,
    sequence: Sequence,
    rng: ChaCha8Rng,
    stream: StreamDecoder,
    token_ids: Vec<u32>,
    text: String,
    /// How much of the text has been handed out.
    shown: usize,
    logprobs: Vec<f32>,
    top: TopLogprobs,
}

/// What was chosen for one sequence in one step.
struct Choice {
    id: u32,
    logprob: f32,
    top: Vec<(u32, f32)>,
}

impl Engine {
    /// Continues all requests, up to `max_batch` at a time; a request joins as soon as another has
    /// ended. Results are in the order of the requests.
    ///
    /// The output of a request does not depend on the others: each has its own random sequence.
    ///
    /// # Errors
    /// [`EngineError`]; if a request is refused, none is run.
    pub fn generate(
        &mut self,
        requests: &[GenerateRequest],
        on_event: &mut dyn FnMut(Event<'_>) -> Flow,
    ) -> Result<Vec<Completion>, EngineError> {
        for (index, r) in requests.iter().enumerate() {
            self.check(index, &r.cartridges, &r.prompt, r.max_new_tokens)?;
            if let Some(problem) = r.sampling.problem() {
                return Err(EngineError::Sampling {
                    request: index,
                    problem,
                });
            }
        }
        let prompts: Vec<_> = requests
            .iter()
            .map(|r| (r.cartridges.as_slice(), r.prompt.as_slice()))
            .collect();
        self.share_prefixes(&prompts)?;
        let mut done: Vec<Option<Completion>> = vec![None; requests.len()];
        let mut waiting: VecDeque<usize> = (0..requests.len()).collect();
        let mut active: Vec<Active<'_>> = Vec::new();
        let result = loop {
            let admitted = self.admit(requests, &mut waiting, &mut active);
            let step = admitted.and_then(|()| {
                if active.is_empty() {
                    return Ok(());
                }
                self.step(&mut active, &mut done, on_event)
            });
            match step {
                Err(error) => break Err(error),
                Ok(()) if active.is_empty() && waiting.is_empty() => break Ok(()),
                Ok(()) => {}
            }
        };
        for left in active {
            self.close(left.sequence);
        }
        result.map(|()| done.into_iter().flatten().collect())
    }

    /// Computes what the prompts behind the same cartridges have in common once.
    pub(crate) fn share_prefixes(
        &mut self,
        prompts: &[(&[CartridgeHandle], &[u32])],
    ) -> Result<(), EngineError> {
        let mut seen: Vec<&[CartridgeHandle]> = Vec::new();
        for (cartridges, _) in prompts {
            if seen.contains(cartridges) {
                continue;
            }
            seen.push(cartridges);
            let behind: Vec<&[u32]> = prompts
                .iter()
                .filter(|other| other.0 == *cartridges)
                .map(|other| other.1)
                .collect();
            self.store_common_prefix(cartridges, &behind)?;
        }
        Ok(())
    }

    /// Stores the common beginning of `prompts` if it is long enough and not stored yet.
    fn store_common_prefix(
        &mut self,
        cartridges: &[CartridgeHandle],
        prompts: &[&[u32]],
    ) -> Result<(), EngineError> {
        let [first, rest @ ..] = prompts else {
            return Ok(());
        };
        let mut common = first.len() - 1;
        for prompt in rest {
            let same = first
                .iter()
                .zip(*prompt)
                .take_while(|(a, b)| a == b)
                .count();
            common = common.min(same).min(prompt.len() - 1);
        }
        if rest.is_empty() || common < WORTH_SHARING {
            return Ok(());
        }
        // One token more than the prefix, so that `open` may share all of the prefix itself.
        let stored = self.residents.longest(cartridges, &first[..common + 1]);
        if stored.is_some_and(|shared| shared.len == common) {
            return Ok(());
        }
        let ids = &first[..common];
        let mut sequence = self.open(cartridges, ids, 0)?;
        self.prefill(&mut sequence, ids);
        self.residents.insert(
            cartridges.to_vec(),
            ids.to_vec(),
            sequence.shared.as_ref(),
            sequence.own,
        );
        Ok(())
    }

    /// Runs what is new of a prompt, in pieces; gives the residual stream of the last piece.
    fn prefill(&mut self, sequence: &mut Sequence, prompt: &[u32]) -> Option<burn::Tensor<2>> {
        let new = &prompt[sequence.shared_len()..];
        let mut last = None;
        for piece in new.chunks(self.options.prefill_rows.max(1)) {
            last = Some(self.forward(&mut [(&mut *sequence, piece)]));
        }
        last
    }

    /// Opens waiting requests while there is room.
    fn admit<'a>(
        &mut self,
        requests: &'a [GenerateRequest],
        waiting: &mut VecDeque<usize>,
        active: &mut Vec<Active<'a>>,
    ) -> Result<(), EngineError> {
        while active.len() < self.options.max_batch.max(1) {
            let Some(&index) = waiting.front() else {
                break;
            };
            let request = &requests[index];
            let opened = self.open(&request.cartridges, &request.prompt, request.max_new_tokens);
            let sequence = match opened {
                Ok(sequence) => sequence,
                // Room will come when others end.
                Err(EngineError::PoolTooSmall { .. }) if !active.is_empty() => break,
                Err(error) => return Err(error),
            };
            waiting.pop_front();
            active.push(Active {
                index,
                request,
                sequence,
                rng: request.sampling.rng(),
                stream: self.model.text.stream_decoder(true),
                token_ids: Vec::new(),
                text: String::new(),
                shown: 0,
                logprobs: Vec::new(),
                top: TopLogprobs::new(request.top_logprobs),
            });
        }
        Ok(())
    }

    /// One token for every active sequence; those that end leave.
    fn step(
        &mut self,
        active: &mut Vec<Active<'_>>,
        done: &mut [Option<Completion>],
        on_event: &mut dyn FnMut(Event<'_>) -> Flow,
    ) -> Result<(), EngineError> {
        let choices = self.next_tokens(active)?;
        let mut going = Vec::with_capacity(active.len());
        let mut stopped = false;
        for (mut one, choice) in active.drain(..).zip(choices) {
            let finish = one.accept(choice)?;
            let shown = one.release_text(finish.is_some());
            if !one.token_ids.is_empty() {
                let event = Event::Token {
                    request: one.index,
                    id: one.token_ids[one.token_ids.len() - 1],
                    text: &one.text[shown..one.shown],
                };
                stopped |= on_event(event) == Flow::Stop;
            }
            match finish {
                None => going.push(one),
                Some(finish) => {
                    let completion = self.finish(one, finish, done);
                    let event = Event::Finished {
                        request: completion.0,
                        completion: completion.1,
                    };
                    stopped |= on_event(event) == Flow::Stop;
                }
            }
        }
        *active = going;
        if stopped {
            Err(EngineError::Stopped)
        } else {
            Ok(())
        }
    }

    /// Closes a sequence, keeping its rows if asked to, and stores its result.
    fn finish<'d>(
        &mut self,
        one: Active<'_>,
        finish: FinishReason,
        done: &'d mut [Option<Completion>],
    ) -> (usize, &'d Completion) {
        let index = one.index;
        if one.request.keep {
            let mut ids = one.request.prompt.clone();
            ids.extend_from_slice(&one.token_ids);
            // The last token was chosen but never fed, so it has no keys yet.
            ids.truncate(one.sequence.filled() + one.sequence.shared_len());
            self.residents.insert(
                one.request.cartridges.clone(),
                ids,
                one.sequence.shared.as_ref(),
                one.sequence.own,
            );
        } else {
            self.close(one.sequence);
        }
        let with_top = one.request.top_logprobs > 0;
        let completion = done[index].insert(Completion {
            token_ids: one.token_ids,
            text: one.text,
            logprobs: one.logprobs,
            top_logprobs: with_top.then_some(one.top),
            finish,
        });
        (index, completion)
    }

    /// Feeds each sequence what it has not seen (its prompt, or its last token) and chooses.
    fn next_tokens(&mut self, active: &mut [Active<'_>]) -> Result<Vec<Choice>, EngineError> {
        let vocab = self.model.decoder.config().vocab_size;
        let mut choices: Vec<Option<Choice>> = active.iter().map(|_| None).collect();
        // Prompts of one pass together hold at most `prefill_rows` tokens.
        let mut from = 0;
        while from < active.len() {
            let mut to = from;
            let mut rows = 0;
            while to < active.len() {
                let next = active[to].unseen().len();
                if to > from && rows + next > self.options.prefill_rows.max(active.len()) {
                    break;
                }
                rows += next;
                to += 1;
            }
            let group = &mut active[from..to];
            let (hidden, last) = self.feed(group);
            let logits = self.logits(hidden, &last)?;
            let chosen: Vec<Choice> = group
                .par_iter_mut()
                .zip(logits.par_chunks_exact(vocab))
                .map(|(one, logits)| one.choose(logits))
                .collect();
            for (slot, choice) in choices[from..to].iter_mut().zip(chosen) {
                *slot = Some(choice);
            }
            from = to;
        }
        Ok(choices.into_iter().flatten().collect())
    }

    /// Runs a group's unseen tokens; gives the residual stream and each sequence's last row in it.
    fn feed(&mut self, group: &mut [Active<'_>]) -> (burn::Tensor<2>, Vec<usize>) {
        let limit = self.options.prefill_rows.max(1);
        if let [one] = group
            && one.unseen().len() > limit
        {
            let prompt = one.request.prompt.clone();
            if let Some(hidden) = self.prefill(&mut one.sequence, &prompt) {
                let last = hidden.dims()[0] - 1;
                return (hidden, vec![last]);
            }
        }
        let unseen: Vec<Vec<u32>> = group.iter().map(|one| one.unseen().to_vec()).collect();
        let mut row = 0;
        let last = unseen
            .iter()
            .map(|ids| {
                row += ids.len();
                row - 1
            })
            .collect();
        let mut work: Vec<_> = group
            .iter_mut()
            .zip(&unseen)
            .map(|(one, ids)| (&mut one.sequence, ids.as_slice()))
            .collect();
        (self.forward(&mut work), last)
    }
}

impl Active<'_> {
    /// Tokens that the model has not been fed yet.
    fn unseen(&self) -> &[u32] {
        match self.token_ids.last() {
            Some(_) => &self.token_ids[self.token_ids.len() - 1..],
            None => &self.request.prompt[self.sequence.shared_len()..],
        }
    }

    fn choose(&mut self, logits: &[f32]) -> Choice {
        let sampling = &self.request.sampling;
        let id = sampling.draw(logits, &mut self.rng);
        if self.request.top_logprobs == 0 {
            return Choice {
                id,
                logprob: 0.0,
                top: Vec::new(),
            };
        }
        let temperature = match sampling.temperature {
            0.0 => 1.0,
            t => t,
        };
        let sum = log_sum(logits, temperature);
        Choice {
            id,
            logprob: (f64::from(logits[id as usize] / temperature) - sum) as f32,
            top: top(logits, self.request.top_logprobs, temperature, sum),
        }
    }

    /// Takes a token in; tells whether the sequence ends with it.
    fn accept(&mut self, choice: Choice) -> Result<Option<FinishReason>, EngineError> {
        self.token_ids.push(choice.id);
        if self.request.top_logprobs > 0 {
            self.logprobs.push(choice.logprob);
            self.top.push(&choice.top);
        }
        if self.request.stop.ids.contains(&choice.id) {
            self.text.push_str(&self.stream.finish()?);
            return Ok(Some(FinishReason::Stop));
        }
        self.text.push_str(&self.stream.push(choice.id)?);
        let found = self.request.stop.strings.iter().filter(|s| !s.is_empty());
        if let Some(at) = found.filter_map(|s| self.text.find(s.as_str())).min() {
            self.text.truncate(at);
            return Ok(Some(FinishReason::Stop));
        }
        if self.token_ids.len() >= self.request.max_new_tokens {
            self.text.push_str(&self.stream.finish()?);
            return Ok(Some(FinishReason::Length));
        }
        Ok(None)
    }

    /// Moves the mark of shown text on; what may be the start of a stop string waits. Gives the
    /// old mark.
    fn release_text(&mut self, ended: bool) -> usize {
        let from = self.shown.min(self.text.len());
        let mut to = self.text.len();
        if !ended {
            for stop in &self.request.stop.strings {
                let held = (1..stop.len())
                    .rev()
                    .filter(|n| stop.is_char_boundary(*n))
                    .find(|n| self.text.ends_with(&stop[..*n]));
                to = to.min(self.text.len() - held.unwrap_or(0));
            }
        }
        self.shown = to.max(from);
        from
    }
}
