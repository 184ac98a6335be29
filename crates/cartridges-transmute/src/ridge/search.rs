//! The ridge that serves rows best which were not fitted.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::factor::Factor;
use super::options::RidgeOptions;
use super::system::System;
use crate::error::TransmuteError;
use crate::matrix::{Matrix, dot};
use crate::statistics::SiteStatistics;

/// Random directions of the output along which ridges are compared: a solve costs as much as a factor
/// with some hundred, and the best ridge shows with few.
const DIRECTIONS: usize = 32;
/// From one ridge to the next: half a decade.
const STEP: f64 = 3.162_277_660_168_379_5;
/// Relative ridges that are looked at.
const RANGE: (f64, f64) = (1e-7, 1e3);

/// Rows of a map that were kept out of its statistics, which have no intercept.
pub(crate) struct HeldOut {
    /// `[rows, inputs]`
    pub(crate) inputs: Matrix,
    /// What the outputs lack, `[rows, outputs]`.
    pub(crate) targets: Matrix,
}

/// The relative ridge whose delta, times at most 1, gives most of what held out rows lack: from that of the
/// options step by step for as long as it becomes better.
///
/// # Errors
/// As [`solve`](super::solve)'s for settings and shapes.
pub(crate) fn search(
    facts: &SiteStatistics,
    background: Option<&SiteStatistics>,
    options: &RidgeOptions,
    held: &HeldOut,
) -> Result<f64, TransmuteError> {
    let system = System::new(facts, background, options)?;
    let outputs = facts.outputs();
    let directions = directions(outputs, DIRECTIONS.min(outputs));
    let cross = directions.transposed_times(&system.cross);
    let targets = held.targets.times(&directions);
    let score = |ridge: f64| {
        let factor = Factor::new(&system.second, &system.penalties(options, ridge))?;
        let mut delta = cross.clone();
        factor.solve(&mut delta);
        let gives = held.inputs.times_transposed(&delta);
        let along = dot(gives.values(), targets.values());
        Some(best_scale(along, dot(gives.values(), gives.values())).1)
    };
    let mut best = (score(options.ridge), options.ridge);
    for step in [STEP, STEP.recip()] {
        let start = best.1;
        loop {
            let ridge = best.1 * step;
            if !(RANGE.0..=RANGE.1).contains(&ridge) {
                break;
            }
            let found = score(ridge);
            if found <= best.0 {
                break;
            }
            best = (found, ridge);
        }
        if best.1 != start {
            break;
        }
    }
    Ok(best.1)
}

/// With what something that gives `added = ‖g‖²`, and `along = ⟨g, t⟩` of what is wanted, is to be
/// multiplied, between 0 and 1, and by how much `‖t - scale g‖²` falls then.
pub(crate) fn best_scale(along: f64, added: f64) -> (f64, f64) {
    if added <= 0.0 || along <= 0.0 {
        return (0.0, 0.0);
    }
    let scale = (along / added).min(1.0);
    (scale, scale * (2.0 * along - scale * added))
}

fn directions(outputs: usize, count: usize) -> Matrix {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut sign = || if rng.random::<bool>() { 1.0 } else { -1.0 };
    let values = (0..outputs * count).map(|_| sign());
    Matrix::of(outputs, count, values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ridge::solve;
    use crate::rows::Rows;
    use crate::statistics::CorpusId;
    use crate::synthetic::{gaussian, generator};

    /// Few noisy rows of a known map: the ridge that is found serves other rows better than others do.
    #[test]
    fn the_ridge_that_is_found_serves_other_rows_best() {
        const P: usize = 40;
        const Q: usize = 6;
        let mut rng = generator(11);
        let map = Matrix::of(Q, P, gaussian(&mut rng, Q * P));
        let mut rows = |n: usize| {
            let inputs = Matrix::of(n, P, gaussian(&mut rng, n * P));
            let mut targets = inputs.times_transposed(&map);
            targets.add(6.0, &Matrix::of(n, Q, gaussian(&mut rng, n * Q)));
            HeldOut { inputs, targets }
        };
        let (fit, held) = (rows(60), rows(2000));
        let mut facts = SiteStatistics::new(P, Q, false).unwrap();
        let of = Rows {
            inputs: fit.inputs.values(),
            targets: fit.targets.values(),
            weights: None,
        };
        facts.add_rows(CorpusId::of(b"facts"), of).unwrap();
        let options = |ridge| RidgeOptions {
            ridge,
            ..RidgeOptions::default()
        };
        let lacks = |ridge: f64| {
            let delta = solve(&facts, None, &options(ridge)).unwrap().solved;
            let gives = held.inputs.times_transposed(delta.weight());
            let energy = dot(held.targets.values(), held.targets.values());
            let along = dot(gives.values(), held.targets.values());
            energy - best_scale(along, dot(gives.values(), gives.values())).1
        };
        for start in [1e-3, 30.0] {
            let found = search(&facts, None, &options(start), &held).unwrap();
            assert!((0.03..10.0).contains(&found), "{found} from {start}");
            for other in [found * STEP, found / STEP, 1e-3, 30.0] {
                assert!(lacks(found) <= lacks(other), "{found} {other}");
            }
        }
    }
}
