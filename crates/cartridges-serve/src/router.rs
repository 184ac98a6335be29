//! Which path goes where, and what every request passes.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::api_error::{ApiError, Kind, render};
use crate::app::App;
use crate::{compat, docs, guard, openai, page, status};

/// All paths.
pub(crate) fn router(app: Arc<App>) -> Router {
    let open_ai = Router::new()
        .route("/v1/models", get(openai::list_models))
        .route("/v1/models/{*id}", get(openai::get_model))
        .route("/v1/chat/completions", post(openai::chat_completions))
        .route("/v1/completions", post(openai::completions))
        .route(
            "/v1/files",
            post(openai::create_file).get(openai::list_files),
        )
        .route(
            "/v1/files/{id}",
            get(openai::get_file).delete(openai::delete_file),
        )
        .route("/v1/files/{id}/content", get(openai::file_content))
        .route(
            "/v1/batches",
            post(openai::create_batch).get(openai::list_batches),
        )
        .route("/v1/batches/{id}", get(openai::get_batch))
        .route("/v1/batches/{id}/cancel", post(openai::cancel_batch));
    let tokasaurus = Router::new()
        .route("/ping", get(status::ping))
        .route(
            "/custom/cartridge/completions",
            post(openai::cartridge_text),
        )
        .route("/v1/cartridge/completions", post(openai::cartridge_text))
        .route(
            "/custom/cartridge/chat/completions",
            post(openai::cartridge_chat),
        )
        .route(
            "/v1/cartridge/chat/completions",
            post(openai::cartridge_chat),
        )
        .route(
            "/custom/synchronous-batch-completions",
            post(compat::plain_batch),
        )
        .route("/batch/chat/completions", post(compat::plain_batch))
        .route(
            "/custom/cartridge/synchronous-batch-completions",
            post(compat::cartridge_batch),
        )
        .route(
            "/batch/cartridge/chat/completions",
            post(compat::cartridge_batch),
        );
    Router::new()
        .merge(open_ai)
        .merge(tokasaurus)
        .route("/", get(page::page))
        .route("/docs", get(docs::docs))
        .route("/openapi.json", get(docs::openapi))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/v1/cartridges", get(status::cartridges))
        .route("/v1/load", get(status::load))
        .fallback(nowhere)
        .layer(DefaultBodyLimit::max(app.options.max_body_bytes))
        // The last layer is the outermost.
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(render))
        .layer(middleware::from_fn_with_state(app.clone(), measure))
        .layer(middleware::map_response(page::secure))
        .with_state(app)
}

async fn nowhere() -> ApiError {
    ApiError::new(Kind::NotFound, "there is no such path")
}

/// A panic fails its own request and no other. What it said may be anything, so only the log gets it.
fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let cause = match (cause.downcast_ref::<&str>(), cause.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic".to_owned(),
    };
    ApiError::internal(format!("a request panicked: {cause}")).into_response()
}

/// Counts and times requests, and gives each an id.
async fn measure(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "none".to_owned());
    let method = match request.method().as_str() {
        method @ ("GET" | "POST" | "DELETE" | "HEAD" | "OPTIONS" | "PUT" | "PATCH") => method,
        _ => "other",
    };
    let method = method.to_owned();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let mut response = next.run(request).await;
    tracing::debug!(
        id,
        route,
        method,
        status = response.status().as_u16(),
        "request"
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    app.metrics
        .request(&route, &method, response.status().as_u16(), begun.elapsed());
    response
}
