//! Against augmented least squares by QR, formulas, and each other.

use faer::linalg::solvers::SolveLstsq;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::*;
use crate::error::TransmuteError;
use crate::matrix::Matrix;
use crate::rows::Rows;
use crate::statistics::{CorpusId, SiteStatistics};
use crate::synthetic::{close, distance, gaussian, gaussian_matrix, generator};

const P: usize = 12;
const Q: usize = 5;

/// Rows with a linear part, a mean and noise.
struct Data {
    h: Vec<f64>,
    t: Vec<f64>,
    w: Vec<f64>,
}

impl Data {
    fn new(seed: u64, count: usize, width: usize) -> Self {
        let mut rng = generator(seed);
        let map = gaussian_matrix(&mut rng, Q, width);
        let mean = gaussian(&mut rng, width);
        let mut h = gaussian(&mut rng, count * width);
        for row in h.chunks_exact_mut(width) {
            row.iter_mut().zip(&mean).for_each(|(x, m)| *x += m);
        }
        let noise = gaussian(&mut rng, count * Q);
        let fitted = h.chunks_exact(width).flat_map(|h| map.apply(h).unwrap());
        let t = fitted.zip(noise).map(|(t, e)| t + 0.3 * e + 0.7).collect();
        let w = (0..count).map(|_| rng.random_range(0.1..2.0)).collect();
        Self { h, t, w }
    }

    fn rows(&self) -> Rows<'_, f64> {
        Rows {
            inputs: &self.h,
            targets: &self.t,
            weights: Some(&self.w),
        }
    }

    fn statistics(&self, intercept: bool) -> SiteStatistics {
        let width = self.h.len() / self.w.len();
        let mut statistics = SiteStatistics::new(width, Q, intercept).unwrap();
        let name = CorpusId::of(&self.t[0].to_le_bytes());
        statistics.add_rows(name, self.rows()).unwrap();
        statistics
    }

    /// `[√w h]` with a column of `√w` behind it, or without, and `[√w t]`.
    fn dense(&self, intercept: bool) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let width = self.h.len() / self.w.len();
        let scaled = |row: &[f64], w: f64| row.iter().map(|x| w.sqrt() * x).collect::<Vec<_>>();
        let h = self.h.chunks(width).zip(&self.w).map(|(row, w)| {
            let mut row = scaled(row, *w);
            row.extend(intercept.then(|| w.sqrt()));
            row
        });
        let t = self
            .t
            .chunks(Q)
            .zip(&self.w)
            .map(|(row, w)| scaled(row, *w));
        (h.collect(), t.collect())
    }
}

/// `[outputs, columns]` from least squares on `[H; √Λ]` by QR.
fn least_squares(mut h: Vec<Vec<f64>>, mut t: Vec<Vec<f64>>, penalty: &[f64]) -> Matrix {
    for (i, penalty) in penalty.iter().enumerate() {
        let mut row = vec![0.0; h[0].len()];
        row[i] = penalty.sqrt();
        h.push(row);
        t.push(vec![0.0; Q]);
    }
    let matrix =
        |rows: Vec<Vec<f64>>| Matrix::new(rows.len(), rows[0].len(), rows.concat()).unwrap();
    let (h, t) = (matrix(h), matrix(t));
    let solution = h.view().qr().solve_lstsq(t.view());
    Matrix::from_faer(solution.as_ref().transpose())
}

fn energies(h: &[Vec<f64>]) -> Vec<f64> {
    let column = |j: usize| h.iter().map(|row| row[j] * row[j]).sum();
    (0..h[0].len()).map(column).collect()
}

fn options(ridge: f64) -> RidgeOptions {
    RidgeOptions {
        ridge,
        intercept_ridge: 0.0,
        ..RidgeOptions::default()
    }
}

