//! The heads of a model over the chunks of a document: how many slots each gets, and what it makes of them.

use rayon::prelude::*;

use super::super::error::CartridgeError;
use super::super::matching::{
    Block, HeadMatch, MatchError, allot, dead_key, match_blocks, rotate_keys, unexplained,
};
use super::{MatchDocument, Recorded};
use crate::decoder::Decoder;

/// All heads, and what was recorded of them per chunk and layer.
pub(super) struct Heads<'a> {
    decoder: &'a Decoder,
    task: &'a MatchDocument<'a>,
    chunks: &'a [Vec<Recorded>],
}

/// Slots of every head.
pub(super) struct Plan {
    /// Slots of the cartridge: as many as the largest head has.
    pub(super) rows: usize,
    /// Per head, layer by layer, the slots of every chunk.
    shares: Vec<Vec<usize>>,
    /// Per head, the key of a slot that no query attends to; empty where the head has all rows.
    dead: Vec<Vec<f32>>,
}

impl Plan {
    /// Slots of every head over all chunks.
    pub(super) fn head_slots(&self) -> Vec<usize> {
        let sum = |chunks: &Vec<usize>| chunks.iter().sum();
        self.shares.iter().map(sum).collect()
    }
}

/// What one head gains from slots, and the key that pads it where it can do with fewer rows than others.
struct Gains {
    curves: Vec<Vec<f64>>,
    dead: Option<Vec<f32>>,
}

impl<'a> Heads<'a> {
    pub(super) fn new(
        decoder: &'a Decoder,
        task: &'a MatchDocument<'a>,
        chunks: &'a [Vec<Recorded>],
    ) -> Self {
        Self {
            decoder,
            task,
            chunks,
        }
    }

    fn count(&self) -> usize {
        self.decoder.config().num_layers * self.decoder.config().num_kv_heads
    }

    /// The same slots of every chunk in every head.
    pub(super) fn even(&self, chunks: &[usize]) -> Plan {
        Plan {
            rows: chunks.iter().sum(),
            shares: vec![chunks.to_vec(); self.count()],
            dead: vec![Vec::new(); self.count()],
        }
    }

    /// As many slots in all as [`Heads::even`] would give, where they explain most. A head that cannot be
    /// padded gets as many as the largest may have.
    pub(super) fn uneven(&self, chunks: &[usize]) -> Result<Plan, CartridgeError> {
        let count = self.count();
        let mean: usize = chunks.iter().sum();
        let tokens: usize = self.task.chunks.iter().map(|c| c.own.len()).sum();
        let most = self.task.options.most_slots.unwrap_or(2 * mean).min(tokens);
        if most < mean {
            let problem = format!(
                "of one head are at most {most}, expected at least the {mean} that heads have on average"
            );
            return Err(CartridgeError::shape("slots", problem));
        }
        if most == mean {
            return Ok(self.even(chunks));
        }
        let gains: Vec<Gains> = (0..count)
            .into_par_iter()
            .map(|index| self.named(index, self.gains(index, most)))
            .collect::<Result<_, _>>()?;
        let curves = |paddable: bool| -> Vec<Vec<Vec<f64>>> {
            let those = gains.iter().filter(|g| g.dead.is_some() == paddable);
            those.map(|g| g.curves.clone()).collect()
        };
        let (full, others) = (curves(false), curves(true));
        let rest = (mean * count).checked_sub(most * full.len());
        let Some(rest) = rest.filter(|&rest| rest >= chunks.len() * others.len()) else {
            let problem = format!(
                "cannot be uneven: the queries of {} of {count} heads share no direction away from which \
                 padding could lie; share them evenly, or let the largest head have fewer than {most}",
                full.len()
            );
            return Err(CartridgeError::shape("slots", problem));
        };
        let mut full = allot(&full, most * full.len(), most).into_iter();
        let mut others = allot(&others, rest, most).into_iter();
        let shares: Vec<Vec<usize>> = gains
            .iter()
            .filter_map(|g| match g.dead {
                Some(_) => others.next(),
                None => full.next(),
            })
            .collect();
        let sums = shares.iter().map(|chunks| chunks.iter().sum::<usize>());
        Ok(Plan {
            rows: sums.max().unwrap_or(mean),
            shares,
            dead: gains
                .into_iter()
                .map(|g| g.dead.unwrap_or_default())
                .collect(),
        })
    }

