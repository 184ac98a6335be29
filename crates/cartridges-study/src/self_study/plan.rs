//! The plan of a run: every task, computed before anything is generated.
//!
//! It depends on the seed, the texts and the configuration only, so a run that was stopped knows what
//! is left, and the order in which batches are worked off changes nothing.

use cartridges_model::digest::hex;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::config::{ConfigError, SelfStudyConfig};
use super::{cloze, coverage, verbatim};
use crate::conversation::ConversationKind;
use crate::resource::{Resource, ResourceError};

/// A plan that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A text cannot be drawn from.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// There is no text.
    #[error("self-study needs at least one resource")]
    NoResources,
    /// A resource has a weight that nothing can be drawn by.
    #[error("the resource `{name}` has the weight {weight}, expected a number above 0")]
    Weight {
        /// The resource.
        name: String,
        /// Its weight.
        weight: f64,
    },
}

/// What a task consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskWork {
    /// Agent A writes what the prompt asks for, agent B answers.
    Converse,
    /// The prompt is the user's message, the answer is given and only scored.
    Given {
        /// What it becomes.
        kind: ConversationKind,
        /// The answer.
        text: String,
        /// Its ids.
        token_ids: Vec<u32>,
    },
    /// Agent A writes the question that the prompt asks for, the answer is given.
    AskFor {
        /// The answer.
        text: String,
        /// Its ids.
        token_ids: Vec<u32>,
    },
}

/// One conversation to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number in the plan.
    pub index: usize,
    /// A seed type's name, `coverage`, `verbatim`, `gap` or `answer`.
    pub seed_type: &'static str,
    /// The seed prompt for agent A, or the user's message of a verbatim piece.
    pub prompt: String,
    /// What is to be done.
    pub work: TaskWork,
}

/// Tasks that share a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBatch {
    /// The resource's name.
    pub resource: String,
    /// The system prompt with the context.
    pub system_prompt: String,
    /// Whether agent B is asked to think, per round.
    pub thinking: Vec<bool>,
    /// The tasks, with consecutive numbers.
    pub tasks: Vec<Task>,
}

impl PlannedBatch {
    /// The batch without the tasks for which `done` holds; `None` if nothing is left.
    pub fn without(&self, done: impl Fn(usize) -> bool) -> Option<Self> {
        let tasks: Vec<Task> = self
            .tasks
            .iter()
            .filter(|task| !done(task.index))
            .cloned()
            .collect();
        (!tasks.is_empty()).then(|| Self {
            tasks,
            resource: self.resource.clone(),
            system_prompt: self.system_prompt.clone(),
            thinking: self.thinking.clone(),
        })
    }
}

/// All tasks of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The batches in order.
    pub batches: Vec<PlannedBatch>,
    /// The number of tasks.
    pub num_tasks: usize,
}

impl Plan {
    /// Plans the verbatim pieces and gaps of all texts, then coverage questions and random seed prompts mixed.
    pub fn new(
        config: &SelfStudyConfig,
        resources: &[Box<dyn Resource>],
    ) -> Result<Self, PlanError> {
        config.validate()?;
        if resources.is_empty() {
            return Err(PlanError::NoResources);
        }
        for resource in resources {
            let weight = resource.weight();
            if !(weight.is_finite() && weight > 0.0) {
                return Err(PlanError::Weight {
                    name: resource.name().to_owned(),
                    weight,
                });
            }
        }
        let mut plan = Self {
            batches: Vec::new(),
            num_tasks: 0,
        };
        if config.verbatim {
            for resource in resources {
                plan.add_verbatim(config, &**resource);
            }
        }
        if config.gaps_per_sentence + config.words_per_gap > 0 {
            plan.add_gaps(config, resources);
        }
        plan.add_conversations(config, resources)?;
        Ok(plan)
    }

    fn add_verbatim(&mut self, config: &SelfStudyConfig, resource: &dyn Resource) {
        let Some(document) = resource.document() else {
            tracing::warn!(
                resource = resource.name(),
                "no verbatim pieces: the resource has no text to walk through"
            );
            return;
        };
        let pieces = verbatim::pieces(document, config);
        for (context, pieces) in verbatim::batches(document, pieces, config) {
            let tasks = pieces.into_iter().map(|piece| {
                let work = TaskWork::Given {
                    kind: ConversationKind::Verbatim,
                    text: piece.text,
                    token_ids: piece.token_ids,
                };
                ("verbatim", piece.prompt, work)
            });
            self.push(config, resource.name(), &context, tasks.collect(), None);
        }
    }

    fn add_gaps(&mut self, config: &SelfStudyConfig, resources: &[Box<dyn Resource>]) {
        let max_tokens = config.chunker.max_tokens();
        for (resource, text) in resources.iter().zip(coverage::segmented(resources)) {
            let Some(text) = text else { continue };
            let density = cloze::Density {
                per_sentence: config.gaps_per_sentence,
                words_per_gap: config.words_per_gap,
            };
            // Rounds up from half, so that a share of 1 asks for every gap.
            let mut asked = 0.5;
            let mut gaps = cloze::gaps(&text, density).into_iter().peekable();
            while let Some(first) = gaps.next() {
                let context = text.context(&first.window, max_tokens);
                let mut batch = vec![first];
                while batch.len() < config.batch_size
                    && let Some(next) =
                        gaps.next_if(|gap| text.context(&gap.window, max_tokens) == context)
                {
                    batch.push(next);
                }
                let ids = |gap: &cloze::Gap| text.document().codec().encode(&gap.answer);
                let asked = batch.iter().filter_map(|gap| {
                    asked += config.gap_questions;
                    let work = TaskWork::AskFor {
                        token_ids: ids(gap),
                        text: gap.answer.clone(),
                    };
                    (asked >= 1.0).then(|| {
                        asked -= 1.0;
                        ("answer", gap.ask.clone(), work)
                    })
                });
                let asked: Vec<_> = asked.collect();
                let given = batch.into_iter().map(|gap| {
                    let work = TaskWork::Given {
                        kind: ConversationKind::Gap,
                        token_ids: ids(&gap),
                        text: gap.answer,
                    };
                    ("gap", gap.prompt, work)
                });
                self.push(config, resource.name(), &context, given.collect(), None);
                if !asked.is_empty() {
                    self.push(config, resource.name(), &context, asked, None);
                }
            }
        }
    }

