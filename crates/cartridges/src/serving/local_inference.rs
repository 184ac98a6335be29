//! The engine in this process as what the server talks to.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use cartridges_engine::{
    Constraint, ConstraintFactory, EngineOptions, GenerateRequest, Sampling, StopRules, TokenBytes,
};
use cartridges_eval::chat_ids;
use cartridges_model::LanguageModel;
use cartridges_model::adapter::HostAdapter;
use cartridges_model::cartridge::HostCartridge;
use cartridges_model::hub::ResolveOptions;
use cartridges_model::text::{ChatMessage, RenderOptions};
use cartridges_serve::{
    Answer, AnswerSender, CartridgeInfo, CartridgeSpec, Constraint as Form, Event, Inference, Job,
    JobError, Load, Prompt, Role, Served, Source, TokenText,
};

use super::engine_thread::{EngineThread, Loans, Task};
use super::shelf::{Loan, Shelf};
use super::ware::Ware;

/// What a local engine serves with.
#[derive(Clone)]
pub struct ServingOptions {
    /// The engine's limits.
    pub engine: EngineOptions,
    /// Where cartridges stand, each in a folder of its name.
    pub cartridge_dir: Option<PathBuf>,
    /// Bytes of cartridges in the engine's memory at most.
    pub cartridge_bytes: u64,
    /// Where adapters stand, each in a folder of its name.
    pub adapter_dir: Option<PathBuf>,
    /// Bytes of adapters in memory at most.
    pub adapter_bytes: u64,
    /// Most log-probs per position.
    pub max_top_logprobs: usize,
    /// The answer's token limit where a request names none.
    pub max_completion_tokens: Option<usize>,
    /// How cartridges of the hub are fetched.
    pub hub: ResolveOptions,
}

/// A model in this process, for [`cartridges_serve::serve`].
pub struct LocalInference {
    served: Served,
    desk: Desk,
    draining: AtomicBool,
    /// Jobs that are being prepared.
    intake: Arc<AtomicUsize>,
}

/// What preparing a job needs. Clones share it.
#[derive(Clone)]
struct Desk {
    model: Arc<LanguageModel>,
    engine: EngineThread,
    cartridges: Shelf<HostCartridge>,
    adapters: Shelf<HostAdapter>,
    constraints: Arc<OnceLock<Result<ConstraintFactory, String>>>,
    max_completion_tokens: Option<usize>,
    /// How cartridges are fetched.
    hub: ResolveOptions,
}

/// Counts a job as being prepared.
struct Intake(Arc<AtomicUsize>);

impl Drop for Intake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LocalInference {
    /// Starts the engine.
    ///
    /// # Errors
    /// If the cartridge folder is not there or the system gives no thread.
    pub fn start(model: Arc<LanguageModel>, options: ServingOptions) -> Result<Self> {
        let engine = EngineThread::start(model.clone(), options.engine)?;
        let folder = options.cartridge_dir.as_deref();
        let cartridges = shelf(folder, &model, &engine, options.cartridge_bytes)?;
        let folder = options.adapter_dir.as_deref();
        let adapters = shelf(folder, &model, &engine, options.adapter_bytes)?;
        let positions = model.decoder.config().max_position_embeddings;
        Ok(Self {
            served: Served {
                model_id: model.identity.id.clone(),
                created: chrono::Utc::now().timestamp().unsigned_abs(),
                max_tokens_per_request: positions.min(options.engine.max_kv_rows),
                max_top_logprobs: options.max_top_logprobs,
                max_completion_tokens: options.max_completion_tokens,
            },
            desk: Desk {
                model,
                engine,
                cartridges,
                adapters,
                constraints: Arc::default(),
                max_completion_tokens: options.max_completion_tokens,
                hub: options.hub,
            },
            draining: AtomicBool::new(false),
            intake: Arc::default(),
        })
    }
}

/// A shelf over a folder, which must be there.
fn shelf<W: Ware>(
    folder: Option<&Path>,
    model: &Arc<LanguageModel>,
    engine: &EngineThread,
    bytes: u64,
) -> Result<Shelf<W>> {
    Shelf::new(folder, model.clone(), engine.clone(), bytes).with_context(|| {
        let folder = folder.unwrap_or("".as_ref());
        format!("{} folder {}", W::NOUN, folder.display())
    })
}

impl Desk {
    fn prepare(&self, job: Job, answer: &AnswerSender) -> Result<Task, JobError> {
        let loans = Loans {
            cartridges: job
                .cartridges
                .iter()
                .map(|spec| self.borrow(spec))
                .collect::<Result<_, JobError>>()?,
            adapters: job
                .adapter
                .iter()
                .map(|id| self.adapters.borrow(id, false))
                .collect::<Result<_, JobError>>()?,
        };
        let prompt = self.ids(job.prompt, !loans.cartridges.is_empty())?;
        let sampling = Sampling {
            temperature: job.temperature,
            top_k: job.top_k,
            top_p: job.top_p,
            min_p: job.min_p,
            seed: job.seed.unwrap_or_else(rand::random),
        };
        let max_new_tokens = job.max_new_tokens.or(self.max_completion_tokens);
        let room = self.model.decoder.config().max_position_embeddings;
        let told = self.engine.told().stats;
        let room = room.min(told.kv_rows_limit.saturating_sub(told.cartridge_rows));
        let fits = room.saturating_sub(prompt.len() + 1).max(1);
        let stop_ids = match job.ignore_eos {
            true => Vec::new(),
            false => self.model.text.stop_ids(),
        };
        Ok(Task {
            prompt_tokens: prompt.len(),
            request: GenerateRequest {
                cartridges: loans.cartridges.iter().map(|loan| loan.handle).collect(),
                adapters: loans.adapters.iter().map(|loan| loan.handle).collect(),
                sampling,
                stop: StopRules {
                    ids: stop_ids,
                    strings: job.stop,
                },
                top_logprobs: job.top_logprobs.unwrap_or(0),
                logprobs: job.top_logprobs.is_some(),
                constraint: job
                    .constraint
                    .map(|form| self.constraint(&form))
                    .transpose()?,
                client: job.client,
                ..GenerateRequest::new(prompt, max_new_tokens.unwrap_or(fits))
            },
            answer: answer.clone(),
            loans,
        })
    }

