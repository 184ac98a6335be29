//! `/v1/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::api_error::{ApiError, Kind};
use crate::app::App;
use crate::inference::Served;

fn describe(served: &Served) -> Value {
    json!({
        "id": served.model_id,
        "object": "model",
        "created": served.created,
        "owned_by": "tokasaurus",
        "max_model_len": served.max_tokens_per_request,
    })
}

/// The one model.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, description = "The model")))]
pub(crate) async fn list_models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [describe(app.inference.served())]}))
}

/// The model of that name; a name may hold slashes.
#[utoipa::path(get, path = "/v1/models/{id}", params(("id" = String, Path, description = "Name")),
    responses((status = 200, description = "The model"), (status = 404, description = "Another name")))]
pub(crate) async fn get_model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let served = app.inference.served();
    if id == "default" || id.eq_ignore_ascii_case(&served.model_id) {
        return Ok(Json(describe(served)));
    }
    Err(ApiError {
        kind: Kind::NoSuchPart,
        message: format!("model `{id}` is not served here"),
        param: Some("model".into()),
    })
}
