//! `cartridges synthesize`: self-study of texts.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges_engine::{Engine, EngineOptions};
use cartridges_study::client::{
    ChatClient, ChatMessage, ChatRequest, ClientConfig, FinishReason, HttpClient, PromptCodec,
};
use cartridges_study::conversation::Role;
use cartridges_study::resource::{LatexConfig, ResourceConfig, WeightedResource};
use cartridges_study::run::SynthesisReport;
use cartridges_study::seed_prompt::{SeedType, own_prompts};
use cartridges_study::self_study::SelfStudyConfig;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::interrupt::stop_flag;
use crate::local_client::{ChatCodec, LocalClient};
use crate::local_teacher::LocalTeacher;
use crate::opening::{ModelArgs, RuntimeArgs, read_text, settings, writable_folder};
use crate::pipeline::{load_sources, model_name, self_study};

/// Let a model write conversations about texts: the data that a cartridge is trained on.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A run that was stopped goes on where it was when the same command is given \
again.\n\nExamples:\n  cartridges synthesize --corpus handbook.txt --out runs/handbook\n  cartridges \
synthesize --corpus paper.pdf --corpus notes/ --out runs/paper\n  cartridges synthesize --corpus \
handbook.txt --client servers.toml --out runs/handbook\n\nThe file of --resources holds tables \
[[resources]] with a type (text, file, directory, json, html, pdf, latex, mail, longhealth, mtob, qasper, \
niah, variable_tracking), its fields, and a weight. The file of --config may list [[tools]] (type = \
\"retrieval\", a search in the corpus, or \"mcp\", a tool server with command and args) that the agents call where use_tools_a or use_tools_b is true. The file of --client says which servers write:\n  type \
= \"openai\"            # or tokasaurus, sglang\n  urls = [\"http://localhost:8000\"]\n  model = \
\"Qwen/Qwen3-4B\"\n  api_key_env = \"MY_KEY\"\nThe model of --model lends its tokenizer then; it should \
be the one that is served. Servers that give no token ids or no log-probs, as most hosted ones, need \
--teacher local."
)]
pub struct SynthesizeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A text: a file (plain text, HTML, PDF, LaTeX, e-mail, JSON), a folder of them, or a paper of arXiv
    /// as arxiv:2506.06266, whose LaTeX source is fetched once; may repeat.
    #[arg(long, value_name = "PATH", required_unless_present = "resources")]
    corpus: Vec<PathBuf>,
    /// TOML file with a list of weighted resources.
    #[arg(long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// TOML file with the servers that write the conversations; by default the model in this process
    /// does.
    #[arg(long, value_name = "FILE")]
    client: Option<PathBuf>,
    /// With --client: whose token distribution is stored beside the answers, that of the servers or
    /// that of the model of --model, which is loaded then and reads what the servers wrote.
    #[arg(long, value_enum, default_value_t = Teacher::Server, requires = "client")]
    teacher: Teacher,
    /// Folder for the data set (`dataset.parquet`) and the parts of an unfinished run.
    #[arg(long, value_name = "DIR", env = "CARTRIDGES_OUTPUT_DIR")]
    out: PathBuf,
    /// TOML file with settings of self-study; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Text file with your own prompts for the agent that asks, with blank lines between them, in place of
    /// the built-in ones (with `seed_types` in --config: beside those, where it names "own").
    #[arg(long, value_name = "FILE")]
    seed_prompts: Option<PathBuf>,
    /// Conversations, besides the verbatim pieces.
    #[arg(long, value_name = "N")]
    conversations: Option<usize>,
    /// Conversations decoded together that share one context.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Seed of everything that is drawn.
    #[arg(long)]
    seed: Option<u64>,
}

/// `--teacher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Teacher {
    /// The servers' own log-probs.
    Server,
    /// The model in this process.
    Local,
}

/// What helps where servers give no log-probs.
const WITHOUT_LOG_PROBS: &str = "with --teacher local the model of --model computes them for what \
    the servers write; with num_top_logprobs = 0 in the file of --config only text is kept";

/// Runs the command.
///
/// # Errors
/// If the text, the model or the folder cannot be used, or nothing was made.
pub fn run(args: SynthesizeArgs, runtime: &RuntimeArgs) -> Result<()> {
    let mut config: SelfStudyConfig = match &args.config {
        Some(path) => settings(path)?,
        None => SelfStudyConfig::default(),
    };
    if let Some(path) = &args.seed_prompts {
        config.seed_prompts = own_prompts(&read_text(path)?);
        if config.seed_prompts.is_empty() {
            bail!("{} holds no prompts", path.display());
        }
        if !config.seed_types.contains(&SeedType::Own) {
            config.seed_types = vec![SeedType::Own];
        }
    }
    if let Some(n) = args.conversations {
        config.num_conversations = n;
    }
    if let Some(n) = args.batch {
        config.batch_size = n;
    }
    if let Some(seed) = args.seed {
        config.seed = seed;
    }
    config.validate()?;
    let sources = args.sources()?;
    let servers: Option<ClientConfig> = args.client.as_deref().map(settings).transpose()?;
    writable_folder(&args.out)?;
    let (dataset, report) = match servers {
        Some(servers) => args.by_servers(&servers, &sources, config, runtime)?,
        None => args.by_this_process(&sources, &config, runtime)?,
    };
    println!(
        "{} conversations of {} planned ({} tokens) in {}",
        report.finished,
        report.planned,
        report.tokens(),
        dataset.display()
    );
    for (cause, count) in &report.dropped {
        println!("  left out: {count} ({cause})");
    }
    for (cause, count) in &report.failed {
        println!("  failed: {count} ({cause})");
    }
    Ok(())
}

