//! The description of the interface.

use axum::Json;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};

use crate::{openai, status};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "cartridges",
        description = "A language model with trained KV caches. Speaks OpenAI's interface and that \
            of Tokasaurus' cartridge branch."
    ),
    paths(
        openai::documented::chat_completions,
        openai::documented::completions,
        openai::documented::list_models,
        openai::documented::get_model,
        openai::documented::create_file,
        openai::documented::list_files,
        openai::documented::get_file,
        openai::documented::file_content,
        openai::documented::delete_file,
        openai::documented::create_batch,
        openai::documented::list_batches,
        openai::documented::get_batch,
        openai::documented::cancel_batch,
        status::health,
        status::ready,
        status::ping,
        status::metrics,
        status::cartridges,
        status::load,
    )
)]
struct Described;

/// Older and other names: path, whose description it has, and what is different.
const ALIASES: &[(&str, &str, &str)] = &[
    (
        "/custom/cartridge/chat/completions",
        "/v1/chat/completions",
        TOKASAURUS,
    ),
    (
        "/v1/cartridge/chat/completions",
        "/v1/chat/completions",
        TOKASAURUS,
    ),
    (
        "/custom/cartridge/completions",
        "/v1/completions",
        TOKASAURUS,
    ),
    ("/v1/cartridge/completions", "/v1/completions", TOKASAURUS),
    (
        "/custom/synchronous-batch-completions",
        "/v1/chat/completions",
        PICKLE,
    ),
    ("/batch/chat/completions", "/v1/chat/completions", PICKLE),
    (
        "/custom/cartridge/synchronous-batch-completions",
        "/v1/chat/completions",
        PICKLE,
    ),
    (
        "/batch/cartridge/chat/completions",
        "/v1/chat/completions",
        PICKLE,
    ),
];
const TOKASAURUS: &str = "As Tokasaurus: unknown fields are refused with 422, cartridges are sorted \
    by id, errors are `{\"detail\": …}`.";
const PICKLE: &str = "As Tokasaurus: the body is `{\"requests\": […]}`, a list of such requests, and \
    the response a Python pickle (or JSON, if `Accept` says so).";

/// The description as OpenAPI.
pub(crate) fn document() -> Document {
    let mut document = Described::openapi();
    if let Some(components) = document.components.as_mut() {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.security_schemes.insert("key".to_owned(), bearer);
    }
    let key = SecurityRequirement::new("key", Vec::<String>::new());
    document.security = Some(vec![key]);
    for (path, like, difference) in ALIASES {
        let Some(mut item) = document.paths.paths.get(*like).cloned() else {
            continue;
        };
        if let Some(operation) = item.post.as_mut() {
            operation.operation_id = Some(path.trim_start_matches('/').replace(['/', '-'], "_"));
            operation.description = Some((*difference).to_owned());
        }
        document.paths.paths.insert((*path).to_owned(), item);
    }
    document
}

/// `/openapi.json`.
pub(crate) async fn openapi() -> impl IntoResponse {
    Json(document())
}

/// `/docs`: a plain page that lists the paths. Nothing in it comes from a request.
pub(crate) async fn docs() -> impl IntoResponse {
    let mut rows = String::new();
    for (path, item) in &document().paths.paths {
        let methods = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("DELETE", &item.delete),
        ];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            let text = [&operation.summary, &operation.description];
            let text: Vec<&str> = text.into_iter().flatten().map(String::as_str).collect();
            let text = escape(&text.join(" "));
            rows.push_str(&format!(
                "<tr><td>{method}</td><td><code>{}</code></td><td>{text}</td></tr>\n",
                escape(path)
            ));
        }
    }
    let page = include_str!("page/docs.html").replace("<!-- rows -->", &rows);
    (
        [(header::CONTENT_SECURITY_POLICY, crate::page::policy(&page))],
        Html(page),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_are_described() {
        let document = document();
        for (path, _, _) in ALIASES {
            assert!(document.paths.paths.contains_key(*path), "{path}");
        }
        let text = document.to_json().unwrap();
        for word in [
            "/v1/batches/{id}/cancel",
            "logprobs_in_fingerprint",
            "top_logprobs",
            "prompt",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
