//! What comes of a [`crate::Job`], piece by piece.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, or a stop text came.
    Stop,
    /// The token limit.
    Length,
}

impl FinishReason {
    /// The name in responses.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// What happens to a job: `Started`, then any number of `Token`, then `Finished`; or `Failed` at
/// any time, after which nothing comes.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The job left the queue.
    Started {
        /// Tokens of the prompt, without cartridge slots.
        prompt_tokens: usize,
        /// How many of them were found in the cache.
        cached_tokens: usize,
    },
    /// One generated token.
    Token {
        /// The token; the one that ends the turn is told too.
        id: u32,
        /// Text that became complete with it: never a broken character, a special token, or a part
        /// of a stop text. May be empty.
        text: String,
        /// Natural log-prob under the distribution it was drawn from (greedy: the unscaled one);
        /// there if the job asked for log-probs.
        logprob: Option<f32>,
        /// The likeliest tokens, exactly as many as asked for, falling.
        top: Vec<(u32, f32)>,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Text that was held back until now because it could have begun a stop text.
        text: String,
    },
    /// There will be no (complete) answer.
    Failed(JobError),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The request cannot be answered as it is (schema, template, a cartridge that does not fit).
    #[error("{0}")]
    Invalid(String),
    /// A cartridge or adapter that is not there.
    #[error("{0}")]
    NotFound(String),
    /// The prompt and the wanted answer are longer than the model can hold.
    #[error("{0}")]
    TooLong(String),
    /// The queue is full.
    #[error("the server is busy, try again later")]
    Busy,
    /// The server is about to end.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The job took too long.
    #[error("the request took too long")]
    TimedOut,
    /// A fault on our side; what happened is in the log under this id.
    #[error("internal error {id}")]
    Internal {
        /// The id in the log.
        id: String,
    },
}

/// The receiving end of one job. Dropping it cancels the job.
#[derive(Debug)]
pub struct Answer {
    events: mpsc::UnboundedReceiver<Event>,
}

/// The generating end of one job.
#[derive(Debug, Clone)]
pub struct AnswerSender {
    events: mpsc::UnboundedSender<Event>,
}

impl Answer {
    /// Both ends for a new job. The queue between them has no bound, so that a client that reads
    /// slowly never holds up the engine; the job's token limit bounds it.
    pub fn channel() -> (AnswerSender, Answer) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (AnswerSender { events: sender }, Answer { events: receiver })
    }
}

impl Stream for Answer {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }
}

impl AnswerSender {
    /// Tells what happened; false if nobody listens any more, so that the job can end.
    pub fn send(&self, event: Event) -> bool {
        self.events.send(event).is_ok()
    }

    /// Whether the other end is gone.
    pub fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Waits until the other end is gone.
    pub async fn cancelled(&self) {
        self.events.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test]
    async fn dropping_an_answer_is_seen_by_the_sender() {
        let (sender, mut answer) = Answer::channel();
        let started = Event::Started {
            prompt_tokens: 1,
            cached_tokens: 0,
        };
        assert!(sender.send(started.clone()));
        assert_eq!(answer.next().await, Some(started.clone()));
        assert!(!sender.is_cancelled());
        drop(answer);
        sender.cancelled().await;
        assert!(sender.is_cancelled() && !sender.send(started));
    }
}
