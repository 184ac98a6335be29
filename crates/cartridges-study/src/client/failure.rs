//! What can go wrong with one attempt of one request.

use std::time::{Duration, SystemTime};

use super::ClientError;

/// The longest part of a server's message that is repeated, in characters.
const MAX_MESSAGE: usize = 300;

/// The kinds of failures, which decide what is done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// No connection, or one that broke before the reply.
    Connection,
    /// The attempt's time was over.
    TimedOut,
    /// Too many requests; the server is well otherwise.
    Busy,
    /// The server says that it failed (5xx).
    Server,
    /// The server refuses the request (other statuses); asking again changes nothing.
    Refused,
    /// The reply broke off.
    CutOff,
    /// The reply is longer than allowed.
    TooLong,
    /// The reply makes no sense.
    BadReply,
}

impl FailureKind {
    /// The name by which failures are counted.
    pub fn cause(self) -> &'static str {
        match self {
            FailureKind::Connection => "connection",
            FailureKind::TimedOut => "timed out",
            FailureKind::Busy => "busy",
            FailureKind::Server => "server error",
            FailureKind::Refused => "refused",
            FailureKind::CutOff => "cut off",
            FailureKind::TooLong => "too long",
            FailureKind::BadReply => "bad reply",
        }
    }

    /// Whether another attempt may go better.
    pub fn retried(self) -> bool {
        !matches!(self, FailureKind::Refused | FailureKind::TooLong)
    }

    /// Whether it says something about the server, beyond this request.
    pub fn blames_server(self) -> bool {
        matches!(
            self,
            FailureKind::Connection
                | FailureKind::TimedOut
                | FailureKind::Server
                | FailureKind::CutOff
        )
    }

    /// Whether there was a reply that could not be used; asked for seldom, since it may well be the
    /// same again.
    pub fn is_bad_reply(self) -> bool {
        matches!(
            self,
            FailureKind::CutOff | FailureKind::TooLong | FailureKind::BadReply
        )
    }
}

/// A failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub kind: FailureKind,
    pub message: String,
    /// How long the server asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    /// A status other than success, with the server's own words.
    pub fn status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let kind = match status {
            429 => FailureKind::Busy,
            408 | 425 | 500..=599 => FailureKind::Server,
            _ => FailureKind::Refused,
        };
        let message = match server_message(body) {
            Some(said) => format!("status {status}: {said}"),
            None => format!("status {status}"),
        };
        Self {
            kind,
            message,
            retry_after,
        }
    }

    /// The failure as the trait's callers see it, when no attempt is left.
    pub fn into_error(self, server: &str) -> ClientError {
        let message = format!("{server}: {}", self.message);
        match self.kind {
            FailureKind::BadReply => ClientError::BadReply(message),
            kind => ClientError::Unavailable {
                cause: kind.cause(),
                message,
            },
        }
    }
}

/// What a reply's reader says about it.
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = match error {
            ClientError::BadReply(message) => message,
            other => other.to_string(),
        };
        Failure::new(FailureKind::BadReply, presentable(&message))
    }
}

/// The message in an error's body, in any of the usual forms.
fn server_message(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) => ["/error/message", "/error", "/detail", "/message"]
            .iter()
            .find_map(|at| value.pointer(at)?.as_str().map(str::to_owned))
            .unwrap_or_else(|| value.to_string()),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let text = presentable(&text);
    (!text.is_empty()).then_some(text)
}

/// Foreign text on one line of bounded length, without what could steer a terminal.
pub(super) fn presentable(text: &str) -> String {
    let mut words = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
        if words.len() > 8 * MAX_MESSAGE {
            break;
        }
    }
    match words.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// The value of a `Retry-After` header: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = httpdate::parse_http_date(value).ok()?;
    // A moment that is past asks for no pause.
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates() {
        // The date of RFC 9110's example, 784111777 seconds after 1970.
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_999);
        assert_eq!(retry_after("120", before), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(date, before), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(date, after), Some(Duration::ZERO));
        for nonsense in ["soon", "-1", "NaN", "inf", ""] {
            assert_eq!(retry_after(nonsense, before), None, "{nonsense}");
        }
    }

    #[test]
    fn messages_are_found_and_made_harmless() {
        for body in [
            r#"{"error": {"message": "no such model", "code": 404}}"#,
            r#"{"error": "no such model"}"#,
            r#"{"detail": "no such model"}"#,
            r#"{"object": "error", "message": "no such model"}"#,
            "no such\r\n \u{1b} model",
        ] {
            let failure = Failure::status(404, body.as_bytes(), None);
            assert_eq!(failure.message, "status 404: no such model");
            assert_eq!(failure.kind, FailureKind::Refused);
        }
        assert_eq!(Failure::status(503, b"", None).message, "status 503");
        assert_eq!(presentable(&"é".repeat(1000)).chars().count(), 301);
    }
}
