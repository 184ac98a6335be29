//! Against the objective itself, over the rows.

use super::*;
use crate::ridge::{RidgeOptions, solve};
use crate::rows::Rows;
use crate::statistics::{CorpusId, SiteStatistics};
use crate::synthetic::{close, gaussian, gaussian_matrix, generator};

struct Problem {
    h: Matrix,
    t: Matrix,
    statistics: SiteStatistics,
    options: RidgeOptions,
    penalty: Vec<f64>,
}

/// Inputs of very different sizes, so that the objective and the Frobenius norm disagree.
fn problem(seed: u64, inputs: usize, outputs: usize, intercept: bool) -> Problem {
    let mut rng = generator(seed);
    let count = 200;
    let map = gaussian_matrix(&mut rng, outputs, inputs);
    let mut h = gaussian_matrix(&mut rng, count, inputs);
    for row in h.values_mut().chunks_exact_mut(inputs) {
        for (j, x) in row.iter_mut().enumerate() {
            *x = (*x + 1.0) * 1.5f64.powi(-(j as i32));
        }
    }
    let mut t = h.times_transposed(&map);
    let noise = gaussian(&mut rng, count * outputs);
    t.values_mut()
        .iter_mut()
        .zip(noise)
        .for_each(|(t, e)| *t += 0.1 * e);
    let mut statistics = SiteStatistics::new(inputs, outputs, intercept).unwrap();
    let rows = Rows {
        inputs: h.values(),
        targets: t.values(),
        weights: None,
    };
    statistics.add_rows(CorpusId::of(b"a"), rows).unwrap();
    let options = RidgeOptions {
        ridge: 0.02,
        intercept_ridge: 0.01,
        ..RidgeOptions::default()
    };
    let penalty = (0..inputs).map(|j| 0.02 * h.column(j).iter().map(|x| x * x).sum::<f64>());
    let penalty = penalty.collect();
    Problem {
        h,
        t,
        statistics,
        options,
        penalty,
    }
}

impl Problem {
    fn objective(&self, weight: &Matrix, bias: Option<&[f64]>) -> f64 {
        let mut sum = 0.0;
        for (h, t) in self.h.iter_rows().zip(self.t.iter_rows()) {
            for (i, (fitted, t)) in weight.apply(h).unwrap().iter().zip(t).enumerate() {
                sum += (t - fitted - bias.map_or(0.0, |b| b[i])).powi(2);
            }
        }
        for row in weight.iter_rows() {
            sum += row
                .iter()
                .zip(&self.penalty)
                .map(|(w, l)| l * w * w)
                .sum::<f64>();
        }
        let square = bias.map_or(0.0, |b| b.iter().map(|b| b * b).sum());
        sum + 0.01 * self.h.rows() as f64 * square
    }
}

/// Property 7.
#[test]
fn the_excess_of_a_reduced_rank_is_the_sum_of_the_dropped_gains() {
    for (inputs, outputs) in [(14, 9), (6, 20)] {
        for intercept in [false, true] {
            let problem = problem(1, inputs, outputs, intercept);
            let solved = solve(&problem.statistics, None, &problem.options)
                .unwrap()
                .solved;
            let full = problem.objective(solved.weight(), solved.bias().as_deref());
            for rank in [1, 2, 4] {
                let reduced = solved.reduce(rank).unwrap();
                assert_eq!(reduced.factors.rank(), rank);
                let product = reduced.factors.product();
                let found = problem.objective(&product, reduced.bias.as_deref());
                close(&[found - full], &[reduced.excess], 1e-8);
                let dropped: f64 = reduced.gains[rank..].iter().sum();
                close(&[reduced.excess], &[dropped], 1e-12);

                // Plain truncation is no better, even beside the bias that is best for it.
                let (plain, _) = truncate(solved.weight(), rank).unwrap();
                let plain = plain.product();
                let bias = solved.centre.as_ref().map(|c| c.bias(&plain));
                assert!(problem.objective(&plain, bias.as_deref()) > found);
            }
            let lossless = solved.reduce(outputs.max(inputs)).unwrap();
            assert_eq!(lossless.factors.rank(), inputs.min(outputs));
            close(
                lossless.factors.product().values(),
                solved.weight().values(),
                1e-12,
            );
            assert_eq!(lossless.bias.is_some(), intercept);
        }
    }
}

/// Property 7.
#[test]
fn plain_truncation_loses_the_tail_of_the_singular_values() {
    let weight = gaussian_matrix(&mut generator(2), 8, 11);
    let gram = weight.times_transposed(&weight);
    let squares = gram.view().self_adjoint_eigenvalues(Side::Lower).unwrap();
    for rank in 1..=8 {
        let (factors, lost) = truncate(&weight, rank).unwrap();
        let tail: f64 = squares[..8 - rank].iter().sum();
        let mut rest = factors.product();
        rest.add(-1.0, &weight);
        assert!((rest.frobenius_norm() - tail.sqrt()).abs() < 1e-8 * weight.frobenius_norm());
        assert!((lost - tail.sqrt()).abs() < 1e-8 * weight.frobenius_norm());
    }
    assert!(truncate(&weight, 0).is_err());
}

#[test]
fn balanced_factors_have_the_same_product_and_the_same_sizes() {
    let mut rng = generator(3);
    let b = gaussian_matrix(&mut rng, 9, 3);
    let mut a = gaussian_matrix(&mut rng, 3, 7);
    a.values_mut().iter_mut().for_each(|x| *x *= 1e4);
    let factors = Factors::new(b, a).unwrap();
    let balanced = factors.balanced().unwrap();
    close(
        balanced.product().values(),
        factors.product().values(),
        1e-12,
    );
    let b = balanced.b().transposed_times(balanced.b());
    let a = balanced.a().times_transposed(balanced.a());
    close(a.values(), b.values(), 1e-12);
    for i in 0..3 {
        for j in (0..3).filter(|j| *j != i) {
            assert!(a.values()[3 * i + j].abs() < 1e-10 * a.values()[0]);
        }
    }
}

/// Property 13, for factors.
#[test]
fn stacked_factors_are_the_sum_in_any_order() {
    let mut rng = generator(4);
    let [one, two] = [2, 3].map(|rank| {
        let b = gaussian_matrix(&mut rng, 5, rank);
        Factors::new(b, gaussian_matrix(&mut rng, rank, 4)).unwrap()
    });
    let mut sum = one.product();
    sum.add(1.0, &two.product());
    let stacked = Factors::stack(&[one.clone(), two.clone()]).unwrap();
    assert_eq!(stacked.rank(), 5);
    close(stacked.product().values(), sum.values(), 1e-12);
    let swapped = Factors::stack(&[two, one.clone()]).unwrap();
    close(swapped.product().values(), sum.values(), 1e-12);
    assert!(Factors::stack(&[]).is_err());
    let patch = stacked.patch(Target::LmHead, None);
    assert_eq!((patch.inputs, patch.outputs), (4, 5));
    let other = Factors::new(
        gaussian_matrix(&mut rng, 6, 1),
        gaussian_matrix(&mut rng, 1, 4),
    );
    assert!(Factors::stack(&[one, other.unwrap()]).is_err());
}
