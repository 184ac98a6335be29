//! The same questions to a server.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cartridges_eval::{ConditionKind, Measurement, Suite, Written, measure_written, messages};
use cartridges_model::LanguageModel;
use cartridges_study::client::{
    ChatClient, ChatMessage, ChatRequest, ClientConfig, ClientError, FinishReason, HttpClient,
    PromptCodec,
};
use cartridges_study::conversation::Role;

use crate::interrupt::{Interrupted, stop_flag};
use crate::local_client::ChatCodec;
use crate::opening::settings;
use crate::progress::progress;

/// The servers of a file, as `synthesize --client` takes it.
///
/// # Errors
/// If the file cannot be used.
pub fn servers(path: &Path) -> Result<ClientConfig> {
    settings(path)
}

/// Lets servers answer the suite's questions. A cartridge that stands before them is named in the file.
///
/// # Errors
/// If the servers cannot be reached, an answer fails, or Ctrl-C ends it.
pub fn served(servers: &ClientConfig, model: &LanguageModel, suite: &Suite) -> Result<Measurement> {
    let codec: Arc<dyn PromptCodec> = Arc::new(ChatCodec(model.text.clone()));
    let mut client = HttpClient::new(servers, Some(codec), stop_flag())?;
    client.check_servers().context("asking the servers")?;
    let options = &suite.options;
    let samples = options.samples.max(1);
    let list = &suite.questions.questions;
    let asked = list.iter().flat_map(|q| std::iter::repeat_n(q, samples));
    let requests: Vec<ChatRequest> = (0..)
        .zip(asked)
        .map(|(index, question)| ChatRequest {
            messages: messages(question, options)
                .into_iter()
                .map(|message| {
                    let role = match message.role.as_str() {
                        "assistant" => Role::Assistant,
                        _ => Role::User,
                    };
                    ChatMessage::new(role, message.content)
                })
                .collect(),
            temperature: options.temperature,
            max_completion_tokens: options.max_new_tokens,
            top_logprobs: None,
            enable_thinking: Some(false),
            seed: options.seed.wrapping_add(index),
            assistant_prefix: None,
        })
        .collect();
    let begin = Instant::now();
    let bar = progress(requests.len() as u64, "asking the servers", "questions");
    let mut done = 0;
    let answers = client.complete(&requests, &mut |_| {
        done += 1;
        bar.set(done, String::new());
    });
    let answers = match answers {
        Err(ClientError::Stopped) => return Err(Interrupted("measuring").into()),
        other => other?,
    };
    let mut written = Vec::with_capacity(answers.len());
    for answer in answers {
        if let FinishReason::Failed(reason) = answer.finish {
            bail!("a server did not answer: {reason}");
        }
        written.push(Written {
            tokens: answer.token_ids.len(),
            truncated: answer.finish == FinishReason::Length,
            text: answer.text,
        });
    }
    let (name, kind) = match servers {
        ClientConfig::Tokasaurus(config) if !config.cartridges.is_empty() => {
            let ids: Vec<&str> = config.cartridges.iter().map(|c| c.id.as_str()).collect();
            let name = format!("{} at the server", ids.join(" and "));
            (name, ConditionKind::Cartridge)
        }
        _ => ("server".to_owned(), ConditionKind::None),
    };
    let seconds = begin.elapsed().as_secs_f64();
    Ok(measure_written(
        &name,
        kind,
        &suite.questions,
        &written,
        options,
        seconds,
    ))
}
