//! The flow of the conversations.
//!
//! Agent A sees the system prompt, its seed prompt, and the conversation with roles exchanged; what it
//! writes becomes a user message. Agent B sees the system prompt and the conversation; what it writes
//! becomes an assistant message with its log-probabilities.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::SelfStudyConfig;
use super::plan::{PlannedBatch, Task, TaskWork, request_seed};
use super::tool_phase::tool_phase;
use crate::client::{
    ChatClient, ChatMessage, ChatRequest, ClientError, FinishReason, Sample, ScoreRequest,
    check_samples, check_scores,
};
use crate::conversation::{Conversation, ConversationKind, Message, Metadata, Role, ToolCall};
use crate::tool::ToolBox;
use crate::top_logprobs::DenseTopLogprobs;

/// The reference system writes this word into every row's `type`.
const CONVERSATION_TYPE: &str = "todo";
/// Finish reason of text that was not generated.
const GIVEN: &str = "given";

/// A task that gave nothing to keep; asking again would give the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The task's number.
    pub task: usize,
    /// Why: `empty question`, `empty answer`, `cut-off answer` or `answer in the question`.
    pub cause: String,
}

/// A task that went wrong and may succeed another time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The task's number.
    pub task: usize,
    /// A short name to count by.
    pub cause: String,
    /// The full message.
    pub message: String,
}

/// Numbers about finished tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Tokens that the agents generated.
    pub generated_tokens: u64,
    /// Tokens of verbatim pieces that were scored.
    pub scored_tokens: u64,
    /// Questions without text.
    pub empty_questions: u64,
    /// Questions that hit the token limit.
    pub cut_off_questions: u64,
    /// Answers without text.
    pub empty_answers: u64,
    /// Answers that hit the token limit.
    pub cut_off_answers: u64,
    /// Batches that failed at first and were asked again.
    pub retried_batches: u64,
    /// Calls of tools.
    pub tool_calls: u64,
    /// Calls of tools that gave nothing.
    pub failed_tool_calls: u64,
}

impl Counts {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &Counts) {
        self.generated_tokens += other.generated_tokens;
        self.scored_tokens += other.scored_tokens;
        self.empty_questions += other.empty_questions;
        self.cut_off_questions += other.cut_off_questions;
        self.empty_answers += other.empty_answers;
        self.cut_off_answers += other.cut_off_answers;
        self.retried_batches += other.retried_batches;
        self.tool_calls += other.tool_calls;
        self.failed_tool_calls += other.failed_tool_calls;
    }
}

/// What became of some batches: every task is in exactly one of the three lists.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchesOutcome {
    /// The conversations, in task order within a batch.
    pub conversations: Vec<Conversation>,
    /// Tasks without a conversation worth keeping.
    pub dropped: Vec<Dropped>,
    /// Tasks that went wrong.
    pub failed: Vec<Failed>,
    /// Numbers.
    pub counts: Counts,
}

impl BatchesOutcome {
    fn add(&mut self, other: BatchesOutcome) {
        self.conversations.extend(other.conversations);
        self.dropped.extend(other.dropped);
        self.failed.extend(other.failed);
        self.counts.add(&other.counts);
    }

    /// Tasks that failed, by cause.
    pub fn failures_by_cause(&self) -> BTreeMap<String, usize> {
        let mut causes = BTreeMap::new();
        for failed in &self.failed {
            *causes.entry(failed.cause.clone()).or_default() += 1;
        }
        causes
    }
}

/// Makes the conversations of some batches in one go. If the client fails, each batch is asked once
/// more by itself, and one that fails again is reported task by task. `on_done(answered, of)` tells
/// about the requests of the current step.
///
/// # Errors
/// Only [`ClientError::Stopped`], when the client was told to stop; nothing of these batches is kept.
pub fn run_batches(
    config: &SelfStudyConfig,
    batches: &[PlannedBatch],
    client: &mut dyn ChatClient,
    tools: &mut ToolBox,
    on_done: &mut dyn FnMut(usize, usize),
) -> Result<BatchesOutcome, ClientError> {
    let mut outcome = BatchesOutcome::default();
    match attempt(config, batches, client, tools, on_done) {
        Ok(done) => return Ok(done),
        Err(ClientError::Stopped) => return Err(ClientError::Stopped),
        Err(error) => tracing::warn!(%error, "a batch failed, asking once more"),
    }
    for batch in batches {
        outcome.counts.retried_batches += 1;
        match attempt(config, std::slice::from_ref(batch), client, tools, on_done) {
            Ok(done) => outcome.add(done),
            Err(ClientError::Stopped) => return Err(ClientError::Stopped),
            Err(error) => {
                let first = batch.tasks.first().map_or(0, |t| t.index);
                tracing::warn!(%error, first, tasks = batch.tasks.len(), "a batch failed twice");
                outcome.failed.extend(batch.tasks.iter().map(|task| Failed {
                    task: task.index,
                    cause: error.cause().to_owned(),
                    message: error.to_string(),
                }));
            }
        }
    }
    Ok(outcome)
}

