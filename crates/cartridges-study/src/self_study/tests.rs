use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::chunker::test_codec::WordCodec;
use crate::chunker::{Chunker, TokenChunker};
use crate::client::{
    ChatClient, ChatRequest, ClientError, DenseTopLogprobs, FinishReason, Sample, ScoreRequest,
};
use crate::conversation::{ConversationKind, Role};
use crate::resource::{Resource, SharedCodec};
use crate::tool::ToolBox;

/// A text of numbered sentences, so that every place in it is unique.
pub(crate) fn numbered_text(sentences: usize) -> String {
    (0..sentences)
        .map(|i| format!("Gate number {i} is painted in colour {i}x by keeper {i}k. "))
        .collect()
}

pub(crate) fn resources(config: &SelfStudyConfig, text: &str) -> Vec<Box<dyn Resource>> {
    let codec: SharedCodec = Arc::new(WordCodec::default());
    vec![Box::new(
        config.text_resource("gates", text, codec).unwrap(),
    )]
}

pub(crate) fn small_config() -> SelfStudyConfig {
    let mut config = SelfStudyConfig {
        num_conversations: 20,
        batch_size: 4,
        num_top_logprobs: 3,
        verbatim_tokens: 16,
        verbatim_stride: 12,
        verbatim_lead_tokens: 6,
        ..SelfStudyConfig::default()
    };
    config.chunker = Chunker::Token(TokenChunker {
        min_tokens_per_chunk: 30,
        max_tokens_per_chunk: 60,
    });
    config
}

