//! Serves a scripted stand-in for a model, to try clients with.
//!
//! `fake_server [port] [key]`; the URL is printed when it listens.

use std::sync::Arc;

use cartridges_serve::{ApiKey, Server, ServerOptions};

#[path = "../tests/fake/mod.rs"]
mod fake;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().map_or(Ok(10210), |port| port.parse())?;
    let api_keys = arguments.next().map(ApiKey).into_iter().collect();
    let options = ServerOptions {
        port,
        api_keys,
        ..ServerOptions::default()
    };
    let server = Server::bind(options, Arc::new(fake::Fake::default())).await?;
    println!("{}", server.url());
    server
        .serve(async {
            // Without a signal handler there is nothing to wait for but the end of the process.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    Ok(())
}
