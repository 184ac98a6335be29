//! Continuous batching: requests join and leave between steps.
//!
//! Every step is one pass of the model over the next token of all that are answering and over a piece
//! of the prompts of those that are not yet. When memory is short, first stored prefixes go, then the
//! youngest request: it waits again, and later its tokens go through the model once more.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rayon::prelude::*;

use crate::blocks::{BLOCK_ROWS, blocks_for};
use crate::engine::Engine;
use crate::error::{EngineError, RequestError};
use crate::queue::FairQueue;
use crate::request::{FinishReason, GenerateRequest, RequestId, StepEvent};
use crate::sequence::{Before, Sequence};
use crate::work::{Choice, Work};

/// What each of some requests has chosen as its next token.
type Choices = Vec<(RequestId, Result<Choice, RequestError>)>;

/// Everything that was asked for and is not answered yet.
#[derive(Default)]
pub struct Schedule {
    waiting: FairQueue<Work>,
    /// Those that had to give up their memory, the oldest first; they go before the waiting.
    preempted: VecDeque<Work>,
    /// In the order in which they came.
    running: Vec<Work>,
    next_id: u64,
    pub preemptions: u64,
}

impl Engine {
    /// Takes a request in; [`Engine::step`] works on it.
    ///
    /// # Errors
    /// If it can never be served, or too many are waiting.
    pub fn submit(&mut self, request: GenerateRequest) -> Result<RequestId, RequestError> {
        self.check(
            &request.cartridges,
            &request.adapters,
            &request.prompt,
            request.max_new_tokens,
        )?;
        if let Some(problem) = request.sampling.problem() {
            return Err(RequestError::Sampling(problem));
        }
        let waiting = self.schedule.waiting.len();
        if waiting >= self.options.max_queue {
            return Err(RequestError::QueueFull(waiting));
        }
        self.schedule.next_id += 1;
        let id = RequestId(self.schedule.next_id);
        let stream = self.model.text.stream_decoder(true);
        for handle in &request.cartridges {
            self.cartridges.begin(*handle);
        }
        let client = request.client.clone();
        let work = Work::new(id, request, stream);
        self.schedule.waiting.push(&client, work);
        Ok(id)
    }

