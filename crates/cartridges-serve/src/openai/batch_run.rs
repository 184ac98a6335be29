//! The lines of a batch file, and their answers.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api_error::{ApiError, Dialect};
use crate::app::App;
use crate::guard::Caller;
use crate::openai::generate::run_patiently;
use crate::openai::records::Status;
use crate::reply::whole;
use crate::request::{Endpoint, Form, Plan, Planner};

/// One line of a batch file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    custom_id: String,
    method: String,
    url: String,
    body: Map<String, Value>,
}

/// What a path that takes batches takes.
pub(crate) fn endpoint_of(path: &str) -> Option<Endpoint> {
    match path {
        "/v1/chat/completions" => Some(Endpoint::open_ai(Form::Chat)),
        "/v1/completions" => Some(Endpoint::open_ai(Form::Text)),
        "/v1/cartridge/chat/completions" | "/custom/cartridge/chat/completions" => {
            Some(Endpoint::tokasaurus(Form::Chat, true))
        }
        "/v1/cartridge/completions" | "/custom/cartridge/completions" => {
            Some(Endpoint::tokasaurus(Form::Text, true))
        }
        _ => None,
    }
}

/// Reads all lines; each must be a request that the endpoint takes.
pub(crate) fn read_lines(
    app: &App,
    caller: &Caller,
    content: &[u8],
    url: &str,
    endpoint: Endpoint,
) -> Result<Vec<Line>, ApiError> {
    let mut lines = Vec::new();
    for (at, text) in content.split(|byte| *byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let refuse = |problem: String| {
            let message = format!("Line {} did not parse: {problem}", at + 1);
            ApiError::field("input_file_id", message)
        };
        let line: Line = serde_json::from_slice(text).map_err(|error| refuse(error.to_string()))?;
        if line.method != "POST" || line.url != url {
            return Err(refuse(format!("method must be POST and url {url}")));
        }
        plan(app, caller, line.body.clone(), endpoint).map_err(|error| refuse(error.message))?;
        if lines.len() >= app.options.max_batch_requests {
            let most = app.options.max_batch_requests;
            let message = format!("the file has more than the {most} lines allowed");
            return Err(ApiError::field("input_file_id", message));
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return Err(ApiError::field("input_file_id", "the file has no lines"));
    }
    Ok(lines)
}

fn plan(
    app: &App,
    caller: &Caller,
    body: Map<String, Value>,
    endpoint: Endpoint,
) -> Result<Plan, ApiError> {
    let planner = Planner {
        options: &app.options,
        inference: &*app.inference,
        client: &caller.client,
    };
    let plan = planner.plan(body, endpoint)?;
    match plan.wanted.stream {
        true => Err(ApiError::field(
            "stream",
            "a request of a batch cannot be streamed",
        )),
        false => Ok(plan),
    }
}

/// Answers the lines in the background.
pub(crate) fn start(
    app: Arc<App>,
    caller: Caller,
    id: String,
    lines: Vec<Line>,
    endpoint: Endpoint,
) {
    let (in_task, batch) = (app.clone(), id.clone());
    let task = tokio::spawn(async move {
        if let Err(problem) = answer_all(&in_task, &caller, &batch, lines, endpoint).await {
            in_task
                .store
                .end_batch(&batch, Status::Failed, Some(problem));
        }
    });
    app.store
        .change_batch(&id, |batch| batch.task = Some(task.abort_handle()));
    tokio::spawn(async move {
        if task.await.is_err_and(|error| error.is_panic()) {
            let error = ApiError::internal(format!("batch {id} panicked"));
            app.store
                .end_batch(&id, Status::Failed, Some(error.message));
        }
    });
}

async fn answer_all(
    app: &App,
    caller: &Caller,
    batch: &str,
    lines: Vec<Line>,
    endpoint: Endpoint,
) -> Result<(), String> {
    let mut output = String::new();
    let mut answers = stream::iter(lines)
        .map(|line| answer(app, caller, line, endpoint))
        .buffered(app.options.batch_concurrency);
    while let Some((line, fine)) = answers.next().await {
        output.push_str(&line);
        output.push('\n');
        let room = app
            .store
            .count_answer(batch, fine, line.len() + 1, &app.options);
        if !room {
            return Err("the answers are larger than the server may hold".to_owned());
        }
    }
    let (name, purpose) = ("results.jsonl".to_owned(), "batch_output".to_owned());
    let file = app
        .store
        .add_file(&caller.owner, name, purpose, output.into(), &app.options)
        .map_err(|error| error.message)?;
    app.store
        .change_batch(batch, |batch| batch.output = Some(file.id));
    app.store.end_batch(batch, Status::Completed, None);
    Ok(())
}

/// The output line for an input line, and whether it is an answer (else an error).
async fn answer(app: &App, caller: &Caller, line: Line, endpoint: Endpoint) -> (String, bool) {
    let answered = match plan(app, caller, line.body, endpoint) {
        Ok(plan) => run_patiently(app, plan.jobs)
            .await
            .map(|choices| whole(app, &plan.wanted, &choices)),
        Err(error) => Err(error),
    };
    let (status, body, fine) = match answered {
        Ok(body) => (200, body, true),
        Err(error) => (
            error.status(endpoint.dialect).as_u16(),
            error.body(Dialect::OpenAi),
            false,
        ),
    };
    let request_id = uuid::Uuid::new_v4().to_string();
    let response = json!({"status_code": status, "request_id": request_id, "body": body});
    let line = json!({"id": "tokasaurus", "custom_id": line.custom_id, "response": response,
        "error": null});
    (line.to_string(), fine)
}
