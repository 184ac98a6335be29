//! A cartridge for a whole document in closed form: every head of every layer is matched to what
//! the document's own keys and values give to reference queries.

mod heads;
mod record;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use self::heads::Heads;
use self::record::{Recorded, Thinning, record};
use super::error::CartridgeError;
use super::host::{HostCartridge, HostLayer};
use super::matching::{HeadMatch, MatchOptions, SlotShares};
use crate::decoder::Decoder;

/// A part of the document that goes through the model in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchChunk {
    /// The chunk as requests would see it: a rendered system message from position 0 on.
    pub document: Vec<u32>,
    /// The tokens that this chunk alone brings. The others (the opening and the closing of the message,
    /// which every chunk needs around it) are left to the first chunk, which brings all of its own.
    pub own: Range<usize>,
    /// Token sequences that stand behind the chunk, each on its own: the chunk once more
    /// ("repeat word for word"), conversations about it. Their queries are the reference.
    pub queries: Vec<Vec<u32>>,
}

impl MatchChunk {
    /// A document that is matched at once.
    pub fn whole(document: Vec<u32>, queries: Vec<Vec<u32>>) -> Self {
        Self {
            own: 0..document.len(),
            document,
            queries,
        }
    }
}

/// What to match, and how closely to look.
#[derive(Debug, Clone)]
pub struct MatchDocument<'a> {
    /// The document, in one piece or in several that each fit the model's window.
    pub chunks: &'a [MatchChunk],
    /// Slots of the cartridge; with [`SlotShares::Uneven`] those of a head on average.
    pub slots: usize,
    /// Slots that training will leave alone.
    pub frozen: usize,
    /// Most query vectors per key/value head; more are thinned out evenly.
    pub max_queries: usize,
    /// The closed form's own settings.
    pub options: MatchOptions,
}

/// A matched cartridge.
#[derive(Debug, Clone)]
pub struct DocumentMatch {
    /// The cartridge; requests start at position `slots`.
    pub cartridge: HostCartridge,
    /// Relative error of the attention output per layer, averaged over heads.
    pub output_errors: Vec<f64>,
    /// Tokens that the slots stand for.
    pub tokens: usize,
    /// Slots of every head, layer by layer. Where they are fewer than the cartridge's, the others are
    /// padding that no query attends to.
    pub head_slots: Vec<usize>,
}

/// Matches a cartridge of `slots` slots to a document; `progress` gets layers done and in all.
///
/// Keys are chosen from the document's, their mass and the values are fitted, and the keys are rotated
/// so that each is as far from a request at position `slots` as its token was from a request behind
/// the chunk: rope is relative, so such requests see exactly what they would have seen there. With one
/// chunk this is a shift by `slots - T`.
///
/// Several chunks share the slots by their tokens. Each has been read by itself, behind the opening of
/// the message, so all of them stand directly before the request and none is farther than the model's
/// window however long the document is; which chunk came first is not told by position. Queries from
/// behind every chunk look at all chunks (see [`match_blocks`]).
///
/// With [`SlotShares::Uneven`] the heads share `slots` times their number by what each gains, and the
/// cartridge has as many rows as the largest head has slots; the others are padded.
///
/// With `slots` at least the tokens of the document the cartridge is the document, exact.
///
/// Keys and values of the whole document are held in memory in f32.
///
/// # Errors
/// If a chunk is shorter than two tokens or longer with its queries than the model's window, there are
/// no slots, fewer than chunks, or no queries, heads cannot be padded, an id is outside the vocabulary, or a head cannot be
/// solved.
pub fn match_document(
    decoder: &Decoder,
    task: &MatchDocument<'_>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<DocumentMatch, CartridgeError> {
    let rows = check(decoder, task)?;
    let config = decoder.config();
    let tokens: usize = task.chunks.iter().map(|c| c.own.len()).sum();
    let wanted = task.slots.min(tokens);
    let keep = (task.max_queries / config.group_size()).clamp(1, rows);
    let mut thinning = Thinning::new(keep, rows);
    let chunks: Vec<Vec<Recorded>> = task
        .chunks
        .iter()
        .map(|chunk| record(decoder, chunk, &mut thinning))
        .collect::<Result<_, _>>()?;
    let even = slot_shares(task.chunks, wanted);
    let heads = Heads::new(decoder, task, &chunks);
    let plan = match task.options.slot_shares {
        SlotShares::Uneven => heads.uneven(&even)?,
        SlotShares::Even | SlotShares::Attention => heads.even(&even),
    };

    let kv = config.num_kv_heads;
    let done = AtomicUsize::new(0);
    let matched: Vec<HeadMatch> = (0..config.num_layers * kv)
        .into_par_iter()
        .map(|index| {
            let matched = heads.solve(index, &plan)?;
            let count = 1 + done.fetch_add(1, Ordering::Relaxed);
            progress(count / kv, config.num_layers);
            Ok(matched)
        })
        .collect::<Result<_, CartridgeError>>()?;

    let mut layers = Vec::with_capacity(config.num_layers);
    let mut output_errors = Vec::with_capacity(config.num_layers);
    for layer in matched.chunks_exact(kv) {
        layers.push(HostLayer {
            key: layer
                .iter()
                .flat_map(|head| head.keys.iter().copied())
                .collect(),
            value: layer
                .iter()
                .flat_map(|head| head.values.iter().copied())
                .collect(),
        });
        let sum: f64 = layer.iter().map(|head| head.output_error).sum();
        output_errors.push(sum / kv as f64);
    }
    Ok(DocumentMatch {
        cartridge: HostCartridge::new(kv, config.head_dim, plan.rows, task.frozen, layers)?,
        output_errors,
        tokens,
        head_slots: plan.head_slots(),
    })
}

