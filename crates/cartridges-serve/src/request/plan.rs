//! What a request comes to: jobs, and how their answers are to be written.

use serde_json::{Map, Value};

use crate::api_error::{ApiError, Dialect, Kind};
use crate::inference::Inference;
use crate::job::{CartridgeSpec, Constraint, Job, Prompt};
use crate::options::ServerOptions;
use crate::request::body::{Common, read};
use crate::request::cartridges::{read_cartridges, sanitise};
use crate::request::fields::{Endpoint, Form, screen};
use crate::request::question::Question;
use crate::request::sampling::{Sampling, read_constraint, read_sampling};

/// How an answer is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What the path takes.
    pub endpoint: Endpoint,
    /// The model's name as the response tells it.
    pub model: String,
    /// How many answers each prompt gets.
    pub n: usize,
    /// How many log-probs per position; `None`: none.
    pub top_logprobs: Option<usize>,
    /// Whether log-probs go into the fingerprint instead of the choices.
    pub in_fingerprint: bool,
    /// Whether to stream.
    pub stream: bool,
    /// Whether a stream ends with the numbers of tokens.
    pub include_usage: bool,
}

/// A request that was understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// One job per choice: all answers to the first prompt, then to the second.
    pub jobs: Vec<Job>,
    /// How to write the answers.
    pub wanted: Wanted,
}

/// Makes plans.
pub(crate) struct Planner<'a> {
    /// Limits.
    pub options: &'a ServerOptions,
    /// Whose limits also hold.
    pub inference: &'a dyn Inference,
    /// Who asks.
    pub client: &'a str,
}

/// What is the same in all jobs of a request, besides the prompt.
struct Shared {
    cartridges: Vec<CartridgeSpec>,
    max_new_tokens: Option<usize>,
    top_logprobs: Option<usize>,
    constraint: Option<Constraint>,
}

impl Planner<'_> {
    /// Understands one body.
    pub fn plan(&self, body: Map<String, Value>, endpoint: Endpoint) -> Result<Plan, ApiError> {
        let body = Value::Object(screen(body, endpoint)?);
        let mut common: Common = read(&body)?;
        self.check_model(&common.model, endpoint.dialect)?;
        let sampling = read_sampling(&common, endpoint.dialect, self.options)?;
        let in_fingerprint = common.logprobs_in_fingerprint.unwrap_or(false);
        let Question {
            prompts,
            limit,
            mut top_logprobs,
        } = match endpoint.form {
            Form::Chat => self.chat(&body, &mut common, endpoint.dialect)?,
            Form::Text => self.text(&body, &common)?,
        };
        if in_fingerprint {
            top_logprobs = Some(top_logprobs.unwrap_or(0));
        }
        let stream = common.stream.unwrap_or(false);
        if stream && in_fingerprint {
            let message = "`logprobs_in_fingerprint` cannot be had in a stream";
            return Err(ApiError::field("logprobs_in_fingerprint", message));
        }
        let fields = common.cartridges.take().unwrap_or_default();
        let present = || self.inference.cartridges();
        let shared = Shared {
            cartridges: read_cartridges(&fields, endpoint.dialect, self.options, present)?,
            max_new_tokens: limit,
            top_logprobs,
            constraint: read_constraint(
                common.response_format.as_ref(),
                self.options.max_schema_bytes,
            )?,
        };
        let jobs = self.jobs(prompts, &common, &sampling, &shared)?;
        let include_usage = common
            .stream_options
            .and_then(|options| options.include_usage)
            .unwrap_or(false);
        let wanted = Wanted {
            endpoint,
            model: common.model,
            n: sampling.n,
            top_logprobs,
            in_fingerprint,
            stream,
            include_usage,
        };
        Ok(Plan { jobs, wanted })
    }

    fn check_model(&self, model: &str, dialect: Dialect) -> Result<(), ApiError> {
        let served = &self.inference.served().model_id;
        let fine = dialect == Dialect::Tokasaurus
            || !self.options.check_model
            || model == "default"
            || model.eq_ignore_ascii_case(served);
        if fine {
            return Ok(());
        }
        Err(ApiError {
            kind: Kind::NoSuchPart,
            message: format!("model `{model}` is not served here, but `{served}` is"),
            param: Some("model".into()),
        })
    }

    fn jobs(
        &self,
        prompts: Vec<Prompt>,
        common: &Common,
        sampling: &Sampling,
        shared: &Shared,
    ) -> Result<Vec<Job>, ApiError> {
        let adapter = common.adapter.as_deref().map(|name| {
            sanitise(name).ok_or_else(|| ApiError::field("adapter", "not the name of an adapter"))
        });
        let adapter = adapter.transpose()?;
        let answers = prompts.len() * sampling.n;
        if answers > self.options.max_answers {
            let most = self.options.max_answers;
            let message =
                format!("{answers} answers in one request are more than the {most} allowed");
            return Err(ApiError::field("n", message));
        }
        let mut jobs = Vec::with_capacity(answers);
        for prompt in prompts {
            for answer in 0..sampling.n as u64 {
                jobs.push(Job {
                    prompt: prompt.clone(),
                    cartridges: shared.cartridges.clone(),
                    adapter: adapter.clone(),
                    max_new_tokens: shared.max_new_tokens,
                    temperature: sampling.temperature,
                    top_p: sampling.top_p,
                    top_k: sampling.top_k,
                    min_p: sampling.min_p,
                    // Answers to one prompt differ, but again in the same way.
                    seed: common.seed.map(|seed| (seed as u64).wrapping_add(answer)),
                    stop: sampling.stop.clone(),
                    ignore_eos: common.ignore_eos.unwrap_or(false),
                    top_logprobs: shared.top_logprobs,
                    constraint: shared.constraint.clone(),
                    client: self.client.to_owned(),
                });
            }
        }
        Ok(jobs)
    }
}