/// Property 5.
#[test]
fn streamed_ridge_is_least_squares_on_the_augmented_rows() {
    let data = Data::new(1, 300, P);
    let (h, t) = data.dense(false);
    let penalty: Vec<f64> = energies(&h).iter().map(|x| 1e-2 * x).collect();
    let wanted = least_squares(h, t, &penalty);
    let mut rng = generator(2);
    for _ in 0..5 {
        let mut order: Vec<usize> = (0..300).collect();
        order.shuffle(&mut rng);
        let mut statistics = SiteStatistics::new(P, Q, false).unwrap();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rng.random_range(1..=rest.len()));
            let take = |values: &[f64], width: usize| -> Vec<f64> {
                let row = |i: &usize| values[i * width..(i + 1) * width].to_vec();
                now.iter().flat_map(row).collect()
            };
            let (h, t, w) = (take(&data.h, P), take(&data.t, Q), take(&data.w, 1));
            let rows = Rows {
                inputs: &h,
                targets: &t,
                weights: Some(&w),
            };
            statistics.add_rows(CorpusId::of(b"one"), rows).unwrap();
            rest = later;
        }
        let solution = solve(&statistics, None, &options(1e-2)).unwrap();
        close(solution.solved.weight().values(), wanted.values(), 1e-9);
        assert_eq!(solution.report.form, Form::Primal);
        assert_eq!(
            (solution.report.tokens, solution.report.escalations),
            (300, 0)
        );
        assert!(solution.report.relative_residual < 1e-13);
    }
}

/// Property 5 for the other rules, whose penalties are formulas over the dense Gram matrix.
#[test]
fn every_rule_penalises_what_its_formula_says() {
    let data = Data::new(3, 100, P);
    let (h, t) = data.dense(false);
    let energy = energies(&h);
    let trace: f64 = energy.iter().sum();
    let mut squares = 0.0;
    for i in 0..P {
        for j in 0..P {
            squares += h.iter().map(|row| row[i] * row[j]).sum::<f64>().powi(2);
        }
    }
    for (rule, penalty) in [
        (
            RidgeRule::Diagonal,
            energy.iter().map(|x| 0.05 * x).collect(),
        ),
        (RidgeRule::Trace, vec![0.05 * trace / P as f64; P]),
        (RidgeRule::Frobenius, vec![0.05 * squares / trace; P]),
    ] {
        let options = RidgeOptions {
            rule,
            ..options(0.05)
        };
        let wanted = least_squares(h.clone(), t.clone(), &penalty);
        let solution = solve(&data.statistics(false), None, &options).unwrap();
        close(solution.solved.weight().values(), wanted.values(), 1e-9);
    }
}

/// Property 5: primal = dual, here for every rule, with and without an intercept and background.
#[test]
fn the_dual_form_gives_what_the_primal_one_gives() {
    let width = 60;
    let (facts, background) = (Data::new(4, 25, width), Data::new(5, 15, width));
    for rule in [RidgeRule::Diagonal, RidgeRule::Trace, RidgeRule::Frobenius] {
        for (intercept, intercept_ridge) in [(false, 0.0), (true, 0.0), (true, 1e-3)] {
            for preserve in [None, Some(&background)] {
                let options = RidgeOptions {
                    rule,
                    intercept_ridge,
                    ..options(1e-2)
                };
                let shape = (width, Q, intercept);
                let dual = solve_rows(shape, facts.rows(), preserve.map(Data::rows), &options);
                let dual = dual.unwrap();
                let statistics = preserve.map(|data| data.statistics(intercept));
                let facts = facts.statistics(intercept);
                let primal = solve(&facts, statistics.as_ref(), &options).unwrap();
                assert_eq!(
                    (dual.report.form, primal.report.form),
                    (Form::Dual, Form::Primal)
                );
                let (a, b) = (&dual.solved, &primal.solved);
                close(a.weight().values(), b.weight().values(), 1e-9);
                close(a.cross.values(), b.cross.values(), 1e-9);
                if let (Some(a), Some(b)) = (a.bias(), b.bias()) {
                    close(&a, &b, 1e-9);
                }
                assert!(dual.report.relative_residual < 1e-9);
            }
        }
    }
}

