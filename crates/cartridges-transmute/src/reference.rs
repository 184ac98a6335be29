//! The estimator of the reference: the mean of what the prompt adds, and a mean of maps of rank one. It
//! is kept to compare with. It is no regression, and counts each token's correction twice: one token
//! alone comes out as `a + 2 δ` where `a + δ` was wanted.

use burn::tensor::Tensor;
use cartridges_model::adapter::{BatchAdapters, Delta, HostAdapter, HostPatch, Mode, Target};
use faer::MatRef;

use crate::error::TransmuteError;
use crate::extract::values;
use crate::matrix::{Matrix, axpy, dot, product_into};
use crate::rows::Rows;
use crate::statistics::CHUNK;
use crate::sweep::Material;

/// The reference adds this to `‖a‖²`.
const EPSILON: f64 = 1e-8;

/// Sums over tokens with the state `a [width]` without the prompt and `δ = a_C - a`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceEstimator {
    tokens: u64,
    delta: Vec<f64>,
    /// `Σ δ aᵀ / (‖a‖² + ε)`
    maps: Matrix,
}

/// The adapter `y + y Δᵀ + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferencePatch {
    /// `Δ [width, width]`
    pub weight: Matrix,
    /// `[width]`
    pub bias: Vec<f64>,
}

impl ReferenceEstimator {
    /// For states of this width.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if the width is 0 or its square is no size of memory.
    pub fn new(width: usize) -> Result<Self, TransmuteError> {
        if width == 0 || width.saturating_mul(width).saturating_mul(8) > isize::MAX as usize {
            let problem = format!("is {width}, expected that of a state");
            return Err(TransmuteError::field("width", problem));
        }
        Ok(Self {
            tokens: 0,
            delta: vec![0.0; width],
            maps: Matrix::zeros(width, width),
        })
    }

    /// Adds tokens by their states without the prompt and with it, both `[n, width]`.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if a length is wrong or a value is not finite; nothing is added then.
    pub fn add(&mut self, without: &[f64], with: &[f64]) -> Result<(), TransmuteError> {
        let width = self.delta.len();
        let rows = Rows {
            inputs: without,
            targets: with,
            weights: None,
        };
        self.tokens += rows.check(width, width)? as u64;
        let mut sum = vec![0.0; width * width];
        for (without, with) in without
            .chunks(CHUNK * width)
            .zip(with.chunks(CHUNK * width))
        {
            let deltas: Vec<f64> = with.iter().zip(without).map(|(c, a)| c - a).collect();
            let mut inverse = without.to_vec();
            for row in inverse.chunks_exact_mut(width) {
                let square = dot(row, row) + EPSILON;
                row.iter_mut().for_each(|x| *x /= square);
            }
            let count = deltas.len() / width;
            product_into(
                &mut sum,
                MatRef::from_row_major_slice(&deltas, count, width).transpose(),
                MatRef::from_row_major_slice(&inverse, count, width),
            );
            axpy(self.maps.values_mut(), 1.0, &sum);
            deltas
                .chunks_exact(width)
                .for_each(|d| axpy(&mut self.delta, 1.0, d));
        }
        Ok(())
    }

    /// The number of tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The adapter: the mean of the deltas, and the sum of their maps times `scale`, 1 / tokens unless it
    /// is given. On isotropic states `width / tokens` would be right.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if there were no tokens or the scale is not finite.
    pub fn finish(&self, scale: Option<f64>) -> Result<ReferencePatch, TransmuteError> {
        if self.tokens == 0 {
            return Err(TransmuteError::field(
                "tokens",
                "are none, expected at least one",
            ));
        }
        let count = self.tokens as f64;
        let scale = scale.unwrap_or(count.recip());
        if !scale.is_finite() {
            let problem = format!("is {scale}, expected a finite number");
            return Err(TransmuteError::field("scale", problem));
        }
        let mut weight = self.maps.clone();
        weight.values_mut().iter_mut().for_each(|x| *x *= scale);
        let bias = self.delta.iter().map(|x| x / count).collect();
        Ok(ReferencePatch { weight, bias })
    }
}

