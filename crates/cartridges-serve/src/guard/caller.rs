//! Who sends a request.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api_error::{ApiError, Kind};
use crate::app::App;
use crate::guard::origin::check_origin;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

/// Who sends a request, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Whose turn it is: the key's name, or else the address.
    pub client: String,
    /// Whose files these are: the key's name; without keys the address, or nothing on loopback.
    pub owner: String,
}

/// Paths that need no key. The page holds no secret; what it shows it asks for with the key.
const OPEN: &[&str] = &["/health", "/ready", "/"];

/// Lets a request in or not, and notes who sent it.
pub(crate) async fn guard(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Err(error) = check_origin(request.headers(), app.loopback, &app.options) {
        return error.into_response();
    }
    let peer = request
        .extensions()
        .get::<Peer>()
        .map(|peer| peer.0.ip().to_string());
    let peer = peer.unwrap_or_default();
    let caller = match app.keys.check(request.headers()) {
        Some(key) => Caller {
            client: key.clone(),
            owner: key,
        },
        None if app.keys.is_empty() => Caller {
            // All programs of this machine are one person's; strangers are not.
            owner: if app.loopback {
                String::new()
            } else {
                peer.clone()
            },
            client: peer,
        },
        None if OPEN.contains(&request.uri().path()) => Caller {
            client: peer,
            owner: String::new(),
        },
        None => {
            let message = "an API key is needed: send the header `Authorization: Bearer <key>`";
            return ApiError::new(Kind::Unauthorized, message).into_response();
        }
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}