    /// Takes a request out, at whatever point it is. Gives whether it was there.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let schedule = &mut self.schedule;
        let is_it = |work: &Work| work.id == id;
        let found = if let Some(at) = schedule.running.iter().position(is_it) {
            Some(schedule.running.remove(at))
        } else if let Some(at) = schedule.preempted.iter().position(is_it) {
            schedule.preempted.remove(at)
        } else {
            schedule.waiting.remove(is_it)
        };
        match found {
            Some(work) => {
                self.leave(work);
                true
            }
            None => false,
        }
    }

    /// Requests that wait and requests that run.
    pub fn load(&self) -> (usize, usize) {
        let schedule = &self.schedule;
        (
            schedule.waiting.len() + schedule.preempted.len(),
            schedule.running.len(),
        )
    }

    /// One pass of the model; `on_event` hears what came of it. Gives whether anything is left to do.
    ///
    /// # Errors
    /// If the device fails. What concerns one request only is told as [`StepEvent::Failed`].
    pub fn step(&mut self, on_event: &mut dyn FnMut(StepEvent<'_>)) -> Result<bool, EngineError> {
        self.admit(on_event);
        let plan = self.plan(on_event);
        if !plan.is_empty() {
            self.run_plan(&plan, on_event)?;
        }
        let (waiting, running) = self.load();
        Ok(waiting + running > 0)
    }

    /// Opens waiting requests while there is room.
    fn admit(&mut self, on_event: &mut dyn FnMut(StepEvent<'_>)) {
        while self.schedule.running.len() < self.options.max_batch.max(1) {
            let schedule = &self.schedule;
            let Some(next) = schedule.preempted.front().or(schedule.waiting.front()) else {
                return;
            };
            let before = self.before(&next.request.cartridges, &next.request.adapters);
            let tokens = next.tokens();
            let opening = before.and_then(|before| self.prepare(before, tokens));
            let opened = match opening {
                Ok(None) => return,
                Ok(Some(sequence)) => Ok(sequence),
                Err(error) => Err(error),
            };
            let schedule = &mut self.schedule;
            let Some(mut work) = schedule
                .preempted
                .pop_front()
                .or_else(|| schedule.waiting.pop())
            else {
                return;
            };
            match opened {
                Ok(sequence) => {
                    if work.cached_tokens.is_none() {
                        work.cached_tokens = Some(sequence.matched.tokens);
                        on_event(StepEvent::Started {
                            request: work.id,
                            cached_tokens: sequence.matched.tokens,
                        });
                    }
                    work.sequence = Some(sequence);
                    let at = schedule.running.partition_point(|other| other.id < work.id);
                    schedule.running.insert(at, work);
                }
                Err(error) => self.fail(work, &error, on_event),
            }
        }
    }

    /// A place for a request; none yet if there will be room, or a prefix, when others are further.
    fn prepare(
        &mut self,
        before: Before,
        tokens: Vec<u32>,
    ) -> Result<Option<Sequence>, RequestError> {
        let matched = self.memory.tree.lookup(&before.root, &tokens);
        // Somebody may be computing more of this very beginning right now.
        let expected = self.schedule.running.iter().filter_map(|other| {
            let other = other.sequence.as_ref()?;
            let filling = other.unfilled() > 1 && other.before.root == before.root;
            let same = other.tokens.iter().zip(&tokens).take_while(|(a, b)| a == b);
            filling.then(|| same.count().min(tokens.len() - 1) / BLOCK_ROWS * BLOCK_ROWS)
        });
        if expected.max().unwrap_or(0) > matched.tokens {
            self.memory.unpin(matched);
            return Ok(None);
        }
        let needed = blocks_for(tokens.len() + 1 - matched.tokens);
        match self
            .memory
            .take_after(matched.blocks.last().copied(), needed)
        {
            Some(own) => Ok(Some(Sequence::new(before, matched, own, tokens))),
            None => {
                self.memory.unpin(matched);
                if self.schedule.running.is_empty() {
                    return Err(self.too_small(tokens.len() + 1));
                }
                Ok(None)
            }
        }
    }

    /// Which running requests take part in the next pass, and with how many tokens.
    fn plan(&mut self, on_event: &mut dyn FnMut(StepEvent<'_>)) -> Vec<(RequestId, usize)> {
        let deciding: Vec<RequestId> = self
            .schedule
            .running
            .iter()
            .filter(|work| work.decodes())
            .map(|work| work.id)
            .collect();
        for id in deciding {
            self.make_room(id, on_event);
        }
        let answering = self.schedule.running.iter().filter(|w| w.decodes()).count();
        // A long prompt must not keep those waiting who are reading their answers already.
        let mut budget = match answering {
            0 => self.options.prefill_rows.max(1),
            _ => (self.options.prefill_rows / 4).max(1),
        };
        let mut plan = Vec::with_capacity(self.schedule.running.len());
        for work in &self.schedule.running {
            let unfilled = work.sequence.as_ref().map_or(0, Sequence::unfilled);
            let count = if work.decodes() {
                1
            } else {
                let count = unfilled.min(budget);
                budget -= count;
                count
            };
            if count > 0 {
                plan.push((work.id, count));
            }
        }
        plan
    }

    /// Gives a request the block for its next token, if need be at the cost of the youngest.
    fn make_room(&mut self, id: RequestId, on_event: &mut dyn FnMut(StepEvent<'_>)) {
        loop {
            let Some(at) = self.schedule.running.iter().position(|w| w.id == id) else {
                return;
            };
            let Some(sequence) = &self.schedule.running[at].sequence else {
                return;
            };
            let missing = sequence.missing_blocks(sequence.filled + 1);
            if missing == 0 {
                return;
            }
            let last = sequence.own.last().or(sequence.matched.blocks.last());
            if let Some(blocks) = self.memory.take_after(last.copied(), missing) {
                if let Some(sequence) = &mut self.schedule.running[at].sequence {
                    sequence.own.extend(blocks);
                }
                return;
            }
            let Some(mut youngest) = self.schedule.running.pop() else {
                return;
            };
            if youngest.id == id && self.schedule.running.is_empty() {
                let error = self.too_small(youngest.tokens().len() + 1);
                self.fail(youngest, &error, on_event);
                return;
            }
            self.schedule.preemptions += 1;
            if let Some(sequence) = youngest.sequence.take() {
                self.close(sequence);
            }
            let waiting = &mut self.schedule.preempted;
            let at = waiting.partition_point(|other| other.id < youngest.id);
            waiting.insert(at, youngest);
        }
    }

    /// One pass over some requests, and what comes of it. If it panics, each of them gets a pass of its
    /// own, so that only the one that cannot be worked on fails.
    fn run_plan(
        &mut self,
        plan: &[(RequestId, usize)],
        on_event: &mut dyn FnMut(StepEvent<'_>),
    ) -> Result<(), EngineError> {
        let mut running = std::mem::take(&mut self.schedule.running);
        let passed = self.pass(plan, &mut running);
        let choices = match passed {
            Ok(choices) => choices,
            Err(EngineError::Panicked) if self.memory.is_whole() => {
                let alone = running.iter().position(|work| work.id == plan[0].0);
                match (plan, alone) {
                    ([_], Some(at)) => {
                        let work = running.remove(at);
                        self.schedule.running = running;
                        self.fail(work, &RequestError::Panicked, on_event);
                    }
                    _ => {
                        self.schedule.running = running;
                        for single in plan {
                            self.run_plan(&[*single], on_event)?;
                        }
                    }
                }
                return Ok(());
            }
            Err(error) => {
                self.schedule.running = running;
                return Err(error);
            }
        };
        let mut choices = choices.into_iter().peekable();
        let mut going = Vec::with_capacity(running.len());
        for mut work in running {
            let Some((_, choice)) = choices.next_if(|(id, _)| *id == work.id) else {
                going.push(work);
                continue;
            };
            let outcome = choice.and_then(|choice| {
                let finish = guarded(|| work.accept(&choice))?;
                Ok((choice, finish))
            });
            match outcome {
                Err(error) => self.fail(work, &error, on_event),
                Ok((choice, finish)) => {
                    let (id, logprob) = (work.id, work.request.logprobs.then_some(choice.logprob));
                    let text = work.release_text(finish.is_some());
                    on_event(StepEvent::Token {
                        request: id,
                        id: choice.id,
                        text,
                        logprob,
                        top: &choice.top,
                    });
                    match finish {
                        Some(finish) => self.finish(work, finish, on_event),
                        None => {
                            self.share_prompt(&mut work);
                            going.push(work);
                        }
                    }
                }
            }
        }
        self.schedule.running = going;
        Ok(())
    }

    /// Runs the next tokens of the planned requests through the model; those that are filled then choose
    /// their next token.
    fn pass(
        &mut self,
        plan: &[(RequestId, usize)],
        running: &mut [Work],
    ) -> Result<Choices, EngineError> {
        let mut members: Vec<(&mut Work, usize)> = running
            .iter_mut()
            .filter_map(|work| {
                let count = plan.iter().find(|(id, _)| *id == work.id)?.1;
                Some((work, count))
            })
            .collect();
        let mut row = 0;
        let mut last_rows = Vec::new();
        for (work, count) in &members {
            row += count;
            if work
                .sequence
                .as_ref()
                .is_some_and(|s| s.unfilled() == *count)
            {
                last_rows.push(row - 1);
            }
        }
        let logits = {
            let mut work: Vec<(&mut Sequence, usize)> = members
                .iter_mut()
                .filter_map(|(work, count)| Some((work.sequence.as_mut()?, *count)))
                .collect();
            let filled: Vec<usize> = work.iter().map(|(sequence, _)| sequence.filled).collect();
            let logits = catch_unwind(AssertUnwindSafe(|| {
                let passed = self.forward(&mut work);
                match last_rows.is_empty() {
                    true => Ok(Vec::new()),
                    false => self.logits(&passed, &last_rows),
                }
            }));
            if logits.is_err() {
                // What was written for these tokens is written again.
                for ((sequence, _), filled) in work.into_iter().zip(filled) {
                    sequence.filled = filled;
                }
            }
            logits.unwrap_or(Err(EngineError::Panicked))
        };
        let vocab = self.model.decoder.config().vocab_size;
        let choosing: Vec<&mut Work> = members
            .into_iter()
            .map(|(work, _)| work)
            .filter(|work| work.sequence.as_ref().is_some_and(|s| s.unfilled() == 0))
            .collect();
        Ok(choosing
            .into_par_iter()
            .zip(logits?.par_chunks_exact_mut(vocab))
            .map(|(work, logits)| (work.id, guarded(|| work.choose(logits))))
            .collect())
    }

    /// Lets others read a prompt that has just been filled.
    fn share_prompt(&mut self, work: &mut Work) {
        let Some(sequence) = &mut work.sequence else {
            return;
        };
        if sequence.stored || sequence.filled - sequence.matched.tokens < BLOCK_ROWS {
            return;
        }
        sequence.stored = true;
        let matched = std::mem::take(&mut sequence.matched);
        let own = std::mem::take(&mut sequence.own);
        let ids = &sequence.tokens[..sequence.filled];
        (sequence.matched, sequence.own) =
            self.memory
                .store_and_go_on(&sequence.before.root, ids, matched, &own);
    }

    fn finish(
        &mut self,
        mut work: Work,
        finish: FinishReason,
        on_event: &mut dyn FnMut(StepEvent<'_>),
    ) {
        if let Some(sequence) = work.sequence.take() {
            self.close(sequence);
        }
        self.release_cartridges(&work.request.cartridges);
        let request = work.id;
        let completion = work.into_completion(finish);
        on_event(StepEvent::Finished {
            request,
            completion,
        });
    }

    fn fail(
        &mut self,
        mut work: Work,
        error: &RequestError,
        on_event: &mut dyn FnMut(StepEvent<'_>),
    ) {
        let request = work.id;
        if let Some(sequence) = work.sequence.take() {
            // What it computed may be as wrong as its answer: nobody is to read it.
            self.memory.unpin(sequence.matched);
            self.memory.release(sequence.own);
        }
        self.leave(work);
        on_event(StepEvent::Failed {
            request,
            error: error.clone(),
        });
    }

    /// Gives back what a request holds that nobody wants any more.
    fn leave(&mut self, mut work: Work) {
        if let Some(sequence) = work.sequence.take() {
            self.close(sequence);
        }
        self.release_cartridges(&work.request.cartridges);
    }
}

/// Work on one request; if it panics, that request has failed.
fn guarded<T>(work: impl FnOnce() -> Result<T, RequestError>) -> Result<T, RequestError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(RequestError::Panicked))
}
