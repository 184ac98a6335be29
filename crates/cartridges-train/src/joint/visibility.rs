//! Who is seen beside a conversation's own cartridge.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::config::JointConfig;

/// Draws the visible cartridges of conversations; depends on the seed, the step and the cartridge alone,
/// so that a resumed run sees the same. Keys are not moved, so that the order of cartridges changes
/// nothing, and they stand in the order of the set.
pub struct Visibility {
    rng: ChaCha8Rng,
    config: JointConfig,
    own: usize,
    others: Vec<usize>,
}

impl Visibility {
    /// Of cartridge `own` among `count` in a step.
    pub fn new(config: JointConfig, seed: u64, step: usize, own: usize, count: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1 + (step * count + own) as u64);
        Self {
            rng,
            config,
            own,
            others: (0..count).filter(|i| *i != own).collect(),
        }
    }

    /// The cartridges that the next conversation sees, in order.
    pub fn draw(&mut self) -> Vec<usize> {
        let alone = self.rng.random::<f64>() < self.config.alone_share;
        let most = self.config.max_distractors.min(self.others.len());
        if alone || most == 0 {
            return vec![self.own];
        }
        let count = self.rng.random_range(1..=most);
        self.others.shuffle(&mut self.rng);
        let mut seen = self.others[..count].to_vec();
        seen.push(self.own);
        seen.sort_unstable();
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_keep_the_shares_and_depend_on_seed_step_and_cartridge_alone() {
        let config = JointConfig {
            alone_share: 0.3,
            max_distractors: 2,
        };
        let draws = |seed, step, own| -> Vec<Vec<usize>> {
            let mut visibility = Visibility::new(config, seed, step, own, 4);
            (0..4000).map(|_| visibility.draw()).collect()
        };
        let all = draws(7, 3, 1);
        let share = |fits: &dyn Fn(&[usize]) -> bool| {
            all.iter().filter(|seen| fits(seen)).count() as f64 / all.len() as f64
        };
        // Standard deviations are below 0.008.
        for (found, wanted) in [
            (share(&|s| s == [1]), 0.3),
            (share(&|s| s.len() == 2), 0.35),
            (share(&|s| s.len() == 3), 0.35),
            (share(&|s| s.contains(&0)), 0.35 / 3.0 + 0.35 * 2.0 / 3.0),
        ] {
            assert!((found - wanted).abs() < 0.04, "{found} {wanted}");
        }
        assert!(all.iter().all(|s| s.contains(&1) && s.is_sorted()));
        assert_eq!(all, draws(7, 3, 1));
        for other in [draws(8, 3, 1), draws(7, 4, 1), draws(7, 3, 2)] {
            assert_ne!(all, other);
        }
    }
}
