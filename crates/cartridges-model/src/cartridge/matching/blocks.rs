//! A document in blocks: each is matched on its own, and together they stand for all of it.
//!
//! Attention over several blocks of keys is the mean of the attention over each, weighted by their
//! masses: `o = Σ_c a_c o_c` with `a_c = m_c / Σ m`. So slots that give every block's output and mass
//! give the whole document's, and no system larger than a block has to be solved. What a misfit of
//! block `c` does to the whole is `a_c` times as large, hence its queries weigh `a_c²`.

use super::attention::{Reference, log_masses};
use super::error::MatchError;
use super::head::{HeadMatch, match_head, match_reference};
use super::input::HeadInput;
use super::options::{MatchOptions, SlotShares};
use super::select::pursuit;

/// Keys and values of one block.
#[derive(Debug, Clone)]
pub struct Block {
    /// After RoPE, in the frame that all blocks and queries share, `[T, d]`.
    pub keys: Vec<f32>,
    /// `[T, d]`.
    pub values: Vec<f32>,
    /// Slots of this block with [`SlotShares::Even`].
    pub slots: usize,
}

/// Matches one head of a document that is cut into blocks; the first one holds the attention sink.
/// `queries` are `[n, d]`. A single block gives what [`match_head`](super::match_head) gives.
///
/// The result holds the blocks' slots one after the other; `chosen` counts through all blocks. There are
/// as many slots as the blocks ask for in all, whichever way they are shared out.
///
/// # Errors
/// As [`match_head`](super::match_head).
pub fn match_blocks(
    head_dim: usize,
    blocks: &[Block],
    queries: &[f32],
    options: &MatchOptions,
) -> Result<HeadMatch, MatchError> {
    let inputs = inputs(head_dim, blocks, queries);
    let Some((first, others)) = inputs.split_first() else {
        return Err(MatchError::NoBlocks);
    };
    if others.is_empty() {
        return match_head(first, options);
    }
    for input in &inputs {
        input.validate()?;
    }
    options.validate()?;
    let shares = mass_shares(&inputs);
    let weights = weights(&shares);
    let references = references(&inputs, &weights)?;
    let wanted: Vec<usize> = inputs.iter().map(|i| i.slots.min(i.tokens())).collect();
    let slots = match options.slot_shares {
        SlotShares::Even | SlotShares::Uneven => wanted,
        SlotShares::Attention => attended(&references, &shares, wanted.iter().sum()),
    };
    let mut joined = HeadMatch::default();
    let mut before = 0;
    for (index, (input, reference)) in inputs.iter().zip(&references).enumerate() {
        let input = HeadInput {
            slots: slots[index],
            ..*input
        };
        let part = match_reference(reference, &input, index == 0, options)?;
        joined.keys.extend(part.keys);
        joined.values.extend(part.values);
        joined.chosen.extend(part.chosen.iter().map(|t| t + before));
        before += input.tokens();
    }
    drop(references);

    // How well all slots together stand in for all blocks.
    let gather = |pick: fn(&Block) -> &Vec<f32>| -> Vec<f32> {
        blocks.iter().flat_map(pick).copied().collect()
    };
    let (keys, values) = (gather(|b| &b.keys), gather(|b| &b.values));
    let whole = Reference::new(&HeadInput {
        keys: &keys,
        values: &values,
        ..*first
    })?;
    let rows = |matrix: &[f32]| super::select::gather(matrix, head_dim, &joined.chosen);
    let fit = whole.evaluate(&joined.keys, &joined.values);
    joined.output_error = fit.output_error;
    joined.mass_error = fit.mass_error;
    joined.selection_error = whole.evaluate(&rows(&keys), &rows(&values)).output_error;
    Ok(joined)
}

