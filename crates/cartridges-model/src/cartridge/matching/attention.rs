//! The document's own attention, and passes over the queries in bounded memory.

use std::ops::Range;

use super::error::MatchError;
use super::input::HeadInput;
use super::products::{exp, product, product_bt};

/// Scores held at a time. Half a million `f32` stay in the second-level cache for the most part
/// and keep a head far below 64 MB whatever its number of queries.
const CHUNK_SCORES: usize = 1 << 19;

/// What the document's attention gives to the reference queries.
///
/// Query weights `ω` are normalised to sum to 1, so that repeating a query and weighting it are
/// the same and all energies are means.
pub(super) struct Reference<'a> {
    pub(super) dim: usize,
    pub(super) queries: &'a [f32],
    /// `ω`, `[n]`.
    pub(super) weights: Vec<f64>,
    /// Attention outputs `O`, `[n, d]`.
    pub(super) outputs: Vec<f32>,
    /// `Σ_i ω_i ‖o_i‖²`.
    pub(super) output_energy: f64,
    /// `Σ_i ω_i A_ij²` for every token, `[T]`.
    pub(super) column_energy: Vec<f64>,
    /// Largest score of every query.
    row_max: Vec<f32>,
    /// `Σ_j exp(s_ij - row_max_i)` of every query.
    row_sum: Vec<f32>,
}

/// How well keys and values stand in for the document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    /// Relative Frobenius error of the attention output.
    pub(super) output_error: f64,
    /// Root mean square of the log-mass misfit.
    pub(super) mass_error: f64,
}

impl<'a> Reference<'a> {
    pub(super) fn new(input: &HeadInput<'a>) -> Result<Self, MatchError> {
        let (dim, n, tokens) = (input.head_dim, input.query_count(), input.tokens());
        let total: f64 = input
            .weights
            .map_or(n as f64, |w| w.iter().map(|&x| f64::from(x)).sum());
        let weights = match input.weights {
            None => vec![1.0 / total; n],
            Some(w) => w.iter().map(|&x| f64::from(x) / total).collect(),
        };
        let mut reference = Self {
            dim,
            queries: input.queries,
            weights,
            outputs: vec![0.0; n * dim],
            output_energy: 0.0,
            column_energy: vec![0.0; tokens],
            row_max: vec![0.0; n],
            row_sum: vec![0.0; n],
        };
        // Taken out of the struct while the pass borrows it.
        let mut outputs = std::mem::take(&mut reference.outputs);
        let mut column_energy = std::mem::take(&mut reference.column_energy);
        let mut maxima = std::mem::take(&mut reference.row_max);
        let mut sums = std::mem::take(&mut reference.row_sum);
        let mut overflow = None;
        reference.for_each_scores(input.keys, |rows, scores| {
            for (query, row) in rows.clone().zip(scores.chunks_exact_mut(tokens)) {
                let (max, sum) = softmax_row(row);
                if !(max.is_finite() && sum.is_finite()) {
                    overflow.get_or_insert(query);
                }
                (maxima[query], sums[query]) = (max, sum);
                let weight = reference.weights[query];
                for (energy, &a) in column_energy.iter_mut().zip(row.iter()) {
                    *energy += weight * f64::from(a * a);
                }
            }
            product(
                &mut outputs[rows.start * dim..rows.end * dim],
                scores,
                input.values,
                tokens,
            );
        });
        if let Some(query) = overflow {
            return Err(MatchError::ScoreOverflow { query });
        }
        reference.output_energy = reference
            .weights
            .iter()
            .zip(outputs.chunks_exact(dim))
            .map(|(weight, row)| weight * squared_norm(row))
            .sum();
        reference.outputs = outputs;
        reference.column_energy = column_energy;
        reference.row_max = maxima;
        reference.row_sum = sums;
        Ok(reference)
    }

    /// `1/√d`.
    pub(super) fn scale(&self) -> f32 {
        (self.dim as f32).sqrt().recip()
    }

    /// Rows of the outputs, or of any `[n, d]` matrix laid out like them.
    pub(super) fn span(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.dim..rows.end * self.dim
    }

    /// Calls `visit(rows, scores)` for blocks of queries, with the scores `q·k/√d`,
    /// `[rows, m]`, for the `m` keys given.
    pub(super) fn for_each_scores(
        &self,
        keys: &[f32],
        visit: impl FnMut(Range<usize>, &mut [f32]),
    ) {
        each_scores(self.dim, self.queries, keys, visit);
    }

