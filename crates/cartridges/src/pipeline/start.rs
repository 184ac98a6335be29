//! Where a cartridge starts before training.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{
    HostCartridge, MatchDocument, first_tokens, match_document, ordinary_ids, random_tokens,
    random_vectors, sampled_chunks, truncate_chat_ids,
};
use cartridges_model::text::{ChatMessage, RenderOptions};
use cartridges_study::conversation::Conversation;
use cartridges_study::self_study::SelfStudyConfig;
use clap::{Args, ValueEnum};

use super::match_args::{MatchArgs, SizeArgs};
use super::match_chunks::match_chunks;
use super::summary::summarize;
use crate::opening::{load_cartridge, read_text};
use crate::progress::progress;

/// Ways to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Init {
    /// Match the document's attention in closed form (best).
    Matching,
    /// The model's own keys and values of the document's first tokens (the paper).
    First,
    /// Those of pieces drawn from the whole document.
    SampledChunks,
    /// Those of a summary that the model writes of the document.
    Summary,
    /// Those of any text, rendered as a system message and truncated (the reference).
    Text,
    /// Those of tokens drawn from the vocabulary (the paper's comparison).
    RandomTokens,
    /// Random numbers (the reference's weakest).
    #[value(alias = "random-vectors")]
    Random,
    /// Another cartridge.
    Cartridge,
}

/// How to start, from the command line.
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// How the cartridge starts.
    #[arg(long, value_enum, default_value_t = Init::Matching)]
    pub init: Init,
    /// How large the cartridge is.
    #[command(flatten)]
    pub size: SizeArgs,
    /// Text file for --init text.
    #[arg(long, value_name = "FILE")]
    pub init_text: Option<PathBuf>,
    /// Cartridge folder or .pt file for --init cartridge.
    #[arg(long, value_name = "DIR")]
    pub init_cartridge: Option<PathBuf>,
    /// How --init matching works.
    #[command(flatten)]
    pub matching: MatchArgs,
}

impl Default for StartArgs {
    fn default() -> Self {
        Self {
            init: Init::Matching,
            size: SizeArgs::default(),
            init_text: None,
            init_cartridge: None,
            matching: MatchArgs::default(),
        }
    }
}

impl StartArgs {
    /// Checks what can be checked before the document is there.
    ///
    /// # Errors
    /// As [`SizeArgs::slots_for`].
    pub fn check(&self) -> Result<()> {
        self.size.slots_for(0).map(drop)
    }
}

/// A cartridge before training, with how it came about.
#[derive(Debug, Clone)]
pub struct Start {
    /// The cartridge.
    pub cartridge: HostCartridge,
    /// For the record.
    pub how: serde_json::Value,
}

/// Tokens of a piece for --init sampled-chunks: about two sentences.
const SAMPLED_CHUNK: usize = 32;

/// The document as requests see it without a cartridge: the rendered system message.
///
/// # Errors
/// If the model has no chat template or its template has no system role.
pub fn document_ids(model: &LanguageModel, text: &str) -> Result<Vec<u32>> {
    let system = SelfStudyConfig::default().system_prompt(text);
    let options = RenderOptions::default();
    Ok(model
        .text
        .encode_chat(&[ChatMessage::system(system)], &options)?)
}

