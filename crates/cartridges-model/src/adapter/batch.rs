//! Which adapters apply to which rows of a packed batch.

use std::sync::Arc;

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::module::ThoughtAdapter;
use super::target::Target;

/// Some rows of a batch, in ascending order, on the host and on the device.
#[derive(Debug, Clone)]
struct Rows {
    numbers: Vec<usize>,
    index: Tensor<1, Int>,
}

/// The adapters of a packed batch; those that meet at a row add up.
#[derive(Debug, Clone, Default)]
pub struct BatchAdapters {
    /// Each adapter with its rows; `None`: all of them.
    groups: Vec<(Arc<ThoughtAdapter>, Option<Rows>)>,
}

impl BatchAdapters {
    /// No adapters.
    pub const NONE: &'static Self = &Self { groups: Vec::new() };

    /// These adapters for every row.
    pub fn everywhere(adapters: impl IntoIterator<Item = Arc<ThoughtAdapter>>) -> Self {
        let groups = adapters.into_iter().map(|adapter| (adapter, None));
        Self {
            groups: groups.collect(),
        }
    }

    /// Each adapter for its rows, in ascending order, of a batch of `count` rows.
    pub fn for_rows(
        adapters: impl IntoIterator<Item = (Arc<ThoughtAdapter>, Vec<usize>)>,
        count: usize,
        device: &Device,
    ) -> Self {
        let groups = adapters
            .into_iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(adapter, numbers)| {
                let some = (numbers.len() < count).then(|| Rows {
                    index: index(&numbers, device),
                    numbers,
                });
                (adapter, some)
            });
        Self {
            groups: groups.collect(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The adapters of some rows of the batch, which become the rows `0 ..` of a smaller one.
    pub fn select(&self, rows: &[usize], device: &Device) -> Self {
        let kept = self.groups.iter().map(|(adapter, mine)| {
            let places = match mine {
                None => (0..rows.len()).collect(),
                Some(mine) => (0..rows.len())
                    .filter(|i| mine.numbers.binary_search(&rows[*i]).is_ok())
                    .collect(),
            };
            (adapter.clone(), places)
        });
        Self::for_rows(kept, rows.len(), device)
    }

    /// The output `y [n, out]` of the map at `target`, whose input was `x [n, in]`, with what the
    /// adapters add to it.
    pub fn add(&self, target: Target, x: &Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        let mut sum = y.clone();
        for (adapter, rows) in &self.groups {
            match rows {
                None => {
                    if let Some(delta) = adapter.delta(target, x, &y) {
                        sum = sum + delta;
                    }
                }
                Some(Rows { index, .. }) => {
                    let part = |t: &Tensor<2>| t.clone().select(0, index.clone());
                    if adapter.changes(target)
                        && let Some(delta) = adapter.delta(target, &part(x), &part(&y))
                    {
                        sum = sum.select_assign(0, index.clone(), delta, IndexingUpdateOp::Add);
                    }
                }
            }
        }
        sum
    }
}

fn index(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
    Tensor::from_data(TensorData::new(values, [rows.len()]), device)
}
