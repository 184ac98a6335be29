//! The learning rate over a run.

use crate::config::{Schedule, TrainConfig};

/// The rate of step `step` (from 0) of `total`: linear warm-up from a tenth, then the schedule
/// down to `final_lr_ratio` at the last step.
pub fn learning_rate(config: &TrainConfig, step: usize, total: usize) -> f64 {
    let lr = config.lr;
    if step < config.warmup_steps {
        let low = 0.1 * lr;
        return low + (lr - low) * step as f64 / config.warmup_steps as f64;
    }
    let end = config.final_lr_ratio * lr;
    let span = total.saturating_sub(config.warmup_steps + 1).max(1) as f64;
    let at = ((step - config.warmup_steps) as f64 / span).min(1.0);
    match config.schedule {
        Schedule::Constant => lr,
        Schedule::Linear => lr - (lr - end) * at,
        Schedule::Cosine => end + (lr - end) * (1.0 + (std::f64::consts::PI * at).cos()) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_and_cosine_meet_and_end_where_they_should() {
        let config = TrainConfig {
            lr: 1.0,
            warmup_steps: 4,
            ..TrainConfig::default()
        };
        let rates: Vec<f64> = (0..20).map(|s| learning_rate(&config, s, 20)).collect();
        assert_eq!(rates[0], 0.1);
        assert!((rates[2] - 0.55).abs() < 1e-12);
        assert_eq!(rates[4], 1.0);
        assert!((rates[19] - 0.1).abs() < 1e-12);
        assert!(rates[4..].windows(2).all(|w| w[1] < w[0]));
    }
}
