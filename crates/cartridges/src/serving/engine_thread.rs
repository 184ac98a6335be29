//! The thread that owns the engine. Everybody else sends it commands.

use std::collections::HashMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use cartridges_engine::{
    CartridgeHandle, Engine, EngineError, EngineOptions, EngineStats, FinishReason,
    GenerateRequest, RequestError, RequestId, StepEvent,
};
use cartridges_model::LanguageModel;
use cartridges_model::adapter::{AdapterError, AdapterHandle, HostAdapter};
use cartridges_model::cartridge::HostCartridge;
use cartridges_serve::{AnswerSender, Event, JobError};

use super::shelf::Loan;

/// A request with the ear that waits for it.
pub struct Task {
    pub request: GenerateRequest,
    pub prompt_tokens: usize,
    pub answer: AnswerSender,
    /// Keeps what it uses on the shelves.
    pub loans: Loans,
}

/// What a request has borrowed.
#[derive(Default)]
pub struct Loans {
    pub cartridges: Vec<Loan<HostCartridge>>,
    pub adapters: Vec<Loan<HostAdapter>>,
}

enum Command {
    Run(Box<Task>),
    Add(
        Arc<HostCartridge>,
        Sender<Result<CartridgeHandle, EngineError>>,
    ),
    Remove(CartridgeHandle),
    AddAdapter(
        Arc<HostAdapter>,
        Sender<Result<AdapterHandle, AdapterError>>,
    ),
    RemoveAdapter(AdapterHandle),
}

/// What the thread tells without being asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    pub stats: EngineStats,
    pub generated_tokens: u64,
    pub prompt_tokens: u64,
    /// Times the engine had to be made anew after a fault; handles from before mean nothing.
    pub restarts: u64,
}

/// A handle on the thread. The thread ends when all handles are gone.
#[derive(Clone)]
pub struct EngineThread {
    commands: Sender<Command>,
    told: Arc<Mutex<Told>>,
    #[allow(dead_code)] // detached when the last handle goes
    thread: Arc<JoinHandle<()>>,
}

impl EngineThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(model: Arc<LanguageModel>, options: EngineOptions) -> std::io::Result<Self> {
        let (commands, inbox) = channel();
        let told = Arc::new(Mutex::new(Told {
            stats: Engine::new(model.clone(), options).stats(),
            ..Told::default()
        }));
        let worker_told = told.clone();
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || Worker::new(model, options, inbox, worker_told).run())?;
        Ok(Self {
            commands,
            told,
            thread: Arc::new(thread),
        })
    }

    /// Takes a request. A thread that is gone drops it, and with it the answer's sending end.
    pub fn run(&self, task: Task) {
        let _ = self.commands.send(Command::Run(Box::new(task)));
    }

    /// Copies a cartridge into the engine's memory; waits for the step in progress.
    pub fn add(&self, cartridge: Arc<HostCartridge>) -> Result<CartridgeHandle, String> {
        self.ask(|reply| Command::Add(cartridge, reply))
    }

    /// Registers an adapter with the engine; waits for the step in progress.
    pub fn add_adapter(&self, adapter: Arc<HostAdapter>) -> Result<AdapterHandle, String> {
        self.ask(|reply| Command::AddAdapter(adapter, reply))
    }

    /// Takes an adapter away; what runs with it ends with it.
    pub fn remove_adapter(&self, handle: AdapterHandle) {
        let _ = self.commands.send(Command::RemoveAdapter(handle));
    }

    fn ask<T, E: Display>(
        &self,
        command: impl FnOnce(Sender<Result<T, E>>) -> Command,
    ) -> Result<T, String> {
        let (reply, answer) = channel();
        let gone = || "the engine has ended".to_owned();
        self.commands.send(command(reply)).map_err(|_| gone())?;
        match answer.recv() {
            Ok(added) => added.map_err(|error| error.to_string()),
            Err(_) => Err(gone()),
        }
    }

    /// Takes a cartridge out of the engine's memory once nobody reads it.
    pub fn remove(&self, handle: CartridgeHandle) {
        let _ = self.commands.send(Command::Remove(handle));
    }

    /// How busy the engine was after its last step.
    pub fn told(&self) -> Told {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that is in the engine.
struct Running {
    answer: AnswerSender,
    prompt_tokens: usize,
    #[allow(dead_code)] // given back when the request ends
    loans: Loans,
}

struct Worker {
    model: Arc<LanguageModel>,
    options: EngineOptions,
    engine: Engine,
    inbox: Receiver<Command>,
    running: HashMap<RequestId, Running>,
    told: Arc<Mutex<Told>>,
    now: Told,
}

impl Worker {
    fn new(
        model: Arc<LanguageModel>,
        options: EngineOptions,
        inbox: Receiver<Command>,
        told: Arc<Mutex<Told>>,
    ) -> Self {
        Self {
            engine: Engine::new(model.clone(), options),
            model,
            options,
            inbox,
            running: HashMap::new(),
            told,
            now: Told::default(),
        }
    }

    fn run(mut self) {
        loop {
            // With nothing to do it sleeps until a command comes.
            if self.running.is_empty() {
                self.tell();
                match self.inbox.recv() {
                    Ok(command) => self.obey(command),
                    Err(_) => return,
                }
            }
            loop {
                match self.inbox.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) if self.running.is_empty() => return,
                    Err(TryRecvError::Disconnected) => break,
                }
            }
            self.drop_cancelled();
            if !self.running.is_empty() {
                self.step();
            }
            self.tell();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Run(task) => {
                let task = *task;
                match self.engine.submit(task.request) {
                    Ok(id) => {
                        self.now.prompt_tokens += task.prompt_tokens as u64;
                        let running = Running {
                            answer: task.answer,
                            prompt_tokens: task.prompt_tokens,
                            loans: task.loans,
                        };
                        self.running.insert(id, running);
                    }
                    Err(error) => {
                        task.answer.send(Event::Failed(job_error(error)));
                    }
                }
            }
            Command::Add(cartridge, reply) => {
                let added = self.engine.add_cartridge(&cartridge);
                // An error here means that nobody waits for it any more.
                if let Err(unheard) = reply.send(added)
                    && let Ok(handle) = unheard.0
                {
                    self.engine.remove_cartridge(handle);
                }
            }
            Command::Remove(handle) => self.engine.remove_cartridge(handle),
            Command::AddAdapter(adapter, reply) => {
                let added = self.engine.add_adapter(&adapter);
                if let Err(unheard) = reply.send(added)
                    && let Ok(handle) = unheard.0
                {
                    self.engine.remove_adapter(handle);
                }
            }
            Command::RemoveAdapter(handle) => self.engine.remove_adapter(handle),
        }
    }

    fn drop_cancelled(&mut self) {
        let gone: Vec<RequestId> = self
            .running
            .iter()
            .filter(|(_, running)| running.answer.is_cancelled())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.engine.cancel(id);
            self.running.remove(&id);
        }
    }

    fn step(&mut self) {
        let (running, now) = (&mut self.running, &mut self.now);
        let engine = &mut self.engine;
        let stepped = catch_unwind(AssertUnwindSafe(|| {
            engine.step(&mut |event| hear(event, running, now))
        }));
        let problem = match stepped {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the engine panicked".to_owned(),
        };
        // What is in its memory can no longer be trusted.
        let id = uuid::Uuid::new_v4().to_string();
        tracing::error!(%id, %problem, "the engine failed and is made anew");
        for (_, running) in self.running.drain() {
            running
                .answer
                .send(Event::Failed(JobError::Internal { id: id.clone() }));
        }
        self.engine = Engine::new(self.model.clone(), self.options);
        self.now.restarts += 1;
    }

    fn tell(&mut self) {
        self.now.stats = self.engine.stats();
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = self.now;
    }
}

