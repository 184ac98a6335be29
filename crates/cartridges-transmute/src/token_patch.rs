//! Patches that are exact for one token: what a prompt does to one block's output at it, as weight deltas
//! of rank one (Dherin et al., arXiv 2507.16003; for gated blocks Goldwaser et al., arXiv 2511.17864).
//!
//! They hold for that token after that prompt only; what holds for many is a regression, [`solve`](crate::solve).

use cartridges_model::adapter::{Delta, HostPatch, Mode, Site, Target};

use crate::error::{TransmuteError, check_finite, check_length};
use crate::matrix::{Matrix, dot};

/// The weight delta `b aᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub struct RankOne {
    /// `[outputs]`
    pub b: Vec<f64>,
    /// `[inputs]`
    pub a: Vec<f64>,
}

impl RankOne {
    /// The delta of least Frobenius norm that maps `input` to `output`: `output inputᵀ / ‖input‖²`.
    ///
    /// # Errors
    /// [`TransmuteError::ZeroNorm`] if the input is zero, or so small that its square is;
    /// [`TransmuteError::Field`] if a value is not finite.
    pub fn mapping(
        field: &'static str,
        input: &[f64],
        output: Vec<f64>,
    ) -> Result<Self, TransmuteError> {
        check_finite(field, input.iter().copied())?;
        check_finite("the output of a patch", output.iter().copied())?;
        let square = dot(input, input);
        if square < f64::MIN_POSITIVE {
            return Err(TransmuteError::ZeroNorm { field });
        }
        let a: Vec<f64> = input.iter().map(|x| x / square).collect();
        check_finite(field, a.iter().copied())?;
        Ok(Self { b: output, a })
    }

    /// The delta of a linear map `W [outputs, inputs]` with which it does at `without` what it did at
    /// `with`: `W (with - without) withoutᵀ / ‖without‖²`.
    ///
    /// # Errors
    /// Those of [`Self::mapping`], or a [`TransmuteError::Field`] if a length is another.
    pub fn replacing(
        weight: &Matrix,
        without: &[f64],
        with: &[f64],
    ) -> Result<Self, TransmuteError> {
        check_length(
            "the input without the prompt",
            without.len(),
            weight.columns(),
        )?;
        check_length("the input with the prompt", with.len(), weight.columns())?;
        let output = weight.apply(&difference(with, without))?;
        Self::mapping("the input without the prompt", without, output)
    }

    /// `b aᵀ [outputs, inputs]`
    pub fn matrix(&self) -> Matrix {
        let mut matrix = Matrix::zeros(self.b.len(), self.a.len());
        matrix.add_outer(1.0, &self.b, &self.a);
        matrix
    }

    fn patch(&self, target: Target, bias: Option<&[f64]>) -> HostPatch {
        // Both factors of a like size: neither leaves the range of f32 before the product does.
        let root = |x: &[f64]| dot(x, x).sqrt();
        let share = match (root(&self.a) / root(&self.b)).sqrt() {
            share if share.is_finite() && share > 0.0 => share,
            _ => 1.0,
        };
        let a = self.a.iter().map(|x| (x / share) as f32).collect();
        let b = self.b.iter().map(|x| (x * share) as f32).collect();
        HostPatch {
            bias: bias.map(|bias| bias.iter().map(|x| *x as f32).collect()),
            ..HostPatch::low_rank(target, 1, a, b)
        }
    }
}

/// The weights of a gated block: `y = v + W_d (silu(W_g z) ∘ (W_u z))`, with `z` the normalised `v`.
#[derive(Debug, Clone, Copy)]
pub struct SwiGlu<'a> {
    /// `W_g [intermediate, hidden]`
    pub gate: &'a Matrix,
    /// `W_u [intermediate, hidden]`
    pub up: &'a Matrix,
    /// `W_d [hidden, intermediate]`
    pub down: &'a Matrix,
}