/// The adapter of the reference's estimator for conversations: behind the final norm, where the states are
/// that it measures. Unlike the reference, which compares a conversation with its own second half, the
/// teacher has seen the text. `scale` is [`ReferenceEstimator::finish`]'s.
///
/// # Errors
/// [`TransmuteError::Field`] if there is no token to fit, or the scale is not finite.
pub fn reference_adapter(
    material: &Material<'_>,
    scale: Option<f64>,
) -> Result<HostAdapter, TransmuteError> {
    /// Tokens behind a prompt in one batch.
    const BATCH_TOKENS: usize = 2048;
    // Questions count as well.
    let paired = material.paired(material.fit, BATCH_TOKENS, 1.0)?;
    let wide = |states: Tensor<2>| -> Result<Vec<f64>, TransmuteError> {
        Ok(values(states)?.into_iter().map(f64::from).collect())
    };
    let mut estimator = ReferenceEstimator::new(material.decoder.config().hidden_size)?;
    let with = paired.teacher.finish(BatchAdapters::NONE);
    let without = paired.student.finish(BatchAdapters::NONE);
    for (with, without) in with.into_iter().zip(without) {
        estimator.add(&wide(without)?, &wide(with)?)?;
    }
    let patch = estimator.finish(scale)?.patch(Target::FinalNorm);
    Ok(HostAdapter::new(vec![patch])?)
}

