//! The configuration of self-study.

use serde::{Deserialize, Serialize};

use crate::chunker::{ChunkError, Chunker};
use crate::resource::{ResourceError, SharedCodec, TextResource};
use crate::seed_prompt::{SeedPrompts, SeedType};
use crate::tool::ToolConfig;
use crate::top_logprobs::{TopLogprobsError, check_threshold};

/// The system prompt around a context; `{subcorpus}` stands for the context.
pub const DEFAULT_SYSTEM_PROMPT: &str = "\nThis conversation is about the following information.\n\n\
     <info>\n{subcorpus}\n</info>";

/// How the model is asked which tools to call; `{message}` stands for what it is to respond to, `{tools}`
/// for the description of the tools.
pub const DEFAULT_TOOL_PROMPT: &str = "Respond to this message. If one of the tools below can find \
     what you need for it, call the tool; otherwise write nothing but \"no tool\".\n\n\
     <message>\n{message}\n</message>\n\n{tools}";

/// Where the context goes in a system prompt template.
const PLACEHOLDER: &str = "{subcorpus}";
/// The places of a tool prompt template.
const MESSAGE: &str = "{message}";
const TOOLS: &str = "{tools}";

/// How conversations are made. Defaults follow the reference where it has the field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelfStudyConfig {
    /// Seed of everything that is drawn (default 82).
    pub seed: u64,
    /// Conversations between agent A and agent B, besides the verbatim pieces (default 256).
    pub num_conversations: usize,
    /// Conversations that share one context (default 8). More is faster and less diverse.
    pub batch_size: usize,
    /// Batches handed to the client in one call (default 1). Does not change the result.
    pub batches_in_parallel: usize,
    /// Questions and answers per conversation (default 1).
    pub max_rounds: usize,
    /// Temperature of agent A, who asks (default 0.6).
    pub temperature_a: f32,
    /// Longest message of agent A in tokens (default 512).
    pub max_completion_tokens_a: usize,
    /// Temperature of agent B, who answers (default 0, greedy).
    pub temperature_b: f32,
    /// Longest answer of agent B in tokens (default 1024).
    pub max_completion_tokens_b: usize,
    /// Probability that a batch's answers are asked for with thinking, drawn per batch and round
    /// (default 0).
    pub prob_thinking: f64,
    /// Candidates with log-probabilities per answer token (default 20); 0 stores none.
    pub num_top_logprobs: usize,
    /// Probability mass of the candidates kept per token, in (0, 1] (default 0.99).
    pub min_prob_mass: f64,
    /// Kinds of messages agent A is asked for (default all).
    pub seed_types: Vec<SeedType>,
    /// Your own prompts for agent A, drawn where `seed_types` has "own" (default none). A prompt asks for
    /// one message about "the information above", which is the context.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seed_prompts: Vec<String>,
    /// How contexts are cut (default 512 to 1024 tokens).
    pub chunker: Chunker,
    /// Share of the conversations, 0 to 1, whose question is about one given sentence, walking
    /// through the whole text, instead of a random seed prompt (default 0.5).
    pub coverage_share: f64,
    /// Share of the questions, 0 to 1, that agent A's message ends by asking for a short answer
    /// ("Answer in a few words."), so that the cartridge learns to give one (default 0.25).
    pub brief_share: f64,
    /// Whether "continue word for word" pieces that cover the whole text are added (default true).
    pub verbatim: bool,
    /// Length of a piece in tokens (default 64).
    pub verbatim_tokens: usize,
    /// Distance between the starts of pieces in tokens (default 48).
    pub verbatim_stride: usize,
    /// Tokens before a piece that the user message quotes (default 16).
    pub verbatim_lead_tokens: usize,
    /// How often the text is walked through, each time with shifted pieces and other wording
    /// (default 3). This is the weight of the pieces.
    pub verbatim_repeats: usize,
    /// Gaps to fill per sentence, at least: names, numbers and rare words that the text itself answers
    /// (default 0).
    pub gaps_per_sentence: usize,
    /// One more gap for every so many words of a sentence, where that is more (default 0: no more), so
    /// that long sentences are asked about in every part.
    pub words_per_gap: usize,
    /// Share of the gaps, 0 to 1, for which agent A also writes a question whose answer is what was left
    /// out (default 0).
    pub gap_questions: f64,
    /// Whether conversations with an empty question or answer are left out (default true). They are
    /// counted either way.
    pub drop_empty: bool,
    /// Whether conversations with an answer that hit the token limit are left out (default false).
    /// They are counted either way.
    pub drop_cut_off: bool,
    /// The system prompt; must contain `{subcorpus}` once.
    pub system_prompt_template: String,
    /// Tools that the agents may call before they speak (default none). What they say is put behind the
    /// system prompt.
    pub tools: Vec<ToolConfig>,
    /// Whether agent A calls tools (default false).
    pub use_tools_a: bool,
    /// Whether agent B calls tools (default false).
    pub use_tools_b: bool,
    /// Longest message that calls tools, in tokens (default 128).
    pub max_tool_tokens: usize,
    /// How the model is asked which tools to call; must contain `{message}` and `{tools}` once.
    pub tool_prompt_template: String,
}

