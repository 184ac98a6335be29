//! The response to a streamed request: server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::{self, SelectAll};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::answer::{Answer, Event, FinishReason, JobError};
use crate::api_error::{ApiError, Dialect};
use crate::app::{App, now};
use crate::metrics::Meter;
use crate::reply::choice::Choice;
use crate::reply::logprobs::Logprobs;
use crate::reply::whole::{new_id, usage};
use crate::request::{Form, Plan, Wanted};

/// How long a stream may be silent; then a comment is sent, so that nobody in between thinks it
/// dead.
const SILENCE: Duration = Duration::from_secs(15);

/// Events that may wait for a slow client.
const WAITING: usize = 16;

/// Streams the answers. An error before the first event is an ordinary error response.
pub(crate) async fn stream(app: Arc<App>, plan: Plan) -> Result<Response, ApiError> {
    let deadline = Instant::now() + app.options.request_timeout();
    let wanted = plan.wanted;
    let mut answers = Vec::with_capacity(plan.jobs.len());
    let mut meters = Vec::with_capacity(plan.jobs.len());
    for job in plan.jobs {
        answers.push(app.submit(job)?);
        meters.push(app.metrics.meter());
    }
    let first = timeout_at(deadline, try_join_all(answers.into_iter().map(first_event)));
    let started = first
        .await
        .map_err(|_| ApiError::from(JobError::TimedOut))??;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let mut chunks = Chunks::new(&app, &wanted, meters);
        let work = chunks.write(started, &sender);
        // The client may go, or stop reading: either way the answers are dropped with `work`.
        let ended = tokio::select! {
            () = sender.closed() => return,
            ended = timeout_at(deadline, work) => ended,
        };
        if let Err(error) = ended.unwrap_or_else(|_| Err(Ended::Failed(JobError::TimedOut.into())))
            && let Ended::Failed(error) = error
        {
            // Without waiting: a client that does not read shall not keep this task.
            let _ = sender.try_send(frame(&error.body(Dialect::OpenAi)));
        }
    });
    let frames = stream::unfold(receiver, |mut receiver| async move {
        receiver
            .recv()
            .await
            .map(|frame| (Ok::<Bytes, Infallible>(frame), receiver))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

/// Waits until a job begins.
async fn first_event(mut answer: Answer) -> Result<(Event, Answer), ApiError> {
    match answer.next().await {
        Some(Event::Failed(error)) => Err(error.into()),
        Some(event) => Ok((event, answer)),
        None => Err(ApiError::internal("an answer ended without an event")),
    }
}

/// Why a stream ended early.
enum Ended {
    /// The client went away.
    Gone,
    /// An answer failed.
    Failed(ApiError),
}

impl From<ApiError> for Ended {
    fn from(error: ApiError) -> Self {
        Ended::Failed(error)
    }
}

/// Writes the chunks of one response.
struct Chunks<'a> {
    app: &'a App,
    wanted: &'a Wanted,
    id: String,
    created: u64,
    choices: Vec<Choice>,
    meters: Vec<Meter>,
}

impl<'a> Chunks<'a> {
    fn new(app: &'a App, wanted: &'a Wanted, meters: Vec<Meter>) -> Self {
        let choices = meters.iter().map(|_| Choice::default()).collect();
        Self {
            app,
            wanted,
            id: new_id(wanted),
            created: now(),
            choices,
            meters,
        }
    }

    async fn write(
        &mut self,
        started: Vec<(Event, Answer)>,
        sender: &mpsc::Sender<Bytes>,
    ) -> Result<(), Ended> {
        if self.wanted.endpoint.form == Form::Chat {
            for index in 0..started.len() {
                let delta = json!({"role": "assistant", "content": ""});
                let choice = json!({"index": index, "delta": delta, "logprobs": null,
                    "finish_reason": null});
                send(sender, frame(&self.chunk(json!([choice])))).await?;
            }
        }
        let mut merged = SelectAll::new();
        for (index, (event, answer)) in started.into_iter().enumerate() {
            let events = stream::once(async move { event }).chain(answer);
            merged.push(Box::pin(events.map(move |event| (index, event))));
        }
        let mut open = self.choices.len();
        while open > 0 {
            let (index, event) = match timeout(SILENCE, merged.next()).await {
                Ok(Some(next)) => next,
                Ok(None) => {
                    return Err(ApiError::internal("an answer ended without its last event").into());
                }
                Err(_) => {
                    send(sender, Bytes::from_static(b": still here\n\n")).await?;
                    continue;
                }
            };
            let before = (
                self.choices[index].ids.len(),
                self.choices[index].text.len(),
            );
            if matches!(event, Event::Token { .. }) {
                self.meters[index].token();
            }
            self.choices[index].take(event, self.wanted.top_logprobs)?;
            if let Some(choice) = self.grown(index, before) {
                send(sender, frame(&self.chunk(json!([choice])))).await?;
            }
            if let Some(reason) = self.choices[index].reason {
                open -= 1;
                let choice = self.written(index, "", Value::Null, Some(reason));
                send(sender, frame(&self.chunk(json!([choice])))).await?;
            }
        }
        if self.wanted.include_usage {
            let mut last = self.chunk(json!([]));
            last["usage"] = usage(self.wanted, &self.choices);
            send(sender, frame(&last)).await?;
        }
        send(sender, Bytes::from_static(b"data: [DONE]\n\n")).await
    }

    /// What a choice got since it had so many ids and bytes, if that is anything to tell.
    fn grown(&self, index: usize, (ids, bytes): (usize, usize)) -> Option<Value> {
        let choice = &self.choices[index];
        let text = &choice.text[bytes..];
        let new = ids..choice.ids.len();
        if self.wanted.top_logprobs.is_none() || new.is_empty() {
            return (!text.is_empty()).then(|| self.written(index, text, Value::Null, None));
        }
        let logprobs = Logprobs {
            inference: &*self.app.inference,
            dialect: self.wanted.endpoint.dialect,
        };
        let logprobs = match self.wanted.endpoint.form {
            Form::Chat => logprobs.chat(choice, new),
            Form::Text => logprobs.text(choice, new),
        };
        Some(self.written(index, text, logprobs, None))
    }

    fn written(
        &self,
        index: usize,
        text: &str,
        logprobs: Value,
        reason: Option<FinishReason>,
    ) -> Value {
        let reason = reason.map(FinishReason::as_str);
        match self.wanted.endpoint.form {
            Form::Chat => {
                let delta = if reason.is_some() {
                    json!({})
                } else {
                    json!({"content": text})
                };
                json!({"index": index, "delta": delta, "logprobs": logprobs,
                    "finish_reason": reason})
            }
            Form::Text => json!({"index": index, "text": text, "logprobs": logprobs,
                "finish_reason": reason}),
        }
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = match self.wanted.endpoint.form {
            Form::Chat => "chat.completion.chunk",
            Form::Text => "text_completion",
        };
        let mut chunk = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.wanted.model,
            "system_fingerprint": null,
            "choices": choices,
        });
        if self.wanted.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

fn frame(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

async fn send(sender: &mpsc::Sender<Bytes>, frame: Bytes) -> Result<(), Ended> {
    sender.send(frame).await.map_err(|_| Ended::Gone)
}
