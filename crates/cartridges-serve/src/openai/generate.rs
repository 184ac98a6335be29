//! The paths that generate.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use crate::api_error::{ApiError, Kind};
use crate::app::App;
use crate::guard::{Caller, JsonBody};
use crate::job::Job;
use crate::reply::{Choice, run, stream, whole};
use crate::request::{ChatRequest, CompletionRequest, Endpoint, Form, Planner};

/// Longest wait before a job that found the queue full is offered again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Continues a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", request_body = ChatRequest,
    responses((status = 200, description = "The answer, or a stream of events"),
        (status = 400, description = "A field that cannot be honoured"),
        (status = 429, description = "The queue is full")))]
pub(crate) async fn chat_completions(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    generate(state, caller, body, Endpoint::open_ai(Form::Chat)).await
}

/// Continues a text.
#[utoipa::path(post, path = "/v1/completions", request_body = CompletionRequest,
    responses((status = 200, description = "The answer, or a stream of events"),
        (status = 400, description = "A field that cannot be honoured"),
        (status = 429, description = "The queue is full")))]
pub(crate) async fn completions(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    generate(state, caller, body, Endpoint::open_ai(Form::Text)).await
}

/// `/custom/cartridge/chat/completions` and its older name.
pub(crate) async fn cartridge_chat(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    generate(state, caller, body, Endpoint::tokasaurus(Form::Chat, true)).await
}

/// `/custom/cartridge/completions` and its older name.
pub(crate) async fn cartridge_text(
    state: State<Arc<App>>,
    caller: Extension<Caller>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    generate(state, caller, body, Endpoint::tokasaurus(Form::Text, true)).await
}

async fn generate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody,
    endpoint: Endpoint,
) -> Result<Response, ApiError> {
    let planner = Planner {
        options: &app.options,
        inference: &*app.inference,
        client: &caller.client,
    };
    let plan = planner.plan(body, endpoint)?;
    if plan.wanted.stream {
        return stream(app, plan).await;
    }
    let choices = run(&app, plan.jobs).await?;
    Ok(Json(whole(&app, &plan.wanted, &choices)).into_response())
}

/// Answers one request of a batch. While the queue is full it waits, for the caller has been let in
/// already and others of the batch may be what fills the queue.
pub(crate) async fn run_patiently(app: &App, jobs: Vec<Job>) -> Result<Vec<Choice>, ApiError> {
    let work = async {
        let mut wait = Duration::from_millis(20);
        loop {
            match run(app, jobs.clone()).await {
                Err(error) if error.kind == Kind::Busy => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                ended => return ended,
            }
        }
    };
    tokio::time::timeout(app.options.request_timeout(), work)
        .await
        .unwrap_or_else(|_| Err(crate::JobError::TimedOut.into()))
}