impl Default for SelfStudyConfig {
    fn default() -> Self {
        Self {
            seed: 82,
            num_conversations: 256,
            batch_size: 8,
            batches_in_parallel: 1,
            max_rounds: 1,
            temperature_a: 0.6,
            max_completion_tokens_a: 512,
            temperature_b: 0.0,
            max_completion_tokens_b: 1024,
            prob_thinking: 0.0,
            num_top_logprobs: 20,
            min_prob_mass: 0.99,
            seed_types: SeedType::ALL.to_vec(),
            seed_prompts: Vec::new(),
            chunker: Chunker::default(),
            coverage_share: 0.5,
            brief_share: 0.25,
            verbatim: true,
            verbatim_tokens: 64,
            verbatim_stride: 48,
            verbatim_lead_tokens: 16,
            verbatim_repeats: 3,
            gaps_per_sentence: 0,
            words_per_gap: 0,
            gap_questions: 0.0,
            drop_empty: true,
            drop_cut_off: false,
            system_prompt_template: DEFAULT_SYSTEM_PROMPT.to_owned(),
            tools: Vec::new(),
            use_tools_a: false,
            use_tools_b: false,
            max_tool_tokens: 128,
            tool_prompt_template: DEFAULT_TOOL_PROMPT.to_owned(),
        }
    }
}

/// A configuration that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A field has a value outside its range.
    #[error("self-study: {field} is {found}, expected {expected}")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// The range.
        expected: &'static str,
    },
    /// The mass threshold is wrong.
    #[error("self-study: {0}")]
    Threshold(#[from] TopLogprobsError),
    /// The chunk limits are wrong.
    #[error("self-study: chunker: {0}")]
    Chunker(#[from] ChunkError),
    /// The template has not exactly one place for the context.
    #[error(
        "self-study: system_prompt_template must contain {{subcorpus}} once, it does {0} times"
    )]
    Template(usize),
    /// The template has not exactly one place for the message or the tools.
    #[error("self-study: tool_prompt_template must contain {place} once, it does {found} times")]
    ToolTemplate {
        /// The place.
        place: &'static str,
        /// How often it is there.
        found: usize,
    },
}