/// A token's states at the block, with and without the prompt; all `[hidden]`.
#[derive(Debug, Clone, Copy)]
pub struct TokenStates<'a> {
    /// `v`, the residual stream behind attention, without the prompt.
    pub residual: &'a [f64],
    /// `v_C`, the same with it.
    pub residual_with: &'a [f64],
    /// `z`, the normalised `v`.
    pub normed: &'a [f64],
    /// `z_C`, the normalised `v_C`.
    pub normed_with: &'a [f64],
}

/// Deltas of the maps of one gated block.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenPatch {
    /// Of `gate_proj`.
    pub gate: Option<RankOne>,
    /// Of `up_proj`.
    pub up: Option<RankOne>,
    /// Of `down_proj`.
    pub down: Option<RankOne>,
    /// Added to the output of `down_proj`, `[hidden]`.
    pub bias: Option<Vec<f64>>,
}

impl SwiGlu<'_> {
    /// What `down_proj` reads at `z [hidden]`: `silu(W_g z) ∘ (W_u z) [intermediate]`.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if a length is another.
    pub fn features(&self, z: &[f64]) -> Result<Vec<f64>, TransmuteError> {
        let (gate, up) = (self.gate.apply(z)?, self.up.apply(z)?);
        check_length("rows of the up map", up.len(), gate.len())?;
        let pairs = gate.into_iter().zip(up);
        Ok(pairs.map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect())
    }

    /// Input control and a bias: `gate_proj` and `up_proj` read what they would have read with the
    /// prompt, and the bias adds what the residual stream lacks.
    ///
    /// # Errors
    /// [`TransmuteError::ZeroNorm`] if `z` is zero, [`TransmuteError::Field`] if a length is another or a
    /// value is not finite.
    pub fn input_and_bias(&self, states: &TokenStates<'_>) -> Result<TokenPatch, TransmuteError> {
        let replacing = |map| RankOne::replacing(map, states.normed, states.normed_with);
        Ok(TokenPatch {
            gate: Some(replacing(self.gate)?),
            up: Some(replacing(self.up)?),
            down: None,
            bias: Some(self.residual_gap(states)?),
        })
    }

    /// Input control, and `down_proj` adds what the residual stream lacks.
    ///
    /// # Errors
    /// Those of [`Self::input_and_bias`], and [`TransmuteError::ZeroNorm`] if the features are zero.
    pub fn all_maps(&self, states: &TokenStates<'_>) -> Result<TokenPatch, TransmuteError> {
        let mut patch = self.input_and_bias(states)?;
        let features = self.features(states.normed_with)?;
        let gap = self.residual_gap(states)?;
        let field = "the features with the prompt";
        patch.down = Some(RankOne::mapping(field, &features, gap)?);
        patch.bias = None;
        Ok(patch)
    }

    /// Output control: `down_proj` alone adds all that the block's output lacks,
    /// `t = W_d (h_C - h) + (v_C - v)`, at the features `h` without the prompt.
    ///
    /// # Errors
    /// [`TransmuteError::ZeroNorm`] if the features are zero, [`TransmuteError::Field`] if a length is
    /// another or a value is not finite.
    pub fn down_only(&self, states: &TokenStates<'_>) -> Result<TokenPatch, TransmuteError> {
        let features = self.features(states.normed)?;
        let features_with = self.features(states.normed_with)?;
        let mut target = self.down.apply(&difference(&features_with, &features))?;
        let gap = self.residual_gap(states)?;
        target.iter_mut().zip(gap).for_each(|(t, gap)| *t += gap);
        let field = "the features without the prompt";
        Ok(TokenPatch {
            down: Some(RankOne::mapping(field, &features, target)?),
            ..TokenPatch::default()
        })
    }

    /// `v_C - v`
    fn residual_gap(&self, states: &TokenStates<'_>) -> Result<Vec<f64>, TransmuteError> {
        let hidden = self.down.rows();
        check_length(
            "the residual without the prompt",
            states.residual.len(),
            hidden,
        )?;
        check_length(
            "the residual with the prompt",
            states.residual_with.len(),
            hidden,
        )?;
        Ok(difference(states.residual_with, states.residual))
    }
}

