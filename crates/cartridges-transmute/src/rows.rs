//! Rows of one linear map, as a model run gives them.

use faer::traits::RealField;

use crate::error::{TransmuteError, check_length};

/// An element type of rows: f32 from a model, f64 where precision is wanted.
pub trait Element: RealField + Copy + Into<f64> + sealed::Sealed {
    /// Largest magnitude that a value or a weight may have: products of a thousand stay finite.
    const LIMIT: f64;
}

impl Element for f32 {
    const LIMIT: f64 = 1e11;
}

impl Element for f64 {
    const LIMIT: f64 = 1e100;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// Inputs of a linear map, and what its outputs lack at them.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    /// `h [n, inputs]`: what the student's map reads, one row per token.
    pub inputs: &'a [T],
    /// `t [n, outputs]`: what should be added to its output.
    pub targets: &'a [T],
    /// `w [n]`, not negative; 1 everywhere if `None`.
    pub weights: Option<&'a [T]>,
}

impl<T: Element> Rows<'_, T> {
    /// The number of rows, if everything has the lengths that these widths ask for.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if a length is wrong, a value is not finite or too large, or a weight
    /// is negative.
    pub fn check(&self, inputs: usize, outputs: usize) -> Result<usize, TransmuteError> {
        let found = self.inputs.len();
        if !found.is_multiple_of(inputs) {
            let problem = format!("have {found} values, expected rows of {inputs}");
            return Err(TransmuteError::field("inputs", problem));
        }
        let rows = found / inputs;
        check_length("targets", self.targets.len(), rows * outputs)?;
        check_range("inputs", self.inputs, -T::LIMIT)?;
        check_range("targets", self.targets, -T::LIMIT)?;
        if let Some(weights) = self.weights {
            check_length("weights", weights.len(), rows)?;
            check_range("weights", weights, 0.0)?;
        }
        Ok(rows)
    }

    /// The weight of one row.
    pub(crate) fn weight(&self, row: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[row].into())
    }
}

fn check_range<T: Element>(
    field: &'static str,
    values: &[T],
    least: f64,
) -> Result<(), TransmuteError> {
    let range = least..=T::LIMIT;
    match values.iter().position(|x| !range.contains(&(*x).into())) {
        None => Ok(()),
        Some(i) => {
            let value: f64 = values[i].into();
            let problem = format!("holds {value} at {i}, expected {least:e} to {:e}", T::LIMIT);
            Err(TransmuteError::field(field, problem))
        }
    }
}
