//! Tools in the flow of the conversations.

use super::tests::{numbered_text, resources, small_config};
use super::*;
use crate::client::{
    ChatClient, ChatRequest, ClientError, DenseTopLogprobs, FinishReason, Sample, ScoreRequest,
};
use crate::conversation::{Conversation, Role};
use crate::parquet::read_conversations;
use crate::run::SynthesisRun;
use crate::tool::{RetrievalConfig, ToolBox, ToolConfig};

/// Calls a tool where it is asked to, as `calls` says; else it writes a few words.
struct Caller {
    calls: fn(&ChatRequest) -> Result<String, ClientError>,
    requests: Vec<ChatRequest>,
}

impl Caller {
    fn new(calls: fn(&ChatRequest) -> Result<String, ClientError>) -> Self {
        Self {
            calls,
            requests: Vec::new(),
        }
    }
}

fn asks_for_tools(request: &ChatRequest) -> bool {
    request.messages.last().unwrap().content.contains("<tools>")
}

/// A gate's number that depends on the request alone.
fn gate(request: &ChatRequest) -> u64 {
    request.seed % 30
}

impl ChatClient for Caller {
    fn complete(
        &mut self,
        requests: &[ChatRequest],
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Sample>, ClientError> {
        self.requests.extend_from_slice(requests);
        let sample = |(index, request): (usize, &ChatRequest)| {
            on_done(index);
            let text = match asks_for_tools(request) {
                true => (self.calls)(request),
                false => Ok(format!("words {}", request.seed)),
            };
            Sample {
                text: text.clone().unwrap_or_default(),
                token_ids: Vec::new(),
                top_logprobs: None,
                finish: text.map_or_else(FinishReason::Failed, |_| FinishReason::Stop),
            }
        };
        Ok(requests.iter().enumerate().map(sample).collect())
    }

    fn score(&mut self, _: &[ScoreRequest]) -> Result<Vec<DenseTopLogprobs>, ClientError> {
        Err(ClientError::Unsupported("scoring".to_owned()))
    }
}

fn config() -> SelfStudyConfig {
    SelfStudyConfig {
        verbatim: false,
        num_top_logprobs: 0,
        coverage_share: 0.0,
        brief_share: 0.0,
        max_rounds: 2,
        tools: vec![ToolConfig::Retrieval(RetrievalConfig {
            max_chars_per_chunk: 60,
            ..RetrievalConfig::default()
        })],
        use_tools_a: true,
        use_tools_b: true,
        ..small_config()
    }
}

fn run(config: &SelfStudyConfig, client: &mut Caller) -> BatchesOutcome {
    let resources = resources(config, &numbered_text(30));
    let plan = Plan::new(config, &resources).unwrap();
    let mut tools = ToolBox::new(&config.tools, &resources).unwrap();
    let (mut last, mut of) = (0, 0);
    let outcome = run_batches(
        config,
        &plan.batches,
        client,
        &mut tools,
        &mut |done, all| {
            (last, of) = (done, all);
        },
    );
    assert_eq!(last, of, "progress reaches its end");
    outcome.unwrap()
}

fn search(request: &ChatRequest) -> Result<String, ClientError> {
    let gate = gate(request);
    Ok(format!(
        "I look it up. <tool_call>{{\"name\": \"retrieve\", \"arguments\": {{\"query\": \"{gate}k\"}}}}"
    ))
}

/// What stands in the passage that is found for a gate; where it is cut is the chunker's business.
fn found(gate: u64) -> String {
    format!("{gate}k.")
}

#[test]
fn what_tools_say_stands_behind_the_system_prompt_of_its_own_conversation() {
    let config = config();
    let mut client = Caller::new(search);
    let outcome = run(&config, &mut client);
    assert_eq!(outcome.conversations.len(), 20);
    // Two agents, two rounds.
    assert_eq!(outcome.counts.tool_calls, 80);
    assert_eq!(outcome.counts.failed_tool_calls, 0);
    for conversation in &outcome.conversations {
        let metadata = &conversation.metadata;
        assert_eq!(metadata.tool_calls.len(), 4);
        let added = conversation
            .system_prompt
            .strip_prefix(&metadata.initial_system_prompt)
            .unwrap();
        let blocks: Vec<&str> = added.split("<tool_call>").skip(1).collect();
        assert_eq!(blocks.len(), 4, "{added}");
        for (call, block) in metadata.tool_calls.iter().zip(blocks) {
            let query = call.input.split('"').nth(3).unwrap();
            let gate: u64 = query.strip_suffix('k').unwrap().parse().unwrap();
            assert_eq!((call.name.as_str(), call.success), ("retrieve", true));
            assert!(call.output.contains(&found(gate)), "{call:?}");
            assert!(call.raw_request.starts_with("{\"name\""));
            assert!(block.contains(&format!("<tool_input>\n{}\n</tool_input>", call.input)));
            assert!(block.contains(&format!("<tool_output>\n{}\n</tool_output>", call.output)));
        }
        assert_eq!(conversation.messages.len(), 4);
    }
    let seeds: std::collections::BTreeSet<u64> = client.requests.iter().map(|r| r.seed).collect();
    assert_eq!(
        seeds.len(),
        client.requests.len(),
        "each request has a seed of its own"
    );
}

#[test]
fn the_model_is_asked_for_tools_in_its_own_words_before_it_speaks() {
    let config = config();
    let mut client = Caller::new(search);
    let outcome = run(&config, &mut client);
    let (asked, spoken): (Vec<_>, Vec<_>) = client.requests.iter().partition(|r| asks_for_tools(r));
    assert_eq!((asked.len(), spoken.len()), (80, 80));
    for request in &asked {
        assert_eq!(request.max_completion_tokens, 128);
        assert_eq!(request.temperature, config.temperature_a);
        let last = request.messages.last().unwrap();
        assert_eq!(last.role, Role::User);
        assert!(
            last.content.contains("\"name\":\"retrieve\""),
            "{}",
            last.content
        );
    }
    // Agent B is shown the question of agent A, and what its own search found when it answers.
    let first: &Conversation = &outcome.conversations[0];
    let question = &first.messages[0].content;
    let wrapped = format!("<message>\n{question}\n</message>");
    let by_b = |r: &&&ChatRequest| r.messages.last().unwrap().content.contains(&wrapped);
    let call = asked.iter().find(by_b).unwrap();
    let answer = spoken
        .iter()
        .find(|r| r.messages.len() == 2 && r.messages[1].content == *question)
        .unwrap();
    assert!(
        answer.messages[0]
            .content
            .starts_with(&call.messages[0].content)
    );
    assert!(answer.messages[0].content.contains(&found(gate(call))));

    // One agent only.
    let only_b = SelfStudyConfig {
        use_tools_a: false,
        max_rounds: 1,
        ..config
    };
    let mut client = Caller::new(search);
    assert_eq!(run(&only_b, &mut client).counts.tool_calls, 20);
}

#[test]
fn calls_that_fail_are_recorded_and_change_nothing_else() {
    let mut client = Caller::new(|request| match gate(request) % 5 {
        0 => Ok("no tool".to_owned()),
        1 => Ok("<tool_call>{\"name\": \"lamp\"}</tool_call>".to_owned()),
        2 => Ok("<tool_call>{\"name\": \"retr".to_owned()),
        3 => Ok(
            "<tool_call>{\"name\": \"retrieve\", \"arguments\": {\"query\": \"zebra\"}}".to_owned(),
        ),
        _ => Err(ClientError::Failed("out of memory".to_owned())),
    });
    let outcome = run(&config(), &mut client);
    assert_eq!(outcome.conversations.len(), 20);
    assert!(outcome.failed.is_empty());
    let kind = |n: u64| {
        client
            .requests
            .iter()
            .filter(|r| asks_for_tools(r) && gate(r) % 5 == n)
            .count() as u64
    };
    assert!((0..5).all(|n| kind(n) > 0));
    assert_eq!(outcome.counts.tool_calls, kind(1) + kind(2) + kind(3));
    assert_eq!(
        outcome.counts.failed_tool_calls,
        outcome.counts.tool_calls + kind(4)
    );
    let mut said: Vec<&str> = Vec::new();
    for conversation in &outcome.conversations {
        let metadata = &conversation.metadata;
        assert_eq!(conversation.system_prompt, metadata.initial_system_prompt);
        assert!(metadata.tool_calls.iter().all(|call| !call.success));
        said.extend(metadata.tool_calls.iter().map(|call| call.output.as_str()));
    }
    for part in [
        "Error: there is no such tool",
        "Error: the call is not JSON",
        "Error: no passage",
    ] {
        assert!(
            said.iter().any(|s| s.starts_with(part)),
            "no {part} in {said:?}"
        );
    }
}

#[test]
fn calls_are_in_the_data_set_and_a_stop_changes_nothing() {
    let config = config();
    let study = |folder: &std::path::Path, steps: usize| {
        let resources = resources(&config, &numbered_text(30));
        let stop = std::sync::atomic::AtomicBool::new(false);
        let mut between = 0;
        let run = &mut SynthesisRun::open(folder, config.clone(), &resources, "mock").unwrap();
        run.run(&mut Caller::new(search), &stop, &mut |p| {
            if p.step_total == 0 {
                stop.store(between == steps, std::sync::atomic::Ordering::Relaxed);
                between += 1;
            }
        })
        .unwrap();
    };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    study(whole.path(), usize::MAX);
    study(parts.path(), 2);
    assert!(!parts.path().join("dataset.parquet").exists());
    study(parts.path(), usize::MAX);
    let read = |folder: &std::path::Path| {
        read_conversations(&folder.join("dataset.parquet"), None).unwrap()
    };
    let all = read(whole.path());
    assert_eq!(all, read(parts.path()));
    assert!(all.iter().all(|c| c.metadata.tool_calls.len() == 4));
}

#[test]
fn places_of_the_template_are_filled_once_and_in_any_order() {
    let config = SelfStudyConfig {
        tool_prompt_template: "A {tools} B {message} C".to_owned(),
        ..SelfStudyConfig::default()
    };
    assert_eq!(
        config.tool_prompt("say {tools}", "list {message}"),
        "A list {message} B say {tools} C"
    );
    let prompt = SelfStudyConfig::default().tool_prompt("Who?", "LIST");
    assert!(prompt.contains("<message>\nWho?\n</message>") && prompt.ends_with("LIST"));
}
