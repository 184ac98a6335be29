//! Attention in tiles: scores never leave the cube that makes them, and no tile that the layout forbids is
//! looked at.
//!
//! A cube takes one [`Piece`](crate::plan::Piece) and one key/value head. Its units are `LANES` for each of
//! `tile` rows, a row being one query and one of the heads that share the key/value head; keys come in tiles
//! of as many. Forward and the gradient for queries leave a partial result in the piece's slot, which a
//! second kernel joins; so a long cartridge is worked on by many cubes even for one row.

mod backward;
mod forward;

use std::sync::{Arc, OnceLock};

use burn::backend::ops::IntTensorOps;
use burn::tensor::TensorData;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{MAX_CUBES, common, dims};
use crate::layout::AttentionLayout;
use crate::plan::{FIELDS, Forward, by_keys};

pub use backward::attention_grad;
pub use forward::attention_forward;

/// Stands for the log of a sum over nothing.
const NOTHING: f32 = -1e30;

/// Units that share a row.
const LANES: usize = 16;

/// From so many query rows on, on devices with matrix units, dense products of which half is masked are
/// expected to be faster than these kernels, which have none. Not measured yet.
const MATRIX_UNIT_ROWS: usize = 64;

/// What is fixed when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// Numbers of a head.
    width: usize,
    /// Query heads of one key/value head.
    group: usize,
    /// Key/value heads.
    kv: usize,
    /// Rows, and keys, of a tile.
    tile: usize,
    /// Columns of a unit.
    columns: usize,
}

impl Shape {
    fn new(q: &CubeTensor, k: &CubeTensor) -> Option<Self> {
        let [_, heads, width] = dims(q);
        let [_, kv, _] = dims(k);
        let group = heads / kv;
        let memory = q.client.properties().hardware.max_shared_memory_size;
        // The gradient for keys needs most: four tiles of rows and two of scores.
        let bytes = |tile: usize| 4 * (4 * tile * (width + 1) + 2 * tile * (tile + 1));
        let tile = [16, 8, 4].into_iter().find(|tile| bytes(*tile) <= memory)?;
        (group <= tile).then_some(Self {
            width,
            group,
            kv,
            tile,
            columns: width.div_ceil(LANES),
        })
    }

    /// Queries of a tile.
    fn queries(self) -> usize {
        self.tile / self.group
    }

    fn cube(self) -> CubeDim {
        CubeDim::new_2d(LANES as u32, self.tile as u32)
    }
}

/// The pieces of a layout on a device.
#[derive(Clone)]
struct Plan {
    shape: Shape,
    device: CubeDevice,
    pieces: CubeTensor,
    count: usize,
    slots: usize,
    by_keys: Arc<OnceLock<CubeTensor>>,
}

impl Plan {
    fn new(layout: &AttentionLayout, shape: Shape, device: &CubeDevice) -> Self {
        let fits = |plan: &Self| plan.shape == shape && plan.device == *device;
        layout.cached(fits, || {
            let forward = Forward::new(layout, shape.queries(), shape.kv);
            Self {
                shape,
                device: device.clone(),
                count: forward.pieces.len(),
                slots: forward.slots,
                pieces: upload(forward.data(), device),
                by_keys: Arc::default(),
            }
        })
    }

    fn by_keys(&self, layout: &AttentionLayout) -> CubeTensor {
        let make = || upload(by_keys(layout, self.shape.tile), &self.device);
        self.by_keys.get_or_init(make).clone()
    }
}

fn upload(numbers: Vec<i32>, device: &CubeDevice) -> CubeTensor {
    let length = numbers.len();
    CubeBackend::int_from_data(TensorData::new(numbers, [length]), device)
}

