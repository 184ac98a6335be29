//! A server on 127.0.0.1 that does what a test tells it, and what tests of clients share.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{
    ChatMessage, ChatRequest, ClientConfig, ClientError, FleetConfig, HttpClient, PromptCodec,
};
use crate::conversation::Role;

/// One request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Method and path.
    pub line: String,
    pub authorization: Option<String>,
    /// `null` without a body.
    pub body: Value,
}

/// What the server does.
pub enum Act {
    /// Answers with a status and JSON.
    Json(u16, Value),
    /// The same, with further header lines.
    With(u16, &'static str, Value),
    /// Answers 200 with this text.
    Text(&'static str),
    /// Promises the whole of this text and sends half.
    Half(String),
    /// Says nothing for two seconds.
    Hang,
    /// Closes the connection.
    Close,
}

pub struct StandIn {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    most_at_once: Arc<AtomicUsize>,
}

impl StandIn {
    /// `act` gets the request and how many came before.
    pub fn start(act: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stand_in = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            seen: Arc::default(),
            most_at_once: Arc::default(),
        };
        let (seen, most) = (
            Arc::clone(&stand_in.seen),
            Arc::clone(&stand_in.most_at_once),
        );
        let (act, open) = (Arc::new(act), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (act, seen) = (Arc::clone(&act), Arc::clone(&seen));
                let (most, open) = (Arc::clone(&most), Arc::clone(&open));
                thread::spawn(move || {
                    most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    serve(&stream, &*act, &seen, &open);
                });
            }
        });
        stand_in
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: &TcpStream,
    act: &dyn Fn(&Seen, usize) -> Act,
    seen: &Mutex<Vec<Seen>>,
    open: &AtomicUsize,
) {
    let Some(request) = read(stream) else {
        open.fetch_sub(1, Ordering::SeqCst);
        return;
    };
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let act = act(&request, before);
    // Before the answer goes out: what is asked next must not overlap.
    open.fetch_sub(1, Ordering::SeqCst);
    let (status, headers, body) = match act {
        Act::Json(status, body) => (status, "", body.to_string()),
        Act::With(status, headers, body) => (status, headers, body.to_string()),
        Act::Text(text) => (200, "", text.to_owned()),
        Act::Half(text) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&text.as_bytes()[..text.len() / 2]);
            return;
        }
        Act::Hang => return thread::sleep(Duration::from_secs(2)),
        Act::Close => return,
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Status\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name.to_lowercase().as_str() {
            "authorization" => authorization = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        line,
        authorization,
        body: match length {
            0 => Value::Null,
            _ => serde_json::from_slice(&body).unwrap(),
        },
    })
}

/// An address that refuses connections.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Short times, so that tests are.
pub fn quick() -> FleetConfig {
    FleetConfig {
        concurrency: 4,
        timeout_seconds: 5.0,
        connect_timeout_seconds: 1.0,
        max_attempts: 3,
        backoff_seconds: 0.005,
        max_backoff_seconds: 0.02,
        rest_seconds: 0.02,
        patience_seconds: 2.0,
        ..FleetConfig::default()
    }
}

/// A request with a seed to tell it by.
pub fn request(seed: u64) -> ChatRequest {
    ChatRequest {
        messages: vec![
            ChatMessage::new(Role::System, "Know this."),
            ChatMessage::new(Role::User, "What?"),
        ],
        temperature: 0.6,
        max_completion_tokens: 8,
        top_logprobs: None,
        enable_thinking: None,
        seed,
        assistant_prefix: None,
    }
}

/// The same request, for a teacher's answer.
pub fn teacher_request() -> ChatRequest {
    ChatRequest {
        temperature: 0.0,
        top_logprobs: Some(2),
        enable_thinking: Some(false),
        ..request(7)
    }
}

/// The messages of [`request`] as they are sent.
pub fn sent_messages() -> Value {
    json!([
        {"role": "system", "content": "Know this."},
        {"role": "user", "content": "What?"},
    ])
}

/// One id per message, 1, 2, and so on; 99 for thinking and 77 for a given beginning.
pub struct CountingCodec;

impl PromptCodec for CountingCodec {
    fn encode(
        &self,
        messages: &[ChatMessage],
        enable_thinking: Option<bool>,
        assistant_prefix: Option<&str>,
    ) -> Result<Vec<u32>, ClientError> {
        let mut ids: Vec<u32> = (1..=messages.len() as u32).collect();
        ids.extend(enable_thinking.filter(|on| *on).map(|_| 99));
        ids.extend(assistant_prefix.map(|_| 77));
        Ok(ids)
    }
}

/// A client that nobody stops.
pub fn client(config: &ClientConfig) -> HttpClient {
    HttpClient::new(config, Some(Arc::new(CountingCodec)), Arc::default()).unwrap()
}
