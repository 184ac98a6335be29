//! The numbers that tell how good a condition is, under one roof.

use crate::measurement::{ConditionKind, Measurement};
use crate::report::{Report, gap_closed};
use crate::statistics::Estimate;

use super::scale::Unit;

/// A number that tells how good a condition is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Metric {
    /// NLL per token of the gold answers.
    Nll,
    /// Share of questions where the gold answer beats the other candidates.
    Choice,
    /// Share of right answers among those that were written.
    Generated,
    /// A number of the suite's own.
    Score {
        /// Its name.
        name: String,
        /// The best there is.
        best: f64,
    },
}

impl Metric {
    /// Those that a report has numbers for.
    pub(crate) fn of(report: &Report) -> Vec<Self> {
        let mut all = vec![Self::Nll];
        for score in report.rows.iter().flat_map(|row| &row.scores) {
            let metric = Self::Score {
                name: score.name.clone(),
                best: score.best,
            };
            if !all.contains(&metric) {
                all.push(metric);
            }
        }
        all.extend([Self::Generated, Self::Choice]);
        all.retain(|m| report.rows.iter().any(|row| m.estimate(row).is_some()));
        all
    }

    /// The number under one condition. `None` if it was not measured or is not a number.
    pub(crate) fn estimate(&self, row: &Measurement) -> Option<Estimate> {
        let questions = || row.questions.iter();
        let found = match self {
            Self::Nll => row.nll,
            // With one candidate there is nothing to choose.
            Self::Choice if questions().all(|q| q.candidates.len() < 2) => None,
            Self::Choice => row.choice_accuracy,
            Self::Generated => row.generated_accuracy,
            Self::Score { name, best } => row
                .scores
                .iter()
                .find(|s| s.name == *name && s.best == *best)
                .map(|s| s.estimate),
        };
        found.filter(|e| [e.value, e.low, e.high].iter().all(|v| v.is_finite()))
    }

    /// Whether less is better.
    pub(crate) fn lower_is_better(&self) -> bool {
        *self == Self::Nll
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Nll => "NLL per token",
            Self::Choice => "gold answer chosen",
            Self::Generated => "written answer right",
            Self::Score { name, .. } => name,
        }
    }

    /// Which way is better, in words.
    pub(crate) fn better(&self) -> &'static str {
        match self.lower_is_better() {
            true => "lower is better",
            false => "higher is better",
        }
    }

    /// What is best, of those that have a best.
    pub(crate) fn best(&self) -> Option<f64> {
        match self {
            Self::Nll => None,
            Self::Choice | Self::Generated => Some(1.0),
            Self::Score { best, .. } => (best.is_finite() && *best > 0.0).then_some(*best),
        }
    }

    /// How its numbers are written.
    pub(super) fn unit(&self) -> Unit {
        match self.best() {
            Some(1.0) => Unit::Share,
            _ => Unit::Number,
        }
    }

    /// A number of its kind in words.
    pub(crate) fn told(&self, value: f64) -> String {
        match self.unit() {
            // Tenths where a suite is scored finely; shares of few questions need none.
            Unit::Share => format!("{:.1}\u{a0}%", value * 100.0)
                .replace(".0\u{a0}", "\u{a0}")
                .replace('-', "−"),
            unit => unit.value(value),
        }
    }

    /// The share of the gap between the report's anchors that a row closes, with the interval that
    /// the row's own interval gives; the anchors are taken as they are.
    pub(crate) fn gap_closed(&self, report: &Report, row: &Measurement) -> Option<Estimate> {
        let sign = if self.lower_is_better() { 1.0 } else { -1.0 };
        let none = sign * self.estimate(report.first(ConditionKind::None)?)?.value;
        let document = sign * self.estimate(report.first(ConditionKind::Document)?)?.value;
        let own = self.estimate(row)?;
        let [value, one, other] =
            [own.value, own.low, own.high].map(|v| gap_closed(none, document, sign * v));
        let (one, other) = (one?, other?);
        let found = Estimate {
            value: value?,
            low: one.min(other),
            high: one.max(other),
        };
        [found.value, found.low, found.high]
            .iter()
            .all(|v| v.is_finite())
            .then_some(found)
    }
}
