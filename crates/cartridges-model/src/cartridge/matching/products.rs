//! Dense products and solves on row-major slices, single-threaded: heads run in parallel.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::traits::RealField;
use faer::{Accum, MatMut, MatRef, Par};

/// `out[r, c] = alpha * a[r, k] * b[c, k]ᵀ`.
pub(super) fn product_bt<T: RealField>(out: &mut [T], a: &[T], b: &[T], inner: usize, alpha: T) {
    let (rows, cols) = (a.len() / inner, b.len() / inner);
    matmul(
        MatMut::from_row_major_slice_mut(out, rows, cols),
        Accum::Replace,
        MatRef::from_row_major_slice(a, rows, inner),
        MatRef::from_row_major_slice(b, cols, inner).transpose(),
        alpha,
        Par::Seq,
    );
}

/// `out[r, c] = a[r, k] * b[k, c]`.
pub(super) fn product<T: RealField>(out: &mut [T], a: &[T], b: &[T], inner: usize) {
    let (rows, cols) = (a.len() / inner, b.len() / inner);
    matmul(
        MatMut::from_row_major_slice_mut(out, rows, cols),
        Accum::Replace,
        MatRef::from_row_major_slice(a, rows, inner),
        MatRef::from_row_major_slice(b, inner, cols),
        T::one_impl(),
        Par::Seq,
    );
}

/// `out[m, c] += a[r, m]ᵀ * b[r, c]`.
pub(super) fn add_product_at<T: RealField>(out: &mut [T], a: &[T], b: &[T], rows: usize) {
    let (m, cols) = (a.len() / rows, b.len() / rows);
    matmul(
        MatMut::from_row_major_slice_mut(out, m, cols),
        Accum::Add,
        MatRef::from_row_major_slice(a, rows, m).transpose(),
        MatRef::from_row_major_slice(b, rows, cols),
        T::one_impl(),
        Par::Seq,
    );
}

/// Lower triangle (diagonal included) of `gram[m, m] += a[r, m]ᵀ * a[r, m]`.
pub(super) fn add_gram_lower<T: RealField>(gram: &mut [T], a: &[T], rows: usize) {
    let m = a.len() / rows;
    let a = MatRef::from_row_major_slice(a, rows, m);
    triangular::matmul(
        MatMut::from_row_major_slice_mut(gram, m, m),
        BlockStructure::TriangularLower,
        Accum::Add,
        a.transpose(),
        BlockStructure::Rectangular,
        a,
        BlockStructure::Rectangular,
        T::one_impl(),
        Par::Seq,
    );
}

/// Copies the lower triangle of a row-major square matrix onto the upper one.
pub(super) fn mirror_lower<T: Copy>(gram: &mut [T], size: usize) {
    for row in 1..size {
        for col in 0..row {
            gram[col * size + row] = gram[row * size + col];
        }
    }
}

/// Lower Cholesky factor of a symmetric matrix whose lower triangle is given, in place
/// (row-major). `false` when the matrix is not positive definite; it is destroyed then.
pub(super) fn cholesky(matrix: &mut [f64], size: usize) -> bool {
    let mut memory = MemBuffer::new(llt::factor::cholesky_in_place_scratch::<f64>(
        size,
        Par::Seq,
        Default::default(),
    ));
    llt::factor::cholesky_in_place(
        MatMut::from_row_major_slice_mut(matrix, size, size),
        Default::default(),
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .is_ok()
        && (0..size).all(|i| matrix[i * size + i].is_finite())
}

/// Solves `L Lᵀ x = rhs` in place; `rhs` is `[size, cols]` row-major.
pub(super) fn cholesky_solve(factor: &[f64], rhs: &mut [f64], size: usize) {
    let cols = rhs.len() / size;
    let factor = MatRef::from_row_major_slice(factor, size, size);
    let mut rhs = MatMut::from_row_major_slice_mut(rhs, size, cols);
    faer::linalg::triangular_solve::solve_lower_triangular_in_place(factor, rhs.as_mut(), Par::Seq);
    faer::linalg::triangular_solve::solve_upper_triangular_in_place(
        factor.transpose(),
        rhs,
        Par::Seq,
    );
}

/// Vector-friendly `exp` for `f32`: relative error below 3e-7 on `[-87, 88]`, clamped outside.
///
/// The standard library's `exp` does not vectorise and would take most of the matching time.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the rounded integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    // ln 2 in two parts, the first exact in few bits (Cody and Waite).
    let rest = x - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let mut y = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        y = y * rest + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    y * f32::from_bits(exponent.wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(x)) - want).abs() / want;
            assert!(error < 3e-7, "exp({x}): {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 2e-38 && exp(f32::NEG_INFINITY) < 2e-38);
        assert!(exp(1e30).is_finite());
    }

    #[test]
    fn products_follow_their_shapes() {
        let a = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
        let b = [1.0f32, 0.0, -1.0, 2.0, 1.0, 0.0]; // [2, 3]
        let mut out = [0.0; 4];
        product_bt(&mut out, &a, &b, 3, 2.0);
        assert_eq!(out, [-4.0, 8.0, -4.0, 26.0]);
        let mut out = [0.0; 6];
        product(&mut out, &[1.0, 2.0, 0.0, 1.0], &a, 2);
        assert_eq!(out, [9.0, 12.0, 15.0, 4.0, 5.0, 6.0]);
        let mut out = [1.0; 9];
        add_product_at(&mut out, &a, &b, 2);
        assert_eq!(out, [10.0, 5.0, 0.0, 13.0, 6.0, -1.0, 16.0, 7.0, -2.0]);
        let mut gram = [0.0; 9];
        add_gram_lower(&mut gram, &a, 2);
        mirror_lower(&mut gram, 3);
        assert_eq!(gram, [17.0, 22.0, 27.0, 22.0, 29.0, 36.0, 27.0, 36.0, 45.0]);
    }

    #[test]
    fn cholesky_solves_or_refuses() {
        let mut matrix = [4.0, f64::NAN, 2.0, 3.0];
        assert!(cholesky(&mut matrix, 2));
        let mut rhs = [2.0, 4.0, 5.0, 7.0];
        cholesky_solve(&matrix, &mut rhs, 2);
        // [[4, 2], [2, 3]] x = [[2, 4], [5, 7]].
        for (got, want) in rhs.iter().zip([-0.5, -0.25, 2.0, 2.5]) {
            assert!((got - want).abs() < 1e-12);
        }
        assert!(!cholesky(&mut [1.0, 2.0, 2.0, 1.0], 2));
    }
}
