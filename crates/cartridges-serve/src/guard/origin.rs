//! Protection against web pages that talk to a server on the visitor's own machine.
//!
//! A page of another origin may send some requests without asking (CSRF), and a host name that
//! suddenly resolves to 127.0.0.1 makes a foreign page look like our own (DNS rebinding).

use axum::http::{HeaderMap, Uri, header};

use crate::api_error::{ApiError, Kind};
use crate::options::ServerOptions;

/// Refuses requests that a foreign web page seems to have sent.
pub(crate) fn check_origin(
    headers: &HeaderMap,
    loopback: bool,
    options: &ServerOptions,
) -> Result<(), ApiError> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let host = text(header::HOST).unwrap_or_default();
    if loopback && !is_own_name(host, options) {
        let message = "this host name is not one of the server's (option allowed_hosts)";
        return Err(ApiError::new(Kind::Forbidden, message));
    }
    let foreign = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_none_or(|authority| {
            let same = authority.eq_ignore_ascii_case(host);
            // Behind a proxy the host may have been rewritten, but the origin is the public name.
            !same && !name_of(authority).is_some_and(|name| is_allowed(&name, options))
        })
    };
    let cross_site = text(header::HeaderName::from_static("sec-fetch-site")) == Some("cross-site");
    let navigation = text(header::HeaderName::from_static("sec-fetch-mode")) == Some("navigate");
    if text(header::ORIGIN).is_some_and(foreign) || (cross_site && !navigation) {
        let message = "web pages of other origins may not use this server";
        return Err(ApiError::new(Kind::Forbidden, message));
    }
    Ok(())
}

/// Whether `host` (with or without port) means this machine or is allowed.
fn is_own_name(host: &str, options: &ServerOptions) -> bool {
    let Some(name) = name_of(host) else {
        return false;
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse();
    name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(crate::options::is_loopback)
        || is_allowed(&name, options)
}

fn is_allowed(name: &str, options: &ServerOptions) -> bool {
    let mut allowed = options.allowed_hosts.iter();
    allowed.any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// A host without its port. It is parsed as part of an address, so that IPv6 addresses and ports are
/// told apart.
fn name_of(host: &str) -> Option<String> {
    let uri = format!("http://{host}/").parse::<Uri>().ok()?;
    uri.host().map(|name| name.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(pairs: &[(&'static str, &str)], loopback: bool) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        let options = ServerOptions {
            allowed_hosts: vec!["box.example".into()],
            ..ServerOptions::default()
        };
        check_origin(&headers, loopback, &options).is_ok()
    }

    #[test]
    fn a_loopback_server_answers_to_its_own_names_only() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:9",
            "[::1]:9",
            "127.1.2.3",
            "box.example:1",
        ] {
            assert!(allowed(&[("host", host)], true), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "",
            "192.168.0.1",
            "127.0.0.1.evil.example",
        ] {
            assert!(!allowed(&[("host", host)], true), "{host}");
        }
        assert!(!allowed(&[], true));
        assert!(allowed(&[("host", "any.example")], false));
    }

    #[test]
    fn foreign_pages_are_refused() {
        let host = ("host", "localhost:1");
        assert!(allowed(&[host, ("origin", "http://localhost:1")], true));
        assert!(!allowed(&[host, ("origin", "http://localhost:2")], true));
        assert!(!allowed(&[host, ("origin", "null")], true));
        assert!(allowed(&[host, ("origin", "https://box.example")], true));
        assert!(!allowed(
            &[host, ("origin", "https://box.example.evil")],
            true
        ));
        assert!(!allowed(&[host, ("origin", "https://evil.example")], false));
        assert!(!allowed(&[host, ("sec-fetch-site", "cross-site")], true));
        assert!(allowed(&[host, ("sec-fetch-site", "same-origin")], true));
    }
}
