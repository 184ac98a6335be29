//! A dense matrix in plain memory, and its products.

use faer::linalg::matmul::matmul;
use faer::traits::RealField;
use faer::{Accum, MatMut, MatRef, Par, get_global_parallelism};

use crate::error::{TransmuteError, check_finite};

/// A matrix of f64, row-major, with at least one row and one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// `values [rows, columns]`, row-major.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if the number of values is another, is 0, or one is not finite.
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Result<Self, TransmuteError> {
        let found = values.len();
        if rows.checked_mul(columns) != Some(found) || found == 0 {
            let problem = format!("has {found} values, expected {rows} by {columns}, not 0");
            return Err(TransmuteError::field("matrix", problem));
        }
        check_finite("matrix", values.iter().copied())?;
        Ok(Self {
            rows,
            columns,
            values,
        })
    }

    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        Self::of(rows, columns, vec![0.0; rows * columns])
    }

    /// Of values whose number is known to be right.
    pub(crate) fn of(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        debug_assert_eq!(rows * columns, values.len());
        Self {
            rows,
            columns,
            values,
        }
    }

    pub(crate) fn from_faer(matrix: MatRef<'_, f64>) -> Self {
        let (rows, columns) = (matrix.nrows(), matrix.ncols());
        let values = (0..rows).flat_map(|i| (0..columns).map(move |j| matrix[(i, j)]));
        Self::of(rows, columns, values.collect())
    }

    /// Its number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All values, row-major.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Its rows, from the first.
    pub fn iter_rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks_exact(self.columns)
    }

    /// The values as f32, row-major, each rounded once.
    pub fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|x| *x as f32).collect()
    }

    /// Square root of the sum of the squares.
    pub fn frobenius_norm(&self) -> f64 {
        norm(&self.values)
    }

    /// This matrix times the vector `x [columns]`.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if `x` has another length.
    pub fn apply(&self, x: &[f64]) -> Result<Vec<f64>, TransmuteError> {
        crate::error::check_length("vector", x.len(), self.columns)?;
        Ok(self.iter_rows().map(|row| dot(row, x)).collect())
    }

    pub(crate) fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.values, self.rows, self.columns)
    }

    /// Its transpose.
    pub(crate) fn transposed(&self) -> Self {
        Self::from_faer(self.view().transpose())
    }

    /// `self · other`
    pub(crate) fn times(&self, other: &Self) -> Self {
        product(self.view(), other.view())
    }

    /// `self · otherᵀ`
    pub(crate) fn times_transposed(&self, other: &Self) -> Self {
        product(self.view(), other.view().transpose())
    }

    /// `selfᵀ · other`
    pub(crate) fn transposed_times(&self, other: &Self) -> Self {
        product(self.view().transpose(), other.view())
    }

    /// The leading columns.
    pub(crate) fn leading_columns(&self, columns: usize) -> Self {
        let rows = self.iter_rows().flat_map(|row| &row[..columns]);
        Self::of(self.rows, columns, rows.copied().collect())
    }

    /// The values of one column.
    pub(crate) fn column(&self, column: usize) -> Vec<f64> {
        self.iter_rows().map(|row| row[column]).collect()
    }

    /// `self += factor · u vᵀ`
    pub(crate) fn add_outer(&mut self, factor: f64, u: &[f64], v: &[f64]) {
        for (row, u) in self.values.chunks_exact_mut(self.columns).zip(u) {
            axpy(row, factor * u, v);
        }
    }

    /// `self += factor · other`
    pub(crate) fn add(&mut self, factor: f64, other: &Self) {
        axpy(&mut self.values, factor, &other.values);
    }

    /// The mean of the matrix and its transpose.
    pub(crate) fn symmetrised(&self) -> Self {
        let value = |i: usize, j: usize| self.values[i * self.columns + j];
        let all = (0..self.rows)
            .flat_map(|i| (0..self.columns).map(move |j| 0.5 * (value(i, j) + value(j, i))));
        Self::of(self.rows, self.columns, all.collect())
    }
}

/// The number of threads for products: all of the pool they run in.
pub(crate) fn parallelism() -> Par {
    get_global_parallelism()
}

fn product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Matrix {
    let mut out = Matrix::zeros(a.nrows(), b.ncols());
    product_into(&mut out.values, a, b);
    out
}

/// `out = a · b`, row-major.
pub(crate) fn product_into<T: RealField>(out: &mut [T], a: MatRef<'_, T>, b: MatRef<'_, T>) {
    matmul(
        MatMut::from_row_major_slice_mut(out, a.nrows(), b.ncols()),
        Accum::Replace,
        a,
        b,
        T::one_impl(),
        parallelism(),
    );
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// `y += factor · x`
pub(crate) fn axpy(y: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_follow_their_shapes() {
        let a = Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let b = Matrix::new(2, 3, vec![1.0, 0.0, -1.0, 2.0, 1.0, 0.0]).unwrap();
        assert_eq!(a.times_transposed(&b).values(), [-2.0, 4.0, -2.0, 13.0]);
        let c = a.transposed_times(&b);
        let wanted = [9.0, 4.0, -1.0, 12.0, 5.0, -2.0, 15.0, 6.0, -3.0];
        assert_eq!(c.values(), wanted);
        assert_eq!(a.times(&c).iter_rows().len(), 2);
        assert_eq!(a.times(&c).values()[0], 9.0 + 24.0 + 45.0);
        assert_eq!(a.apply(&[1.0, 0.0, -1.0]).unwrap(), [-2.0, -2.0]);
        assert!(a.apply(&[1.0]).is_err());
    }

    #[test]
    fn wrong_numbers_of_values_and_odd_ones_are_named() {
        for (rows, values) in [(2, vec![1.0]), (0, vec![]), (1, vec![f64::NAN])] {
            let error = Matrix::new(rows, 1, values).unwrap_err().to_string();
            assert!(error.starts_with("matrix"), "{error}");
        }
        assert!(Matrix::new(usize::MAX, 2, vec![1.0]).is_err());
    }
}