    fn gains(&self, index: usize, most: usize) -> Result<Gains, MatchError> {
        let dim = self.decoder.config().head_dim;
        let (blocks, queries) = self.head(index, &vec![1; self.chunks.len()])?;
        Ok(Gains {
            dead: self.dead_key(&blocks, &queries)?,
            curves: unexplained(dim, &blocks, &queries, most, &self.task.options)?,
        })
    }

    /// Matches one head; its keys come at the positions they have in the cartridge, padded.
    pub(super) fn solve(&self, index: usize, plan: &Plan) -> Result<HeadMatch, CartridgeError> {
        self.named(index, self.matched(index, plan))
    }

    fn matched(&self, index: usize, plan: &Plan) -> Result<HeadMatch, MatchError> {
        let rows = plan.rows;
        let dim = self.decoder.config().head_dim;
        let (blocks, queries) = self.head(index, &plan.shares[index])?;
        let mut matched = match_blocks(dim, &blocks, &queries, &self.task.options)?;
        let missing = rows - matched.keys.len() / dim;
        if missing > 0 {
            matched.keys.extend(plan.dead[index].repeat(missing));
            matched.values.resize(rows * dim, 0.0);
        }
        let frequencies = self.decoder.rotary().frequencies();
        let shift = rows as f64 - self.end() as f64;
        rotate_keys(&mut matched.keys, frequencies, shift)?;
        Ok(matched)
    }

    fn dead_key(&self, blocks: &[Block], queries: &[f32]) -> Result<Option<Vec<f32>>, MatchError> {
        let config = self.decoder.config();
        let keys: Vec<f32> = blocks.iter().flat_map(|b| &b.keys).copied().collect();
        let frequencies = self.decoder.rotary().frequencies();
        let window = config.max_position_embeddings;
        dead_key(config.head_dim, queries, &keys, frequencies, window)
    }

    /// All chunks end where the first does; requests begin there.
    fn end(&self) -> usize {
        self.task.chunks[0].document.len()
    }

    /// A head's blocks, and its queries from behind all chunks, in one frame.
    fn head(&self, index: usize, shares: &[usize]) -> Result<(Vec<Block>, Vec<f32>), MatchError> {
        let config = self.decoder.config();
        let (kv, dim, group) = (config.num_kv_heads, config.head_dim, config.group_size());
        let (layer, head) = (index / kv, index % kv);
        let frequencies = self.decoder.rotary().frequencies();
        let mut blocks = Vec::with_capacity(shares.len());
        let mut queries = Vec::new();
        for ((chunk, layers), &slots) in self.task.chunks.iter().zip(self.chunks).zip(shares) {
            let recorded = &layers[layer];
            let own = |matrix: &[f32]| {
                let rows = &matrix[chunk.own.start * kv * dim..chunk.own.end * kv * dim];
                columns(rows, kv * dim, head * dim, dim)
            };
            let mut keys = own(&recorded.keys);
            let width = group * dim;
            let mut asked = columns(&recorded.queries, kv * width, head * width, width);
            let shift = self.end() as f64 - chunk.document.len() as f64;
            if shift != 0.0 {
                rotate_keys(&mut keys, frequencies, shift)?;
                rotate_keys(&mut asked, frequencies, shift)?;
            }
            queries.append(&mut asked);
            blocks.push(Block {
                keys,
                values: own(&recorded.values),
                slots,
            });
        }
        Ok((blocks, queries))
    }

    fn named<T>(&self, index: usize, found: Result<T, MatchError>) -> Result<T, CartridgeError> {
        let kv = self.decoder.config().num_kv_heads;
        found.map_err(|error| {
            let (layer, head) = (index / kv, index % kv);
            let problem = format!("of layer {layer}, head {head} failed: {error}");
            CartridgeError::shape("matching", problem)
        })
    }
}

/// The `width` columns from `from` on of a matrix with rows of `stride`.
fn columns(matrix: &[f32], stride: usize, from: usize, width: usize) -> Vec<f32> {
    matrix
        .chunks_exact(stride)
        .flat_map(|row| row[from..from + width].iter().copied())
        .collect()
}
