//! Low rank: the best for the objective that a delta was solved for, plain truncation to compare with,
//! and factors as adapters hold them.

use cartridges_model::adapter::{HostPatch, Target};
use faer::Side;

use crate::error::{TransmuteError, check_length};
use crate::matrix::{Matrix, norm};
use crate::ridge::Solved;

/// A delta as the product `B A`, with `B [outputs, rank]` and `A [rank, inputs]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    b: Matrix,
    a: Matrix,
}

impl Factors {
    /// `b [outputs, rank]` and `a [rank, inputs]`.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if their ranks differ.
    pub fn new(b: Matrix, a: Matrix) -> Result<Self, TransmuteError> {
        check_length("columns of b", b.columns(), a.rows())?;
        Ok(Self { b, a })
    }

    /// Rows of `a`, columns of `b`.
    pub fn rank(&self) -> usize {
        self.a.rows()
    }

    /// `A [rank, inputs]`
    pub fn a(&self) -> &Matrix {
        &self.a
    }

    /// `B [outputs, rank]`
    pub fn b(&self) -> &Matrix {
        &self.b
    }

    /// `B A [outputs, inputs]`
    pub fn product(&self) -> Matrix {
        self.b.times(&self.a)
    }

    /// The same product from `U Σ^½` and `Σ^½ Vᵀ`, of its singular value decomposition: both factors
    /// then take steps of a like size in refinement.
    ///
    /// # Errors
    /// [`TransmuteError::NoConvergence`] if the decomposition fails.
    pub fn balanced(&self) -> Result<Self, TransmuteError> {
        let b = self.b.view().qr();
        let a = self.a.view().transpose().qr();
        let small = Matrix::from_faer(b.thin_R()).times_transposed(&Matrix::from_faer(a.thin_R()));
        let inner = Svd::of("the product of the factors", &small)?;
        let (u, v) = inner.balanced(inner.values.len());
        let b = Matrix::from_faer(b.compute_thin_Q().as_ref()).times(&u);
        let a = v.times_transposed(&Matrix::from_faer(a.compute_thin_Q().as_ref()));
        Ok(Self { b, a })
    }

    /// The sum of several products, by factors beside each other: `[B1 B2 ..]` and `[A1; A2; ..]`. Patches
    /// of corpora that were solved apart interfere in it; see [`join`](crate::join) for what does not.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if there are none, or they are of maps of other shapes.
    pub fn stack(parts: &[Self]) -> Result<Self, TransmuteError> {
        let Some(first) = parts.first() else {
            return Err(TransmuteError::field(
                "parts",
                "are none, expected some factors",
            ));
        };
        let (outputs, inputs) = (first.b.rows(), first.a.columns());
        for part in parts {
            check_length("rows of b", part.b.rows(), outputs)?;
            check_length("columns of a", part.a.columns(), inputs)?;
        }
        let rank = parts.iter().map(Self::rank).sum();
        let rows = |i: usize| {
            let row = move |part: &Self| {
                let rank = part.rank();
                part.b.values()[i * rank..(i + 1) * rank].to_vec()
            };
            parts.iter().flat_map(row)
        };
        let b = (0..outputs).flat_map(rows).collect();
        let a = parts.iter().flat_map(|part| part.a.values()).copied();
        Ok(Self {
            b: Matrix::of(outputs, rank, b),
            a: Matrix::of(rank, inputs, a.collect()),
        })
    }

    /// The patch of an adapter beside the linear map at `target`, with a bias `[outputs]`.
    pub fn patch(&self, target: Target, bias: Option<&[f64]>) -> HostPatch {
        HostPatch {
            bias: bias.map(|bias| bias.iter().map(|x| *x as f32).collect()),
            ..HostPatch::low_rank(target, self.rank(), self.a.to_f32(), self.b.to_f32())
        }
    }
}

/// A solved delta at a lower rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Reduced {
    /// Its factors.
    pub factors: Factors,
    /// The bias `[outputs]` that is best beside them, if the delta has one.
    pub bias: Option<Vec<f64>>,
    /// By how much the full delta lowers the objective along each direction of the output, in descending
    /// order: the eigenvalues of `K`.
    pub gains: Vec<f64>,
    /// By how much the objective is above that of the full delta: the sum of the gains that were dropped.
    pub excess: f64,
}

