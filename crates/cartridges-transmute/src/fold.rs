//! A delta added to the weights it stands beside.

use cartridges_model::adapter::{Delta, HostPatch, Mode};
use cartridges_model::cartridge::CartridgeDtype;

use crate::error::{TransmuteError, check_length};
use crate::matrix::Matrix;

/// Values of a delta that are made at a time.
const PIECE: usize = 1 << 22;

/// Adds a patch to the weight `[outputs, inputs]` of its map, row-major, and to the map's bias
/// `[outputs]`. The delta is made in f64, each sum is rounded to f32 once.
///
/// # Errors
/// [`TransmuteError::Field`] if the patch does not stand beside the map (mode post), a length is another,
/// or the patch has a bias and the map has none. Nothing is changed then.
pub fn fold(
    weight: &mut [f32],
    bias: Option<&mut [f32]>,
    patch: &HostPatch,
) -> Result<(), TransmuteError> {
    match (&patch.bias, bias) {
        (None, _) => fold_weight(weight, patch),
        (Some(_), Some(bias)) => {
            check_length("the bias of the map", bias.len(), patch.outputs)?;
            fold_weight(weight, patch)?;
            fold_bias(bias, patch)
        }
        (Some(_), None) => {
            let problem = "is in the patch, but the map has none to add it to";
            Err(TransmuteError::field("bias", problem))
        }
    }
}

/// Adds the delta of a patch to the weight of its map.
pub(crate) fn fold_weight(weight: &mut [f32], patch: &HostPatch) -> Result<(), TransmuteError> {
    let (inputs, outputs) = (patch.inputs, patch.outputs);
    if patch.mode != Mode::Linear {
        let problem = "is post, expected linear: only what stands beside a map can be added to it";
        return Err(TransmuteError::field("mode", problem));
    }
    check_length("the weight", weight.len(), inputs.saturating_mul(outputs))?;
    let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect();
    match &patch.delta {
        Delta::None => {}
        Delta::Dense(delta) => {
            check_length("the delta", delta.len(), weight.len())?;
            add_to(weight, patch, delta.iter().copied().map(f64::from));
        }
        Delta::LowRank { rank, a, b } => {
            let a = Matrix::new(*rank, inputs, wide(a))?;
            let b = Matrix::new(outputs, *rank, wide(b))?;
            let rows = (PIECE / inputs).max(1);
            let pieces = weight.chunks_mut(rows * inputs);
            for (weight, b) in pieces.zip(b.values().chunks(rows * rank)) {
                let delta = Matrix::of(b.len() / rank, *rank, b.to_vec()).times(&a);
                add_to(weight, patch, delta.values().iter().copied());
            }
        }
    }
    Ok(())
}

/// Adds the bias of a patch, if it has one, to the bias of its map.
pub(crate) fn fold_bias(bias: &mut [f32], patch: &HostPatch) -> Result<(), TransmuteError> {
    check_length("the bias of the map", bias.len(), patch.outputs)?;
    let added = patch.bias.iter().flatten();
    add_to(bias, patch, added.copied().map(f64::from));
    Ok(())
}

fn add_to(values: &mut [f32], patch: &HostPatch, delta: impl Iterator<Item = f64>) {
    let scale = f64::from(patch.scale);
    for (value, x) in values.iter_mut().zip(delta) {
        *value = (f64::from(*value) + scale * x) as f32;
    }
}

/// How much of a delta a type swallows: `‖round(W') - W'‖ / ‖W' - W‖` for the weights `W` as they were,
/// and `W'` with the delta. 0 if there is no delta.
///
/// # Errors
/// [`TransmuteError::Field`] if the lengths differ.
pub fn rounding_loss(
    weight: &[f32],
    folded: &[f32],
    dtype: CartridgeDtype,
) -> Result<f64, TransmuteError> {
    Ok(Swallowed::of(weight, folded, dtype)?.share())
}

/// Sums of squares: of what a type swallows, and of the delta.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Swallowed {
    lost: f64,
    delta: f64,
}

impl Swallowed {
    pub(crate) fn of(
        weight: &[f32],
        folded: &[f32],
        dtype: CartridgeDtype,
    ) -> Result<Self, TransmuteError> {
        check_length("the weight with the delta", folded.len(), weight.len())?;
        let mut sums = Self::default();
        for (before, after) in weight.iter().zip(folded) {
            sums.lost += (f64::from(dtype.round(*after)) - f64::from(*after)).powi(2);
            sums.delta += (f64::from(*after) - f64::from(*before)).powi(2);
        }
        Ok(sums)
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.delta += other.delta;
    }

