//! A scripted stand-in for the engine: no model, but every event a real one sends.
//!
//! Tokens are words. The answer is `tok0 tok1 …` with the seed, adapter and cartridges woven in, or
//! whatever the last message says after `say:`. Orders in the last message: `fail:<kind>`, `slow`,
//! `panic`, `forever`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cartridges_serve::{
    Answer, AnswerSender, CartridgeInfo, Event, FinishReason, Inference, Job, JobError, Load,
    Prompt, Served, TokenText,
};

/// The id that ends a turn.
pub const EOS: u32 = 7777;

/// The stand-in.
pub struct Fake {
    served: Served,
    /// The last job that came.
    pub last: Mutex<Option<Job>>,
    /// Words told so far, by id.
    words: std::sync::Arc<Mutex<Vec<String>>>,
    generated: std::sync::Arc<AtomicU64>,
    /// Jobs that run.
    pub running: std::sync::Arc<AtomicUsize>,
    /// Jobs whose other end went away.
    pub cancelled: std::sync::Arc<AtomicUsize>,
    /// What `load` says of the queue.
    pub queued: AtomicUsize,
    draining: AtomicBool,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            served: Served {
                model_id: "fake/Model-1".into(),
                created: 1_700_000_000,
                max_tokens_per_request: 1000,
                max_top_logprobs: 10,
                max_completion_tokens: Some(8),
            },
            last: Mutex::new(None),
            words: Default::default(),
            generated: Default::default(),
            running: Default::default(),
            cancelled: Default::default(),
            queued: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
        }
    }
}

fn prompt_text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Chat { messages, .. } => messages
            .last()
            .map(|m| m.content.clone())
            .unwrap_or_default(),
        Prompt::Text(text) => text.clone(),
        Prompt::Ids(ids) => format!("{ids:?}"),
    }
}

fn error_named(kind: &str) -> JobError {
    match kind {
        "invalid" => JobError::Invalid("does not fit".into()),
        "missing" => JobError::NotFound("no cartridge `x`".into()),
        "long" => JobError::TooLong("too long".into()),
        "busy" => JobError::Busy,
        "down" => JobError::ShuttingDown,
        "late" => JobError::TimedOut,
        _ => JobError::Internal { id: "abc".into() },
    }
}

/// The words of the answer.
fn script(job: &Job) -> Vec<String> {
    let said = prompt_text(&job.prompt);
    if let Some((_, text)) = said.split_once("say:") {
        return text.split_inclusive(' ').map(str::to_owned).collect();
    }
    let mut words: Vec<String> = job
        .cartridges
        .iter()
        .map(|c| format!("[{}] ", c.id))
        .collect();
    words.extend(job.adapter.iter().map(|name| format!("<{name}> ")));
    words.extend(job.seed.map(|seed| format!("seed{seed} ")));
    let plain = if said.contains("forever") {
        1_000_000
    } else {
        3
    };
    words.extend((0..plain).map(|at| format!("tok{at} ")));
    words
}

struct Worker {
    words: std::sync::Arc<Mutex<Vec<String>>>,
    generated: std::sync::Arc<AtomicU64>,
    running: std::sync::Arc<AtomicUsize>,
    cancelled: std::sync::Arc<AtomicUsize>,
}

impl Worker {
    fn id_of(&self, word: &str) -> u32 {
        let mut words = self.words.lock().unwrap();
        let at = words
            .iter()
            .position(|known| known == word)
            .unwrap_or_else(|| {
                words.push(word.to_owned());
                words.len() - 1
            });
        at as u32
    }

    async fn work(self, job: Job, sender: AnswerSender) {
        self.running.fetch_add(1, SeqCst);
        if !self.told(&job, &sender).await {
            self.cancelled.fetch_add(1, SeqCst);
        }
        self.running.fetch_sub(1, SeqCst);
    }