/// What pursuit leaves unexplained of every block behind 1, 2, ... of at most `most` slots: of output and
/// mass, in units of the output's mean square over the queries, so that heads can be compared (see
/// [`allot`](super::allot)).
///
/// # Errors
/// As [`match_blocks`].
pub fn unexplained(
    head_dim: usize,
    blocks: &[Block],
    queries: &[f32],
    most: usize,
    options: &MatchOptions,
) -> Result<Vec<Vec<f64>>, MatchError> {
    options.validate()?;
    let inputs = inputs(head_dim, blocks, queries);
    for input in &inputs {
        input.validate()?;
    }
    if inputs.is_empty() {
        return Err(MatchError::NoBlocks);
    }
    let shares = mass_shares(&inputs);
    let weights = weights(&shares);
    let references = references(&inputs, &weights)?;
    Ok(references
        .iter()
        .zip(&inputs)
        .zip(&shares)
        .enumerate()
        .map(|(index, ((reference, input), shares))| {
            let weight = shares.iter().map(|a| a * a).sum::<f64>() / shares.len() as f64;
            let slots = most.min(input.tokens());
            let found = pursuit(reference, input.keys, slots, index == 0, options);
            let scale = weight * reference.output_energy;
            found.left.iter().map(|left| scale * left).collect()
        })
        .collect())
}

fn inputs<'a>(head_dim: usize, blocks: &'a [Block], queries: &'a [f32]) -> Vec<HeadInput<'a>> {
    let input = |block: &'a Block| HeadInput {
        head_dim,
        keys: &block.keys,
        values: &block.values,
        queries,
        slots: block.slots,
        weights: None,
    };
    blocks.iter().map(input).collect()
}

/// Weights of the queries in every block. A block that no query looks at is matched as if all did.
fn weights(shares: &[Vec<f64>]) -> Vec<Option<Vec<f32>>> {
    let weights = |shares: &Vec<f64>| {
        let weights: Vec<f32> = shares.iter().map(|a| (a * a) as f32).collect();
        weights.iter().any(|&w| w > 0.0).then_some(weights)
    };
    shares.iter().map(weights).collect()
}

fn references<'a>(
    inputs: &[HeadInput<'a>],
    weights: &'a [Option<Vec<f32>>],
) -> Result<Vec<Reference<'a>>, MatchError> {
    let weighted = inputs.iter().zip(weights).map(|(input, weights)| {
        Reference::new(&HeadInput {
            weights: weights.as_deref(),
            ..*input
        })
    });
    weighted.collect()
}

/// `a_c` of every block and query: the block's share of the query's attention.
fn mass_shares(inputs: &[HeadInput<'_>]) -> Vec<Vec<f64>> {
    let mut masses: Vec<Vec<f64>> = inputs
        .iter()
        .map(|input| log_masses(input.head_dim, input.queries, input.keys))
        .collect();
    for query in 0..masses[0].len() {
        let max = masses
            .iter()
            .map(|m| m[query])
            .fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = masses.iter().map(|m| (m[query] - max).exp()).sum();
        for block in &mut masses {
            block[query] = (block[query] - max).exp() / sum;
        }
    }
    masses
}

/// `wanted` slots in all, per block: of the keys with the largest mean square of attention in the whole document, those
/// in the block; every block gets one at least.
fn attended(references: &[Reference<'_>], shares: &[Vec<f64>], wanted: usize) -> Vec<usize> {
    let mut energies: Vec<(f64, usize)> = Vec::new();
    for (index, (reference, shares)) in references.iter().zip(shares).enumerate() {
        let weight: f64 = shares.iter().map(|a| a * a).sum();
        let mut own: Vec<f64> = reference.column_energy.iter().map(|e| e * weight).collect();
        // The first slot of a block is there anyway: the sink, or its strongest key.
        let top = match index {
            0 => 0,
            _ => (0..own.len())
                .max_by(|&a, &b| own[a].total_cmp(&own[b]))
                .unwrap_or(0),
        };
        own.swap_remove(top);
        energies.extend(own.into_iter().map(|e| (e, index)));
    }
    energies.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut slots = vec![1; references.len()];
    for (_, block) in energies
        .into_iter()
        .take(wanted.saturating_sub(references.len()))
    {
        slots[block] += 1;
    }
    slots
}