    /// Turns scores of the document's own keys into columns of `A`: `exp(s - ℓ)`, where `ℓ` is
    /// the log-mass of the whole document. Rows come multiplied by `√ω`.
    pub(super) fn weighted_columns(&self, rows: Range<usize>, scores: &mut [f32]) {
        let m = scores.len() / rows.len();
        for (query, row) in rows.zip(scores.chunks_exact_mut(m)) {
            let max = self.row_max[query];
            let factor = self.weights[query].sqrt() as f32 / self.row_sum[query];
            for x in row {
                *x = exp(*x - max) * factor;
            }
        }
    }

    /// Softmax of every row in place; `log_mass(query, λ)` gets the row's log-mass relative to
    /// the document's.
    pub(super) fn softmax(
        &self,
        rows: Range<usize>,
        scores: &mut [f32],
        mut log_mass: impl FnMut(usize, f64),
    ) {
        let m = scores.len() / rows.len();
        for (query, row) in rows.zip(scores.chunks_exact_mut(m)) {
            let (max, sum) = softmax_row(row);
            let misfit =
                f64::from(max - self.row_max[query]) + f64::from(sum / self.row_sum[query]).ln();
            log_mass(query, misfit);
        }
    }

    /// Measures keys `[p, d]` and values `[p, d]` against the document.
    pub(super) fn evaluate(&self, keys: &[f32], values: &[f32]) -> Fit {
        let slots = keys.len() / self.dim;
        let mut output = 0.0;
        let mut mass = 0.0;
        let mut block = Vec::new();
        self.for_each_scores(keys, |rows, scores| {
            self.softmax(rows.clone(), scores, |query, misfit| {
                mass += self.weights[query] * misfit * misfit;
            });
            block.resize(rows.len() * self.dim, 0.0);
            product(&mut block, scores, values, slots);
            let wanted = &self.outputs[self.span(&rows)];
            for ((query, got), want) in rows
                .zip(block.chunks_exact(self.dim))
                .zip(wanted.chunks_exact(self.dim))
            {
                let row: f64 = got
                    .iter()
                    .zip(want)
                    .map(|(a, b)| f64::from(a - b).powi(2))
                    .sum();
                output += self.weights[query] * row;
            }
        });
        let energy = self.output_energy.max(f64::MIN_POSITIVE);
        Fit {
            output_error: (output / energy).sqrt(),
            mass_error: mass.sqrt(),
        }
    }
}

/// `log Σ_j exp(q·k_j/√d)` of every query `[n, d]` over the keys `[m, d]`.
pub(super) fn log_masses(dim: usize, queries: &[f32], keys: &[f32]) -> Vec<f64> {
    let mut masses = Vec::with_capacity(queries.len() / dim);
    each_scores(dim, queries, keys, |_, scores| {
        masses.extend(scores.chunks_exact_mut(keys.len() / dim).map(|row| {
            let (max, sum) = softmax_row(row);
            f64::from(max) + f64::from(sum).ln()
        }));
    });
    masses
}

/// Calls `visit(rows, scores)` for blocks of queries `[n, d]`, with the scores `q·k/√d`, `[rows, m]`, for
/// keys `[m, d]`.
fn each_scores(
    dim: usize,
    queries: &[f32],
    keys: &[f32],
    mut visit: impl FnMut(Range<usize>, &mut [f32]),
) {
    let (n, m) = (queries.len() / dim, keys.len() / dim);
    let scale = (dim as f32).sqrt().recip();
    let step = (CHUNK_SCORES / m).clamp(64, 8192).min(n);
    let mut scores = vec![0.0; step * m];
    for start in (0..n).step_by(step) {
        let rows = start..(start + step).min(n);
        let block = &mut scores[..rows.len() * m];
        product_bt(
            block,
            &queries[rows.start * dim..rows.end * dim],
            keys,
            dim,
            scale,
        );
        visit(rows, block);
    }
}

/// Sum of squares in `f64`.
pub(super) fn squared_norm(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// Softmax of one row in place; gives its maximum and the sum of `exp(x - max)`.
pub(super) fn softmax_row(row: &mut [f32]) -> (f32, f32) {
    // Independent lanes, because a single running maximum or sum does not vectorise.
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let blocks = row.chunks_exact(LANES);
    let tail = blocks.remainder().iter().copied();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let max = lanes
        .into_iter()
        .chain(tail)
        .fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0.0f32; LANES];
    let mut blocks = row.chunks_exact_mut(LANES);
    for block in &mut blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *x = exp(*x - max);
            *lane += *x;
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for x in blocks.into_remainder() {
        *x = exp(*x - max);
        sum += *x;
    }
    let factor = sum.recip();
    for x in row {
        *x *= factor;
    }
    (max, sum)
}
