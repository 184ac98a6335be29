//! Which processes train together, and how they find each other.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use cartridges_model::LanguageModel;
use cartridges_model::digest::hex;
use cartridges_ops::DeviceChoice;
use cartridges_study::conversation::Conversation;
use cartridges_train::{
    Alone, DeviceGroup, Exchange, Facts, GroupError, GroupOptions, Star, TrainConfig,
};
use clap::Args;
use sha2::{Digest, Sha256};

use crate::opening::{Runtime, RuntimeArgs};

/// What a process that `--workers` starts is told beside the same command line: `rank/size@host:port`.
const WORKER: &str = "CARTRIDGES_WORKER";

/// With which other processes to train.
#[derive(Debug, Clone, Args)]
pub struct GroupArgs {
    /// Share the rows of a step among so many processes on this machine, which share its cores; on CUDA
    /// each has a GPU of its own, from --device on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// With --workers on CUDA: one process whose GPUs add up among themselves (NCCL).
    #[arg(long)]
    nccl: bool,
    /// The number of this process among those of several machines, from 0; all get the same command.
    #[arg(long, value_name = "R", requires_all = ["world_size", "leader"], conflicts_with = "workers")]
    rank: Option<usize>,
    /// How many processes there are with --rank.
    #[arg(long, value_name = "W", requires = "rank")]
    world_size: Option<usize>,
    /// Where rank 0 listens. Connections are not encrypted: for a trusted network.
    #[arg(long, value_name = "HOST:PORT", requires = "rank")]
    leader: Option<String>,
    /// Seconds for which rank 0 waits for the others.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    join_timeout: u64,
    /// Seconds without a sign of life after which another process counts as lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    peer_timeout: u64,
}

/// Where a process stands in its group.
#[derive(Debug)]
pub struct Member {
    rank: usize,
    size: usize,
    role: Role,
    options: GroupOptions,
    /// All are on this machine.
    local: bool,
    nccl: bool,
    workers: Workers,
}

#[derive(Debug)]
enum Role {
    Alone,
    Lead(TcpListener),
    Join(String),
}

impl GroupArgs {
    /// This process's place; starts the others where they are on this machine.
    ///
    /// # Errors
    /// If the settings contradict each other, or the address or a process cannot be had.
    pub fn begin(&self, config: &TrainConfig) -> Result<Vec<Member>> {
        let told = std::env::var(WORKER).ok();
        let (rank, size, leader) = match (&told, self.rank) {
            (Some(told), _) => worker(told).with_context(|| format!("{WORKER} is {told}"))?,
            (None, Some(rank)) => (
                rank,
                self.world_size.unwrap_or_default(),
                self.leader.clone().unwrap_or_default(),
            ),
            (None, None) => (0, self.workers.into(), "127.0.0.1:0".to_owned()),
        };
        ensure!(
            rank < size,
            "--rank is {rank}, expected less than --world-size, which is {size}"
        );
        let rows = config.rows_per_step;
        if rows < size {
            return Err(GroupError::TooFewRows { rows, size }.into());
        }
        let local = self.rank.is_none();
        ensure!(
            !self.nccl || (local && size > 1),
            "--nccl is for the GPUs of one machine: give --workers N with it"
        );
        let member = |rank, role| Member {
            rank,
            size,
            role,
            options: GroupOptions {
                join: Duration::from_secs(self.join_timeout),
                silence: Duration::from_secs(self.peer_timeout),
            },
            local,
            nccl: self.nccl,
            workers: Workers::default(),
        };
        if size == 1 {
            return Ok(vec![member(0, Role::Alone)]);
        }
        if rank > 0 {
            return Ok(vec![member(rank, Role::Join(leader))]);
        }
        let listener = TcpListener::bind(&leader).map_err(|source| GroupError::Listen {
            address: leader,
            source,
        })?;
        let address = listener.local_addr()?.to_string();
        let mut first = member(0, Role::Lead(listener));
        if !local {
            return Ok(vec![first]);
        }
        if self.nccl {
            let others = (1..size).map(|rank| member(rank, Role::Join(address.clone())));
            return Ok(std::iter::once(first)
                .chain(others.collect::<Vec<_>>())
                .collect());
        }
        for rank in 1..size {
            first.workers.start(rank, size, &address)?;
        }
        Ok(vec![first])
    }
}

fn worker(told: &str) -> Option<(usize, usize, String)> {
    let (place, leader) = told.split_once('@')?;
    let (rank, size) = place.split_once('/')?;
    Some((rank.parse().ok()?, size.parse().ok()?, leader.to_owned()))
}

