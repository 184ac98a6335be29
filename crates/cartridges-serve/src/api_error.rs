//! An error as a client sees it.
//!
//! Handlers say what is wrong; how it is written (`{"error": …}` on OpenAI paths, `{"detail": …}`
//! on Tokasaurus paths) is decided once, by [`render`].

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::answer::JobError;

/// Whose conventions a path follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI's.
    OpenAi,
    /// Tokasaurus', of the cartridges branch.
    Tokasaurus,
}

impl Dialect {
    /// The conventions of a path.
    pub fn of(path: &str) -> Self {
        let tokasaurus = ["/custom/", "/batch/", "/v1/cartridge/", "/ping"];
        match tokasaurus.iter().any(|prefix| path.starts_with(prefix)) {
            true => Dialect::Tokasaurus,
            false => Dialect::OpenAi,
        }
    }
}

/// What kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A value that is not allowed.
    Invalid,
    /// A body that does not have the described form.
    Schema,
    /// Prompt and answer are too long.
    TooLong,
    /// A key is missing or wrong.
    Unauthorized,
    /// Refused whatever the key.
    Forbidden,
    /// No such path, file or batch.
    NotFound,
    /// No such model, cartridge or adapter.
    NoSuchPart,
    /// The path is there, the method is not.
    Method,
    /// The client sent too slowly.
    SlowClient,
    /// The body is too large.
    TooLarge,
    /// The body is not what the path reads.
    MediaType,
    /// Try again later.
    Busy,
    /// Not now, and not here again.
    Unavailable,
    /// The answer took too long.
    TimedOut,
    /// Our fault.
    Internal,
}

/// An error that is told to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// Its kind.
    pub kind: Kind,
    /// What is wrong, in words.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
}

