//! Answering a batch of requests.

use std::collections::HashMap;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::request::{Completion, Event, Flow, GenerateRequest, RequestId, StepEvent};

impl Engine {
    /// Continues all requests, up to `max_batch` at a time; a request joins as soon as another has
    /// ended. Results are in the order of the requests. What their prompts have in common is
    /// computed once.
    ///
    /// The output of a request does not depend on the others: each has its own random sequence.
    ///
    /// # Errors
    /// [`EngineError`]; if a request is refused, none is run, and if one fails, the others end.
    pub fn generate(
        &mut self,
        requests: &[GenerateRequest],
        on_event: &mut dyn FnMut(Event<'_>) -> Flow,
    ) -> Result<Vec<Completion>, EngineError> {
        let mut indices: HashMap<RequestId, usize> = HashMap::new();
        for (index, request) in requests.iter().enumerate() {
            match self.submit(request.clone()) {
                Ok(id) => indices.insert(id, index),
                Err(error) => {
                    self.cancel_all(indices.into_keys());
                    return Err(EngineError::Request { index, error });
                }
            };
        }
        let mut done: Vec<Option<Completion>> = vec![None; requests.len()];
        let mut problem = None;
        let outcome = loop {
            let step = self.step(&mut |event| {
                let flow = match event {
                    StepEvent::Started { .. } => Flow::Continue,
                    StepEvent::Token {
                        request, id, text, ..
                    } => match indices.get(&request) {
                        Some(&request) => on_event(Event::Token { request, id, text }),
                        None => Flow::Continue,
                    },
                    StepEvent::Finished {
                        request,
                        completion,
                    } => match indices.remove(&request) {
                        Some(request) => {
                            let completion = done[request].insert(completion);
                            on_event(Event::Finished {
                                request,
                                completion,
                            })
                        }
                        None => Flow::Continue,
                    },
                    StepEvent::Failed { request, error } => {
                        if let Some(index) = indices.remove(&request) {
                            problem.get_or_insert(EngineError::Request { index, error });
                        }
                        Flow::Continue
                    }
                };
                if flow == Flow::Stop {
                    problem.get_or_insert(EngineError::Stopped);
                }
            });
            if let Err(error) = step {
                break Err(error);
            }
            if let Some(problem) = problem.take() {
                break Err(problem);
            }
            if indices.is_empty() {
                break Ok(());
            }
        };
        self.cancel_all(indices.into_keys());
        outcome.map(|()| done.into_iter().flatten().collect())
    }

    fn cancel_all(&mut self, ids: impl Iterator<Item = RequestId>) {
        for id in ids {
            self.cancel(id);
        }
    }
}
