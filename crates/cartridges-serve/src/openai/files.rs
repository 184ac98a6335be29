//! `/v1/files`.

use std::sync::Arc;

use axum::extract::multipart::MultipartError;
use axum::extract::{Multipart, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api_error::{ApiError, Kind};
use crate::app::App;
use crate::guard::Caller;

/// Longest file name that is kept, in characters.
const MAX_NAME: usize = 256;

/// Takes a file: a form with `file` and `purpose` (`batch`).
#[utoipa::path(post, path = "/v1/files", responses((status = 200, description = "The file")))]
pub(crate) async fn create_file(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Json<Value>, ApiError> {
    let mut form = form.map_err(|error| ApiError::new(Kind::MediaType, error.to_string()))?;
    let read = async {
        let (mut file, mut purpose) = (None, None);
        while let Some(field) = form.next_field().await.map_err(broken)? {
            match field.name().unwrap_or_default() {
                "file" => {
                    let name: String = field
                        .file_name()
                        .unwrap_or("file")
                        .chars()
                        .take(MAX_NAME)
                        .collect();
                    file = Some((name, field.bytes().await.map_err(broken)?));
                }
                "purpose" => purpose = Some(field.text().await.map_err(broken)?),
                other => {
                    let message = format!("unknown field `{other}`");
                    return Err(ApiError::schema(other, message));
                }
            }
        }
        Ok((file, purpose))
    };
    let slow = || ApiError::new(Kind::SlowClient, "the file did not come in time");
    let (file, purpose) = tokio::time::timeout(app.options.read_timeout(), read)
        .await
        .map_err(|_| slow())??;
    let (name, content) =
        file.ok_or_else(|| ApiError::schema("file", "field `file` is missing"))?;
    let purpose =
        purpose.ok_or_else(|| ApiError::schema("purpose", "field `purpose` is missing"))?;
    if purpose.len() > MAX_NAME {
        return Err(ApiError::field("purpose", "`purpose` is too long"));
    }
    let file = app
        .store
        .add_file(&caller.owner, name, purpose, content, &app.options)?;
    Ok(Json(file.describe()))
}

fn broken(error: MultipartError) -> ApiError {
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Kind::TooLarge, "the file is too large"),
        _ => ApiError::schema("file", format!("the form cannot be read: {error}")),
    }
}

/// All files.
#[utoipa::path(get, path = "/v1/files", responses((status = 200, description = "The files")))]
pub(crate) async fn list_files(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Json<Value> {
    let files = app.store.files(&caller.owner);
    let data: Vec<Value> = files.iter().map(|file| file.describe()).collect();
    Json(json!({"object": "list", "data": data, "has_more": false}))
}

/// One file's description.
#[utoipa::path(get, path = "/v1/files/{id}", params(("id" = String, Path)),
    responses((status = 200, description = "The file"), (status = 404, description = "No such file")))]
pub(crate) async fn get_file(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(app.store.file(&caller.owner, &id)?.describe()))
}

/// What is in a file.
#[utoipa::path(get, path = "/v1/files/{id}/content", params(("id" = String, Path)),
    responses((status = 200, description = "Its bytes"), (status = 404, description = "No such file")))]
pub(crate) async fn file_content(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let file = app.store.file(&caller.owner, &id)?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        // It is the client's own bytes: no browser shall show them as a page of this server.
        (header::CONTENT_DISPOSITION, "attachment"),
    ];
    Ok((headers, file.content).into_response())
}

/// Forgets a file.
#[utoipa::path(delete, path = "/v1/files/{id}", params(("id" = String, Path)),
    responses((status = 200, description = "Done"), (status = 404, description = "No such file")))]
pub(crate) async fn delete_file(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.store.remove_file(&caller.owner, &id)?;
    Ok(Json(json!({"id": id, "object": "file", "deleted": true})))
}
