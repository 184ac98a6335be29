//! Factors that change nothing yet.

use cartridges_model::adapter::{HostAdapter, HostPatch};
use cartridges_model::decoder::ModelConfig;
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
    for target in options.targets(config.num_layers)? {
        let Some((inputs, outputs)) = target.widths(config) else {
            continue;
        };
        let rank = options.rank.min(inputs).min(outputs);
        let most = (inputs as f32).sqrt().recip();
        let a = (0..rank * inputs).map(|_| rng.random_range(-most..most));
        let (a, b) = (a.collect(), vec![0.0; outputs * rank]);
        patches.push(HostPatch::low_rank(target, rank, a, b));
    }
    Ok(HostAdapter::new(patches)?)
}
