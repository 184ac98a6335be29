//! The server over real connections, with a scripted engine.

mod fake;

mod support {
    use std::sync::Arc;

    use cartridges_serve::{Server, ServerOptions};
    use serde_json::{Value, json};
    use tokio::sync::oneshot;

    use crate::fake::Fake;

    pub struct Running {
        pub url: String,
        pub fake: Arc<Fake>,
        pub http: reqwest::Client,
        pub stop: Option<oneshot::Sender<()>>,
        pub ended: Option<tokio::task::JoinHandle<()>>,
    }

    pub fn options() -> ServerOptions {
        ServerOptions {
            port: 0,
            ..ServerOptions::default()
        }
    }

    pub async fn start(options: ServerOptions) -> Running {
        let fake = Arc::new(Fake::default());
        let server = Server::bind(options, fake.clone()).await.unwrap();
        let url = server.url();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            server.serve(shutdown).await.unwrap();
        });
        let http = reqwest::Client::new();
        Running {
            url,
            fake,
            http,
            stop: Some(stop),
            ended: Some(ended),
        }
    }

    impl Running {
        pub async fn post(&self, path: &str, body: Value) -> reqwest::Response {
            self.http
                .post(format!("{}{path}", self.url))
                .json(&body)
                .send()
                .await
                .unwrap()
        }

        pub async fn get(&self, path: &str) -> reqwest::Response {
            self.http
                .get(format!("{}{path}", self.url))
                .send()
                .await
                .unwrap()
        }

        /// Status and JSON of a POST.
        pub async fn json(&self, path: &str, body: Value) -> (u16, Value) {
            let response = self.post(path, body).await;
            (response.status().as_u16(), response.json().await.unwrap())
        }
    }

    pub fn chat(text: &str, more: Value) -> Value {
        let mut body = json!({"model": "fake/Model-1",
            "messages": [{"role": "user", "content": text}]});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    /// The JSON of all events; the last must be `[DONE]`.
    pub fn events(text: &str) -> Vec<Value> {
        let mut lines: Vec<&str> = text.split("\n\n").filter(|part| !part.is_empty()).collect();
        assert_eq!(lines.pop(), Some("data: [DONE]"));
        let read = |line: &str| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
        lines.into_iter().map(read).collect()
    }
}

#[path = "http/batches.rs"]
mod batches;
#[path = "http/compat.rs"]
mod compat;
#[path = "http/generate.rs"]
mod generate;
#[path = "http/life.rs"]
mod life;
#[path = "http/odd.rs"]
mod odd;
#[path = "http/security.rs"]
mod security;