/// Makes the cartridge that training starts from.
///
/// # Errors
/// If a setting is out of range or the needed text or cartridge is missing.
pub fn start(
    model: &Arc<LanguageModel>,
    args: &StartArgs,
    corpus: Option<&str>,
    conversations: &[Conversation],
    seed: u64,
) -> Result<Start> {
    let decoder = &model.decoder;
    let size = &args.size;
    let need = || corpus.context("this way to start needs the text itself: give --corpus FILE");
    let name = args.init.to_possible_value();
    let name = name.as_ref().map_or("", |value| value.get_name());
    let mut how = serde_json::json!({ "init": name, "frozen": size.frozen });
    let cartridge = match args.init {
        Init::Matching => {
            let text = need()?;
            let chunks = match_chunks(model, text, conversations, &args.matching)?;
            let length = document_ids(model, text)?.len();
            let slots = size.slots_for(length)?;
            if chunks.len() > 1 {
                eprintln!("{length} tokens are matched in {} chunks", chunks.len());
            }
            let progress = progress(decoder.config().num_layers as u64, "matching", "layers");
            let task = MatchDocument {
                chunks: &chunks,
                slots,
                frozen: size.frozen,
                max_queries: args.matching.max_queries,
                options: args.matching.options(),
            };
            let matched = match_document(decoder, &task, &|done, _| {
                progress.set(done as u64, String::new());
            })?;
            how["document_tokens"] = length.into();
            how["chunks"] = chunks.len().into();
            how["matching"] = serde_json::to_value(&args.matching)?;
            how["output_errors"] = serde_json::json!(matched.output_errors);
            how["head_slots"] = serde_json::json!(matched.head_slots);
            matched.cartridge
        }
        Init::First => {
            let document = document_ids(model, need()?)?;
            let slots = size.slots_for(document.len())?.min(document.len());
            first_tokens(decoder, &document[..slots], size.frozen)?
        }
        Init::SampledChunks => {
            let document = document_ids(model, need()?)?;
            let slots = size.slots_for(document.len())?;
            how["document_tokens"] = document.len().into();
            how["chunk_tokens"] = SAMPLED_CHUNK.into();
            how["seed"] = seed.into();
            let ids = sampled_chunks(&document, slots, SAMPLED_CHUNK, seed);
            first_tokens(decoder, &ids, size.frozen)?
        }
        Init::Summary => {
            let text = need()?;
            let length = document_ids(model, text)?.len();
            let slots = size.slots_for(length)?;
            let around = document_ids(model, "")?.len();
            let summary = summarize(model, text, slots.saturating_sub(around).max(1))?;
            let mut ids = document_ids(model, &summary.text)?;
            if ids.len() < slots {
                eprintln!(
                    "the model's summary has {} tokens, so there are as many slots instead of {slots}",
                    ids.len()
                );
            }
            ids.truncate(slots);
            how["document_tokens"] = length.into();
            how["summary"] = summary.text.into();
            how["chunks"] = summary.chunks.into();
            first_tokens(decoder, &ids, size.frozen)?
        }
        Init::Text => {
            let path = args.init_text.as_ref();
            let path = path.context("--init text needs --init-text FILE")?;
            let options = RenderOptions::default();
            let ids = model
                .text
                .encode_chat(&[ChatMessage::system(read_text(path)?)], &options)?;
            let markers = model.text.message_ids()?;
            let end: Vec<u32> = markers
                .end
                .iter()
                .chain(&markers.extra_end)
                .copied()
                .collect();
            let slots = size.slots_for(ids.len())?;
            first_tokens(decoder, &truncate_chat_ids(&ids, slots, &end), size.frozen)?
        }
        Init::RandomTokens | Init::Random => {
            let slots = match (size.slots, corpus) {
                (None, Some(text)) => size.slots_for(document_ids(model, text)?.len())?,
                (None, None) => bail!("--init {name} needs --tokens N or --corpus FILE"),
                (Some(_), _) => size.slots_for(0)?,
            };
            how["seed"] = seed.into();
            match args.init {
                Init::Random => random_vectors(decoder, slots, size.frozen, seed)?,
                _ => {
                    let ordinary = ordinary_ids(&model.text, decoder.config().vocab_size);
                    random_tokens(decoder, &ordinary, slots, size.frozen, seed)?
                }
            }
        }
        Init::Cartridge => {
            let path = args.init_cartridge.as_ref();
            let path = path.context("--init cartridge needs --init-cartridge DIR")?;
            load_cartridge(path, model, false)?.0
        }
    };
    how["slots"] = cartridge.slots.into();
    Ok(Start { cartridge, how })
}
