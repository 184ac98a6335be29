//! Listening, serving, ending.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::app::App;
use crate::error::ServeError;
use crate::guard::{Keys, Peer, Stall};
use crate::inference::Inference;
use crate::metrics::Metrics;
use crate::openai::Store;
use crate::options::{ServerOptions, is_loopback};
use crate::router::router;

/// How often the measurements are looked after.
const TICK: Duration = Duration::from_secs(2);

/// A server that has its address but does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
}

impl Server {
    /// Takes an address. Refuses one that other machines can reach if there is no key, unless
    /// `force_public` is set.
    pub async fn bind(
        options: ServerOptions,
        inference: Arc<dyn Inference>,
    ) -> Result<Self, ServeError> {
        options.check()?;
        let host = options
            .host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let found = lookup_host((host.as_str(), options.port)).await;
        let addresses: Vec<SocketAddr> = found
            .map_err(|source| ServeError::Resolve {
                host: host.clone(),
                source,
            })?
            .collect();
        let Some(&wanted) = addresses.first() else {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(ServeError::Resolve { host, source });
        };
        // Before listening, so that there is not a moment in which others could connect.
        options.check_address(wanted)?;
        let refused = |source| ServeError::Bind {
            address: wanted,
            source,
        };
        let listener = TcpListener::bind(wanted).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        if !is_loopback(address.ip()) && options.api_keys.is_empty() {
            tracing::warn!("{address} can be reached from other machines and no key is needed");
        }
        let app = Arc::new(App {
            inference,
            keys: Keys::new(&options.api_keys),
            loopback: is_loopback(address.ip()),
            metrics: Metrics::new()?,
            store: Store::default(),
            options,
        });
        Ok(Self {
            listener,
            address,
            app,
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a browser or client finds it.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let name = if address.is_ipv6() {
                "[::1]"
            } else {
                "127.0.0.1"
            };
            return format!("http://{name}:{}", address.port());
        }
        address.set_ip(address.ip().to_canonical());
        format!("http://{address}")
    }

    /// Serves until `shutdown`, then refuses new work and finishes what runs, for a while.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { listener, app, .. } = self;
        let router = router(app.clone());
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(app.options.max_connections));
        // Dropping the set ends its tasks, so nothing outlives this future.
        let mut tasks = JoinSet::new();
        tasks.spawn(look_after(app.clone()));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let next = async {
                let permit = room.clone().acquire_owned().await.ok();
                (permit, listener.accept().await)
            };
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = tasks.join_next() => {}
                (permit, accepted) = next => match accepted {
                    Ok((stream, peer)) => {
                        let connection = connection(&app, &router, stream, peer);
                        let watched = graceful.watch(connection);
                        tasks.spawn(until_closed(watched, permit));
                    }
                    Err(error) => {
                        // Most likely too many open files; the next try may go better.
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(listener);
        app.inference.drain();
        let ended = tokio::time::timeout(app.options.drain_timeout(), graceful.shutdown()).await;
        if ended.is_err() {
            tracing::warn!("some requests were cut off at shutdown");
        }
        app.store.end_all();
        Ok(())
    }
}

/// Binds, tells the server to `bound` (its address, its URL), and serves until `shutdown`.
pub async fn serve(
    options: ServerOptions,
    inference: Arc<dyn Inference>,
    bound: impl FnOnce(&Server),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let server = Server::bind(options, inference).await?;
    bound(&server);
    server.serve(shutdown).await
}

/// Keeps the measurements from growing and the speed from being old.
async fn look_after(app: Arc<App>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        app.metrics.tick(&app.inference.load());
    }
}

/// Runs a connection to its end.
async fn until_closed(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    permit: Option<OwnedSemaphorePermit>,
) {
    if let Err(error) = connection.await {
        tracing::debug!("a connection broke: {error}");
    }
    drop(permit);
}

/// One connection's future.
fn connection(
    app: &App,
    router: &Router,
    stream: TcpStream,
    peer: SocketAddr,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + 'static {
    // Small events shall not wait for larger ones. If it cannot be set they only come later.
    let _ = stream.set_nodelay(true);
    let router = router.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let io = TokioIo::new(Stall::new(stream, app.options.write_timeout()));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.options.read_timeout())
        .max_buf_size(64 << 10)
        .serve_connection(io, service)
}