fn attempt(
    config: &SelfStudyConfig,
    batches: &[PlannedBatch],
    client: &mut dyn ChatClient,
    tools: &mut ToolBox,
    on_done: &mut dyn FnMut(usize, usize),
) -> Result<BatchesOutcome, ClientError> {
    let mut outcome = BatchesOutcome::default();
    let tasks = || {
        batches
            .iter()
            .flat_map(|b| b.tasks.iter().map(move |t| (b, t)))
    };
    let mut talks: Vec<Talk> = tasks()
        .filter(|(_, task)| !matches!(task.work, TaskWork::Given { .. }))
        .map(|(batch, task)| Talk::new(batch, task))
        .collect();
    let turns = [Agent::A, Agent::B]
        .map(|agent| 1 + usize::from(!tools.is_empty() && config.uses_tools(agent)))
        .iter()
        .sum::<usize>();
    let expected = talks
        .iter()
        .map(|talk| match talk.task.work {
            TaskWork::Converse => turns * config.max_rounds,
            _ => 1,
        })
        .sum();
    let mut answered = 0;
    let mut count = || {
        answered += 1;
        on_done(answered, expected);
    };
    for round in 0..config.max_rounds {
        for agent in [Agent::A, Agent::B] {
            let turn = Turn { agent, round };
            let counts = &mut outcome.counts;
            tool_phase(config, &mut talks, turn, client, tools, &mut count, counts)?;
            step(config, &mut talks, turn, client, &mut count, &mut outcome)?;
        }
    }
    outcome.add(score(config, tasks(), client)?);
    outcome.conversations.extend(
        talks
            .into_iter()
            .filter(|talk| talk.state != State::Lost)
            .map(Talk::into_conversation),
    );
    outcome
        .conversations
        .sort_by_key(|conversation| conversation.metadata.task);
    Ok(outcome)
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Agent {
    A,
    B,
}

/// Who speaks, and in which exchange of the conversation.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub agent: Agent,
    pub round: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Going,
    /// Nothing more is asked.
    Complete,
    /// Dropped or failed.
    Lost,
}

/// A conversation in the making.
pub(super) struct Talk<'a> {
    batch: &'a PlannedBatch,
    pub task: &'a Task,
    /// The batch's, with what tools said behind it.
    pub system_prompt: String,
    pub tool_calls: Vec<ToolCall>,
    messages: Vec<Message>,
    finish_reasons: Vec<String>,
    state: State,
}

impl<'a> Talk<'a> {
    fn new(batch: &'a PlannedBatch, task: &'a Task) -> Self {
        Self {
            batch,
            task,
            system_prompt: batch.system_prompt.clone(),
            tool_calls: Vec::new(),
            messages: Vec::new(),
            finish_reasons: Vec::new(),
            state: State::Going,
        }
    }

    pub fn is_going(&self) -> bool {
        self.state == State::Going
    }

    /// The conversation as an agent sees it.
    pub fn seen_by(&self, agent: Agent) -> Vec<ChatMessage> {
        let mut messages = vec![ChatMessage::new(Role::System, &self.system_prompt)];
        if agent == Agent::A {
            messages.push(ChatMessage::new(Role::User, &self.task.prompt));
        }
        messages.extend(self.messages.iter().map(|message| {
            let role = match agent {
                Agent::A => message.role.flipped(),
                Agent::B => message.role,
            };
            ChatMessage::new(role, &message.content)
        }));
        messages
    }

    fn request(&self, config: &SelfStudyConfig, turn: Turn) -> ChatRequest {
        let Turn { agent, round } = turn;
        let (temperature, max_completion_tokens) = match agent {
            Agent::A => (config.temperature_a, config.max_completion_tokens_a),
            Agent::B => (config.temperature_b, config.max_completion_tokens_b),
        };
        let thinking = agent == Agent::B && self.batch.thinking.get(round) == Some(&true);
        ChatRequest {
            messages: self.seen_by(agent),
            temperature,
            max_completion_tokens,
            top_logprobs: (agent == Agent::B && config.num_top_logprobs > 0)
                .then_some(config.num_top_logprobs),
            enable_thinking: Some(thinking),
            seed: request_seed(config.seed, self.task.index, round, agent as u64),
            assistant_prefix: None,
        }
    }