    /// The root of lost over delta; 0 if there is no delta.
    pub(crate) fn share(self) -> f64 {
        match self.delta > 0.0 {
            true => (self.lost / self.delta).sqrt(),
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use cartridges_model::adapter::Target;

    use super::*;
    use crate::synthetic::{gaussian, generator};

    const WIDTH: usize = 200;

    fn patch(delta: Delta, bias: Option<Vec<f32>>) -> HostPatch {
        HostPatch {
            target: Target::LmHead,
            mode: Mode::Linear,
            scale: 0.5,
            inputs: WIDTH,
            outputs: WIDTH,
            delta,
            bias,
        }
    }

    fn single(values: Vec<f64>) -> Vec<f32> {
        values.into_iter().map(|x| x as f32).collect()
    }

    /// Properties 12 and 13: beside the map or added to it, two patches or one, in any order.
    #[test]
    fn a_folded_map_gives_what_the_map_and_its_patches_give() {
        let mut rng = generator(1);
        let weight = single(gaussian(&mut rng, WIDTH * WIDTH));
        let x = gaussian(&mut rng, WIDTH);
        let mut part = |n| single(gaussian(&mut rng, n));
        let low = Delta::LowRank {
            rank: 3,
            a: part(3 * WIDTH),
            b: part(3 * WIDTH),
        };
        let patches = [
            patch(low, Some(part(WIDTH))),
            patch(Delta::Dense(part(WIDTH * WIDTH)), None),
        ];
        let times = |m: &[f32], x: &[f64]| -> Vec<f64> {
            let row = |row: &[f32]| row.iter().zip(x).map(|(m, x)| f64::from(*m) * x).sum();
            m.chunks(x.len()).map(row).collect()
        };
        let mut wanted = times(&weight, &x);
        for patch in &patches {
            let added = match &patch.delta {
                Delta::LowRank { a, b, .. } => times(b, &times(a, &x)),
                Delta::Dense(delta) => times(delta, &x),
                Delta::None => vec![0.0; WIDTH],
            };
            let bias = patch.bias.clone().unwrap_or(vec![0.0; WIDTH]);
            for ((y, d), b) in wanted.iter_mut().zip(added).zip(bias) {
                *y += 0.5 * (d + f64::from(b));
            }
        }
        for order in [[0, 1], [1, 0]] {
            let (mut folded, mut bias) = (weight.clone(), vec![0.0; WIDTH]);
            for i in order {
                fold(&mut folded, Some(&mut bias), &patches[i]).unwrap();
            }
            let mut found = times(&folded, &x);
            found
                .iter_mut()
                .zip(bias)
                .for_each(|(y, b)| *y += f64::from(b));
            crate::synthetic::close(&found, &wanted, 1e-6);
        }
        let mut folded = weight.clone();
        assert!(fold(&mut folded, None, &patches[0]).is_err());
        assert!(fold(&mut folded[1..], None, &patches[1]).is_err());
        let post = HostPatch {
            mode: Mode::Post,
            ..patches[1].clone()
        };
        assert!(fold(&mut folded, None, &post).is_err());
        assert_eq!(folded, weight);
    }

    /// Property 12: what bf16 swallows of a delta on weights that are bf16 already. A weight `w` has
    /// steps of `2^(⌊log₂|w|⌋ - 7)` around it, so a delta `x` loses `x - step · round(x / step)`; the
    /// figures beside the sizes are those that the specification measured.
    #[test]
    fn the_loss_in_bf16_is_the_one_predicted() {
        let mut rng = generator(2);
        let dtype = CartridgeDtype::Bf16;
        let weight = single(gaussian(&mut rng, WIDTH * WIDTH));
        let weight: Vec<f32> = weight.into_iter().map(|w| dtype.round(w)).collect();
        for (size, measured) in [(0.1, 0.017), (0.01, 0.16), (0.003, 0.47), (0.001, 0.76)] {
            let delta = gaussian(&mut rng, WIDTH * WIDTH);
            let delta = single(delta.into_iter().map(|x| 2.0 * size * x).collect());
            let patch = patch(Delta::Dense(delta.clone()), None);
            let mut folded = weight.clone();
            fold(&mut folded, None, &patch).unwrap();
            let (mut lost, mut whole) = (0.0, 0.0);
            for (w, x) in weight.iter().zip(&delta) {
                let sum = f64::from(*w) + 0.5 * f64::from(*x);
                let step = 2f64.powi(sum.abs().log2().floor() as i32 - 7);
                lost += (sum - step * (sum / step).round()).powi(2);
                whole += (0.5 * f64::from(*x)).powi(2);
            }
            let predicted = (lost / whole).sqrt();
            let found = rounding_loss(&weight, &folded, dtype).unwrap();
            assert!(
                (found - predicted).abs() < 1e-3 * predicted,
                "{found} {predicted}"
            );
            assert!((found / measured - 1.0).abs() < 0.1, "{size}: {found}");
        }
        assert_eq!(rounding_loss(&weight, &weight, dtype).unwrap(), 0.0);
        assert!(rounding_loss(&weight, &weight[1..], dtype).is_err());
    }
}
