//! How the server is: health, readiness, measurements, cartridges, load.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::app::App;
use crate::inference::CartridgeInfo;

/// Whether the process answers at all.
#[utoipa::path(get, path = "/health", responses((status = 200, description = "It does")))]
pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether requests can be answered now.
#[utoipa::path(get, path = "/ready", responses((status = 200, description = "They can"),
    (status = 503, description = "Not yet, or not any more")))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> impl IntoResponse {
    match app.inference.ready() {
        true => (StatusCode::OK, Json(json!({"status": "ready"}))),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "not ready"})),
        ),
    }
}

/// Tokasaurus' sign of life.
#[utoipa::path(get, path = "/ping", responses((status = 200, description = "pong")))]
pub(crate) async fn ping() -> Json<Value> {
    Json(json!({"message": "pong"}))
}

/// The measurements in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "The measurements")))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, app.metrics.render(&app.inference.load()))
}

/// The cartridges that are here.
#[utoipa::path(get, path = "/v1/cartridges",
    responses((status = 200, description = "The cartridges", body = Vec<CartridgeInfo>)))]
pub(crate) async fn cartridges(State(app): State<Arc<App>>) -> Json<Value> {
    let mut cartridges = app.inference.cartridges();
    cartridges.sort_by(|a, b| a.id.cmp(&b.id));
    Json(json!({"object": "list", "data": cartridges}))
}

/// How busy the server is.
#[utoipa::path(get, path = "/v1/load", responses((status = 200, description = "The load")))]
pub(crate) async fn load(State(app): State<Arc<App>>) -> Json<Value> {
    let mut load = json!(app.inference.load());
    load["tokens_per_second"] = json!(app.metrics.tokens_per_second());
    Json(load)
}
