//! The learning rate over a run.

use crate::config::{Schedule, TrainConfig};

/// The rate of step `step` (from 0) of `total`: linear warm-up, then the schedule down to
/// `final_lr_ratio`, which it reaches at `schedule_steps` (as the reference counts its `max_steps`),
/// or at the last step.
pub fn learning_rate(config: &TrainConfig, step: usize, total: usize) -> f64 {
    let lr = config.lr;
    if step < config.warmup_steps {
        let low = config.warmup_min_lr.unwrap_or(0.1 * lr);
        return low + (lr - low) * step as f64 / config.warmup_steps as f64;
    }
    let end = config.final_lr_ratio * lr;
    let last = match config.schedule_steps {
        0 => total.saturating_sub(1),
        steps => steps,
    };
    let span = last.saturating_sub(config.warmup_steps).max(1) as f64;
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

    /// The reference's formulas with its names: w warm-up steps from m, S steps in all, η at the end.
    #[test]
    fn the_references_schedules_are_there() {
        let (lr0, m, w, s_max, alpha) = (2e-2, 5e-3, 3, 11, 0.2);
        let eta = alpha * lr0;
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            let config = TrainConfig {
                lr: lr0,
                warmup_min_lr: Some(m),
                warmup_steps: w,
                schedule_steps: s_max,
                final_lr_ratio: alpha,
                schedule,
                ..TrainConfig::default()
            };
            for step in 0..20 {
                let x = (step as f64 - w as f64) / (s_max - w) as f64;
                let wanted = match (step, schedule) {
                    (s, _) if s < w => m + (lr0 - m) * s as f64 / w as f64,
                    (_, Schedule::Constant) => lr0,
                    (s, _) if s >= s_max => eta,
                    (_, Schedule::Linear) => lr0 - (lr0 - eta) * x,
                    (_, Schedule::Cosine) => {
                        eta + (lr0 - eta) * (1.0 + (std::f64::consts::PI * x).cos()) / 2.0
                    }
                };
                let found = learning_rate(&config, step, 1000);
                assert!((found - wanted).abs() < 1e-15, "{schedule:?} {step}");
            }
        }
    }
}
