//! From numbers to places, and the numbers that an axis names.

use super::text::{count, duration, number, per_cent, width};

/// How wide the place for zero is, which a logarithmic axis does not have.
const ZERO: f64 = 46.0;

/// What numbers on an axis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Plain numbers.
    Number,
    /// Things that are counted.
    Count,
    /// Shares, written in percent.
    Share,
    /// Percent.
    PerCent,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// A number on the axis.
    pub(super) fn tick(self, value: f64, step: f64) -> String {
        match self {
            Self::Number | Self::PerCent => {
                let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
                let text = match value.abs() >= 10_000.0 {
                    true => number(value),
                    false => format!("{value:.decimals$}").replace('-', "−"),
                };
                match self {
                    Self::PerCent if value > 0.0 => format!("+{text}\u{a0}%"),
                    Self::PerCent => format!("{text}\u{a0}%"),
                    _ => text,
                }
            }
            Self::Count if value < 1.0 => number(value),
            Self::Count => count(value.round() as u64),
            Self::Share if step < 0.01 => format!("{:.1}\u{a0}%", value * 100.0).replace('-', "−"),
            Self::Share => per_cent(value),
            Self::Seconds => whole_time(value),
        }
    }

    /// A number beside a point.
    pub(super) fn value(self, value: f64) -> String {
        match self {
            Self::Number => number(value),
            Self::Count if value < 100.0 => number(value),
            Self::Count => count(value.round() as u64),
            Self::Share => per_cent(value),
            Self::PerCent => signed_per_cent(value),
            Self::Seconds => duration(value),
        }
    }
}

/// Time in the largest unit that it is a whole number of.
fn whole_time(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3600.0, "h"), (60.0, "min")];
    match units
        .iter()
        .find(|unit| seconds >= unit.0 && seconds % unit.0 == 0.0)
    {
        Some((unit, name)) => format!("{}\u{a0}{name}", count((seconds / unit) as u64)),
        None => duration(seconds),
    }
}

/// A change in percent, with its sign.
pub(crate) fn signed_per_cent(value: f64) -> String {
    let text = match value.abs() {
        size if size < 99.95 => format!("{:.1}", (value * 10.0).round() / 10.0 + 0.0),
        _ => number(value),
    }
    .replace('-', "−");
    let sign = if value >= 0.05 { "+" } else { "" };
    format!("{sign}{text}\u{a0}%")
}

/// An axis.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    /// Whether equal ratios are equally far apart.
    log: bool,
    /// Smallest and largest number; of a logarithmic axis their logarithms.
    range: [f64; 2],
    /// Where they are.
    places: [f64; 2],
    /// Where zero is on a logarithmic axis, if there is one.
    zero: Option<f64>,
}

impl Scale {
    /// An axis that holds all values, with some air. `must` are numbers it holds besides.
    pub(super) fn linear(
        values: impl Iterator<Item = f64>,
        must: &[f64],
        places: [f64; 2],
    ) -> Self {
        let all = values.chain(must.iter().copied()).filter(|v| v.is_finite());
        let [mut low, mut high] = extent(all).unwrap_or([0.0, 1.0]);
        // A zero that is near is worth showing.
        if low > 0.0 && low < 0.4 * high {
            low = 0.0;
        }
        let air = match high - low {
            gap if gap > 0.0 => 0.06 * gap,
            _ => (0.1 * high.abs()).max(0.1),
        };
        if low != 0.0 || high <= low {
            low -= air;
        }
        high += air;
        Self {
            log: false,
            range: [low, high],
            places,
            zero: None,
        }
    }

    /// An axis from one number to another.
    pub(super) fn exact(range: [f64; 2], places: [f64; 2]) -> Self {
        Self {
            log: false,
            range,
            places,
            zero: None,
        }
    }

