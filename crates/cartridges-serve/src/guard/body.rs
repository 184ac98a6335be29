//! Reading of request bodies, within limits of size and time.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use crate::api_error::{ApiError, Kind};
use crate::app::App;

/// A JSON object.
pub(crate) struct JsonBody(pub Map<String, Value>);

impl FromRequest<Arc<App>> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        // Web pages can send other types without asking the server first.
        if !is_json(request.headers()) {
            let message = "the body must be JSON, with the header `Content-Type: application/json`";
            return Err(ApiError::new(Kind::MediaType, message));
        }
        let bytes = read_bytes(request.into_body(), app).await?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(ApiError::schema("", "the body must be a JSON object")),
            Err(error) => Err(ApiError::schema(
                "",
                format!("the body is not JSON: {error}"),
            )),
        }
    }
}

/// Reads a whole body.
async fn read_bytes(body: Body, app: &App) -> Result<Bytes, ApiError> {
    let most = app.options.max_body_bytes;
    let read = Limited::new(body, most).collect();
    match tokio::time::timeout(app.options.read_timeout(), read).await {
        Err(_) => Err(ApiError::new(
            Kind::SlowClient,
            "the body did not come in time",
        )),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than the {most} bytes allowed");
            Err(ApiError::new(Kind::TooLarge, message))
        }
        Ok(Err(error)) => Err(ApiError::schema(
            "",
            format!("the body cannot be read: {error}"),
        )),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_counts_as_json() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            is_json(&headers)
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=utf-8"));
        assert!(!check("text/plain"));
        assert!(!check("text/plain; application/json"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