    fn into_conversation(self) -> Conversation {
        Conversation {
            messages: self.messages,
            system_prompt: self.system_prompt,
            metadata: Metadata {
                tool_calls: self.tool_calls,
                seed_prompt: self.task.prompt.clone(),
                initial_system_prompt: self.batch.system_prompt.clone(),
                kind: Some(match self.task.work {
                    TaskWork::Converse => ConversationKind::Conversation,
                    _ => ConversationKind::Gap,
                }),
                seed_type: Some(self.task.seed_type.to_owned()),
                resource: Some(self.batch.resource.clone()),
                finish_reasons: Some(self.finish_reasons),
                thinking: Some(self.batch.thinking.clone()),
                task: Some(self.task.index as u64),
            },
            conversation_type: Some(CONVERSATION_TYPE.to_owned()),
        }
    }
}

/// One message of one agent in every conversation that is not over.
fn step(
    config: &SelfStudyConfig,
    talks: &mut [Talk],
    turn: Turn,
    client: &mut dyn ChatClient,
    on_answer: &mut dyn FnMut(),
    outcome: &mut BatchesOutcome,
) -> Result<(), ClientError> {
    let mut talks: Vec<&mut Talk> = talks.iter_mut().filter(|talk| talk.is_going()).collect();
    if talks.is_empty() {
        return Ok(());
    }
    let requests: Vec<ChatRequest> = talks
        .iter()
        .map(|talk| talk.request(config, turn))
        .collect();
    let samples = client.complete(&requests, &mut |_| on_answer())?;
    check_samples(&requests, &samples)?;
    for (talk, sample) in talks.iter_mut().zip(samples) {
        take(config, talk, turn.agent, sample, outcome)?;
    }
    Ok(())
}

/// Puts a sample into its conversation, counts what is odd about it, and drops what is not worth
/// keeping.
fn take(
    config: &SelfStudyConfig,
    talk: &mut Talk,
    agent: Agent,
    sample: Sample,
    outcome: &mut BatchesOutcome,
) -> Result<(), ClientError> {
    let task = talk.task.index;
    if let FinishReason::Failed(error) = sample.finish {
        talk.state = State::Lost;
        outcome.failed.push(Failed {
            task,
            cause: error.cause().to_owned(),
            message: error.to_string(),
        });
        return Ok(());
    }
    let counts = &mut outcome.counts;
    counts.generated_tokens += sample.token_ids.len() as u64;
    let empty = sample.text.trim().is_empty();
    let cut_off = sample.finish == FinishReason::Length;
    let (empty_count, cut_off_count, empty_cause) = match agent {
        Agent::A => (
            &mut counts.empty_questions,
            &mut counts.cut_off_questions,
            "empty question",
        ),
        Agent::B => (
            &mut counts.empty_answers,
            &mut counts.cut_off_answers,
            "empty answer",
        ),
    };
    *empty_count += u64::from(empty);
    *cut_off_count += u64::from(cut_off);
    let cause = if empty && config.drop_empty {
        Some(empty_cause)
    } else if cut_off && agent == Agent::B && config.drop_cut_off {
        Some("cut-off answer")
    } else if gives_itself_away(talk.task, &sample.text) {
        Some("answer in the question")
    } else {
        None
    };
    if let Some(cause) = cause {
        talk.state = State::Lost;
        outcome.dropped.push(Dropped {
            task,
            cause: cause.to_owned(),
        });
        return Ok(());
    }
    let top_logprobs = match (agent, &sample.top_logprobs) {
        (Agent::B, Some(dense)) => Some(dense.flatten(config.min_prob_mass)?),
        _ => None,
    };
    talk.finish_reasons.push(sample.finish.as_str().to_owned());
    let brief = match agent {
        Agent::A => brief_request(config, talk.task),
        Agent::B => None,
    };
    talk.messages.push(match brief {
        Some(request) => Message {
            content: format!("{} {request}", sample.text.trim_end()),
            role: Role::User,
            // The ids of what the model wrote are no longer those of the message.
            token_ids: None,
            top_logprobs: None,
        },
        None => Message {
            content: sample.text,
            role: match agent {
                Agent::A => Role::User,
                Agent::B => Role::Assistant,
            },
            token_ids: (!sample.token_ids.is_empty()).then_some(sample.token_ids),
            top_logprobs,
        },
    });
    if let TaskWork::AskFor { text, token_ids } = &talk.task.work {
        talk.messages.push(Message {
            content: text.clone(),
            role: Role::Assistant,
            token_ids: Some(token_ids.clone()),
            top_logprobs: match config.num_top_logprobs {
                0 => None,
                _ => Some(certain(token_ids).flatten(config.min_prob_mass)?),
            },
        });
        talk.finish_reasons.push(GIVEN.to_owned());
        talk.state = State::Complete;
    }
    Ok(())
}