impl Solved {
    /// The delta of at most this rank (and at most that of a full matrix) that is best for the ridge
    /// objective: `Uᵣ Uᵣᵀ W` with the top eigenvectors `Uᵣ` of `K = C Wᵀ = W R Wᵀ [outputs, outputs]`, as
    /// `B = Uᵣ` and `A = Uᵣᵀ W`. The bias has no rank and stays free.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] for rank 0, [`TransmuteError::NoConvergence`] if the decomposition fails.
    pub fn reduce(&self, rank: usize) -> Result<Reduced, TransmuteError> {
        let weight = &self.weight;
        let (outputs, inputs) = (weight.rows(), weight.columns());
        let rank = check_rank(rank, weight)?;
        // All of K lies in the columns of W: with fewer inputs than outputs it is decomposed there.
        let basis = (inputs < outputs).then(|| {
            let qr = weight.view().qr();
            Matrix::from_faer(qr.compute_thin_Q().as_ref())
        });
        let k = match &basis {
            None => self.cross.times_transposed(weight),
            Some(q) => q
                .transposed_times(&self.cross)
                .times_transposed(&q.transposed_times(weight)),
        };
        let size = k.rows();
        let k = k.symmetrised();
        let eigen = k.view().self_adjoint_eigen(Side::Lower);
        let eigen = eigen.map_err(|_| TransmuteError::NoConvergence {
            field: "the gains of a delta",
            rows: size,
            columns: size,
        })?;
        let ascending = eigen.S().column_vector();
        let gains: Vec<f64> = (0..size).rev().map(|i| ascending[i].max(0.0)).collect();
        let top = eigen.U().subcols(size - rank, rank).reverse_cols();
        let top = Matrix::from_faer(top);
        let b = match basis {
            None => top,
            Some(q) => q.times(&top),
        };
        let a = b.transposed_times(weight);
        let factors = Factors { b, a };
        let bias = self.centre.as_ref().map(|c| c.bias(&factors.product()));
        Ok(Reduced {
            factors,
            bias,
            excess: gains[rank..].iter().sum(),
            gains,
        })
    }
}

/// Plain truncation of a delta to a rank, as balanced factors, and the Frobenius norm of what is lost.
/// Of all deltas of that rank it is the nearest in this norm, which is not what the tokens weigh.
///
/// # Errors
/// [`TransmuteError::Field`] for rank 0, [`TransmuteError::NoConvergence`] if the decomposition fails.
pub fn truncate(weight: &Matrix, rank: usize) -> Result<(Factors, f64), TransmuteError> {
    let rank = check_rank(rank, weight)?;
    let svd = Svd::of("a delta", weight)?;
    let (b, a) = svd.balanced(rank);
    Ok((Factors { b, a }, norm(&svd.values[rank..])))
}

fn check_rank(rank: usize, weight: &Matrix) -> Result<usize, TransmuteError> {
    if rank == 0 {
        return Err(TransmuteError::field("rank", "is 0, expected at least 1"));
    }
    Ok(rank.min(weight.rows()).min(weight.columns()))
}

/// `U [n, k]`, `V [m, k]` and the singular values in descending order.
struct Svd {
    u: Matrix,
    v: Matrix,
    values: Vec<f64>,
}

impl Svd {
    fn of(field: &'static str, matrix: &Matrix) -> Result<Self, TransmuteError> {
        let svd = matrix.view().thin_svd();
        let svd = svd.map_err(|_| TransmuteError::NoConvergence {
            field,
            rows: matrix.rows(),
            columns: matrix.columns(),
        })?;
        Ok(Self {
            u: Matrix::from_faer(svd.U()),
            v: Matrix::from_faer(svd.V()),
            values: svd.S().column_vector().iter().copied().collect(),
        })
    }

    /// `Uᵣ Σᵣ^½` and `Σᵣ^½ Vᵣᵀ`.
    fn balanced(&self, rank: usize) -> (Matrix, Matrix) {
        let side = |matrix: &Matrix| {
            let mut side = matrix.leading_columns(rank);
            for row in side.values_mut().chunks_exact_mut(rank) {
                row.iter_mut()
                    .zip(&self.values)
                    .for_each(|(x, s)| *x *= s.sqrt());
            }
            side
        };
        (side(&self.u), side(&self.v).transposed())
    }
}

#[cfg(test)]
#[path = "rank_tests.rs"]
mod tests;
