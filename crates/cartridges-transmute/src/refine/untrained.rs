//! Factors that change nothing yet.

use cartridges_model::adapter::{Delta, HostAdapter, HostPatch, Mode, Target};
use cartridges_model::decoder::{Half, ModelConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::TransmuteError;
use crate::sweep::SweepOptions;

/// The adapter that LoRA begins with (Hu et al., arXiv 2106.09685), at the maps and of the rank of a sweep:
/// `A` of random values within `±1/√inputs`, `B` of zeros. To be trained by [`refine`](crate::refine)
/// beside a solved one.
///
/// # Errors
/// [`TransmuteError::Field`] for a setting of the sweep that means nothing.
pub fn untrained(
    config: &ModelConfig,
    options: &SweepOptions,
    seed: u64,
) -> Result<HostAdapter, TransmuteError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut patches = Vec::new();
    for layer in options.check(config.num_layers)? {
        for half in [Half::Attention, Half::Mlp] {
            let site = half.site();
            let target = Target::Layer { layer, site };
            let Some((inputs, outputs)) = target.widths(config) else {
                continue;
            };
            if !options.sites.have(half) {
                continue;
            }
            let rank = options.rank.min(inputs).min(outputs);
            let most = (inputs as f32).sqrt().recip();
            let a = (0..rank * inputs).map(|_| rng.random_range(-most..most));
            patches.push(HostPatch {
                target,
                mode: Mode::Linear,
                scale: 1.0,
                inputs,
                outputs,
                delta: Delta::LowRank {
                    rank,
                    a: a.collect(),
                    b: vec![0.0; outputs * rank],
                },
                bias: None,
            });
        }
    }
    Ok(HostAdapter::new(patches)?)
}
