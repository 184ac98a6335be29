//! A server on 127.0.0.1 that writes what a test tells it, and nothing but text.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What comes of one request.
pub enum Act {
    /// Status, further header lines, body.
    Reply(u16, &'static str, String),
    /// Promises the whole of a body and sends half of it.
    Half(String),
    /// Says nothing for three seconds.
    Hang,
    /// Closes the connection.
    Close,
}

impl Act {
    /// An answer in the form of OpenAI's chat completions, without ids and log-probs.
    pub fn text(content: &str, finish_reason: &str) -> Self {
        Self::Reply(200, "", chat(content, finish_reason))
    }
}

/// The body of an answer.
pub fn chat(content: &str, finish_reason: &str) -> String {
    let message = json!({"role": "assistant", "content": content});
    let choice = json!({"index": 0, "message": message, "finish_reason": finish_reason});
    json!({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}).to_string()
}

pub struct TextServer {
    pub url: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl TextServer {
    /// `act` gets the body of a request for an answer and the number of those before it.
    pub fn start(act: impl Fn(&Value, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            asked: Arc::default(),
        };
        let (act, asked) = (Arc::new(act), Arc::clone(&server.asked));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (act, asked) = (Arc::clone(&act), Arc::clone(&asked));
                thread::spawn(move || exchange(&stream, &*act, &asked));
            }
        });
        server
    }

    /// The bodies of the requests for answers, in order.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

/// Whether a request comes from the agent that asks; the other one gets what was asked.
pub fn is_question(body: &Value) -> bool {
    let messages = body["messages"].as_array().unwrap();
    let last = messages.last().unwrap()["content"].as_str().unwrap();
    !last.starts_with(QUESTION)
}

/// What the servers of these tests ask.
pub const QUESTION: &str = "Who keeps the lamp of Harrow Point?";

/// Asks [`QUESTION`], answers with `answer`.
pub fn talk(body: &Value, answer: &str, finish_reason: &str) -> Act {
    match is_question(body) {
        true => Act::text(QUESTION, "stop"),
        false => Act::text(answer, finish_reason),
    }
}

fn exchange(
    mut stream: &TcpStream,
    act: &dyn Fn(&Value, usize) -> Act,
    asked: &Mutex<Vec<Value>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end().to_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let act = if line.starts_with("GET ") {
        let models = json!({"data": [{"id": "writer"}]});
        Act::Reply(200, "", models.to_string())
    } else {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let before = {
            let mut asked = asked.lock().unwrap();
            asked.push(body.clone());
            asked.len() - 1
        };
        act(&body, before)
    };
    let (status, headers, body, sent) = match act {
        Act::Reply(status, headers, body) => (status, headers, body.clone(), body.len()),
        Act::Half(body) => (200, "", body.clone(), body.len() / 2),
        Act::Hang => {
            thread::sleep(Duration::from_secs(3));
            return None;
        }
        Act::Close => return None,
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Status\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body.as_bytes()[..sent]).ok()
}