    /// Whether somebody listened to the end.
    async fn told(&self, job: &Job, sender: &AnswerSender) -> bool {
        let said = prompt_text(&job.prompt);
        let prompt_tokens = said.split_whitespace().count().max(1);
        sender.send(Event::Started {
            prompt_tokens,
            cached_tokens: 1,
        });
        let limit = job.max_new_tokens.unwrap_or(usize::MAX);
        let slow = said.contains("slow") || said.contains("forever");
        let mut count = 0;
        for word in script(job) {
            if slow {
                tokio::select! {
                    () = sender.cancelled() => return false,
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
            if count == limit {
                return sender.send(Event::Finished {
                    reason: FinishReason::Length,
                    text: String::new(),
                });
            }
            if let Some((_, kind)) = word.split_once("fail-later:") {
                return sender.send(Event::Failed(error_named(kind.trim())));
            }
            if job.stop.iter().any(|stop| word.contains(stop.as_str())) {
                return sender.send(Event::Finished {
                    reason: FinishReason::Stop,
                    text: String::new(),
                });
            }
            count += 1;
            if !sender.send(self.token(job, self.id_of(&word), &word)) {
                return false;
            }
        }
        if count < limit {
            sender.send(self.token(job, EOS, ""));
        }
        sender.send(Event::Finished {
            reason: FinishReason::Stop,
            text: String::new(),
        })
    }

    fn token(&self, job: &Job, id: u32, text: &str) -> Event {
        self.generated.fetch_add(1, SeqCst);
        let count = job.top_logprobs.unwrap_or(0) as u32;
        Event::Token {
            id,
            text: text.to_owned(),
            logprob: job.top_logprobs.map(|_| -0.5),
            top: (0..count).map(|at| (id + at, -0.5 - at as f32)).collect(),
        }
    }
}

impl Inference for Fake {
    fn served(&self) -> &Served {
        &self.served
    }

    fn token(&self, id: u32) -> TokenText {
        let word = self.words.lock().unwrap().get(id as usize).cloned();
        let word = word.unwrap_or_else(|| format!("<{id}>"));
        TokenText {
            raw: word.replace(' ', "Ġ"),
            bytes: word.into_bytes(),
        }
    }

    fn submit(&self, job: Job) -> Result<Answer, JobError> {
        if self.draining.load(SeqCst) {
            return Err(JobError::ShuttingDown);
        }
        let said = prompt_text(&job.prompt);
        *self.last.lock().unwrap() = Some(job.clone());
        assert!(!said.contains("panic"), "a secret in a panic");
        if let Some((_, kind)) = said.split_once("fail:") {
            return Err(error_named(kind));
        }
        if let Some(spec) = job.cartridges.iter().find(|spec| spec.id == "missing") {
            return Err(JobError::NotFound(format!("no cartridge `{}`", spec.id)));
        }
        let (sender, answer) = Answer::channel();
        let worker = Worker {
            words: self.words.clone(),
            generated: self.generated.clone(),
            running: self.running.clone(),
            cancelled: self.cancelled.clone(),
        };
        tokio::spawn(worker.work(job, sender));
        Ok(answer)
    }

    fn cartridges(&self) -> Vec<CartridgeInfo> {
        let info = |id: &str, tokens| CartridgeInfo {
            id: id.into(),
            tokens,
            bytes: tokens as u64 * 114_688,
            origin: "made for this test".into(),
            resident: true,
        };
        vec![info("manual", 512), info("faq", 128)]
    }

    fn load(&self) -> Load {
        Load {
            queued: self.queued.load(SeqCst),
            running: self.running.load(SeqCst),
            kv_rows_used: 640,
            kv_rows_kept: 320,
            kv_rows_total: 4096,
            generated_tokens: self.generated.load(SeqCst),
            ..Load::default()
        }
    }

    fn ready(&self) -> bool {
        !self.draining.load(SeqCst)
    }

    fn drain(&self) {
        self.draining.store(true, SeqCst);
    }
}