/// Property 6.
#[test]
fn an_unpenalised_intercept_centres_the_rows() {
    let data = Data::new(6, 200, P);
    let solution = solve(&data.statistics(true), None, &options(1e-2)).unwrap();
    let total: f64 = data.w.iter().sum();
    let mean = |values: &[f64], width: usize| -> Vec<f64> {
        let column = |j: usize| {
            let rows = values.chunks(width).zip(&data.w);
            rows.map(|(row, w)| w * row[j] / total).sum()
        };
        (0..width).map(column).collect()
    };
    let (mean_h, mean_t) = (mean(&data.h, P), mean(&data.t, Q));
    let less = |values: &[f64], mean: &[f64]| -> Vec<f64> {
        let rows = values.chunks(mean.len());
        rows.flat_map(|row| row.iter().zip(mean).map(|(x, m)| x - m).collect::<Vec<_>>())
            .collect()
    };
    let penalty: Vec<f64> = energies(&data.dense(false).0)
        .iter()
        .map(|x| 1e-2 * x)
        .collect();
    let centred = Data {
        h: less(&data.h, &mean_h),
        t: less(&data.t, &mean_t),
        w: data.w.clone(),
    };
    let (h, t) = centred.dense(false);
    let wanted = least_squares(h, t, &penalty);
    close(solution.solved.weight().values(), wanted.values(), 1e-9);
    let fitted = wanted.apply(&mean_h).unwrap();
    let bias: Vec<f64> = mean_t.iter().zip(fitted).map(|(t, f)| t - f).collect();
    close(&solution.solved.bias().unwrap(), &bias, 1e-9);

    // With a penalty: least squares with the 1 as one more input.
    let options = RidgeOptions {
        intercept_ridge: 0.1,
        ..options(1e-2)
    };
    let solution = solve(&data.statistics(true), None, &options).unwrap();
    let (h, t) = data.dense(true);
    let penalty: Vec<f64> = penalty.into_iter().chain([0.1 * total]).collect();
    let wanted = least_squares(h, t, &penalty);
    close(
        solution.solved.weight().values(),
        wanted.leading_columns(P).values(),
        1e-9,
    );
    close(&solution.solved.bias().unwrap(), &wanted.column(P), 1e-9);
}

/// Property 9.
#[test]
fn predictions_do_not_depend_on_the_unit_of_an_input() {
    let (data, probe) = (Data::new(7, 100, P), Data::new(8, 20, P));
    let predictions = |factor: f64, rule| -> Vec<f64> {
        let scaled = |h: &[f64]| -> Vec<f64> {
            let value = |(i, x): (usize, &f64)| if i % P == 3 { factor * x } else { *x };
            h.iter().enumerate().map(value).collect()
        };
        let scaled_data = Data {
            h: scaled(&data.h),
            t: data.t.clone(),
            w: data.w.clone(),
        };
        let options = RidgeOptions {
            rule,
            ..options(1e-3)
        };
        let solution = solve(&scaled_data.statistics(false), None, &options).unwrap();
        let rows = scaled(&probe.h);
        rows.chunks(P)
            .flat_map(|h| solution.solved.weight().apply(h).unwrap())
            .collect()
    };
    let plain = predictions(1.0, RidgeRule::Diagonal);
    for power in [-6, -3, 1, 3, 6] {
        let found = predictions(10f64.powi(power), RidgeRule::Diagonal);
        close(&found, &plain, 1e-6);
    }
    assert!(
        distance(
            &predictions(1e3, RidgeRule::Trace),
            &predictions(1.0, RidgeRule::Trace)
        ) > 1e-2
    );
}

/// Property 10.
#[test]
fn limits_of_the_ridge_and_of_the_data() {
    let data = Data::new(9, 80, P);
    let facts = data.statistics(true);
    let plain = solve(&facts, None, &options(1e-3)).unwrap();
    let stiff = solve(&facts, None, &options(1e12)).unwrap();
    let ratio = stiff.solved.weight().frobenius_norm() / plain.solved.weight().frobenius_norm();
    assert!(ratio < 1e-9, "{ratio:e}");

    let none = SiteStatistics::new(P, Q, true).unwrap();
    let empty = solve(&none, Some(&facts), &options(1e-3)).unwrap();
    assert_eq!(empty.report.form, Form::Empty);
    assert!(empty.solved.weight().values().iter().all(|x| *x == 0.0));
    assert_eq!(empty.solved.bias().unwrap(), vec![0.0; Q]);
    let no_rows = Rows::<f64> {
        inputs: &[],
        targets: &[],
        weights: None,
    };
    let empty = solve_rows((P, Q, true), no_rows, None, &options(1e-3)).unwrap();
    assert_eq!(empty.report.form, Form::Empty);

    let mut doubled = facts.clone();
    doubled
        .add_rows(CorpusId::of(b"again"), data.rows())
        .unwrap();
    let twice = solve(&doubled, None, &options(1e-3)).unwrap();
    close(
        twice.solved.weight().values(),
        plain.solved.weight().values(),
        1e-9,
    );
}

