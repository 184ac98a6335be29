//! Which keys of the document stay.

use super::attention::Reference;
use super::options::{KeyChoice, MatchOptions};
use super::pursuit::{Pursuit, pursue};

/// `slots` tokens out of `T`, ascending; token 0 is always among them where it is the attention `sink`.
pub(super) fn choose_keys(
    reference: &Reference<'_>,
    keys: &[f32],
    slots: usize,
    sink: bool,
    options: &MatchOptions,
) -> Vec<usize> {
    let mut chosen = match options.key_choice {
        KeyChoice::TopAttention => top_attention(&reference.column_energy, slots, sink),
        KeyChoice::Pursuit => pursuit(reference, keys, slots, sink, options).chosen,
    };
    chosen.sort_unstable();
    chosen
}

/// Pursues `slots` of the keys with the largest attention.
pub(super) fn pursuit(
    reference: &Reference<'_>,
    keys: &[f32],
    slots: usize,
    sink: bool,
    options: &MatchOptions,
) -> Pursuit {
    let count = options.pursuit_candidates.max(slots);
    let candidates = top_attention(&reference.column_energy, count, sink);
    pursue(reference, keys, &candidates, slots, options)
}

/// The sink first, then the tokens with the largest attention energy; ties go to the earlier.
fn top_attention(column_energy: &[f64], count: usize, sink: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (usize::from(sink)..column_energy.len()).collect();
    order.sort_by(|&a, &b| {
        column_energy[b]
            .total_cmp(&column_energy[a])
            .then(a.cmp(&b))
    });
    if sink {
        order.insert(0, 0);
    }
    order.truncate(count);
    order
}

/// Rows `chosen` of a `[T, dim]` matrix.
pub(super) fn gather(matrix: &[f32], dim: usize, chosen: &[usize]) -> Vec<f32> {
    chosen
        .iter()
        .flat_map(|&row| &matrix[row * dim..(row + 1) * dim])
        .copied()
        .collect()
}
