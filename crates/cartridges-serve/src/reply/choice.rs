//! One complete answer.

use futures_util::StreamExt;
use futures_util::future::try_join_all;

use crate::answer::{Answer, Event, FinishReason, JobError};
use crate::api_error::ApiError;
use crate::app::App;
use crate::job::Job;
use crate::metrics::Meter;

/// An answer, complete or on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Choice {
    /// Generated ids, with the one that ended the turn.
    pub ids: Vec<u32>,
    /// The text.
    pub text: String,
    /// Where in the text, in characters, each id's part begins.
    pub offsets: Vec<usize>,
    /// Length of the text in characters.
    pub length: usize,
    /// Log-prob of each id, if asked for.
    pub logprobs: Vec<f32>,
    /// The likeliest at each id's place, if asked for.
    pub top: Vec<Vec<(u32, f32)>>,
    /// Why it ended; `None`: it has not.
    pub reason: Option<FinishReason>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were in the cache.
    pub cached_tokens: usize,
}

impl Choice {
    /// Adds what happened, after checking that it is what was asked for (`top_logprobs`).
    pub fn take(&mut self, event: Event, top_logprobs: Option<usize>) -> Result<(), ApiError> {
        match event {
            Event::Started {
                prompt_tokens,
                cached_tokens,
            } => {
                (self.prompt_tokens, self.cached_tokens) = (prompt_tokens, cached_tokens);
            }
            Event::Token {
                id,
                text,
                logprob,
                top,
            } => {
                if let Some(wanted) = top_logprobs {
                    let Some(logprob) = logprob.filter(|_| top.len() == wanted) else {
                        let got = top.len();
                        let cause = format!("{got} log-probs where {wanted} were asked for");
                        return Err(ApiError::internal(cause));
                    };
                    self.logprobs.push(logprob);
                    self.top.push(top);
                }
                self.ids.push(id);
                self.offsets.push(self.length);
                self.length += text.chars().count();
                self.text.push_str(&text);
            }
            Event::Finished { reason, text } => {
                self.text.push_str(&text);
                self.reason = Some(reason);
            }
            Event::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Runs jobs to their ends, all at once, within the time a request may take. If one fails or the
/// future is dropped, all are cancelled.
pub(crate) async fn run(app: &App, jobs: Vec<Job>) -> Result<Vec<Choice>, ApiError> {
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        let top_logprobs = job.top_logprobs;
        answers.push(collect(app.submit(job)?, top_logprobs, app.metrics.meter()));
    }
    tokio::time::timeout(app.options.request_timeout(), try_join_all(answers))
        .await
        .unwrap_or_else(|_| Err(JobError::TimedOut.into()))
}

async fn collect(
    mut answer: Answer,
    top_logprobs: Option<usize>,
    mut meter: Meter,
) -> Result<Choice, ApiError> {
    let mut choice = Choice::default();
    while choice.reason.is_none() {
        let Some(event) = answer.next().await else {
            return Err(ApiError::internal("an answer ended without its last event"));
        };
        if matches!(event, Event::Token { .. }) {
            meter.token();
        }
        choice.take(event, top_logprobs)?;
    }
    Ok(choice)
}
