//! Tools before an agent speaks: the model is asked which to call, and what they say goes behind the
//! system prompt of its conversation.

use super::config::SelfStudyConfig;
use super::flow::{Agent, Counts, Talk, Turn};
use super::plan::{TaskWork, request_seed};
use crate::client::{
    ChatClient, ChatMessage, ChatRequest, ClientError, FinishReason, check_samples,
};
use crate::tool::ToolBox;

impl SelfStudyConfig {
    /// Whether an agent calls tools.
    pub(super) fn uses_tools(&self, agent: Agent) -> bool {
        match agent {
            Agent::A => self.use_tools_a,
            Agent::B => self.use_tools_b,
        }
    }
}

/// Lets the model call tools for every conversation in which `agent` speaks next. A question for a given
/// answer needs none. What fails is counted, and the conversation goes on without.
///
/// # Errors
/// If the client fails altogether, as in the step that follows.
pub(super) fn tool_phase(
    config: &SelfStudyConfig,
    talks: &mut [Talk],
    turn: Turn,
    client: &mut dyn ChatClient,
    tools: &mut ToolBox,
    on_answer: &mut dyn FnMut(),
    counts: &mut Counts,
) -> Result<(), ClientError> {
    let mut talks: Vec<&mut Talk> = talks
        .iter_mut()
        .filter(|talk| talk.is_going() && talk.task.work == TaskWork::Converse)
        .collect();
    if tools.is_empty() || !config.uses_tools(turn.agent) || talks.is_empty() {
        return Ok(());
    }
    let requests: Vec<ChatRequest> = talks
        .iter()
        .map(|talk| request(config, talk, turn, tools.description()))
        .collect();
    let samples = client.complete(&requests, &mut |_| on_answer())?;
    check_samples(&requests, &samples)?;
    for (talk, sample) in talks.iter_mut().zip(samples) {
        if let FinishReason::Failed(error) = sample.finish {
            tracing::debug!(task = talk.task.index, %error, "no call of a tool");
            counts.failed_tool_calls += 1;
            continue;
        }
        counts.generated_tokens += sample.token_ids.len() as u64;
        let calls = tools.answer(&sample.text);
        counts.tool_calls += calls.len() as u64;
        counts.failed_tool_calls += calls.iter().filter(|call| !call.success).count() as u64;
        talk.system_prompt.push_str(&ToolBox::context(&calls));
        talk.tool_calls.extend(calls);
    }
    Ok(())
}

/// The question which tools to call: the conversation as the agent sees it, with the last message inside
/// the template.
fn request(config: &SelfStudyConfig, talk: &Talk, turn: Turn, tools: &str) -> ChatRequest {
    let Turn { agent, round } = turn;
    let mut messages: Vec<ChatMessage> = talk.seen_by(agent);
    if let Some(last) = messages.last_mut() {
        last.content = config.tool_prompt(&last.content, tools);
    }
    ChatRequest {
        messages,
        temperature: config.temperature_a,
        max_completion_tokens: config.max_tool_tokens,
        top_logprobs: None,
        enable_thinking: Some(false),
        seed: request_seed(config.seed, talk.task.index, round, 2 + agent as u64),
        assistant_prefix: None,
    }
}
