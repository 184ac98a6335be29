//! What the screen knows about a run.

use std::collections::VecDeque;

use cartridges_train::{RunStart, StepReport, Table};

/// Steps that speed is measured over.
const RECENT: usize = 20;

/// A number of evaluations, by steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scores {
    pub(super) name: String,
    pub(super) values: Vec<(usize, f64)>,
}

/// The state of a run.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Steps done and steps in all.
    pub(super) done: usize,
    pub(super) total: usize,
    /// Loss after each step.
    pub(super) losses: Vec<(f64, f64)>,
    pub(super) last: Option<StepReport>,
    /// Tokens and seconds of the last steps.
    recent: VecDeque<(usize, f64)>,
    pub(super) scores: Vec<Scores>,
    /// The newest table of each name.
    pub(super) tables: Vec<Table>,
    /// Which of them is shown.
    pub(super) shown: usize,
    /// It was asked to stop.
    pub(super) stopping: bool,
}

impl Board {
    pub(super) fn begin(&mut self, start: &RunStart<'_>) {
        (self.done, self.total) = (start.step, start.total);
    }

    pub(super) fn step(&mut self, report: &StepReport) {
        (self.done, self.total) = (report.step, report.total);
        self.losses.push((report.step as f64, report.loss));
        self.recent.push_back((report.tokens, report.seconds));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.last = Some(*report);
    }

    /// Numbers of an evaluation; counts are left out.
    pub(super) fn scalars(&mut self, step: usize, values: &[(&str, f64)]) {
        for (name, value) in values.iter().filter(|(name, _)| !name.contains("/num_")) {
            match self.scores.iter_mut().find(|s| s.name == *name) {
                Some(scores) => scores.values.push((step, *value)),
                None => self.scores.push(Scores {
                    name: (*name).to_owned(),
                    values: vec![(step, *value)],
                }),
            }
        }
    }

    pub(super) fn table(&mut self, table: &Table) {
        match self.tables.iter_mut().find(|t| t.name == table.name) {
            Some(old) => *old = table.clone(),
            None => self.tables.push(table.clone()),
        }
    }

    pub(super) fn next_table(&mut self) {
        self.shown = (self.shown + 1) % self.tables.len().max(1);
    }

    /// Speed of the last steps.
    pub(super) fn tokens_per_second(&self) -> Option<f64> {
        let tokens: usize = self.recent.iter().map(|(tokens, _)| tokens).sum();
        let seconds: f64 = self.recent.iter().map(|(_, seconds)| seconds).sum();
        (seconds > 0.0).then(|| tokens as f64 / seconds)
    }

    /// Seconds until the last step at the speed of the last steps, without evaluations.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        let seconds: f64 = self.recent.iter().map(|(_, seconds)| seconds).sum();
        let left = self.total.saturating_sub(self.done);
        (!self.recent.is_empty()).then(|| seconds / self.recent.len() as f64 * left as f64)
    }
}