    fn add_conversations(
        &mut self,
        config: &SelfStudyConfig,
        resources: &[Box<dyn Resource>],
    ) -> Result<(), PlanError> {
        let wanted = (config.coverage_share * config.num_conversations as f64).round() as usize;
        let walked = if wanted > 0 {
            let texts = coverage::segmented(resources);
            let tasks = coverage::coverage_tasks(&texts, wanted);
            coverage::batches(&texts, tasks, config)
        } else {
            Vec::new()
        };
        let num_walked: usize = walked.iter().map(|(_, _, prompts)| prompts.len()).sum();
        // Without a text to walk through, all conversations come from random seed prompts.
        let mut left = config.num_conversations.saturating_sub(num_walked);
        let num_random = left.div_ceil(config.batch_size);
        let num_walked = walked.len();
        let mut walked = walked.into_iter();
        let total = num_random + num_walked;
        let mut used = 0;
        for i in 0..total {
            let mut rng = stream(config.seed, i as u64);
            // Spread evenly: after i of all batches, i·walked/total walked ones.
            if (i + 1) * num_walked / total > used {
                used += 1;
                if let Some((resource, context, prompts)) = walked.next() {
                    let tasks = prompts
                        .into_iter()
                        .map(|prompt| ("coverage", prompt, TaskWork::Converse))
                        .collect();
                    let name = resources[resource].name();
                    self.push(config, name, &context, tasks, Some(&mut rng));
                }
                continue;
            }
            let resource = &resources[draw_resource(resources, &mut rng)];
            let n = left.min(config.batch_size);
            left -= n;
            let (context, seeds) = resource.sample(&mut rng, n)?;
            let tasks = seeds
                .into_iter()
                .map(|seed| (seed.seed_type.as_str(), seed.text, TaskWork::Converse))
                .collect();
            self.push(config, resource.name(), &context, tasks, Some(&mut rng));
        }
        Ok(())
    }

    fn push(
        &mut self,
        config: &SelfStudyConfig,
        resource: &str,
        context: &str,
        tasks: Vec<(&'static str, String, TaskWork)>,
        rng: Option<&mut ChaCha8Rng>,
    ) {
        let thinking = match rng {
            Some(rng) => (0..config.max_rounds)
                .map(|_| rng.random::<f64>() < config.prob_thinking)
                .collect(),
            None => Vec::new(),
        };
        let first = self.num_tasks;
        let tasks: Vec<Task> = tasks
            .into_iter()
            .enumerate()
            .map(|(i, (seed_type, prompt, work))| Task {
                index: first + i,
                seed_type,
                prompt,
                work,
            })
            .collect();
        self.num_tasks += tasks.len();
        self.batches.push(PlannedBatch {
            resource: resource.to_owned(),
            system_prompt: config.system_prompt(context),
            thinking,
            tasks,
        });
    }

    /// A digest of every task.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            // Lengths keep neighbouring fields apart.
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for batch in &self.batches {
            add(batch.resource.as_bytes());
            add(batch.system_prompt.as_bytes());
            add(&batch
                .thinking
                .iter()
                .map(|&t| u8::from(t))
                .collect::<Vec<_>>());
            for task in &batch.tasks {
                add(&(task.index as u64).to_le_bytes());
                add(task.seed_type.as_bytes());
                add(task.prompt.as_bytes());
                if let TaskWork::Given {
                    text, token_ids, ..
                }
                | TaskWork::AskFor { text, token_ids } = &task.work
                {
                    add(text.as_bytes());
                    add(&token_ids
                        .iter()
                        .flat_map(|id| id.to_le_bytes())
                        .collect::<Vec<_>>());
                }
            }
        }
        hex(&hash.finalize())
    }
}

/// The resource of a batch, drawn by weight. Equal weights draw as before there were any.
fn draw_resource(resources: &[Box<dyn Resource>], rng: &mut ChaCha8Rng) -> usize {
    let weights: Vec<f64> = resources.iter().map(|r| r.weight()).collect();
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return rng.random_range(0..resources.len());
    }
    let mut place = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        place -= weight;
        if place < 0.0 {
            return i;
        }
    }
    resources.len() - 1
}

/// A generator of its own for each batch.
fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// The sampling seed of one request: of the run's seed, the task, the round and the agent.
pub(super) fn request_seed(seed: u64, task: usize, round: usize, agent: u64) -> u64 {
    [task as u64, round as u64, agent]
        .into_iter()
        .fold(mix(seed), |state, part| mix(state ^ part))
}

/// SplitMix64's finaliser (Steele, Lea and Flood 2014).
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