impl ApiError {
    /// An error without a field.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            param: None,
        }
    }

    /// A field with a value that is not allowed.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Invalid,
            message: message.into(),
            param: Some(param.into()),
        }
    }

    /// A field that should not be there or has the wrong type.
    pub fn schema(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Schema,
            message: message.into(),
            param: Some(param.into()),
        }
    }

    /// A fault on our side: `cause` goes to the log, the client gets an id to ask for.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        tracing::error!(id, "internal error: {cause}");
        Self::from(JobError::Internal { id })
    }

    /// The same error, with `place` in front of the message.
    pub fn within(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The HTTP status.
    pub fn status(&self, dialect: Dialect) -> StatusCode {
        match (self.kind, dialect) {
            (Kind::Schema, Dialect::Tokasaurus) => StatusCode::UNPROCESSABLE_ENTITY,
            (Kind::NoSuchPart, Dialect::Tokasaurus) => StatusCode::BAD_REQUEST,
            (Kind::Invalid | Kind::Schema | Kind::TooLong, _) => StatusCode::BAD_REQUEST,
            (Kind::Unauthorized, _) => StatusCode::UNAUTHORIZED,
            (Kind::Forbidden, _) => StatusCode::FORBIDDEN,
            (Kind::NotFound | Kind::NoSuchPart, _) => StatusCode::NOT_FOUND,
            (Kind::Method, _) => StatusCode::METHOD_NOT_ALLOWED,
            (Kind::SlowClient, _) => StatusCode::REQUEST_TIMEOUT,
            (Kind::TooLarge, _) => StatusCode::PAYLOAD_TOO_LARGE,
            (Kind::MediaType, _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            (Kind::Busy, _) => StatusCode::TOO_MANY_REQUESTS,
            (Kind::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
            (Kind::TimedOut, _) => StatusCode::GATEWAY_TIMEOUT,
            (Kind::Internal, _) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body.
    pub fn body(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenAi => self.open_ai(),
            Dialect::Tokasaurus if self.kind == Kind::Schema => {
                let field = self.param.as_deref().unwrap_or_default();
                let place: Vec<&str> = std::iter::once("body")
                    .chain(field.split('.').filter(|part| !part.is_empty()))
                    .collect();
                json!({"detail": [{"type": "value_error", "loc": place, "msg": self.message}]})
            }
            Dialect::Tokasaurus => json!({"detail": self.message}),
        }
    }

    fn open_ai(&self) -> Value {
        let (kind, code) = match self.kind {
            Kind::Invalid | Kind::Method | Kind::MediaType => ("invalid_request_error", None),
            Kind::Schema => ("invalid_request_error", Some("invalid_body")),
            Kind::TooLong => ("invalid_request_error", Some("context_length_exceeded")),
            Kind::Unauthorized => ("authentication_error", Some("invalid_api_key")),
            Kind::Forbidden => ("permission_error", None),
            Kind::NotFound => ("invalid_request_error", Some("not_found")),
            Kind::NoSuchPart if self.param.as_deref() == Some("model") => {
                ("invalid_request_error", Some("model_not_found"))
            }
            Kind::NoSuchPart => ("invalid_request_error", Some("cartridge_not_found")),
            Kind::SlowClient => ("timeout", Some("request_timeout")),
            Kind::TooLarge => ("invalid_request_error", Some("request_too_large")),
            Kind::Busy => ("rate_limit_error", Some("rate_limit_exceeded")),
            Kind::Unavailable => ("server_error", Some("service_unavailable")),
            Kind::TimedOut => ("server_error", Some("timeout")),
            Kind::Internal => ("server_error", Some("internal_error")),
        };
        json!({"error": {
            "message": self.message, "type": kind, "param": self.param, "code": code,
        }})
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        let kind = match &error {
            JobError::Invalid(_) => Kind::Invalid,
            JobError::NotFound(_) => Kind::NoSuchPart,
            JobError::TooLong(_) => Kind::TooLong,
            JobError::Busy => Kind::Busy,
            JobError::ShuttingDown => Kind::Unavailable,
            JobError::TimedOut => Kind::TimedOut,
            JobError::Internal { .. } => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for ApiError {
    /// An empty response that carries the error to [`render`].
    fn into_response(self) -> Response {
        let mut response = self.status(Dialect::OpenAi).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the errors of everything inside it in the conventions of the request's path.
pub(crate) async fn render(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let error = ApiError::new(Kind::Method, "this path does not take that method");
        response.extensions_mut().insert(error);
    }
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    let mut rendered = (error.status(dialect), axum::Json(error.body(dialect))).into_response();
    let headers = rendered.headers_mut();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        headers.insert(header::ALLOW, allow.clone());
    }
    match error.kind {
        Kind::Busy => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Kind::Unauthorized => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The rest of the body was not read, so the connection cannot be used again.
        Kind::TooLarge | Kind::SlowClient => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_dialects() {
        let error = ApiError::schema("messages.0.role", "unknown role");
        assert_eq!(error.status(Dialect::OpenAi), 400);
        assert_eq!(
            error.body(Dialect::OpenAi)["error"]["param"],
            "messages.0.role"
        );
        assert_eq!(error.status(Dialect::Tokasaurus), 422);
        let detail = &error.body(Dialect::Tokasaurus)["detail"][0];
        assert_eq!(detail["loc"], json!(["body", "messages", "0", "role"]));
        let error = ApiError::from(JobError::NotFound("no cartridge `x`".into()));
        assert_eq!(error.status(Dialect::OpenAi), 404);
        assert_eq!(error.status(Dialect::Tokasaurus), 400);
        assert_eq!(
            error.body(Dialect::Tokasaurus),
            json!({"detail": "no cartridge `x`"})
        );
    }

    #[test]
    fn paths_have_dialects() {
        assert_eq!(Dialect::of("/v1/chat/completions"), Dialect::OpenAi);
        assert_eq!(Dialect::of("/v1/cartridges"), Dialect::OpenAi);
        assert_eq!(
            Dialect::of("/v1/cartridge/completions"),
            Dialect::Tokasaurus
        );
        assert_eq!(
            Dialect::of("/custom/synchronous-batch-completions"),
            Dialect::Tokasaurus
        );
        assert_eq!(Dialect::of("/batch/chat/completions"), Dialect::Tokasaurus);
    }

    #[test]
    fn causes_are_not_told() {
        let error = ApiError::internal("secret path");
        assert!(!error.body(Dialect::OpenAi).to_string().contains("secret"));
    }
}