/// Whether a question holds the answer that it should ask for.
fn gives_itself_away(task: &Task, question: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    match &task.work {
        TaskWork::AskFor { text, .. } => {
            let (answer, question) = (words(text), words(question));
            !answer.is_empty() && question.windows(answer.len()).any(|part| part == answer)
        }
        _ => false,
    }
}

/// Ways to ask for a short answer.
const BRIEF: [&str; 4] = [
    "Answer with the name, number or word only.",
    "Answer in a few words.",
    "Reply with the answer only.",
    "Give a short answer.",
];

/// What is added to the question of a task that is to be answered shortly. Questions only: a summary
/// or a letter in a few words makes no sense. The golden ratio spreads them evenly over the tasks.
fn brief_request(config: &SelfStudyConfig, task: &Task) -> Option<&'static str> {
    let asks = matches!(task.seed_type, "coverage" | "question" | "answer");
    let spread = (task.index as f64 * 0.618_033_988_749_894_9).fract();
    (asks && spread < config.brief_share).then(|| BRIEF[task.index % BRIEF.len()])
}

/// The distribution of an answer without doubt.
fn certain(token_ids: &[u32]) -> DenseTopLogprobs {
    DenseTopLogprobs {
        k: 1,
        token_ids: token_ids.to_vec(),
        logprobs: vec![0.0; token_ids.len()],
    }
}

/// The given answers. A gap has one right answer, so that is its distribution; for the verbatim
/// pieces it is the teacher's distribution along the given answers.
fn score<'a>(
    config: &SelfStudyConfig,
    tasks: impl Iterator<Item = (&'a PlannedBatch, &'a Task)>,
    client: &mut dyn ChatClient,
) -> Result<BatchesOutcome, ClientError> {
    let mut outcome = BatchesOutcome::default();
    let mut pieces = Vec::new();
    let mut requests = Vec::new();
    for (batch, task) in tasks {
        let TaskWork::Given {
            kind,
            text,
            token_ids,
        } = &task.work
        else {
            continue;
        };
        pieces.push((batch, task, *kind, text, token_ids));
        if *kind == ConversationKind::Gap {
            continue;
        }
        requests.push(ScoreRequest {
            messages: vec![
                ChatMessage::new(Role::System, &batch.system_prompt),
                ChatMessage::new(Role::User, &task.prompt),
            ],
            continuation_ids: token_ids.clone(),
            top_logprobs: config.num_top_logprobs,
        });
    }
    let with_distribution = config.num_top_logprobs > 0;
    let scores = if requests.is_empty() || !with_distribution {
        Vec::new()
    } else {
        let scores = client.score(&requests)?;
        check_scores(&requests, &scores)?;
        scores
    };
    let mut scores = scores.into_iter();
    for (batch, task, kind, text, token_ids) in pieces {
        let dense = match kind {
            ConversationKind::Gap => with_distribution.then(|| certain(token_ids)),
            _ => scores.next(),
        };
        if dense.is_some() {
            outcome.counts.scored_tokens += token_ids.len() as u64;
        }
        let top_logprobs = match dense {
            Some(dense) => Some(dense.flatten(config.min_prob_mass)?),
            None => None,
        };
        let message = |role, content: &str| Message {
            content: content.to_owned(),
            role,
            token_ids: None,
            top_logprobs: None,
        };
        outcome.conversations.push(Conversation {
            messages: vec![
                message(Role::User, &task.prompt),
                Message {
                    token_ids: Some(token_ids.clone()),
                    top_logprobs,
                    ..message(Role::Assistant, text)
                },
            ],
            system_prompt: batch.system_prompt.clone(),
            metadata: Metadata {
                tool_calls: Vec::new(),
                seed_prompt: task.prompt.clone(),
                initial_system_prompt: batch.system_prompt.clone(),
                kind: Some(kind),
                seed_type: Some(task.seed_type.to_owned()),
                resource: Some(batch.resource.clone()),
                finish_reasons: Some(vec![GIVEN.to_owned(), GIVEN.to_owned()]),
                thinking: None,
                task: Some(task.index as u64),
            },
            conversation_type: Some(CONVERSATION_TYPE.to_owned()),
        });
    }
    Ok(outcome)
}