impl ReferencePatch {
    /// The patch of an adapter behind the map at `target`, with its output.
    pub fn patch(&self, target: Target) -> HostPatch {
        let width = self.bias.len();
        HostPatch {
            target,
            mode: Mode::Post,
            scale: 1.0,
            inputs: width,
            outputs: width,
            delta: Delta::Dense(self.weight.to_f32()),
            bias: Some(self.bias.iter().map(|x| *x as f32).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::{Batch, Stream};
    use crate::synthetic::{close, gaussian, gaussian_matrix, generator};

    fn applied(patch: &ReferencePatch, y: &[f64]) -> Vec<f64> {
        let added = patch.weight.apply(y).unwrap();
        (0..y.len())
            .map(|i| y[i] + added[i] + patch.bias[i])
            .collect()
    }

    /// Property 4.
    #[test]
    fn it_is_the_formula_of_the_reference() {
        let (width, count) = (6, 1500);
        let mut rng = generator(1);
        let (without, with) = (
            gaussian(&mut rng, count * width),
            gaussian(&mut rng, count * width),
        );
        let mut estimator = ReferenceEstimator::new(width).unwrap();
        for (a, c) in without.chunks(700 * width).zip(with.chunks(700 * width)) {
            estimator.add(a, c).unwrap();
        }
        assert_eq!(estimator.tokens(), count as u64);
        let y = gaussian(&mut rng, width);
        for scale in [None, Some(0.02)] {
            // out + scale Σ δ (a·out) / (‖a‖² + 1e-8) + mean δ, token by token.
            let mut wanted = y.clone();
            for (a, c) in without.chunks(width).zip(with.chunks(width)) {
                let share = dot(a, &y) / (dot(a, a) + 1e-8) * scale.unwrap_or(1.0 / count as f64);
                for i in 0..width {
                    wanted[i] += (c[i] - a[i]) * (share + 1.0 / count as f64);
                }
            }
            close(
                &applied(&estimator.finish(scale).unwrap(), &y),
                &wanted,
                1e-12,
            );
        }
        assert!(ReferenceEstimator::new(3).unwrap().finish(None).is_err());
        assert!(estimator.add(&[1.0], &[1.0]).is_err());
    }

    /// On a model: behind the final norm, the mean of what the prompt adds and the mean of the maps, which
    /// are found here token by token.
    #[test]
    fn conversations_give_an_adapter_behind_the_final_norm() {
        let decoder = crate::tiny::decoder();
        let pairs = crate::tiny::pairs(5, 2, 3, true);
        let material = Material {
            decoder: &decoder,
            past: &[],
            fit: &pairs,
            validation: &pairs,
            background: &[],
        };
        let adapter = reference_adapter(&material, None).unwrap();
        let [patch] = adapter.patches() else {
            panic!("one patch was expected");
        };
        assert_eq!((patch.target, patch.mode), (Target::FinalNorm, Mode::Post));
        adapter.check(decoder.config()).unwrap();
        let (mut bias, mut map) = (vec![0.0; patch.outputs], vec![0.0; patch.outputs.pow(2)]);
        let mut tokens = 0.0;
        for group in &pairs.groups {
            for turns in &group.turns {
                // One conversation at a time, without a shared prompt.
                let states = |prompt: &[u32]| {
                    let ids = [prompt, &turns.ids].concat();
                    let rows: Vec<usize> = (turns.first..turns.ids.len())
                        .map(|row| prompt.len() + row)
                        .collect();
                    let all = [(ids.as_slice(), rows.as_slice())];
                    let batch = Batch::new(0, &[], &all, decoder.device()).unwrap();
                    let stream = Stream::new(&decoder, &[], vec![batch]);
                    values(stream.finish(BatchAdapters::NONE).remove(0)).unwrap()
                };
                let (with, without) = (states(&group.teacher), states(&group.student));
                let width = patch.outputs;
                for (c, a) in with.chunks(width).zip(without.chunks(width)) {
                    let square: f64 = a.iter().map(|x| f64::from(*x).powi(2)).sum();
                    for i in 0..width {
                        let delta = f64::from(c[i]) - f64::from(a[i]);
                        bias[i] += delta;
                        for j in 0..width {
                            map[i * width + j] += delta * f64::from(a[j]) / (square + 1e-8);
                        }
                    }
                    tokens += 1.0;
                }
            }
        }
        let near = |found: &[f32], sums: &[f64]| {
            let most = sums.iter().fold(0.0, |most: f64, x| most.max(x.abs())) / tokens;
            for (found, sum) in found.iter().zip(sums) {
                assert!((f64::from(*found) - sum / tokens).abs() < 1e-4 * most);
            }
        };
        near(patch.bias.as_ref().unwrap(), &bias);
        let Delta::Dense(found) = &patch.delta else {
            panic!("a dense delta was expected");
        };
        near(found, &map);
        let none = crate::extract::Pairs::default();
        let empty = Material {
            fit: &none,
            ..material
        };
        assert!(reference_adapter(&empty, None).is_err());
    }

    /// Property 4: the double count that is kept on purpose.
    #[test]
    fn one_token_comes_out_with_twice_its_delta() {
        let mut rng = generator(2);
        let (a, c) = (gaussian(&mut rng, 8), gaussian(&mut rng, 8));
        let mut estimator = ReferenceEstimator::new(8).unwrap();
        estimator.add(&a, &c).unwrap();
        let patch = estimator.finish(None).unwrap();
        let share = dot(&a, &a) / (dot(&a, &a) + 1e-8);
        let expected = |times: f64| -> Vec<f64> {
            a.iter().zip(&c).map(|(a, c)| a + times * (c - a)).collect()
        };
        close(&applied(&patch, &a), &expected(1.0 + share), 1e-12);
        close(&applied(&patch, &a), &expected(2.0), 1e-7);
    }

    /// Property 8.
    #[test]
    fn on_isotropic_states_the_best_scale_is_width_over_tokens() {
        let (width, count) = (48, 12_000);
        let mut rng = generator(3);
        let states = gaussian_matrix(&mut rng, count, width);
        let map = gaussian_matrix(&mut rng, width, width);
        let deltas = states.times_transposed(&map);
        let with: Vec<f64> = states
            .values()
            .iter()
            .zip(deltas.values())
            .map(|(a, d)| a + d)
            .collect();
        let mut estimator = ReferenceEstimator::new(width).unwrap();
        estimator.add(states.values(), &with).unwrap();
        let sum = estimator.finish(Some(1.0)).unwrap().weight;
        let fitted = states.times_transposed(&sum);
        let best = dot(fitted.values(), deltas.values()) / dot(fitted.values(), fitted.values());
        let ratio = best * count as f64 / width as f64;
        assert!((ratio - 1.0).abs() < 0.05, "{ratio}");
    }
}