/// Slots of every chunk: by its tokens, at least one, never more than it has tokens.
fn slot_shares(chunks: &[MatchChunk], slots: usize) -> Vec<usize> {
    let tokens: usize = chunks.iter().map(|c| c.own.len()).sum();
    let spare = slots - chunks.len();
    let others = tokens - chunks.len();
    let mut before = 0;
    chunks
        .iter()
        .map(|chunk| {
            let at = |count: usize| spare * count / others.max(1);
            let from = at(before);
            before += chunk.own.len() - 1;
            1 + at(before) - from
        })
        .collect()
}

/// Checks the task; gives the rows of all queries.
fn check(decoder: &Decoder, task: &MatchDocument<'_>) -> Result<usize, CartridgeError> {
    if task.chunks.is_empty() {
        return Err(CartridgeError::shape(
            "document",
            "has no chunks, expected at least 1",
        ));
    }
    if task.slots < task.chunks.len() || task.frozen > task.slots {
        let problem = format!(
            "are {} with {} frozen ones for {} chunk(s) of the document, expected at least one per chunk",
            task.slots,
            task.frozen,
            task.chunks.len()
        );
        return Err(CartridgeError::shape("slots", problem));
    }
    let window = decoder.config().max_position_embeddings;
    let mut rows = 0;
    for chunk in task.chunks {
        let (length, own) = (chunk.document.len(), &chunk.own);
        if own.len() < 2 || own.end > length {
            let problem = format!("brings tokens {own:?} of {length}, expected at least 2");
            return Err(CartridgeError::shape("document", problem));
        }
        let longest = chunk.queries.iter().map(Vec::len).max().unwrap_or(0);
        if length + longest > window {
            let problem = format!(
                "of {length} tokens with queries of {longest} behind it exceeds the model's {window} \
                 positions: cut it into chunks"
            );
            return Err(CartridgeError::shape("document", problem));
        }
        for ids in chunk.queries.iter().chain([&chunk.document]) {
            if let Err(id) = decoder.check_ids(ids) {
                let problem = format!("{id} is outside the model's vocabulary");
                return Err(CartridgeError::shape("token id", problem));
            }
        }
        rows += chunk.queries.iter().map(Vec::len).sum::<usize>();
    }
    if rows == 0 {
        let problem = "are none, expected at least one";
        return Err(CartridgeError::shape("queries", problem));
    }
    Ok(rows)
}
