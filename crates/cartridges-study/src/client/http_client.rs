//! The servers as a [`ChatClient`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use super::config::{ClientConfig, ClientConfigError};
use super::fleet::Fleet;
use super::openai::OpenAi;
use super::protocol::{PromptCodec, Protocol};
use super::sglang::Sglang;
use super::statistics::FleetStatistics;
use super::tokasaurus::Tokasaurus;
use super::transport::{Address, with_version, without_version};
use super::{
    ChatClient, ChatRequest, ClientError, DenseTopLogprobs, FinishReason, Sample, ScoreRequest,
};

/// How often the stop flag is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Answers conversations by asking servers over HTTP.
///
/// A request that no server answers becomes a sample with [`FinishReason::Failed`]; the others of its
/// batch are not touched. A raised stop flag ends the batch in progress, and its requests are dropped.
///
/// Tokasaurus and SGLang give the log-probs of the distribution that was sampled from, which is the
/// unscaled one only with temperature 0 or 1; the first request with another is warned of.
///
/// It runs its own runtime, so it is no use inside an asynchronous task: there everything fails with
/// [`ClientError::Failed`].
pub struct HttpClient {
    /// Only `None` while it is dropped.
    runtime: Option<Runtime>,
    fleet: Arc<Fleet>,
    protocol: Arc<dyn Protocol>,
    stop: Arc<AtomicBool>,
    /// Log-probs follow the temperature.
    scaled: bool,
    warned: bool,
}

impl HttpClient {
    /// A client; asks no server yet. `codec` renders and tokenises for the served model: SGLang needs
    /// it, OpenAI's protocol only to score given answers.
    ///
    /// # Errors
    /// The configuration makes no sense, or the key's variable is not set.
    pub fn new(
        config: &ClientConfig,
        codec: Option<Arc<dyn PromptCodec>>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, ClientConfigError> {
        config.check()?;
        let key = config.key(|name| std::env::var(name).ok())?;
        let adjust = match config {
            ClientConfig::Openai(_) => with_version,
            ClientConfig::Tokasaurus(_) | ClientConfig::Sglang(_) => without_version,
        };
        let addresses = config
            .urls()
            .iter()
            .enumerate()
            .map(|(index, url)| Address::new(index, url, adjust, key.as_ref(), config.fleet()))
            .collect::<Result<Vec<_>, _>>()?;
        let protocol: Arc<dyn Protocol> = match config {
            ClientConfig::Openai(config) => Arc::new(OpenAi {
                config: config.clone(),
                codec,
            }),
            ClientConfig::Tokasaurus(config) => Arc::new(Tokasaurus {
                config: config.clone(),
            }),
            ClientConfig::Sglang(config) => Arc::new(Sglang {
                config: config.clone(),
                codec: codec.ok_or(ClientConfigError::NoCodec)?,
            }),
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientConfigError::Start(error.to_string()))?;
        Ok(Self {
            runtime: Some(runtime),
            fleet: Arc::new(Fleet::new(addresses, config.fleet().clone())),
            protocol,
            stop,
            scaled: !matches!(config, ClientConfig::Openai(_)),
            warned: false,
        })
    }

    /// Asks every server once what it runs.
    ///
    /// # Errors
    /// A server does not answer, or runs another model.
    pub fn check_servers(&mut self) -> Result<(), ClientError> {
        let check = |fleet: Arc<Fleet>, protocol: Arc<dyn Protocol>, ()| async move {
            fleet
                .ask_each(&protocol.identify(), |body| protocol.check_identity(body))
                .await
        };
        self.drive(&[()], check, &mut |_| {})?.into_iter().collect()
    }

    /// Whether [`ChatClient::score`] can be used.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn can_score(&self) -> Result<(), ClientError> {
        self.protocol.can_score()
    }

    /// What the servers were asked so far and how they answered.
    pub fn statistics(&self) -> FleetStatistics {
        self.fleet.statistics()
    }

