//! Random data for tests.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::matrix::Matrix;

pub(crate) fn generator(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub(crate) fn gaussian(rng: &mut impl Rng, count: usize) -> Vec<f64> {
    (0..count).map(|_| StandardNormal.sample(rng)).collect()
}

pub(crate) fn gaussian_matrix(rng: &mut impl Rng, rows: usize, columns: usize) -> Matrix {
    Matrix::new(rows, columns, gaussian(rng, rows * columns)).unwrap()
}

/// The largest difference, relative to the largest value.
pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    let most = b.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    worst.fold(0.0, f64::max) / most.max(f64::MIN_POSITIVE)
}

pub(crate) fn close(a: &[f64], b: &[f64], tolerance: f64) {
    let found = distance(a, b);
    assert!(found <= tolerance, "{found:e} against {tolerance:e}");
}
