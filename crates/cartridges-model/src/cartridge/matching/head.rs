//! One head from end to end.

use super::attention::{Fit, Reference};
use super::error::MatchError;
use super::input::{HeadInput, check_finite};
use super::mass::{fold_direction, log_mass_factors};
use super::options::{MatchOptions, ValueChoice};
use super::refine::refine;
use super::select::{choose_keys, gather};
use super::values::ValueSystem;

/// A matched head. Matrices are row-major.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadMatch {
    /// Keys `[p, d]`, still at the document's positions: see
    /// [`rotate_keys`](super::rotate_keys).
    pub keys: Vec<f32>,
    /// Values `[p, d]`.
    pub values: Vec<f32>,
    /// Tokens whose keys were kept, ascending; token 0 (the attention sink) comes first.
    pub chosen: Vec<usize>,
    /// Relative Frobenius error of the attention output on the reference queries.
    pub output_error: f64,
    /// The same when the chosen keys and values are kept as they are. Never below
    /// `output_error`.
    pub selection_error: f64,
    /// Root mean square over queries of `log(mass of the slots / mass of the document)`.
    pub mass_error: f64,
}

/// Matches one head of a document with `input.slots` keys and values.
///
/// When there are as many slots as tokens or more, all keys and values are kept as they are:
/// the result is exact and has `T` slots, not `p`.
///
/// Single-threaded and within some 64 MB besides its input and output for up to about a thousand
/// slots, so that a caller can run heads in parallel.
///
/// # Errors
/// [`MatchError`] for empty or ill-shaped input, numbers that are not finite, options out of
/// range, and systems that cannot be solved.
pub fn match_head(input: &HeadInput<'_>, options: &MatchOptions) -> Result<HeadMatch, MatchError> {
    input.validate()?;
    options.validate()?;
    if input.slots >= input.tokens() {
        return Ok(whole(input));
    }
    match_reference(&Reference::new(input)?, input, true, options)
}

/// All keys and values as they are.
fn whole(input: &HeadInput<'_>) -> HeadMatch {
    HeadMatch {
        keys: input.keys.to_vec(),
        values: input.values.to_vec(),
        chosen: (0..input.tokens()).collect(),
        ..HeadMatch::default()
    }
}

/// [`match_head`] for an input that was checked and whose attention is known. `sink` says that token 0 is
/// the attention sink, which is always kept.
pub(super) fn match_reference(
    reference: &Reference<'_>,
    input: &HeadInput<'_>,
    sink: bool,
    options: &MatchOptions,
) -> Result<HeadMatch, MatchError> {
    if input.slots >= input.tokens() {
        return Ok(whole(input));
    }
    let chosen = choose_keys(reference, input.keys, input.slots, sink, options);
    let keys = gather(input.keys, input.head_dim, &chosen);
    let values = gather(input.values, input.head_dim, &chosen);
    let selection = reference.evaluate(&keys, &values);
    let kept = Candidate {
        keys,
        values,
        fit: selection,
    };
    let best = match options.value_choice {
        ValueChoice::Keep => kept,
        ValueChoice::Fit => fitted(reference, &kept, options)?,
    };
    check_finite("matched keys", &best.keys)?;
    check_finite("matched values", &best.values)?;
    Ok(HeadMatch {
        keys: best.keys,
        values: best.values,
        chosen,
        output_error: best.fit.output_error,
        selection_error: selection.output_error,
        mass_error: best.fit.mass_error,
    })
}

/// The closed form behind the chosen keys, then rounds of refinement.
fn fitted(
    reference: &Reference<'_>,
    kept: &Candidate,
    options: &MatchOptions,
) -> Result<Candidate, MatchError> {
    let selection = kept.fit;
    let mut best = close_form(reference, &kept.keys, &kept.values, selection, options)?;
    if options.key_refine_rounds > 0 {
        let (keys, values) = refine(reference, &best.keys, &kept.values, options)?;
        best.replace_if_better(reference, keys, values, selection.output_error, options);
    }
    Ok(best)
}

struct Candidate {
    keys: Vec<f32>,
    values: Vec<f32>,
    fit: Fit,
}

impl Candidate {
    fn replace_if_better(
        &mut self,
        reference: &Reference<'_>,
        keys: Vec<f32>,
        values: Vec<f32>,
        selection_error: f64,
        options: &MatchOptions,
    ) {
        let fit = reference.evaluate(&keys, &values);
        let loss =
            |f: &Fit| f.output_error.powi(2) + options.refine_mass_weight * f.mass_error.powi(2);
        if loss(&fit) < loss(&self.fit) && fit.output_error <= selection_error {
            *self = Self { keys, values, fit };
        }
    }
}

/// Mass factors folded into the keys, then values by least squares. Should the fold cost more
/// output than it may (queries without a common mean), it is halved and at last left away.
fn close_form(
    reference: &Reference<'_>,
    keys: &[f32],
    values: &[f32],
    selection: Fit,
    options: &MatchOptions,
) -> Result<Candidate, MatchError> {
    let dim = reference.dim;
    let beta = log_mass_factors(reference, keys, options);
    let direction = fold_direction(
        dim,
        reference.queries,
        &reference.weights,
        options.fold_ridge,
    )?;
    for share in [1.0, 0.5, 0.25, 0.0] {
        let folded: Vec<f32> = keys
            .chunks_exact(dim)
            .zip(&beta)
            .flat_map(|(key, beta)| {
                key.iter()
                    .zip(&direction)
                    .map(move |(&k, u)| (f64::from(k) + share * beta * u) as f32)
            })
            .collect();
        let system = ValueSystem::new(reference, &folded);
        let solved = system.solve(values, system.ridge(options.value_ridge))?;
        let fit = reference.evaluate(&folded, &solved);
        if fit.output_error <= selection.output_error {
            return Ok(Candidate {
                keys: folded,
                values: solved,
                fit,
            });
        }
    }
    Ok(Candidate {
        keys: keys.to_vec(),
        values: values.to_vec(),
        fit: selection,
    })
}