/// The file of `--resources`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    resources: Vec<WeightedResource>,
}

impl SynthesizeArgs {
    fn sources(&self) -> Result<Vec<WeightedResource>> {
        let paths = self.corpus.iter();
        let mut sources: Vec<WeightedResource> = paths
            .map(|path| ResourceConfig::for_path(path).into())
            .collect();
        if let Some(path) = &self.resources {
            sources.extend(settings::<Resources>(path)?.resources);
        }
        for source in &mut sources {
            if let ResourceConfig::Latex(paper) = &mut source.source {
                paper.offline |= self.model.offline;
            }
        }
        Ok(sources)
    }

    fn by_this_process(
        &self,
        sources: &[WeightedResource],
        config: &SelfStudyConfig,
        runtime: &RuntimeArgs,
    ) -> Result<(PathBuf, SynthesisReport)> {
        // What needs no model is refused before one is loaded.
        for path in &self.corpus {
            if LatexConfig::paper(&path.to_string_lossy()).is_none() {
                std::fs::metadata(path).with_context(|| format!("{}", path.display()))?;
            }
        }
        let model = self.model.open(&runtime.open()?)?;
        let resources = load_sources(sources, &model.text, config)?;
        let name = model_name(&model.identity);
        let mut engine = Engine::new(model, options(config));
        let mut client = LocalClient::new(&mut engine, stop_flag());
        self_study(&mut client, &name, &resources, config, &self.out)
    }

    fn by_servers(
        &self,
        servers: &ClientConfig,
        sources: &[WeightedResource],
        mut config: SelfStudyConfig,
        runtime: &RuntimeArgs,
    ) -> Result<(PathBuf, SynthesisReport)> {
        let (text, identity) = self.model.open_text()?;
        let resources = load_sources(sources, &text, &config)?;
        let codec: Arc<dyn PromptCodec> = Arc::new(ChatCodec(text));
        let mut client = HttpClient::new(servers, Some(codec), stop_flag())?;
        client.check_servers().context("asking the servers")?;
        let name = format!("{} of servers", model_name(&identity));
        let done = match self.teacher {
            Teacher::Server => {
                check_log_probs(&mut client, &config)?;
                if config.verbatim
                    && let Err(reason) = client.can_score()
                {
                    eprintln!("no verbatim pieces: {reason} (--teacher local can)");
                    config.verbatim = false;
                }
                self_study(&mut client, &name, &resources, &config, &self.out)
            }
            Teacher::Local => {
                let model = self.model.open(&runtime.open()?)?;
                let name = format!("{name}, taught by {}", model_name(&model.identity));
                let mut engine = Engine::new(model, options(&config));
                let local = LocalClient::new(&mut engine, stop_flag());
                let mut client = LocalTeacher::new(&mut client, local);
                self_study(&mut client, &name, &resources, &config, &self.out)
            }
        };
        let statistics = client.statistics();
        eprintln!("{statistics}");
        if self.teacher == Teacher::Server && statistics.answers_without_ids > 0 {
            eprintln!("{WITHOUT_LOG_PROBS}");
        }
        done
    }
}

fn options(config: &SelfStudyConfig) -> EngineOptions {
    EngineOptions {
        max_batch: config.batch_size * config.batches_in_parallel,
        ..EngineOptions::default()
    }
}

/// Asks for one token with log-probs, so that servers without them are found before the work begins.
fn check_log_probs(client: &mut HttpClient, config: &SelfStudyConfig) -> Result<()> {
    if config.num_top_logprobs == 0 {
        return Ok(());
    }
    let request = ChatRequest {
        messages: vec![ChatMessage::new(Role::User, "Hello")],
        temperature: config.temperature_b,
        max_completion_tokens: 1,
        top_logprobs: Some(config.num_top_logprobs),
        enable_thinking: Some(false),
        seed: config.seed,
        assistant_prefix: None,
    };
    for sample in client.complete(&[request], &mut |_| {})? {
        if let FinishReason::Failed(reason) = sample.finish {
            bail!("a request for log-probs got no answer: {reason}. {WITHOUT_LOG_PROBS}");
        }
        if sample.top_logprobs.is_none() {
            bail!("the servers give no token ids with log-probs: {WITHOUT_LOG_PROBS}");
        }
    }
    Ok(())
}
