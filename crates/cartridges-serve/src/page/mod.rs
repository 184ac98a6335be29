//! The web page.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("index.html");

/// `/`.
pub(crate) async fn page() -> impl IntoResponse {
    static POLICY: LazyLock<String> = LazyLock::new(|| policy(PAGE));
    (
        [(header::CONTENT_SECURITY_POLICY, POLICY.as_str())],
        Html(PAGE),
    )
}

/// A policy that allows the scripts and styles that are in the page, connections to this server, and
/// nothing else.
pub(crate) fn policy(page: &str) -> String {
    let sources = |element: &str| {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let inside = page
            .split(&open)
            .skip(1)
            .filter_map(|rest| rest.split(&close).next());
        let hashes = inside.map(|text| {
            format!(
                "'sha256-{}'",
                STANDARD.encode(Sha256::digest(text.as_bytes()))
            )
        });
        let hashes: Vec<String> = hashes.collect();
        if hashes.is_empty() {
            "'none'".to_owned()
        } else {
            hashes.join(" ")
        }
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        sources("script"),
        sources("style")
    )
}

/// Headers that keep browsers from doing more with a response than it is meant for.
pub(crate) async fn secure(response: Response) -> Response {
    let mut response = response.into_response();
    let headers = response.headers_mut();
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_writes_only_text() {
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://"));
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
    }

    #[test]
    fn the_policy_names_what_is_in_the_page() {
        // The digest of the three letters, known from the standard's own test vector.
        let policy = policy("<style>abc</style>");
        assert!(policy.contains("style-src 'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='"));
        assert!(policy.contains("script-src 'none'"));
    }
}