/// What the kernels need, if this attention is one for them.
fn plan(tensors: [&CubeTensor; 3], layout: &AttentionLayout) -> Option<(Plan, ElemType)> {
    let [q, k, v] = tensors;
    let element = common(&[q, k, v])?;
    let matrix_units = q.client.properties().hardware.num_tensor_cores.unwrap_or(0) > 0;
    if matrix_units && layout.num_queries() >= MATRIX_UNIT_ROWS {
        return None;
    }
    let plan = Plan::new(layout, Shape::new(q, k)?, &q.device);
    let blocks = layout.num_keys().div_ceil(plan.shape.tile);
    (plan.count > 0 && plan.count.max(blocks) <= MAX_CUBES).then_some((plan, element))
}

/// `1 / √d`.
fn scale(shape: Shape) -> f32 {
    1.0 / (shape.width as f32).sqrt()
}

/// Keys of a piece that a row sees, given the piece's first field.
#[cube]
fn visible(pieces: &[i32], at: usize, row: usize) -> i32 {
    (pieces[at + 4] + pieces[at + 5] * row as i32).clamp(0, pieces[at + 3])
}

/// What the units of a row work on: the query and head that the row stands for, and the keys of its piece.
#[derive(CubeType)]
struct Row {
    /// Whether the piece has so many rows.
    live: bool,
    /// Number of the head among the heads of all queries.
    head: usize,
    first_key: usize,
    keys: usize,
    /// How many of the keys the row sees.
    seen: i32,
    /// Number of the head in the piece's slot of partial results.
    place: usize,
}

/// The row of a unit, in the cube's piece.
#[cube]
fn own_row(pieces: &[i32], queries: usize, #[comptime] shape: Shape) -> Row {
    let at = CUBE_POS_X as usize * FIELDS;
    let heads = comptime!(shape.kv * shape.group);
    let row = UNIT_POS_Y as usize / comptime!(shape.group);
    let of_group = UNIT_POS_Y as usize % comptime!(shape.group);
    let query = pieces[at] as usize + row;
    let head = query * heads + CUBE_POS_Y as usize * comptime!(shape.group) + of_group;
    let live = (row as i32) < pieces[at + 1];
    let mut seen = 0i32;
    if live {
        seen = visible(pieces, at, row);
    }
    Row {
        live,
        head,
        first_key: pieces[at + 2] as usize,
        keys: pieces[at + 3] as usize,
        seen,
        place: pieces[at + 6] as usize * queries * heads + head,
    }
}

/// Copies one row of numbers to row `to` of a tile, each lane its columns; zeros if it is not `live`.
#[cube]
fn load<T: Float>(
    tile: &mut Shared<[f32]>,
    to: usize,
    from: &[T],
    start: usize,
    live: bool,
    factor: f32,
    #[comptime] shape: Shape,
) {
    let lane = UNIT_POS_X as usize;
    #[unroll]
    for c in 0..comptime!(shape.columns) {
        let column = c * LANES + lane;
        if column < comptime!(shape.width) {
            let mut value = 0f32;
            if live {
                value = f32::cast_from(from[start + column]) * factor;
            }
            tile[to * comptime!(shape.width + 1) + column] = value;
        }
    }
}

/// The product of a row of one tile with a row of another.
#[cube]
fn dot(
    a: &Shared<[f32]>,
    row_a: usize,
    b: &Shared<[f32]>,
    row_b: usize,
    #[comptime] shape: Shape,
) -> f32 {
    let a_start = row_a * comptime!(shape.width + 1);
    let b_start = row_b * comptime!(shape.width + 1);
    let mut sum = 0f32;
    for i in 0..comptime!(shape.width) {
        sum += a[a_start + i] * b[b_start + i];
    }
    sum
}

/// Adds `factor` times the lane's columns of a row of a tile.
#[cube]
fn accumulate(
    sums: &mut Array<f32>,
    factor: f32,
    tile: &Shared<[f32]>,
    row: usize,
    #[comptime] shape: Shape,
) {
    let start = row * comptime!(shape.width + 1) + UNIT_POS_X as usize;
    #[unroll]
    for c in 0..comptime!(shape.columns) {
        if c * LANES + (UNIT_POS_X as usize) < comptime!(shape.width) {
            sums[c] += factor * tile[start + c * LANES];
        }
    }
}