impl TokenPatch {
    /// The patches of an adapter for the block of this layer, in f32. `intermediate` is the width that
    /// `down_proj` reads, which a bias alone does not tell.
    pub fn patches(&self, layer: usize, intermediate: usize) -> Vec<HostPatch> {
        let target = |site| Target::Layer { layer, site };
        let one = |part: &Option<RankOne>, site| {
            let part = part.as_ref();
            part.map(|part| part.patch(target(site), None))
        };
        let bias = self.bias.as_deref();
        let down = target(Site::DownProj);
        let last = match (&self.down, bias) {
            (Some(part), bias) => Some(part.patch(down, bias)),
            (None, Some(bias)) => Some(HostPatch {
                target: down,
                mode: Mode::Linear,
                scale: 1.0,
                inputs: intermediate,
                outputs: bias.len(),
                delta: Delta::None,
                bias: Some(bias.iter().map(|x| *x as f32).collect()),
            }),
            (None, None) => None,
        };
        let parts = [
            one(&self.gate, Site::GateProj),
            one(&self.up, Site::UpProj),
            last,
        ];
        parts.into_iter().flatten().collect()
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
#[path = "token_patch_decoder_tests.rs"]
mod decoder_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{close, gaussian, gaussian_matrix, generator};

    const HIDDEN: usize = 16;
    const INTERMEDIATE: usize = 40;

    fn normed(v: &[f64]) -> Vec<f64> {
        let square = dot(v, v) / v.len() as f64;
        v.iter().map(|x| x / (square + 1e-6).sqrt()).collect()
    }

    /// The block at `v`, with deltas on its maps, by plain loops in f64 or f32.
    fn block<T: num::Number>(weights: [&[T]; 3], bias: Option<&[T]>, v: &[T], z: &[T]) -> Vec<T> {
        let apply = |w: &[T], x: &[T]| -> Vec<T> {
            let row = |row: &[T]| {
                row.iter()
                    .zip(x)
                    .fold(T::from(0.0), |s, (w, x)| s + *w * *x)
            };
            w.chunks(x.len()).map(row).collect()
        };
        let (gate, up) = (apply(weights[0], z), apply(weights[1], z));
        let silu = |g: T| g / (T::from(1.0) + T::from((-g.wide()).exp()));
        let h: Vec<T> = gate.iter().zip(&up).map(|(g, u)| silu(*g) * *u).collect();
        let down = apply(weights[2], &h);
        let zero = vec![T::from(0.0); v.len()];
        let bias = bias.unwrap_or(&zero);
        (0..v.len()).map(|i| v[i] + down[i] + bias[i]).collect()
    }

    mod num {
        use std::ops::{Add, Div, Mul};

        pub(super) trait Number:
            Copy + Add<Output = Self> + Mul<Output = Self> + Div<Output = Self>
        {
            fn from(x: f64) -> Self;
            fn wide(self) -> f64;
        }
        impl Number for f64 {
            fn from(x: f64) -> Self {
                x
            }
            fn wide(self) -> f64 {
                self
            }
        }
        impl Number for f32 {
            fn from(x: f64) -> Self {
                x as f32
            }
            fn wide(self) -> f64 {
                self.into()
            }
        }
    }

    struct Case {
        maps: [Matrix; 3],
        v: Vec<f64>,
        v_with: Vec<f64>,
    }

    fn case(seed: u64) -> Case {
        let mut rng = generator(seed);
        let mut map = |rows, columns: usize| {
            let mut map = gaussian_matrix(&mut rng, rows, columns);
            let scale = (columns as f64).sqrt().recip();
            map.values_mut().iter_mut().for_each(|x| *x *= scale);
            map
        };
        let maps = [
            map(INTERMEDIATE, HIDDEN),
            map(INTERMEDIATE, HIDDEN),
            map(HIDDEN, INTERMEDIATE),
        ];
        Case {
            maps,
            v: gaussian(&mut rng, HIDDEN),
            v_with: gaussian(&mut rng, HIDDEN),
        }
    }

    fn patches(case: &Case) -> [TokenPatch; 3] {
        let [gate, up, down] = &case.maps;
        let block = SwiGlu { gate, up, down };
        let (z, z_with) = (normed(&case.v), normed(&case.v_with));
        let states = TokenStates {
            residual: &case.v,
            residual_with: &case.v_with,
            normed: &z,
            normed_with: &z_with,
        };
        [
            block.input_and_bias(&states).unwrap(),
            block.all_maps(&states).unwrap(),
            block.down_only(&states).unwrap(),
        ]
    }

    /// Property 1.
    #[test]
    fn every_patch_gives_the_output_with_the_prompt() {
        for seed in 0..5 {
            let case = case(seed);
            let maps = case.maps.each_ref().map(Matrix::values);
            let (z, z_with) = (normed(&case.v), normed(&case.v_with));
            let wanted = block(maps, None, &case.v_with, &z_with);
            let without = block(maps, None, &case.v, &z);
            assert!(crate::synthetic::distance(&without, &wanted) > 1e-2);
            let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
            for patch in patches(&case) {
                let deltas = [&patch.gate, &patch.up, &patch.down];
                let mut patched = case.maps.clone();
                for (map, delta) in patched.iter_mut().zip(deltas) {
                    if let Some(delta) = delta {
                        map.add(1.0, &delta.matrix());
                    }
                }
                let values = patched.each_ref().map(Matrix::values);
                let found = block(values, patch.bias.as_deref(), &case.v, &z);
                close(&found, &wanted, 1e-12);

                // The same in f32, through the adapter's patches added to the weights.
                let mut weights = case.maps.each_ref().map(Matrix::to_f32);
                let mut bias = vec![0.0; HIDDEN];
                for part in patch.patches(3, INTERMEDIATE) {
                    let Target::Layer { layer: 3, site } = part.target else {
                        panic!("{:?}", part.target)
                    };
                    let place = match site {
                        Site::GateProj => 0,
                        Site::UpProj => 1,
                        _ => 2,
                    };
                    crate::fold::fold(&mut weights[place], Some(&mut bias), &part).unwrap();
                }
                let weights = weights.each_ref().map(Vec::as_slice);
                let found = block(weights, Some(&bias), &narrow(&case.v), &narrow(&z));
                let found: Vec<f64> = found.into_iter().map(f64::from).collect();
                close(&found, &wanted, 1e-5);
            }
        }
    }

    /// Property 3.
    #[test]
    fn a_patch_of_one_token_has_rank_one() {
        let [first, second, third] = patches(&case(9));
        let deltas = [first.gate, first.up, second.down, third.down];
        for delta in deltas.into_iter().flatten() {
            let matrix = delta.matrix();
            let values = matrix.view().singular_values().unwrap();
            assert!(values[1] < 1e-12 * values[0], "{values:?}");
        }
    }

    /// Property 3.
    #[test]
    fn a_token_without_an_input_is_refused() {
        let case = case(10);
        let [gate, up, down] = &case.maps;
        let block = SwiGlu { gate, up, down };
        let (zero, z) = (vec![0.0; HIDDEN], normed(&case.v_with));
        let states = TokenStates {
            residual: &zero,
            residual_with: &case.v_with,
            normed: &zero,
            normed_with: &z,
        };
        let refused = |result: Result<TokenPatch, _>| {
            assert!(matches!(result, Err(TransmuteError::ZeroNorm { .. })));
        };
        refused(block.input_and_bias(&states));
        refused(block.all_maps(&states));
        refused(block.down_only(&states));
        let odd = RankOne::mapping("x", &[f64::NAN], vec![1.0]);
        assert!(matches!(odd, Err(TransmuteError::Field { .. })));
        let short = TokenStates {
            normed: &z[1..],
            ..states
        };
        assert!(matches!(
            block.down_only(&short),
            Err(TransmuteError::Field { .. })
        ));
    }
}