/// Property 18.
#[test]
fn more_preservation_means_less_drift_and_a_larger_residual() {
    let facts = Data::new(10, 40, P).statistics(false);
    let mut quiet = Data::new(11, 200, P);
    quiet.t.fill(0.0);
    let background = quiet.statistics(false);
    let mut last = (-1.0, f64::INFINITY);
    for preserve in [0.0, 0.1, 1.0, 10.0, 100.0, 1000.0] {
        let options = RidgeOptions {
            preserve,
            ..options(1e-3)
        };
        let solution = solve(&facts, Some(&background), &options).unwrap();
        let weight = solution.solved.weight();
        let now = (
            facts.squared_error(weight, None).unwrap(),
            background.squared_error(weight, None).unwrap(),
        );
        assert!(
            now.0 > last.0 && now.1 < last.1,
            "{preserve}: {now:?} after {last:?}"
        );
        last = now;
    }
}

#[test]
fn a_ridge_that_is_too_small_is_raised_and_that_is_said() {
    // Two inputs that are always the same.
    let mut data = Data::new(12, 50, P);
    data.h.chunks_exact_mut(P).for_each(|row| row[1] = row[0]);
    let solution = solve(&data.statistics(false), None, &options(0.0)).unwrap();
    assert!(solution.report.escalations > 0);
    assert!(solution.report.ridge > 0.0 && solution.report.ridge < 1e-7);
    assert!(solution.report.condition > 1e6);
    let weight = solution.solved.weight();
    close(&weight.column(0), &weight.column(1), 1e-2);
    // An input that never occurs gets nothing.
    data.h.chunks_exact_mut(P).for_each(|row| row[1] = 0.0);
    let solution = solve(&data.statistics(false), None, &options(1e-6)).unwrap();
    assert!(solution.solved.weight().column(1).iter().all(|x| *x == 0.0));
    assert_eq!(solution.report.escalations, 0);
}

#[test]
fn the_condition_estimate_is_near_the_condition() {
    let mut rng = generator(13);
    let a = gaussian_matrix(&mut rng, 30, 20);
    let gram = a.transposed_times(&a).symmetrised();
    let factor = Factor::new(&gram, &[]).unwrap();
    let scale: Vec<f64> = (0..20)
        .map(|i| gram.values()[i * 21].sqrt().recip())
        .collect();
    let scaled = |m: &Matrix, f: &dyn Fn(f64) -> f64| {
        let value = |(k, x): (usize, &f64)| x * f(scale[k / 20]) * f(scale[k % 20]);
        Matrix::of(20, 20, m.values().iter().enumerate().map(value).collect())
    };
    let mut inverse = Matrix::zeros(20, 20);
    inverse
        .values_mut()
        .iter_mut()
        .step_by(21)
        .for_each(|x| *x = 1.0);
    factor.solve(&mut inverse);
    let norm1 = |m: &Matrix| {
        (0..20)
            .map(|j| m.column(j).iter().map(|x| x.abs()).sum::<f64>())
            .fold(0.0, f64::max)
    };
    let wanted = norm1(&scaled(&gram, &|s| s)) * norm1(&scaled(&inverse, &|s| s.recip()));
    let found = factor.condition;
    assert!(
        found <= 1.000001 * wanted && found > wanted / 3.0,
        "{found} {wanted}"
    );
}

#[test]
fn sums_that_no_rows_give_are_refused() {
    let mut facts = Data::new(15, 30, P).statistics(false);
    // An off-diagonal far above its diagonals: no ridge up to the last one helps.
    facts.second_lower.values_mut()[P] = 1e9;
    let error = solve(&facts, None, &options(1e-3)).unwrap_err();
    let TransmuteError::Indefinite {
        size,
        ridge,
        attempts,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((size, attempts), (P, 5));
    assert!((ridge - 10.0).abs() < 1e-9);
}

#[test]
fn settings_and_shapes_that_cannot_be_are_named() {
    let facts = Data::new(14, 30, P).statistics(true);
    for (word, options) in [
        ("ridge", options(-1.0)),
        (
            "preserve",
            RidgeOptions {
                preserve: f64::NAN,
                ..options(0.1)
            },
        ),
    ] {
        let error = solve(&facts, None, &options).unwrap_err().to_string();
        assert!(error.starts_with(word), "{error}");
    }
    let other = Data::new(14, 30, P).statistics(false);
    assert!(solve(&facts, Some(&other), &options(0.1)).is_err());
    let settings: Result<RidgeOptions, _> = serde_json::from_str(r#"{"rigde": 1}"#);
    assert!(settings.is_err());
}
