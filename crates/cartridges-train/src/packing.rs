//! Examples side by side in rows of fixed length.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::config::{Packing, TrainConfig};
use crate::example::{Example, Target};

/// Examples that go through the model in one pass; each sees the cartridge and itself only.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PackedRow {
    /// Token ids of all examples.
    pub ids: Vec<u32>,
    /// Length of each example, in order.
    pub lengths: Vec<usize>,
    /// Targets, positions counted from the row's start.
    pub targets: Vec<Target>,
    /// Sum of the examples' weights over their target positions.
    pub positions: f64,
}

impl PackedRow {
    fn push(&mut self, example: &Example) {
        let base = self.ids.len() as u32;
        self.ids.extend_from_slice(&example.ids);
        self.lengths.push(example.ids.len());
        self.targets.extend(example.targets.iter().map(|t| Target {
            position: base + t.position,
            ..*t
        }));
        let distinct = example
            .targets
            .chunk_by(|a, b| a.position == b.position)
            .count();
        self.positions += f64::from(example.weight) * distinct as f64;
    }

    /// Cuts the row to `limit` tokens. Only its last example can be longer than what is left.
    fn cut(mut self, limit: usize) -> Self {
        if self.ids.len() <= limit {
            return self;
        }
        let over = self.ids.len() - limit;
        self.ids.truncate(limit);
        if let Some(last) = self.lengths.last_mut() {
            *last -= over;
        }
        let before = self.num_positions();
        self.targets.retain(|t| (t.position as usize) < limit);
        let after = self.num_positions();
        if before > 0 {
            // All weights of the cut example are equal, and rows are cut at one example only.
            self.positions *= after as f64 / before as f64;
        }
        self
    }

    /// `Σ −w log w` over the candidates: what the loss would be if the student said what the teacher says.
    pub(crate) fn entropy(&self) -> f64 {
        let named = self.targets.iter().filter(|t| t.id != Target::REST);
        let weights = named.map(|t| f64::from(t.weight)).filter(|w| *w > 0.0);
        weights.map(|w| -w * w.ln()).sum()
    }

    /// Positions that have targets.
    pub fn num_positions(&self) -> usize {
        self.targets
            .chunk_by(|a, b| a.position == b.position)
            .count()
    }
}

/// Shuffles the examples once and fills rows greedily, as the reference does (its section on packing:
/// an example longer than a row stands alone and is cut; *truncate* cuts the one that overflows,
/// *pad* lets it start the next row). Rows without targets are left out.
pub fn pack(examples: &[Example], config: &TrainConfig) -> Vec<PackedRow> {
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(config.seed));
    let ordered = order.iter().map(|&i| &examples[i]);
    fill(ordered, config.packed_seq_length, config.packing)
}

fn fill<'a>(
    examples: impl Iterator<Item = &'a Example>,
    limit: usize,
    packing: Packing,
) -> Vec<PackedRow> {
    let mut rows = Vec::new();
    let mut row = PackedRow::default();
    let mut close = |row: &mut PackedRow| {
        let full = std::mem::take(row).cut(limit);
        if !full.targets.is_empty() {
            rows.push(full);
        }
    };
    for example in examples {
        let overflows = row.ids.len() + example.ids.len() > limit;
        if overflows && !row.ids.is_empty() && packing == Packing::Pad {
            close(&mut row);
        }
        row.push(example);
        if row.ids.len() >= limit {
            close(&mut row);
        }
    }
    close(&mut row);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(len: usize) -> Example {
        let target = |position| Target {
            position,
            id: 0,
            weight: 1.0,
        };
        Example {
            ids: vec![7; len],
            targets: (1..len as u32).map(target).collect(),
            weight: 1.0,
        }
    }

    /// The reference's worked example: lengths 5, 4, 9, 2 in rows of 8.
    #[test]
    fn rows_fill_as_in_the_worked_example() {
        let all: Vec<Example> = [5, 4, 9, 2].map(example).into();
        let lengths = |packing| -> Vec<Vec<usize>> {
            let rows = fill(all.iter(), 8, packing);
            rows.into_iter().map(|r| r.lengths).collect()
        };
        assert_eq!(lengths(Packing::Truncate), [vec![5, 3], vec![8], vec![2]]);
        assert_eq!(lengths(Packing::Pad), [vec![5], vec![4], vec![8], vec![2]]);
    }

    #[test]
    fn cut_targets_are_dropped_and_positions_counted() {
        let rows = fill([example(5), example(9)].iter(), 8, Packing::Truncate);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].targets.len(), 4 + 2);
        assert_eq!(rows[0].positions, 6.0);
        assert_eq!(rows[0].targets[4].position, 6);
    }
}