    /// A cartridge from the shelf, or from the place that the request names; which places it may name
    /// has been checked.
    fn borrow(&self, spec: &CartridgeSpec) -> Result<Loan<HostCartridge>, JobError> {
        let remote = spec.source == Source::HuggingFace;
        if remote && spec.force_redownload {
            self.cartridges
                .fetch(&spec.requested, &spec.id, true, &self.hub)?;
        }
        match self.cartridges.borrow(&spec.id, spec.force_redownload) {
            Err(JobError::NotFound(_)) if remote && !spec.force_redownload => {
                self.cartridges
                    .fetch(&spec.requested, &spec.id, false, &self.hub)?;
                self.cartridges.borrow(&spec.id, false)
            }
            borrowed => borrowed,
        }
    }

    fn ids(&self, prompt: Prompt, behind_cartridge: bool) -> Result<Vec<u32>, JobError> {
        let text = &self.model.text;
        let invalid =
            |error: cartridges_model::text::TextError| JobError::Invalid(error.to_string());
        match prompt {
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Text(words) => text.encode(&words, !behind_cartridge).map_err(invalid),
            Prompt::Chat {
                messages,
                template_keywords,
            } => {
                let asks = messages.last().is_some_and(|m| m.role == Role::User);
                let options = RenderOptions {
                    add_generation_prompt: asks,
                    continue_final_message: !asks,
                    keywords: template_keywords,
                };
                let messages: Vec<ChatMessage> = messages
                    .into_iter()
                    .map(|m| ChatMessage::new(m.role.as_str(), m.content))
                    .collect();
                chat_ids(text, behind_cartridge, &messages, &options).map_err(invalid)
            }
        }
    }

    fn constraint(&self, form: &Form) -> Result<Constraint, JobError> {
        let factory = self.constraints.get_or_init(|| {
            let text = &self.model.text;
            let vocabulary: Vec<TokenBytes> = (0..self.model.decoder.config().vocab_size as u32)
                .map(|id| (!text.is_added(id)).then(|| text.token_bytes(id)))
                .collect();
            ConstraintFactory::new(&vocabulary, &text.stop_ids()).map_err(|e| e.to_string())
        });
        let invalid = |error: String| JobError::Invalid(format!("response_format: {error}"));
        let factory = factory.as_ref().map_err(|error| invalid(error.clone()))?;
        match form {
            Form::JsonObject => factory.json_object(),
            Form::JsonSchema(schema) => factory.json_schema(schema),
        }
        .map_err(|error| invalid(error.to_string()))
    }
}

impl Inference for LocalInference {
    fn served(&self) -> &Served {
        &self.served
    }

    fn token(&self, id: u32) -> TokenText {
        let text = &self.desk.model.text;
        TokenText {
            raw: text.token_text(id).unwrap_or_default(),
            bytes: text.token_bytes(id),
        }
    }

    fn submit(&self, job: Job) -> Result<Answer, JobError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(JobError::ShuttingDown);
        }
        let (sender, answer) = Answer::channel();
        self.intake.fetch_add(1, Ordering::Relaxed);
        let intake = Intake(self.intake.clone());
        let desk = self.desk.clone();
        tokio::task::spawn_blocking(move || {
            if !sender.is_cancelled() {
                match desk.prepare(job, &sender) {
                    Ok(task) => desk.engine.run(task),
                    Err(error) => {
                        sender.send(Event::Failed(error));
                    }
                }
            }
            drop(intake);
        });
        Ok(answer)
    }

    fn cartridges(&self) -> Vec<CartridgeInfo> {
        self.desk.cartridges.list()
    }

    fn load(&self) -> Load {
        let told = self.desk.engine.told();
        let (cartridge_hits, cartridge_misses) = self.desk.cartridges.counts();
        Load {
            queued: told.stats.waiting + self.intake.load(Ordering::Relaxed),
            running: told.stats.running,
            kv_rows_used: told.stats.kv_rows_used,
            kv_rows_kept: told.stats.cartridge_rows + told.stats.prefixes.stored_tokens,
            kv_rows_total: told.stats.kv_rows_limit,
            generated_tokens: told.generated_tokens,
            prompt_tokens: told.prompt_tokens,
            cartridge_hits,
            cartridge_misses,
            preemptions: told.stats.preemptions,
        }
    }

    fn ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}