    /// A logarithmic axis that holds all values, with some air; zeros get a place of their own at its
    /// beginning.
    pub(super) fn log(values: impl Iterator<Item = f64>, places: [f64; 2]) -> Self {
        let values: Vec<f64> = values.filter(|v| v.is_finite() && *v >= 0.0).collect();
        let zero = values.contains(&0.0);
        let above = values.iter().filter(|v| **v > 0.0).map(|v| v.ln());
        let [mut low, mut high] = extent(above).unwrap_or([0.0, 0.0]);
        // At least a factor of four, so that a single number stands in the middle of something.
        let air = (0.06 * (high - low)).max((4f64.ln() - (high - low)) / 2.0);
        low -= air;
        high += air;
        let step = ZERO * (places[1] - places[0]).signum();
        Self {
            log: true,
            range: [low, high],
            places: [places[0] + if zero { step } else { 0.0 }, places[1]],
            zero: zero.then_some(places[0] + step / 2.0),
        }
    }

    /// Where a number is; nowhere if it is not finite, or not positive on a logarithmic axis.
    pub(super) fn at(&self, value: f64) -> Option<f64> {
        if self.log && value == 0.0 {
            return self.zero;
        }
        let value = if self.log { value.ln() } else { value };
        let [low, high] = self.range;
        let [start, end] = self.places;
        let at = start + (value - low) / (high - low) * (end - start);
        at.is_finite().then_some(at)
    }

    /// Where a logarithmic axis is broken to make room for zero.
    pub(super) fn broken_at(&self) -> Option<f64> {
        self.zero.map(|_| self.places[0])
    }

    /// Places and names of the numbers on the axis. Names do not touch.
    pub(super) fn ticks(&self, unit: Unit, size: f64, level: bool) -> Vec<(f64, String)> {
        let named = |value: f64, step: f64| Some((self.at(value)?, unit.tick(value, step)));
        let mut ticks: Vec<(f64, String)> = match self.log {
            true => {
                let sets = self
                    .log_ticks(unit)
                    .into_iter()
                    .map(|set| -> Vec<_> { set.into_iter().filter_map(|v| named(v, v)).collect() });
                let sets: Vec<Vec<(f64, String)>> = sets.collect();
                // From the densest; the last if even that has to be thinned.
                let fitting = sets.iter().find(|set| apart(set, size, level) == set.len());
                fitting.or(sets.last()).cloned().unwrap_or_default()
            }
            false => {
                let length = (self.places[1] - self.places[0]).abs();
                let step = nice(self.range, length / if level { 76.0 } else { 48.0 });
                let first = (self.range[0] / step).ceil();
                // Bounded whatever the range.
                (0..100)
                    .map(|i| first + f64::from(i))
                    .take_while(|i| *i <= self.range[1] / step)
                    .filter_map(|i| named(i * step, step))
                    .collect()
            }
        };
        if let Some(zero) = self.zero {
            ticks.insert(0, (zero, "0".to_owned()));
        }
        let mut end = f64::NEG_INFINITY;
        ticks.retain(|(at, name)| !level || free(&mut end, *at, width(name, size)));
        ticks
    }

    /// Sets of numbers for a logarithmic axis, each less dense than the one before.
    fn log_ticks(&self, unit: Unit) -> Vec<Vec<f64>> {
        const FINE: [f64; 24] = [
            0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
            120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 18_000.0, 36_000.0, 86_400.0,
        ];
        const COARSE: [f64; 10] = [
            0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36_000.0, 864_000.0,
        ];
        const COARSEST: [f64; 5] = [0.001, 1.0, 60.0, 3600.0, 86_400.0];
        let [low, high] = self.range;
        let inside = |v: &f64| (low..=high).contains(&v.ln());
        if unit == Unit::Seconds {
            let sets: [&[f64]; 3] = [&FINE, &COARSE, &COARSEST];
            return sets
                .map(|set| set.iter().copied().filter(inside).collect())
                .to_vec();
        }
        let powers = |steps: &[f64], every: i32| -> Vec<f64> {
            let first = (low / 10f64.ln()).floor() as i32;
            let last = (high / 10f64.ln()).ceil() as i32;
            // Bounded whatever the range.
            let powers = (first..=last.min(first + 600)).filter(|p| p % every == 0);
            let all = powers.flat_map(|p| steps.iter().map(move |s| s * 10f64.powi(p)));
            all.filter(inside).collect()
        };
        let mut sets = vec![powers(&[1.0, 2.0, 5.0], 1), powers(&[1.0, 3.0], 1)];
        sets.extend([1, 2, 5, 20, 100].map(|every| powers(&[1.0], every)));
        // A single number does not tell that the axis is logarithmic.
        let enough: Vec<Vec<f64>> = sets.iter().filter(|set| set.len() > 1).cloned().collect();
        if enough.is_empty() { sets } else { enough }
    }
}