impl Member {
    /// Whether this one keeps logs, checkpoints and the result.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// The device of this member, with its share of the cores where all are on one machine.
    ///
    /// # Errors
    /// If the device is not there.
    pub fn open(&self, runtime: &RuntimeArgs) -> Result<Runtime> {
        if !self.local || self.size == 1 {
            return runtime.open();
        }
        let cores = match runtime.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut own = runtime.clone();
        own.threads = (cores / self.size).max(1);
        let opened = own.open()?;
        let DeviceChoice::Cuda(first) = opened.choice else {
            return Ok(opened);
        };
        let (device, choice) = DeviceChoice::Cuda(first + self.rank).open()?;
        Ok(Runtime {
            device,
            choice,
            ..opened
        })
    }

    /// Meets the others, once model and data are there.
    ///
    /// # Errors
    /// If another process does not train the same or does not come.
    pub fn meet(
        &mut self,
        model: &LanguageModel,
        runtime: &Runtime,
        conversations: &[Conversation],
        config: &TrainConfig,
    ) -> Result<Box<dyn Exchange>> {
        let weights = &model.identity.weights_fingerprint;
        let facts = Facts::new(weights, &digest(conversations), config);
        let (size, options) = (self.size, self.options);
        let star = match &self.role {
            Role::Alone => return Ok(Box::new(Alone)),
            Role::Join(leader) => Star::join(leader, self.rank, size, &facts, options)?,
            Role::Lead(listener) => {
                let workers = &mut self.workers;
                if !self.local {
                    eprintln!("waiting for {} other processes", size - 1);
                }
                Star::lead(listener, size, &facts, options, &mut || workers.check())?
            }
        };
        match self.nccl {
            false => Ok(Box::new(star)),
            true => {
                let devices = cuda_devices(runtime.choice, self.rank, size)?;
                Ok(Box::new(DeviceGroup::new(star, devices)?))
            }
        }
    }

    /// Waits until the processes that this one has started have ended.
    pub fn finish(mut self) {
        self.workers.end();
    }
}

/// The devices of all members, of which this one has the `rank`-th.
fn cuda_devices(own: DeviceChoice, rank: usize, size: usize) -> Result<Vec<Device>> {
    let DeviceChoice::Cuda(index) = own else {
        bail!("--nccl needs CUDA devices, but this is {own}; leave it out");
    };
    let first = index - rank;
    let open = |i| Ok(DeviceChoice::Cuda(i).open()?.0);
    (first..first + size).map(open).collect()
}

/// A digest of everything that training reads of conversations.
fn digest(conversations: &[Conversation]) -> String {
    let mut hash = Sha256::new();
    for conversation in conversations {
        hash.update(&conversation.system_prompt);
        for message in &conversation.messages {
            hash.update(message.role.as_str());
            hash.update(&message.content);
            for id in message.token_ids.iter().flatten() {
                hash.update(id.to_le_bytes());
            }
            if let Some(top) = &message.top_logprobs {
                let ids = top.token_idx.iter().chain(&top.token_id);
                ids.for_each(|id| hash.update(id.to_le_bytes()));
                let values = top.logprobs.iter();
                values.for_each(|x| hash.update(x.to_le_bytes()));
            }
        }
    }
    hex(&hash.finalize()[..16])
}

/// Processes that this one has started.
#[derive(Debug, Default)]
struct Workers(Vec<(usize, Child, JoinHandle<()>)>);

impl Workers {
    /// Time for a process to end by itself when its leader is gone.
    const GRACE: Duration = Duration::from_secs(5);

    /// Starts this program once more with the same command line; what it says appears with its number.
    fn start(&mut self, rank: usize, size: usize, leader: &str) -> Result<()> {
        let program = std::env::current_exe().context("finding this program's own file")?;
        let mut child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(WORKER, format!("{rank}/{size}@{leader}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting another process of this program")?;
        let stderr = child.stderr.take();
        let said = std::thread::spawn(move || {
            let lines = stderr.map(|stderr| BufReader::new(stderr).lines());
            for line in lines.into_iter().flatten().map_while(Result::ok) {
                eprintln!("worker {rank}: {line}");
            }
        });
        self.0.push((rank, child, said));
        Ok(())
    }

    /// Whether all still run.
    fn check(&mut self) -> Result<(), GroupError> {
        for (rank, child, _) in &mut self.0 {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(GroupError::Lost {
                    who: format!("worker {rank}"),
                    problem: format!("it ended before training began ({status})"),
                });
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        let begin = Instant::now();
        for (_, mut child, said) in self.0.drain(..) {
            while matches!(child.try_wait(), Ok(None)) && begin.elapsed() < Self::GRACE {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Does nothing to one that has ended.
            let _ = child.kill();
            let _ = child.wait();
            let _ = said.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}
