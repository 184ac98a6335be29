//! Conversations that servers write, with the distribution of the model in this process.
//!
//! Hosted services give no token ids, and many give no log-probs. Their text is kept, and the local
//! model is asked what it would have said at each place of it, with the same system message before it.

use cartridges_study::client::{
    ChatClient, ChatRequest, ClientError, Sample, ScoreRequest, check_samples,
};
use cartridges_study::top_logprobs::DenseTopLogprobs;

use crate::local_client::LocalClient;

/// A writer that is asked for text only, and the model that teaches it.
pub struct LocalTeacher<'a> {
    writer: &'a mut dyn ChatClient,
    model: LocalClient<'a>,
}

impl<'a> LocalTeacher<'a> {
    /// `writer`'s text with the distribution of `model`, which need not be the model that writes.
    pub fn new(writer: &'a mut dyn ChatClient, model: LocalClient<'a>) -> Self {
        Self { writer, model }
    }
}

impl ChatClient for LocalTeacher<'_> {
    fn begin_step(&mut self) {
        self.writer.begin_step();
        self.model.begin_step();
    }

    fn complete(
        &mut self,
        requests: &[ChatRequest],
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Sample>, ClientError> {
        // Servers that have no log-probs refuse requests for them.
        let text_only: Vec<ChatRequest> = requests
            .iter()
            .map(|request| ChatRequest {
                top_logprobs: None,
                ..request.clone()
            })
            .collect();
        let mut samples = self.writer.complete(&text_only, on_done)?;
        check_samples(&text_only, &samples)?;
        self.model.teach(requests, &mut samples)?;
        Ok(samples)
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<DenseTopLogprobs>, ClientError> {
        self.model.score(requests)
    }
}