/// Passes on what came of a step.
fn hear(event: StepEvent<'_>, running: &mut HashMap<RequestId, Running>, now: &mut Told) {
    match event {
        StepEvent::Started {
            request,
            cached_tokens,
        } => {
            if let Some(running) = running.get(&request) {
                running.answer.send(Event::Started {
                    prompt_tokens: running.prompt_tokens,
                    cached_tokens,
                });
            }
        }
        StepEvent::Token {
            request,
            id,
            text,
            logprob,
            top,
        } => {
            now.generated_tokens += 1;
            if let Some(running) = running.get(&request) {
                running.answer.send(Event::Token {
                    id,
                    text: text.to_owned(),
                    logprob,
                    top: top.to_vec(),
                });
            }
        }
        StepEvent::Finished {
            request,
            completion,
        } => {
            if let Some(running) = running.remove(&request) {
                let reason = match completion.finish {
                    FinishReason::Stop => cartridges_serve::FinishReason::Stop,
                    FinishReason::Length => cartridges_serve::FinishReason::Length,
                };
                running.answer.send(Event::Finished {
                    reason,
                    text: String::new(),
                });
            }
        }
        StepEvent::Failed { request, error } => {
            if let Some(running) = running.remove(&request) {
                running.answer.send(Event::Failed(job_error(error)));
            }
        }
    }
}

/// What a client is told of an engine's refusal.
pub fn job_error(error: RequestError) -> JobError {
    match error {
        RequestError::TooLong { .. } | RequestError::TooLarge { .. } => {
            JobError::TooLong(error.to_string())
        }
        RequestError::QueueFull(_) => JobError::Busy,
        RequestError::UnknownCartridge
        | RequestError::UnknownAdapter
        | RequestError::NotFinite
        | RequestError::Panicked
        | RequestError::Text(_) => {
            let id = uuid::Uuid::new_v4().to_string();
            tracing::error!(%id, %error, "a request failed");
            JobError::Internal { id }
        }
        RequestError::EmptyPrompt
        | RequestError::TokenId(_)
        | RequestError::Sampling(_)
        | RequestError::Constraint(_) => JobError::Invalid(error.to_string()),
    }
}