/// A client whose answers depend on the request alone.
#[derive(Default)]
pub(crate) struct MockClient {
    pub requests: Vec<ChatRequest>,
    pub scored: Vec<ScoreRequest>,
    pub calls: usize,
    /// Calls (from 0) that fail.
    pub failing_calls: BTreeSet<usize>,
    /// Answers whose request satisfies this are empty.
    pub empty_if: Option<fn(&ChatRequest) -> bool>,
    /// Answers whose request satisfies this hit the token limit.
    pub cut_off_if: Option<fn(&ChatRequest) -> bool>,
    /// Requests that satisfy this fail by themselves.
    pub refused_if: Option<fn(&ChatRequest) -> bool>,
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn dense(ids: &[u32], k: usize, seed: u64) -> DenseTopLogprobs {
    let mut out = DenseTopLogprobs {
        k,
        ..DenseTopLogprobs::default()
    };
    for (i, &id) in ids.iter().enumerate() {
        let sure = (seed >> (i % 60)) & 1 == 1;
        let mut left: f64 = 1.0;
        for column in 0..k {
            let p = left * if sure { 0.995 } else { 0.5 };
            left -= p;
            out.token_ids.push(id + column as u32);
            out.logprobs.push(p.ln() as f32);
        }
    }
    out
}

impl MockClient {
    fn fails(&mut self) -> Result<(), ClientError> {
        self.calls += 1;
        if self.failing_calls.contains(&(self.calls - 1)) {
            return Err(ClientError::Failed("out of memory".to_owned()));
        }
        Ok(())
    }
}

impl ChatClient for MockClient {
    fn complete(
        &mut self,
        requests: &[ChatRequest],
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Sample>, ClientError> {
        self.fails()?;
        self.requests.extend_from_slice(requests);
        let is =
            |rule: Option<fn(&ChatRequest) -> bool>, r: &ChatRequest| rule.is_some_and(|f| f(r));
        Ok(requests
            .iter()
            .enumerate()
            .map(|(i, request)| {
                on_done(i);
                let h = hash(&format!("{request:?}"));
                let text = if is(self.empty_if, request) {
                    " \n".to_owned()
                } else {
                    format!("reply {h:x}")
                };
                let token_ids: Vec<u32> = text.bytes().map(u32::from).chain([1000]).collect();
                Sample {
                    top_logprobs: request.top_logprobs.map(|k| dense(&token_ids, k, h)),
                    text,
                    token_ids,
                    finish: if is(self.refused_if, request) {
                        FinishReason::Failed(ClientError::Unsupported("such long texts".to_owned()))
                    } else if is(self.cut_off_if, request) {
                        FinishReason::Length
                    } else {
                        FinishReason::Stop
                    },
                }
            })
            .collect())
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<DenseTopLogprobs>, ClientError> {
        self.fails()?;
        self.scored.extend_from_slice(requests);
        Ok(requests
            .iter()
            .map(|r| dense(&r.continuation_ids, r.top_logprobs, 0b0110))
            .collect())
    }
}

fn run_all(config: &SelfStudyConfig, plan: &Plan, client: &mut MockClient) -> BatchesOutcome {
    run_batches(
        config,
        &plan.batches,
        client,
        &mut ToolBox::default(),
        &mut |_, _| {},
    )
    .unwrap()
}

#[test]
fn roles_are_exchanged_for_agent_a() {
    let config = SelfStudyConfig {
        max_rounds: 2,
        coverage_share: 0.0,
        verbatim: false,
        num_conversations: 1,
        prob_thinking: 1.0,
        ..small_config()
    };
    let plan = Plan::new(&config, &resources(&config, &numbered_text(30))).unwrap();
    let mut client = MockClient::default();
    let outcome = run_all(&config, &plan, &mut client);
    let conversation = &outcome.conversations[0];
    let said: Vec<&str> = conversation
        .messages
        .iter()
        .map(|m| m.content.as_str())
        .collect();
    let batch = &plan.batches[0];
    let seen = |i: usize| -> Vec<(Role, &str)> {
        client.requests[i]
            .messages
            .iter()
            .map(|m| (m.role, m.content.as_str()))
            .collect()
    };
    let system = (Role::System, batch.system_prompt.as_str());
    let seed = (Role::User, batch.tasks[0].prompt.as_str());
    assert_eq!(seen(0), [system, seed]);
    assert_eq!(seen(1), [system, (Role::User, said[0])]);
    assert_eq!(
        seen(2),
        [
            system,
            seed,
            (Role::Assistant, said[0]),
            (Role::User, said[1])
        ]
    );
    assert_eq!(
        seen(3),
        [
            system,
            (Role::User, said[0]),
            (Role::Assistant, said[1]),
            (Role::User, said[2])
        ]
    );
    let [a, b, ..] = &client.requests[..] else {
        panic!("two requests at least");
    };
    assert_eq!((a.temperature, b.temperature), (0.6, 0.0));
    assert_eq!(
        (a.max_completion_tokens, b.max_completion_tokens),
        (512, 1024)
    );
    assert_eq!((a.top_logprobs, b.top_logprobs), (None, Some(3)));
    assert_eq!(
        (a.enable_thinking, b.enable_thinking),
        (Some(false), Some(true))
    );
    let seeds: BTreeSet<u64> = client.requests.iter().map(|r| r.seed).collect();
    assert_eq!(seeds.len(), 4);
}

#[test]
fn conversations_carry_their_metadata_and_flat_logprobs() {
    let config = small_config();
    let plan = Plan::new(&config, &resources(&config, &numbered_text(30))).unwrap();
    let mut client = MockClient::default();
    let outcome = run_all(&config, &plan, &mut client);
    assert_eq!(outcome.conversations.len(), plan.num_tasks);
    assert!(outcome.dropped.is_empty() && outcome.failed.is_empty());
    let tasks = plan
        .batches
        .iter()
        .flat_map(|b| b.tasks.iter().map(move |t| (b, t)));
    for ((batch, task), conversation) in tasks.zip(&outcome.conversations) {
        let metadata = &conversation.metadata;
        assert_eq!(metadata.task, Some(task.index as u64));
        assert_eq!(metadata.seed_prompt, task.prompt);
        assert_eq!(metadata.seed_type.as_deref(), Some(task.seed_type));
        assert_eq!(metadata.resource.as_deref(), Some("gates"));
        assert_eq!(metadata.initial_system_prompt, batch.system_prompt);
        assert_eq!(conversation.system_prompt, batch.system_prompt);
        assert_eq!(conversation.conversation_type.as_deref(), Some("todo"));
        let [user, assistant] = &conversation.messages[..] else {
            panic!("one round");
        };
        assert_eq!((user.role, assistant.role), (Role::User, Role::Assistant));
        assert_eq!(user.top_logprobs, None);
        let ids = assistant.token_ids.as_ref().unwrap();
        let top = assistant.top_logprobs.as_ref().unwrap();
        top.check().unwrap();
        assert_eq!(top.shape, (ids.len(), 3));
        // Sure tokens keep one candidate (0.995), open ones all three (0.5, 0.25, 0.125).
        for row in top.token_idx.chunk_by(|a, b| a == b) {
            assert!(row.len() == 1 || row.len() == 3);
        }
        match &task.work {
            TaskWork::Given {
                text, token_ids, ..
            } => {
                assert_eq!(metadata.kind, Some(ConversationKind::Verbatim));
                assert_eq!((&user.content, &assistant.content), (&task.prompt, text));
                assert_eq!(ids, token_ids);
            }
            TaskWork::Converse => {
                assert_eq!(metadata.kind, Some(ConversationKind::Conversation));
                let reasons = metadata.finish_reasons.clone().unwrap();
                assert_eq!(reasons, ["stop", "stop"]);
                assert_eq!(ids.last(), Some(&1000));
            }
            TaskWork::AskFor { .. } => panic!("none was asked for"),
        }
    }
    let scored: usize = client.scored.iter().map(|r| r.continuation_ids.len()).sum();
    assert_eq!(outcome.counts.scored_tokens, scored as u64);
    assert_eq!(client.scored[0].messages[1].role, Role::User);
}

#[test]
fn questions_are_written_for_given_answers() {
    let config = SelfStudyConfig {
        num_conversations: 0,
        verbatim: true,
        gaps_per_sentence: 2,
        gap_questions: 0.5,
        brief_share: 1.0,
        ..small_config()
    };
    let plan = Plan::new(&config, &resources(&config, &numbered_text(10))).unwrap();
    let tasks = || plan.batches.iter().flat_map(|b| &b.tasks);
    let of = |seed_type: &str| tasks().filter(|t| t.seed_type == seed_type).count();
    assert_eq!((of("gap"), of("answer")), (20, 10));
    let mut client = MockClient::default();
    let outcome = run_all(&config, &plan, &mut client);
    // Only the questions were generated: one request for each.
    assert_eq!(client.requests.len(), 10);
    assert!(outcome.dropped.is_empty() && outcome.failed.is_empty());
    let asked = outcome.conversations.iter().filter(|c| {
        let seed_type = c.metadata.seed_type.as_deref();
        seed_type == Some("answer")
    });
    let mut count = 0;
    for conversation in asked {
        count += 1;
        let task = tasks()
            .nth(conversation.metadata.task.unwrap() as usize)
            .unwrap();
        let TaskWork::AskFor { text, token_ids } = &task.work else {
            panic!("{task:?}");
        };
        assert!(task.prompt.contains(&format!("\"{text}\"")), "{task:?}");
        let [user, assistant] = &conversation.messages[..] else {
            panic!("one round");
        };
        assert!(user.content.starts_with("reply "), "{user:?}");
        assert!(
            user.content.len() > "reply 0123456789abcdef".len(),
            "{user:?}"
        );
        assert_eq!(&assistant.content, text);
        assert_eq!(assistant.token_ids.as_ref(), Some(token_ids));
        let top = assistant.top_logprobs.as_ref().unwrap();
        assert_eq!(&top.token_id, token_ids);
        assert!(top.logprobs.iter().all(|x| *x == 0.0));
        assert_eq!(conversation.metadata.kind, Some(ConversationKind::Gap));
        let reasons = conversation.metadata.finish_reasons.clone().unwrap();
        assert_eq!(reasons, ["stop", "given"]);
    }
    assert_eq!(count, 10);
    // A question that holds its answer is no question.
    let mut plan = plan;
    for batch in &mut plan.batches {
        for task in &mut batch.tasks {
            if let TaskWork::AskFor { text, .. } = &mut task.work {
                *text = "REPLY".to_owned();
            }
        }
    }
    let outcome = run_all(&config, &plan, &mut MockClient::default());
    assert_eq!(outcome.dropped.len(), 10);
    assert_eq!(outcome.dropped[0].cause, "answer in the question");
}

#[test]
fn batches_together_or_alone_give_the_same() {
    let config = small_config();
    let plan = Plan::new(&config, &resources(&config, &numbered_text(30))).unwrap();
    let together = run_all(&config, &plan, &mut MockClient::default());
    let mut alone = Vec::new();
    for batch in plan.batches.iter().rev() {
        let batch = std::slice::from_ref(batch);
        let outcome = run_batches(
            &config,
            batch,
            &mut MockClient::default(),
            &mut ToolBox::default(),
            &mut |_, _| {},
        );
        alone.extend(outcome.unwrap().conversations);
    }
    alone.sort_by_key(|c| c.metadata.task);
    assert_eq!(together.conversations, alone);
}

#[test]
fn a_failed_batch_is_asked_once_more_then_counted() {
    let config = SelfStudyConfig {
        verbatim: false,
        ..small_config()
    };
    let plan = Plan::new(&config, &resources(&config, &numbered_text(30))).unwrap();
    let batch = &plan.batches[..1];
    let run = |failing: &[usize]| {
        let mut client = MockClient {
            failing_calls: failing.iter().copied().collect(),
            ..MockClient::default()
        };
        run_batches(
            &config,
            batch,
            &mut client,
            &mut ToolBox::default(),
            &mut |_, _| {},
        )
        .unwrap()
    };
    let good = run(&[]);
    let retried = run(&[1]);
    assert_eq!(retried.conversations, good.conversations);
    assert_eq!(retried.counts.retried_batches, 1);
    let lost = run(&[0, 2]);
    assert!(lost.conversations.is_empty());
    assert_eq!(
        lost.failures_by_cause(),
        BTreeMap::from([("generation failed".to_owned(), batch[0].tasks.len())])
    );
    assert!(lost.failed[0].message.contains("out of memory"));
}

#[test]
fn odd_answers_are_counted_and_dropped_if_wanted() {
    let mut config = SelfStudyConfig {
        verbatim: false,
        ..small_config()
    };
    let plan = Plan::new(&config, &resources(&config, &numbered_text(30))).unwrap();
    let client = || MockClient {
        empty_if: Some(|r| r.top_logprobs.is_some() && r.seed % 3 == 0),
        cut_off_if: Some(|r| r.top_logprobs.is_some() && r.seed % 3 == 1),
        refused_if: Some(|r| r.top_logprobs.is_none() && r.seed % 5 == 0),
        ..MockClient::default()
    };
    let outcome = run_all(&config, &plan, &mut client());
    let (empty, cut) = (outcome.counts.empty_answers, outcome.counts.cut_off_answers);
    assert!(empty > 0 && cut > 0 && !outcome.failed.is_empty());
    assert_eq!(outcome.dropped.len() as u64, empty);
    assert!(outcome.dropped.iter().all(|d| d.cause == "empty answer"));
    assert_eq!(outcome.failed[0].cause, "unsupported");
    let everything = |o: &BatchesOutcome| o.conversations.len() + o.dropped.len() + o.failed.len();
    assert_eq!(everything(&outcome), plan.num_tasks);
    config.drop_cut_off = true;
    let strict = run_all(&config, &plan, &mut client());
    assert_eq!(strict.dropped.len() as u64, empty + cut);
    assert_eq!(everything(&strict), plan.num_tasks);
    config.drop_cut_off = false;
    config.drop_empty = false;
    let lenient = run_all(&config, &plan, &mut client());
    assert!(lenient.dropped.is_empty());
    assert_eq!(lenient.counts.empty_answers, empty);
}

#[test]
fn tiny_texts_work() {
    for text in ["one", "only five tokens in here", "Yes.\n\nNo."] {
        let config = SelfStudyConfig {
            num_conversations: 4,
            ..SelfStudyConfig::default()
        };
        let plan = Plan::new(&config, &resources(&config, text)).unwrap();
        let outcome = run_all(&config, &plan, &mut MockClient::default());
        assert_eq!(outcome.conversations.len(), 4 + config.verbatim_repeats);
        assert!(
            outcome
                .conversations
                .iter()
                .all(|c| c.system_prompt.contains(text))
        );
    }
}

#[test]
fn without_logprobs_nothing_is_scored() {
    let config = SelfStudyConfig {
        num_top_logprobs: 0,
        ..small_config()
    };
    let plan = Plan::new(&config, &resources(&config, &numbered_text(30))).unwrap();
    let mut client = MockClient::default();
    let outcome = run_all(&config, &plan, &mut client);
    assert!(client.scored.is_empty());
    let messages = outcome.conversations.iter().flat_map(|c| &c.messages);
    assert!(messages.clone().all(|m| m.top_logprobs.is_none()));
    assert!(client.requests.iter().all(|r| r.top_logprobs.is_none()));
}
