#![recursion_limit = "256"]
#![deny(missing_docs)]
//! Self-study: turning a text into conversations that a cartridge is trained on.
//!
//! A teacher model reads a piece of the text (the *context*) in its system prompt. Playing the user
//! (*agent A*) it follows a [seed prompt](seed_prompt) and writes a question or a request; playing the
//! assistant (*agent B*) it answers with the context in view. The answer's token ids and its most
//! likely alternatives with their log-probabilities are stored, and a cartridge is later trained to
//! give the same answers **without** the context.
//!
//! | module | what it holds |
//! |---|---|
//! | [`conversation`] | the records that are stored |
//! | [`top_logprobs`] | dense and sparse ("flat") top-k log-probabilities |
//! | [`parquet`] | the reference system's parquet schema, written and read |
//! | [`chunker`] | cutting a text into contexts: by tokens, characters or sections |
//! | [`resource`] | what can be studied: texts, folders, JSON, HTML, PDF, LaTeX, mail, benchmarks |
//! | [`seed_prompt`] | what agent A is asked to write |
//! | [`client`] | the trait through which a model is talked to, and a client of servers over HTTP |
//! | [`tool`] | what the agents may call before they speak |
//! | [`self_study`] | configuration, plan and flow of the conversations |
//! | [`run`] | crash-safe runs that stop and resume |
//!
//! The crate knows no model and no tensor library: whoever generates implements
//! [`client::ChatClient`] and whoever tokenises implements [`chunker::TokenCodec`].
//!
//! After: S. Eyuboglu et al., "Cartridges: Lightweight and general-purpose long context
//! representations via self-study", arXiv 2506.06266.

pub mod chunker;
pub mod client;
pub mod conversation;
pub mod parquet;
pub mod resource;
pub mod run;
pub mod seed_prompt;
pub mod self_study;
pub mod tool;
pub mod top_logprobs;
