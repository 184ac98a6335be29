//! `cartridges serve`: an HTTP server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges_engine::EngineOptions;
use cartridges_model::hub::ResolveOptions;
use cartridges_serve::{ApiKey, Server, ServerOptions, Source, serve};
use clap::{Args, ValueEnum};

use super::doctor::available_memory;
use crate::opening::{ModelArgs, RuntimeArgs, read_text};
use crate::serving::{LocalInference, ServingOptions};

/// Serve the model with any of the cartridges in a folder over HTTP: OpenAI's interface, with
/// `cartridges` added, and that of Tokasaurus' cartridge branch.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example, with a cartridge asked for by the name of its folder:\n  \
cartridges serve --cartridge-dir quickstart\n  curl http://127.0.0.1:10210/v1/chat/completions -H \
'Content-Type: application/json' -d '{\"model\": \"default\", \"max_tokens\": 64, \"cartridges\": \
[{\"id\": \"cartridge\", \"source\": \"local\"}], \"messages\": [{\"role\": \"user\", \"content\": \
\"Who is the chief engineer?\"}]}'\n\nOpen the printed address in a browser for a page to chat in; \
/docs describes all routes."
)]
pub struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder with one folder per cartridge.
    #[arg(long, value_name = "DIR", env = "CARTRIDGES_DIR")]
    cartridge_dir: Option<PathBuf>,
    /// Address to listen on; other machines can reach any but loopback, so it needs keys.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port; 0 takes a free one.
    #[arg(long, default_value_t = 10210)]
    port: u16,
    /// File with one API key per line; clients send one as `Authorization: Bearer KEY`.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen on a public address without keys.
    #[arg(long)]
    force_public: bool,
    /// More host names by which clients may address a loopback server, such as a proxy's; may repeat.
    #[arg(long = "allow-host", value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// Places from which a request may have a cartridge fetched into the folder; may repeat.
    #[arg(
        long = "allow-remote",
        value_name = "PLACE",
        requires = "cartridge_dir"
    )]
    allow_remote: Vec<Remote>,
    /// Requests that may wait.
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = at_least_one)]
    max_queue: usize,
    /// Seconds a request may take, waiting included.
    #[arg(long, default_value_t = 600, value_name = "S")]
    request_timeout: u64,
    /// Requests that are answered together.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = at_least_one)]
    max_batch: usize,
    /// Tokens of key/value memory for prompts, answers and cartridges together; by default a third
    /// of the free memory.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    kv_tokens: Option<usize>,
    /// MiB of cartridges in memory; by default half of the key/value memory.
    #[arg(long, value_name = "MIB")]
    cartridge_mib: Option<u64>,
    /// Folder with one folder per adapter, which a request names in its field `adapter`.
    #[arg(long, value_name = "DIR")]
    adapter_dir: Option<PathBuf>,
    /// MiB of adapters in memory.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    adapter_mib: u64,
    /// Longest answer where a request names no limit; by default as long as fits.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_completion_tokens: Option<usize>,
    /// Most log-probs per token that a request may ask for.
    #[arg(long, default_value_t = 20, value_name = "N")]
    max_top_logprobs: usize,
}

/// Where cartridges can be fetched from.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Remote {
    /// A repository of the Hugging Face hub with a cartridge in it.
    Huggingface,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(format!("{error}")),
    }
}

impl ServeArgs {
    fn server_options(&self) -> Result<ServerOptions> {
        let api_keys = match &self.api_key_file {
            None => Vec::new(),
            Some(path) => {
                let keys: Vec<ApiKey> = read_text(path)?
                    .lines()
                    .map(str::trim)
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .map(|line| ApiKey(line.to_owned()))
                    .collect();
                if keys.is_empty() {
                    bail!("{} holds no key: one per line is expected", path.display());
                }
                keys
            }
        };
        let options = ServerOptions {
            host: self.host.clone(),
            port: self.port,
            api_keys,
            force_public: self.force_public,
            allowed_hosts: self.allowed_hosts.clone(),
            allow_remote: self
                .allow_remote
                .iter()
                .map(|Remote::Huggingface| Source::HuggingFace)
                .collect(),
            max_queue: self.max_queue,
            request_timeout_seconds: self.request_timeout,
            max_top_logprobs: self.max_top_logprobs,
            ..ServerOptions::default()
        };
        options.check()?;
        Ok(options)
    }
}

/// Runs the command until Ctrl-C or SIGTERM.
///
/// # Errors
/// If the model, the folder, the keys or the address cannot be used.
pub fn run(args: ServeArgs, runtime: &RuntimeArgs) -> Result<()> {
    let options = args.server_options()?;
    for (noun, folder) in [
        ("cartridge", &args.cartridge_dir),
        ("adapter", &args.adapter_dir),
    ] {
        if let Some(folder) = folder
            && !folder.is_dir()
        {
            bail!("{noun} folder {} does not exist", folder.display());
        }
    }
    let model = args.model.open(&runtime.open()?)?;
    let row = model.decoder.config().kv_bytes_per_token(size_of::<f32>());
    let kv_rows = args.kv_tokens.unwrap_or_else(|| default_rows(row));
    let cartridge_bytes = match args.cartridge_mib {
        Some(mib) => mib << 20,
        None => (kv_rows / 2 * row) as u64,
    };
    let serving = ServingOptions {
        engine: EngineOptions {
            max_batch: args.max_batch,
            max_kv_rows: kv_rows,
            max_queue: args.max_queue,
            ..EngineOptions::default()
        },
        cartridge_dir: args.cartridge_dir.clone(),
        cartridge_bytes,
        adapter_dir: args.adapter_dir.clone(),
        adapter_bytes: args.adapter_mib << 20,
        max_top_logprobs: args.max_top_logprobs,
        max_completion_tokens: args.max_completion_tokens,
        hub: ResolveOptions::from_env(),
    };
    eprintln!(
        "memory   {kv_rows} tokens of keys and values ({} MiB), of them {} MiB for cartridges",
        (kv_rows * row) >> 20,
        cartridge_bytes >> 20
    );
    let inference = Arc::new(LocalInference::start(model, serving)?);
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // They read prompts and files; more of them would only hold memory.
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .context("starting the server's threads")?;
    let needs_key = !options.api_keys.is_empty();
    let served = serve(
        options,
        inference,
        |server| announce(server, needs_key),
        end_signal(),
    );
    tokio.block_on(served)?;
    eprintln!("ended");
    Ok(())
}

/// A third of the free memory in rows, or 32768 where the system does not tell.
fn default_rows(row_bytes: usize) -> usize {
    match available_memory() {
        Some(bytes) => (bytes as usize / 3 / row_bytes.max(1)).clamp(4096, 1 << 20),
        None => 32 * 1024,
    }
}

fn announce(server: &Server, needs_key: bool) {
    let url = server.url();
    let key = match needs_key {
        true => " -H 'Authorization: Bearer YOUR_KEY'",
        false => "",
    };
    println!("serving  {url}");
    println!(
        "try      curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d \
         '{{\"model\": \"default\", \"max_tokens\": 64, \"messages\": [{{\"role\": \"user\", \
         \"content\": \"Hello\"}}]}}'"
    );
}

/// Ctrl-C or SIGTERM; a second one ends the program at once.
async fn end_signal() {
    signal().await;
    eprintln!("finishing what runs; once more ends at once");
    tokio::spawn(async {
        signal().await;
        std::process::exit(130);
    });
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            return;
        }
    }
    // Without signals only a kill ends the server.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
