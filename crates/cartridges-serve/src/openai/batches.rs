//! `/v1/batches`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::app::{App, now};
use crate::guard::{Caller, JsonBody};
use crate::openai::batch_run::{endpoint_of, read_lines, start};
use crate::openai::records::{Batch, Status};

/// Largest notes of a client, in bytes of JSON.
const MAX_METADATA: usize = 16 << 10;

/// Longest `completion_window`.
const MAX_WINDOW: usize = 32;

/// A wish for a batch.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest {
    /// A file of JSON lines, each with `custom_id`, `method`, `url` and `body`.
    input_file_id: String,
    /// The path that all lines name.
    endpoint: String,
    /// How long it may take; told again but otherwise without effect.
    completion_window: Option<String>,
    /// The client's own notes.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Value,
}

/// Starts a batch.
#[utoipa::path(post, path = "/v1/batches", request_body = BatchRequest,
    responses((status = 200, description = "The batch"),
        (status = 400, description = "A line that cannot be read"),
        (status = 404, description = "No such file")))]
pub(crate) async fn create_batch(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let request: BatchRequest = crate::request::read(&Value::Object(body))?;
    check_notes(&request)?;
    let file = app.store.file(&caller.owner, &request.input_file_id)?;
    if file.purpose != "batch" {
        let message = format!("the file's purpose is `{}`, not `batch`", file.purpose);
        return Err(ApiError::field("input_file_id", message));
    }
    let endpoint = endpoint_of(&request.endpoint).ok_or_else(|| {
        ApiError::field(
            "endpoint",
            format!("`{}` takes no batches", request.endpoint),
        )
    })?;
    let lines = read_lines(&app, &caller, &file.content, &request.endpoint, endpoint)?;
    let batch = Batch {
        id: uuid::Uuid::new_v4().to_string(),
        owner: caller.owner.clone(),
        endpoint: request.endpoint,
        input: file.id,
        window: request
            .completion_window
            .unwrap_or_else(|| "24h".to_owned()),
        metadata: request.metadata,
        status: Status::InProgress,
        output: None,
        problem: None,
        created: now(),
        ended: None,
        counts: [lines.len(), 0, 0],
        bytes: file.content.len(),
        task: None,
    };
    let (id, described) = (batch.id.clone(), batch.describe());
    app.store.add_batch(batch, &app.options)?;
    start(app, caller, id, lines, endpoint);
    Ok(Json(described))
}

/// What is kept of the client's own words is small.
fn check_notes(request: &BatchRequest) -> Result<(), ApiError> {
    if !(request.metadata.is_null() || request.metadata.is_object())
        || request.metadata.to_string().len() > MAX_METADATA
    {
        let message = format!("`metadata` must be an object of at most {MAX_METADATA} bytes");
        return Err(ApiError::field("metadata", message));
    }
    if request
        .completion_window
        .as_ref()
        .is_some_and(|window| window.len() > MAX_WINDOW)
    {
        return Err(ApiError::field(
            "completion_window",
            "`completion_window` is too long",
        ));
    }
    Ok(())
}

/// All batches.
#[utoipa::path(get, path = "/v1/batches", responses((status = 200, description = "The batches")))]
pub(crate) async fn list_batches(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Json<Value> {
    let batches = app.store.batches(&caller.owner);
    let data: Vec<Value> = batches.iter().map(|batch| batch.describe()).collect();
    Json(json!({"object": "list", "data": data, "has_more": false}))
}

/// How far a batch is.
#[utoipa::path(get, path = "/v1/batches/{id}", params(("id" = String, Path)),
    responses((status = 200, description = "The batch"), (status = 404, description = "No such batch")))]
pub(crate) async fn get_batch(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(app.store.batch(&caller.owner, &id)?.describe()))
}

/// Ends a batch; its answers so far are lost.
#[utoipa::path(post, path = "/v1/batches/{id}/cancel", params(("id" = String, Path)),
    responses((status = 200, description = "The batch"), (status = 404, description = "No such batch")))]
pub(crate) async fn cancel_batch(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.store.batch(&caller.owner, &id)?;
    app.store.end_batch(&id, Status::Cancelled, None);
    Ok(Json(app.store.batch(&caller.owner, &id)?.describe()))
}