    /// Runs `start` for every request, as many at a time as the servers take, and gives the results in
    /// the requests' order.
    fn drive<R, T, F, A>(
        &self,
        requests: &[R],
        start: F,
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Result<T, ClientError>>, ClientError>
    where
        R: Clone,
        T: Send + 'static,
        F: Fn(Arc<Fleet>, Arc<dyn Protocol>, R) -> A,
        A: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let Some(runtime) = self
            .runtime
            .as_ref()
            .filter(|_| Handle::try_current().is_err())
        else {
            return Err(ClientError::Failed(
                "the HTTP client was used inside an asynchronous task".to_owned(),
            ));
        };
        self.fleet.begin_batch();
        let mut results: Vec<Option<Result<T, ClientError>>> = Vec::new();
        results.resize_with(requests.len(), || None);
        let mut waiting = requests.iter().enumerate();
        runtime.block_on(async {
            // Dropping the set aborts what is in it.
            let mut running = JoinSet::new();
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(ClientError::Stopped);
                }
                while running.len() < self.fleet.capacity()
                    && let Some((index, request)) = waiting.next()
                {
                    let (fleet, protocol) = (Arc::clone(&self.fleet), Arc::clone(&self.protocol));
                    let answer = start(fleet, protocol, request.clone());
                    running.spawn(async move { (index, answer.await) });
                }
                match tokio::time::timeout(LOOK, running.join_next()).await {
                    Err(_) => {}
                    Ok(None) => break,
                    Ok(Some(Ok((index, result)))) => {
                        results[index] = Some(result);
                        on_done(index);
                    }
                    // A panic; its request stays without a result.
                    Ok(Some(Err(error))) => tracing::error!(%error, "a request was lost"),
                }
            }
            Ok(())
        })?;
        Ok(results
            .into_iter()
            .map(|result| {
                result.unwrap_or_else(|| Err(ClientError::Failed("the request was lost".into())))
            })
            .collect())
    }

    fn warn_if_scaled(&mut self, requests: &[ChatRequest]) {
        let scaled = |r: &ChatRequest| {
            r.top_logprobs.is_some_and(|k| k > 0) && r.temperature != 0.0 && r.temperature != 1.0
        };
        if self.scaled && !self.warned && requests.iter().any(scaled) {
            self.warned = true;
            tracing::warn!(
                "with this temperature the servers' log-probs are those of the scaled distribution"
            );
        }
    }
}

impl ChatClient for HttpClient {
    fn complete(
        &mut self,
        requests: &[ChatRequest],
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Sample>, ClientError> {
        self.warn_if_scaled(requests);
        let results = self.drive(requests, complete_one, on_done)?;
        Ok(results
            .into_iter()
            .map(|result| result.unwrap_or_else(failed))
            .collect())
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<DenseTopLogprobs>, ClientError> {
        self.can_score()?;
        let results = self.drive(requests, score_one, &mut |_| {})?;
        results.into_iter().collect()
    }
}

async fn complete_one(
    fleet: Arc<Fleet>,
    protocol: Arc<dyn Protocol>,
    request: ChatRequest,
) -> Result<Sample, ClientError> {
    let call = protocol.complete(&request)?;
    let read = |body: &[u8]| protocol.read_completion(&request, body);
    fleet.ask(&call, read).await
}

async fn score_one(
    fleet: Arc<Fleet>,
    protocol: Arc<dyn Protocol>,
    request: ScoreRequest,
) -> Result<DenseTopLogprobs, ClientError> {
    if request.continuation_ids.is_empty() {
        return Ok(DenseTopLogprobs {
            k: request.top_logprobs.max(1),
            ..DenseTopLogprobs::default()
        });
    }
    let call = protocol.score(&request)?;
    let read = |body: &[u8]| protocol.read_score(&request, body);
    fleet.ask(&call, read).await
}

/// The sample of a request that was not answered.
fn failed(error: ClientError) -> Sample {
    Sample {
        text: String::new(),
        token_ids: Vec::new(),
        top_logprobs: None,
        finish: FinishReason::Failed(error),
    }
}

impl Drop for HttpClient {
    fn drop(&mut self) {
        // A look-up of a name that hangs must not hold the end of the program.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