impl SelfStudyConfig {
    /// Checks all fields.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let range = |field, found: String, expected| {
            Err(ConfigError::Range {
                field,
                found,
                expected,
            })
        };
        for (field, value) in [
            ("batch_size", self.batch_size),
            ("batches_in_parallel", self.batches_in_parallel),
            ("max_rounds", self.max_rounds),
            ("max_completion_tokens_a", self.max_completion_tokens_a),
            ("max_completion_tokens_b", self.max_completion_tokens_b),
            ("max_tool_tokens", self.max_tool_tokens),
        ] {
            if value == 0 {
                return range(field, "0".to_owned(), "at least 1");
            }
        }
        for (field, value) in [
            ("temperature_a", self.temperature_a),
            ("temperature_b", self.temperature_b),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return range(field, value.to_string(), "a number of at least 0");
            }
        }
        for (field, value) in [
            ("prob_thinking", self.prob_thinking),
            ("coverage_share", self.coverage_share),
            ("brief_share", self.brief_share),
            ("gap_questions", self.gap_questions),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return range(field, value.to_string(), "a number from 0 to 1");
            }
        }
        check_threshold(self.min_prob_mass)?;
        self.chunker.validate()?;
        if self.seed_types.is_empty() {
            return range("seed_types", "empty".to_owned(), "at least one type");
        }
        let own = self.seed_types.contains(&SeedType::Own);
        if own && self.seed_prompts.is_empty() {
            let expected = "at least one prompt, since seed_types has \"own\"";
            return range("seed_prompts", "empty".to_owned(), expected);
        }
        if !own && !self.seed_prompts.is_empty() {
            let found = format!("{:?}", self.seed_types);
            return range(
                "seed_types",
                found,
                "\"own\" among them, since there are seed_prompts",
            );
        }
        if self.seed_prompts.iter().any(|p| p.trim().is_empty()) {
            return range(
                "seed_prompts",
                "an empty text".to_owned(),
                "prompts with words in them",
            );
        }
        if self.verbatim {
            self.validate_verbatim()?;
        }
        if self.num_conversations == 0 && !self.verbatim {
            let expected = "at least 1 when verbatim is off";
            return range("num_conversations", "0".to_owned(), expected);
        }
        self.validate_tools()?;
        match self.system_prompt_template.matches(PLACEHOLDER).count() {
            1 => Ok(()),
            n => Err(ConfigError::Template(n)),
        }
    }

    fn validate_tools(&self) -> Result<(), ConfigError> {
        let used = self.use_tools_a || self.use_tools_b;
        if used == self.tools.is_empty() {
            let (field, found, expected) = match used {
                true => (
                    "tools",
                    "empty",
                    "at least one where use_tools_a or use_tools_b is true",
                ),
                false => (
                    "use_tools_b",
                    "false",
                    "it or use_tools_a to be true, since there are tools",
                ),
            };
            return Err(ConfigError::Range {
                field,
                found: found.to_owned(),
                expected,
            });
        }
        for place in [MESSAGE, TOOLS] {
            let found = self.tool_prompt_template.matches(place).count();
            if found != 1 {
                return Err(ConfigError::ToolTemplate { place, found });
            }
        }
        Ok(())
    }

    fn validate_verbatim(&self) -> Result<(), ConfigError> {
        let expected = "at least 1 and at most verbatim_tokens, so that the pieces cover the text";
        for (field, value, sound, expected) in [
            (
                "verbatim_tokens",
                self.verbatim_tokens,
                (1..=self.chunker.max_tokens()).contains(&self.verbatim_tokens),
                "at least 1 and at most the tokens of the longest chunk",
            ),
            (
                "verbatim_stride",
                self.verbatim_stride,
                (1..=self.verbatim_tokens).contains(&self.verbatim_stride),
                expected,
            ),
            (
                "verbatim_lead_tokens",
                self.verbatim_lead_tokens,
                self.verbatim_lead_tokens > 0,
                "at least 1",
            ),
            (
                "verbatim_repeats",
                self.verbatim_repeats,
                self.verbatim_repeats > 0,
                "at least 1 (or verbatim = false)",
            ),
        ] {
            if !sound {
                return Err(ConfigError::Range {
                    field,
                    found: value.to_string(),
                    expected,
                });
            }
        }
        Ok(())
    }

    /// The system prompt around a context.
    pub fn system_prompt(&self, context: &str) -> String {
        self.system_prompt_template
            .replacen(PLACEHOLDER, context, 1)
    }

    /// What agent A's prompts are drawn from.
    pub fn prompts(&self) -> SeedPrompts {
        SeedPrompts {
            types: self.seed_types.clone(),
            own: self.seed_prompts.clone(),
        }
    }

    /// The question which tools to call. Neither of the two texts is searched for places.
    pub(super) fn tool_prompt(&self, message: &str, tools: &str) -> String {
        let fill = |part: &str| part.replacen(TOOLS, tools, 1);
        match self.tool_prompt_template.split_once(MESSAGE) {
            Some((before, after)) => [&fill(before), message, &fill(after)].concat(),
            None => self.tool_prompt_template.clone(),
        }
    }

    /// A text with this configuration's chunk lengths and seed types.
    pub fn text_resource(
        &self,
        name: impl Into<String>,
        text: impl Into<String>,
        codec: SharedCodec,
    ) -> Result<TextResource, ResourceError> {
        TextResource::new(name, text, codec, self.chunker, self.prompts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::TokenChunker;
    use crate::tool::RetrievalConfig;

    #[test]
    fn defaults_are_valid_and_survive_json() {
        let config = SelfStudyConfig::default();
        config.validate().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(
            serde_json::from_str::<SelfStudyConfig>(&json).unwrap(),
            config
        );
        assert_eq!(
            serde_json::from_str::<SelfStudyConfig>("{}").unwrap(),
            config
        );
        let error = serde_json::from_str::<SelfStudyConfig>(r#"{"num_samples": 3}"#).unwrap_err();
        assert!(error.to_string().contains("num_samples"), "{error}");
        assert_eq!(
            config.system_prompt("CONTEXT {subcorpus}"),
            "\nThis conversation is about the following information.\n\n\
             <info>\nCONTEXT {subcorpus}\n</info>"
        );
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Change = fn(&mut SelfStudyConfig);
        let wrong: [(&str, Change); 19] = [
            ("batch_size", |c| c.batch_size = 0),
            ("batches_in_parallel", |c| c.batches_in_parallel = 0),
            ("max_rounds", |c| c.max_rounds = 0),
            ("temperature_a", |c| c.temperature_a = f32::NAN),
            ("temperature_b", |c| c.temperature_b = -1.0),
            ("prob_thinking", |c| c.prob_thinking = 1.5),
            ("coverage_share", |c| c.coverage_share = f64::NAN),
            ("min_prob_mass", |c| c.min_prob_mass = 0.0),
            ("gap_questions", |c| c.gap_questions = 1.1),
            ("seed_types", |c| c.seed_types.clear()),
            ("seed_prompts", |c| c.seed_types.push(SeedType::Own)),
            ("seed_types", |c| c.seed_prompts.push("Ask.".to_owned())),
            ("verbatim_stride", |c| c.verbatim_stride = 65),
            ("max_tokens_per_chunk", |c| {
                c.chunker = Chunker::Token(TokenChunker {
                    min_tokens_per_chunk: 2000,
                    ..TokenChunker::default()
                });
            }),
            ("max_tool_tokens", |c| c.max_tool_tokens = 0),
            ("tools", |c| c.use_tools_a = true),
            ("use_tools_b", |c| {
                c.tools = vec![ToolConfig::Retrieval(RetrievalConfig::default())];
            }),
            ("tool_prompt_template", |c| {
                c.tool_prompt_template = "{message}".to_owned();
            }),
            ("system_prompt_template", |c| {
                c.system_prompt_template = "no place".to_owned();
            }),
        ];
        for (field, change) in wrong {
            let mut config = SelfStudyConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(field), "{field}: {error}");
        }
    }
}
