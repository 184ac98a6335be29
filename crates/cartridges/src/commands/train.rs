//! `cartridges train`: a cartridge from conversations.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cartridges_model::cartridge::{CartridgeDtype, save};
use cartridges_model::hub::ResolveOptions;
use cartridges_model::wandb::WandbClient;
use cartridges_train::{
    DataSource, Dropped, Recompute, TrackerKind, TrainConfig, WandbConfig, WandbMode, read_mixture,
    share_start,
};
use clap::Args;
use serde::Deserialize;

use crate::opening::{ModelArgs, RuntimeArgs, read_corpus, settings, writable_folder};
use crate::pipeline::{
    GroupArgs, JointSpec, Member, StartArgs, Surroundings, View, distill_in, start, train_jointly,
};
use crate::provenance::program;
use crate::sharing::local_sources;

/// Train a cartridge on conversations of self-study.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A run that was stopped goes on from its checkpoint when the same command is \
given again.\n\nExample:\n  cartridges train --data runs/handbook/dataset.parquet --corpus \
handbook.txt --out cartridges/handbook\n  cartridges chat --cartridge cartridges/handbook"
)]
pub struct TrainArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Conversations: a parquet file, a folder of them (data/*.parquet), hf:owner/name, a data set on
    /// the hub, or wandb:ENTITY/PROJECT/ARTIFACT:VERSION, an artifact of Weights & Biases. May repeat.
    /// Needed unless `data` in --config names some, which it wins over.
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Leave out conversations that say the same as an earlier one.
    #[arg(long)]
    drop_duplicates: bool,
    /// Leave out conversations with an empty answer.
    #[arg(long)]
    drop_empty: bool,
    /// Leave out conversations with an answer that ended at the limit of its length.
    #[arg(long)]
    drop_cut_off: bool,
    /// The text the conversations are about; needed by --init matching, first, sampled-chunks and
    /// summary.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Folder for the cartridge, the log and the checkpoint.
    #[arg(long, value_name = "DIR", env = "CARTRIDGES_OUTPUT_DIR")]
    out: PathBuf,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    group: GroupArgs,
    /// TOML file with several cartridges, each with a name, data and a corpus, that are trained together so
    /// that they can be served together; each gets a folder in --out.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["data", "corpus", "workers", "rank", "init_cartridge"]
    )]
    joint: Option<PathBuf>,
    /// TOML file with settings of training; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Optimizer steps (0: --epochs passes over the data).
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Passes over the data when --steps is not given.
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Stop after so many optimizer steps, wherever --steps or --epochs would end.
    #[arg(long, value_name = "N")]
    max_steps: Option<usize>,
    /// Learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Tokens of a packed row.
    #[arg(long, value_name = "N")]
    packed_seq_length: Option<usize>,
    /// Packed rows per step.
    #[arg(long, value_name = "N")]
    rows_per_step: Option<usize>,
    /// Keep the whole forward pass of rows of any length, and run no layer twice: faster, more memory.
    #[arg(long)]
    no_recompute: bool,
    /// Where the run is logged: jsonl, tensorboard, wandb; may repeat.
    #[arg(long = "tracker", value_name = "NAME", value_parser = tracker_kind)]
    trackers: Vec<TrackerKind>,
    /// Show the run on the whole terminal: loss, speed, evaluations and answers.
    #[arg(long)]
    tui: bool,
    /// Seed of the order of examples and of random starts.
    #[arg(long)]
    seed: Option<u64>,
}

impl TrainArgs {
    fn config(&self) -> Result<TrainConfig> {
        let mut config: TrainConfig = match &self.config {
            Some(path) => settings(path)?,
            None => TrainConfig::default(),
        };
        if !self.data.is_empty() {
            config.data = self.data.iter().map(DataSource::new).collect();
        }
        for source in &mut config.data {
            source.drop_duplicates |= self.drop_duplicates;
            source.drop_empty |= self.drop_empty;
            source.drop_cut_off |= self.drop_cut_off;
        }
        if config.data.is_empty() && self.joint.is_none() {
            bail!("there is nothing to train on: give --data FILE, or `data` in --config");
        }
        for (variable, field) in [
            ("CARTRIDGES_WANDB_PROJECT", &mut config.wandb.project),
            ("CARTRIDGES_WANDB_ENTITY", &mut config.wandb.entity),
        ] {
            // The file wins over the environment.
            let unset = *field == WandbConfig::default().project || field.is_empty();
            if let (true, Ok(value)) = (unset, std::env::var(variable)) {
                *field = value;
            }
        }
        config.steps = self.steps.unwrap_or(config.steps);
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.lr = self.lr.unwrap_or(config.lr);
        config.packed_seq_length = self.packed_seq_length.unwrap_or(config.packed_seq_length);
        config.rows_per_step = self.rows_per_step.unwrap_or(config.rows_per_step);
        config.max_steps = self.max_steps.unwrap_or(config.max_steps);
        if !self.trackers.is_empty() {
            config.trackers.clone_from(&self.trackers);
        }
        config.seed = self.seed.unwrap_or(config.seed);
        if self.no_recompute {
            config.recompute = Recompute::Nothing;
        }
        if std::env::var("WANDB_MODE").is_ok_and(|mode| mode == "online") {
            config.wandb.mode = WandbMode::Online;
        }
        let online = config.wandb.mode == WandbMode::Online;
        if online && config.trackers.contains(&TrackerKind::Wandb) {
            WandbClient::from_env().context("the tracker wandb is online")?;
        }
        config.validate()?;
        Ok(config)
    }
}

fn tracker_kind(name: &str) -> Result<TrackerKind, String> {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};
    let name: StrDeserializer<'_, Error> = name.into_deserializer();
    TrackerKind::deserialize(name).map_err(|error| error.to_string())
}

/// Runs the command.
///
/// # Errors
/// If data, text, model or folder cannot be used, training diverges, or another process of the group is
/// lost.
pub fn run(args: TrainArgs, runtime: &RuntimeArgs) -> Result<()> {
    let mut config = args.config()?;
    args.start.check()?;
    let mut hub = ResolveOptions::from_env();
    hub.offline |= args.model.offline;
    hub.notice = Some(Arc::new(|line| eprintln!("{line}")));
    if let Some(path) = &args.joint {
        let spec = JointSpec::read(path, &config, &hub)?;
        let model = args.model.open(&runtime.open()?)?;
        return train_jointly(&spec, &config, &args.start, &model, &args.out);
    }
    config.eval_data = local_sources(&config.eval_data, &hub)?;
    let data = local_sources(&config.data, &hub)?;
    let mut members = args.group.begin(&config)?.into_iter();
    let Some(first) = members.next() else {
        bail!("there is nobody to train");
    };
    if first.leads() {
        writable_folder(&args.out)?;
    }
    std::thread::scope(|scope| {
        let others: Vec<_> = members
            .map(|member| scope.spawn(|| train_as(member, &args, &config, &data, runtime)))
            .collect();
        let done = train_as(first, &args, &config, &data, runtime);
        for other in others {
            // Where one fails, the first fails as well and says so; its own words say why.
            if let Ok(Err(error)) = other.join() {
                eprintln!("{error:#}");
            }
        }
        done
    })
}

fn train_as(
    mut member: Member,
    args: &TrainArgs,
    config: &TrainConfig,
    data: &[DataSource],
    runtime: &RuntimeArgs,
) -> Result<()> {
    let (conversations, taken) = read_mixture(data, config.seed)?;
    for source in taken.iter().filter(|s| s.rows != s.conversations) {
        let Dropped {
            empty,
            cut_off,
            duplicates,
        } = source.dropped;
        if member.leads() {
            eprintln!(
                "{} conversations from the {} of {} (left out: {duplicates} duplicates, {empty} with \
                 an empty answer, {cut_off} with one cut off)",
                source.conversations,
                source.rows,
                source.path.display()
            );
        }
    }
    // The others take the start as it is made by the first.
    let corpus = match member.leads() || config.on_policy.every > 0 {
        true => args.corpus.as_deref().map(read_corpus).transpose()?,
        false => None,
    };
    let runtime = member.open(runtime)?;
    let model = args.model.open(&runtime)?;
    let mut group = member.meet(&model, &runtime, &conversations, config)?;
    let begin = Instant::now();
    let begun = match member.leads() {
        true => Some(start(
            &model,
            &args.start,
            corpus.as_deref(),
            &conversations,
            config.seed,
        )?),
        false => None,
    };
    let (begun, how) = begun.map(|start| (start.cartridge, start.how)).unzip();
    let begun = share_start(&mut *group, begun)?;
    let processes = group.size();
    let view = match args.tui {
        true => View::Screen,
        false => View::Progress,
    };
    let done = distill_in(
        &model,
        &begun,
        &conversations,
        config,
        &args.out,
        Surroundings {
            group,
            corpus: corpus.as_deref(),
            view,
        },
    )?;
    if !member.leads() {
        return Ok(());
    }
    let made_by = serde_json::json!({
        "program": program(),
        "start": how,
        "training": done.how,
        "data": taken,
        "processes": processes,
        // Of this run alone, where it went on from a checkpoint.
        "seconds": begin.elapsed().as_secs_f64(),
    });
    save(
        &args.out,
        &done.cartridge,
        &model.identity,
        &made_by,
        CartridgeDtype::F32,
    )?;
    member.finish();
    println!(
        "cartridge of {} slots in {} (last loss {:.4})",
        done.cartridge.slots,
        args.out.display(),
        done.loss
    );
    Ok(())
}
