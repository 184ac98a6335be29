//! Cholesky factor of a symmetric system, scaled to a diagonal of ones.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_solve::{
    solve_lower_triangular_in_place, solve_upper_triangular_in_place,
};
use faer::{MatMut, MatRef};

use crate::matrix::{Matrix, parallelism};

/// Steps of the estimate of the inverse's norm; it almost always ends after two.
const NORM_STEPS: usize = 5;

/// The factor of `D R D` for `R = A + diag(penalty)` and `D = diag(R)^-1/2`.
///
/// An input whose diagonal in `R` is 0 never occurred; its solution is 0.
pub(crate) struct Factor {
    /// Column-major; what is above the diagonal is not used.
    lower: Vec<f64>,
    /// The diagonal of `D`, 0 where that of `R` is.
    scale: Vec<f64>,
    /// Estimated condition number of `D R D` in the 1-norm.
    pub(crate) condition: f64,
}

impl Factor {
    /// Factors `A [p, p]`, symmetric, with a penalty `[p]` on its diagonal. `None` if that is not
    /// positive definite as far as f64 can tell.
    pub(crate) fn new(matrix: &Matrix, penalty: &[f64]) -> Option<Self> {
        let size = matrix.rows();
        let mut lower = matrix.values().to_vec();
        for (i, penalty) in penalty.iter().enumerate() {
            lower[i * size + i] += penalty;
        }
        let scale: Vec<f64> = (0..size)
            .map(|i| match lower[i * size + i] {
                x if x > f64::MIN_POSITIVE => x.sqrt().recip(),
                _ => 0.0,
            })
            .collect();
        let mut norm = 0.0f64;
        for (i, row) in lower.chunks_exact_mut(size).enumerate() {
            for (x, s) in row.iter_mut().zip(&scale) {
                *x *= scale[i] * s;
            }
            row[i] = 1.0;
            norm = norm.max(row.iter().map(|x| x.abs()).sum());
        }
        let par = parallelism();
        let scratch = cholesky_in_place_scratch::<f64>(size, par, Default::default());
        // The matrix is symmetric: read by columns it is the same.
        cholesky_in_place(
            MatMut::from_column_major_slice_mut(&mut lower, size, size),
            Default::default(),
            par,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Default::default(),
        )
        .ok()?;
        // The squares of the pivots start at 1; what is left of one below this is rounding.
        let least = size as f64 * f64::EPSILON;
        let pivots = lower.iter().step_by(size + 1);
        if !pivots.into_iter().all(|x| x.is_finite() && x * x > least) {
            return None;
        }
        let mut factor = Self {
            lower,
            scale,
            condition: 1.0,
        };
        factor.condition = norm * factor.inverse_norm();
        Some(factor)
    }

    /// Solves `X R = rhs` for `rhs [q, p]` in place.
    pub(crate) fn solve(&self, rhs: &mut Matrix) {
        let scale = |rhs: &mut Matrix| {
            for row in rhs.values_mut().chunks_exact_mut(self.scale.len()) {
                row.iter_mut().zip(&self.scale).for_each(|(x, s)| *x *= s);
            }
        };
        scale(rhs);
        self.solve_scaled(rhs.values_mut());
        scale(rhs);
    }

    /// Solves `D R D x = rhs` for every `size` values in turn.
    fn solve_scaled(&self, rhs: &mut [f64]) {
        let size = self.scale.len();
        let count = rhs.len() / size;
        let lower = MatRef::from_column_major_slice(&self.lower, size, size);
        let mut rhs = MatMut::from_column_major_slice_mut(rhs, size, count);
        solve_lower_triangular_in_place(lower, rhs.as_mut(), parallelism());
        solve_upper_triangular_in_place(lower.transpose(), rhs, parallelism());
    }

    /// Lower bound of `‖(D R D)⁻¹‖₁`, nearly always within a factor of three (Hager 1984; Higham,
    /// Accuracy and Stability of Numerical Algorithms, 15.3).
    fn inverse_norm(&self) -> f64 {
        let size = self.scale.len();
        let mut x = vec![1.0 / size as f64; size];
        let mut best = 0.0;
        for _ in 0..NORM_STEPS {
            let mut y = x.clone();
            self.solve_scaled(&mut y);
            let norm: f64 = y.iter().map(|y| y.abs()).sum();
            if norm <= best {
                break;
            }
            best = norm;
            let mut z: Vec<f64> = y.iter().map(|y| 1f64.copysign(*y)).collect();
            self.solve_scaled(&mut z);
            let steepest = (0..size).max_by(|i, j| z[*i].abs().total_cmp(&z[*j].abs()));
            let Some(j) = steepest else { break };
            if z[j].abs() <= crate::matrix::dot(&z, &x) {
                break;
            }
            x.fill(0.0);
            x[j] = 1.0;
        }
        // Steps from a symmetric start miss an antisymmetric direction; this start does not.
        let ramp = |i: usize| 1.0 + i as f64 / size.max(2) as f64;
        let alternating = |i: usize| {
            if i.is_multiple_of(2) {
                ramp(i)
            } else {
                -ramp(i)
            }
        };
        let mut y: Vec<f64> = (0..size).map(alternating).collect();
        let start: f64 = y.iter().map(|y| y.abs()).sum();
        self.solve_scaled(&mut y);
        best.max(y.iter().map(|y| y.abs()).sum::<f64>() / start)
    }
}
