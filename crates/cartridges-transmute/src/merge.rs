//! Several corpora in one delta.

use crate::error::{TransmuteError, check_length};
use crate::matrix::Matrix;
use crate::ridge::{Factor, Refined, Solved, refined_solve};
use crate::statistics::SiteStatistics;

/// The statistics of all corpora together. Exact, as long as all were collected from the same state of
/// the layers below.
///
/// # Errors
/// [`TransmuteError::Field`] if there are none or they are of maps of other shapes,
/// [`TransmuteError::Corpus`] if one corpus is in two of them.
pub fn join(parts: &[SiteStatistics]) -> Result<SiteStatistics, TransmuteError> {
    let Some((first, rest)) = parts.split_first() else {
        return Err(TransmuteError::field(
            "parts",
            "are none, expected statistics",
        ));
    };
    let mut sum = first.clone();
    rest.iter().try_for_each(|part| sum.add(part))?;
    Ok(sum)
}

/// A delta that was solved by itself, and the system it solves.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// `W [outputs, inputs]`
    pub weight: &'a Matrix,
    /// `[outputs]`, where `system` has an intercept.
    pub bias: Option<&'a [f64]>,
    /// `R [p, p]` from [`system_matrix`](crate::system_matrix), with `p = inputs`, plus 1 for a bias.
    pub system: &'a Matrix,
}

/// A delta that stands for several.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The delta.
    pub solved: Solved,
    /// Estimated condition number of the equilibrated sum of the systems, in the 1-norm.
    pub condition: f64,
    /// `‖W R - C‖ / ‖C‖` for the sums.
    pub relative_residual: f64,
}

/// Merges finished deltas as `W = (Σ C_k)(Σ R_k)⁻¹` with `C_k = W_k R_k` (RegMean, Jin et al. 2023). For
/// full-rank deltas of one site over the same state of the layers below, this is the joint solve; else
/// an approximation of it. Their plain sum is not: each undoes what the others need.
///
/// # Errors
/// [`TransmuteError::Field`] if there are none or their shapes differ, [`TransmuteError::Indefinite`] if
/// the sum of the systems is not positive definite.
pub fn merge_finished(parts: &[Finished<'_>]) -> Result<Merged, TransmuteError> {
    let Some(first) = parts.first() else {
        return Err(TransmuteError::field(
            "parts",
            "are none, expected finished deltas",
        ));
    };
    let (outputs, inputs) = (first.weight.rows(), first.weight.columns());
    let intercept = first.bias.is_some();
    let size = inputs + usize::from(intercept);
    let mut system = Matrix::zeros(size, size);
    let mut cross = Matrix::zeros(outputs, size);
    for part in parts {
        check_length("rows of a delta", part.weight.rows(), outputs)?;
        check_length("columns of a delta", part.weight.columns(), inputs)?;
        check_length("rows of a system", part.system.rows(), size)?;
        check_length("columns of a system", part.system.columns(), size)?;
        if part.bias.is_some() != intercept {
            let problem = "is there for some deltas only, expected for all or none";
            return Err(TransmuteError::field("bias", problem));
        }
        let mut whole = part.weight.clone();
        if let Some(bias) = part.bias {
            check_length("bias", bias.len(), outputs)?;
            let rows = part.weight.iter_rows().zip(bias);
            let values = rows.flat_map(|(row, b)| row.iter().chain([b])).copied();
            whole = Matrix::of(outputs, size, values.collect());
        }
        system.add(1.0, part.system);
        cross.add(1.0, &whole.times(part.system));
    }
    let system = system.symmetrised();
    let factor = Factor::new(&system, &[]).ok_or(TransmuteError::Indefinite {
        size,
        ridge: 0.0,
        attempts: 1,
    })?;
    let Refined {
        solution,
        relative_residual,
    } = refined_solve(&factor, &cross, |x| x.times(&system))?;
    let solved = match intercept {
        false => Solved {
            weight: solution,
            cross,
            centre: None,
        },
        true => {
            let border = &system.values()[(size - 1) * size..];
            Solved::from_augmented(&solution, &cross, border)
        }
    };
    Ok(Merged {
        solved,
        condition: factor.condition,
        relative_residual,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ridge::{RidgeOptions, RidgeSolution, solve, system_matrix};
    use crate::rows::Rows;
    use crate::statistics::CorpusId;
    use crate::synthetic::{close, distance, gaussian, generator};

    fn statistics(seed: u64, intercept: bool) -> SiteStatistics {
        let mut rng = generator(seed);
        let (h, t) = (gaussian(&mut rng, 40 * 10), gaussian(&mut rng, 40 * 4));
        let mut statistics = SiteStatistics::new(10, 4, intercept).unwrap();
        let rows = Rows {
            inputs: &h,
            targets: &t,
            weights: None,
        };
        let corpus = CorpusId::of(&seed.to_le_bytes());
        statistics.add_rows(corpus, rows).unwrap();
        statistics
    }

    /// Property 11, and that finished deltas of one state merge into the joint solve.
    #[test]
    fn merged_deltas_are_the_joint_solve_and_their_sum_is_not() {
        for intercept in [false, true] {
            let parts = [1, 2, 3].map(|seed| statistics(seed, intercept));
            let options = RidgeOptions::default();
            let joint = solve(&join(&parts).unwrap(), None, &options).unwrap();
            let solutions: Vec<RidgeSolution> = parts
                .iter()
                .map(|part| solve(part, None, &options).unwrap())
                .collect();
            let systems: Vec<Matrix> = parts
                .iter()
                .zip(&solutions)
                .map(|(part, s)| system_matrix(part, None, &options, &s.report).unwrap())
                .collect();
            let biases: Vec<_> = solutions.iter().map(|s| s.solved.bias()).collect();
            let finished: Vec<Finished<'_>> = (0..3)
                .map(|i| Finished {
                    weight: solutions[i].solved.weight(),
                    bias: biases[i].as_deref(),
                    system: &systems[i],
                })
                .collect();
            let merged = merge_finished(&finished).unwrap();
            let wanted = joint.solved.weight().values();
            close(merged.solved.weight().values(), wanted, 1e-9);
            if let (Some(a), Some(b)) = (merged.solved.bias(), joint.solved.bias()) {
                close(&a, &b, 1e-9);
            }
            let (a, b) = (merged.solved.reduce(2), joint.solved.reduce(2));
            let product = |r: Result<crate::rank::Reduced, _>| r.unwrap().factors.product();
            close(product(a).values(), product(b).values(), 1e-8);
            assert!(merged.relative_residual < 1e-12 && merged.condition >= 1.0);

            let mut sum = Matrix::zeros(4, 10);
            solutions
                .iter()
                .for_each(|s| sum.add(1.0, s.solved.weight()));
            assert!(distance(sum.values(), wanted) > 0.1);
        }
        assert!(join(&[]).is_err() && merge_finished(&[]).is_err());
        assert!(join(&[statistics(1, true), statistics(2, false)]).is_err());
    }
}
