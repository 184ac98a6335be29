//! Many chat requests in one call, answered as a Python pickle.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value};

use crate::api_error::ApiError;
use crate::app::App;
use crate::compat::pickle::{Objects, pickle_list};
use crate::guard::{Caller, JsonBody};
use crate::openai::run_patiently;
use crate::reply::whole;
use crate::request::{Endpoint, Form, Planner};

/// `/custom/synchronous-batch-completions` and its older name.
pub(crate) async fn plain_batch(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let endpoint = Endpoint::tokasaurus(Form::Chat, false);
    batch(&app, &caller, &headers, body, endpoint, Objects::Namespaces).await
}

/// `/custom/cartridge/synchronous-batch-completions` and its older name.
pub(crate) async fn cartridge_batch(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let endpoint = Endpoint::tokasaurus(Form::Chat, true);
    batch(
        &app,
        &caller,
        &headers,
        body,
        endpoint,
        Objects::DictOfNamespaces,
    )
    .await
}

async fn batch(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    body: Map<String, Value>,
    endpoint: Endpoint,
    objects: Objects,
) -> Result<Response, ApiError> {
    app.check_queue()?;
    let mut plans = Vec::new();
    for (at, request) in requests(body, app.options.max_batch_requests)?
        .into_iter()
        .enumerate()
    {
        let place = format!("requests.{at}");
        let Value::Object(request) = request else {
            return Err(ApiError::schema(place, "a request must be an object"));
        };
        let planner = Planner {
            options: &app.options,
            inference: &*app.inference,
            client: &caller.client,
        };
        let plan = planner
            .plan(request, endpoint)
            .map_err(|error| error.within(&place))?;
        if plan.wanted.stream {
            return Err(ApiError::field(
                place,
                "a request of a batch cannot be streamed",
            ));
        }
        plans.push(plan);
    }
    let work = stream::iter(plans)
        .map(|plan| async move {
            let choices = run_patiently(app, plan.jobs).await?;
            Ok::<Value, ApiError>(whole(app, &plan.wanted, &choices))
        })
        .buffered(app.options.batch_concurrency)
        .try_collect();
    let items: Vec<Value> = tokio::time::timeout(app.options.request_timeout(), work)
        .await
        .unwrap_or_else(|_| Err(crate::JobError::TimedOut.into()))?;
    // JSON for clients that would rather not unpickle what a server sends.
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/json")) {
        return Ok(Json(items).into_response());
    }
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, pickle_list(&items, objects)?).into_response())
}

fn requests(mut body: Map<String, Value>, most: usize) -> Result<Vec<Value>, ApiError> {
    let requests = body.remove("requests");
    if let Some(name) = body.keys().next() {
        return Err(ApiError::schema(
            name.clone(),
            format!("unknown field `{name}`"),
        ));
    }
    let Some(Value::Array(requests)) = requests else {
        return Err(ApiError::schema("requests", "`requests` must be a list"));
    };
    if requests.len() > most {
        let message = format!(
            "{} requests are more than the {most} allowed",
            requests.len()
        );
        return Err(ApiError::field("requests", message));
    }
    Ok(requests)
}