/// Whether a name has room behind the last one, which then ends where it does.
fn free(end: &mut f64, at: f64, width: f64) -> bool {
    let free = at - width / 2.0 > *end + 8.0;
    if free {
        *end = at + width / 2.0;
    }
    free
}

/// How many names would be left; upright, they are as high as a line.
fn apart(ticks: &[(f64, String)], size: f64, level: bool) -> usize {
    let mut end = f64::NEG_INFINITY;
    let mut sorted: Vec<&(f64, String)> = ticks.iter().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let room = |name: &str| if level { width(name, size) } else { size };
    sorted.retain(|(at, name)| free(&mut end, *at, room(name)));
    sorted.len()
}

/// Smallest and largest.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    values.fold(None, |found, v| {
        let [low, high] = found.unwrap_or([v, v]);
        Some([v.min(low), v.max(high)])
    })
}

/// The smallest of 1, 2 and 5 times a power of ten that needs at most `wanted` steps.
fn nice(range: [f64; 2], wanted: f64) -> f64 {
    let rough = (range[1] - range[0]) / wanted.max(1.0);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .iter()
        .map(|s| s * power)
        .find(|s| *s >= rough * 0.999);
    step.filter(|s| s.is_finite() && *s > 0.0).unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_proportional() {
        let scale = Scale::exact([0.0, 10.0], [100.0, 300.0]);
        assert_eq!(scale.at(0.0), Some(100.0));
        assert_eq!(scale.at(2.5), Some(150.0));
        assert_eq!(scale.at(f64::NAN), None);
        let log = Scale::log([1.0, 100.0, 10.0].into_iter(), [0.0, 200.0]);
        let [a, b, c] = [1.0, 10.0, 100.0].map(|v| log.at(v).unwrap());
        assert!((b - a - (c - b)).abs() < 1e-9 && a > 0.0 && c < 200.0);
        assert_eq!(log.at(0.0), None);
        assert_eq!(log.at(-1.0), None);
        let zero = Scale::log([0.0, 64.0].into_iter(), [0.0, 200.0]);
        assert_eq!(zero.at(0.0), Some(ZERO / 2.0));
        assert!(zero.at(64.0).unwrap() > ZERO);
    }

    #[test]
    fn ticks_are_round_and_do_not_touch() {
        let names = |scale: &Scale, unit| -> Vec<String> {
            let ticks = scale.ticks(unit, 12.0, true);
            for pair in ticks.windows(2) {
                let room = (width(&pair[0].1, 12.0) + width(&pair[1].1, 12.0)) / 2.0;
                assert!(pair[1].0 - pair[0].0 > room, "{pair:?}");
            }
            ticks.into_iter().map(|tick| tick.1).collect()
        };
        let linear = Scale::linear([1.0, 7.5].into_iter(), &[], [0.0, 400.0]);
        assert_eq!(names(&linear, Unit::Number), ["0", "2", "4", "6"]);
        let log = Scale::log([64.0, 5000.0].into_iter(), [0.0, 500.0]);
        let found = names(&log, Unit::Count);
        assert!(found.contains(&"100".to_owned()) && found.contains(&"1000".to_owned()));
        let time = Scale::log([20.0, 9000.0].into_iter(), [0.0, 500.0]);
        assert_eq!(
            names(&time, Unit::Seconds),
            [
                "30\u{a0}s",
                "1\u{a0}min",
                "2\u{a0}min",
                "5\u{a0}min",
                "10\u{a0}min",
                "30\u{a0}min",
                "1\u{a0}h",
                "2\u{a0}h"
            ]
        );
        for strange in [f64::MAX, f64::MIN_POSITIVE, 0.0, f64::INFINITY] {
            let scale = Scale::linear([strange].into_iter(), &[], [0.0, 400.0]);
            assert!(scale.ticks(Unit::Number, 12.0, true).len() < 20);
            let scale = Scale::log([strange].into_iter(), [0.0, 400.0]);
            assert!(scale.ticks(Unit::Count, 12.0, true).len() < 20);
        }
    }
}
