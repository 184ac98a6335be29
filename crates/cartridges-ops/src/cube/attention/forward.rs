//! The output of attention and the log of each softmax sum.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::{buffer, elementwise, empty};
use super::{LANES, NOTHING, Shape, accumulate, dot, load, plan, scale, visible};
use crate::layout::AttentionLayout;
use crate::plan::FIELDS;
use crate::portable;

#[cube(launch)]
fn forward_kernel<T: Float>(
    q: &[T],
    k: &[T],
    v: &[T],
    pieces: &[i32],
    out: &mut [f32],
    log_sums: &mut [f32],
    queries: usize,
    scale: f32,
    #[comptime] shape: Shape,
    #[define(T)] _element: ElemType,
) {
    let width = comptime!(shape.width);
    let (kv, group, tile) = comptime!((shape.kv, shape.group, shape.tile));
    let lane = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let kv_head = CUBE_POS_Y as usize;
    let at = CUBE_POS_X as usize * FIELDS;

    let query = pieces[at] as usize + row / group;
    let live = ((row / group) as i32) < pieces[at + 1];
    let head = query * kv * group + kv_head * group + row % group;
    let first_key = pieces[at + 2] as usize;
    let keys = pieces[at + 3] as usize;
    let mut seen = 0i32;
    if live {
        seen = visible(pieces, at, row / group);
    }

    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut scores = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));
    load::<T>(&mut q_tile, row, q, head * width, live, scale, shape);

    let mut sums = Array::<f32>::new(comptime!(shape.columns));
    #[unroll]
    for c in 0..comptime!(shape.columns) {
        sums[c] = 0f32;
    }
    let mut greatest = f32::new(NOTHING);
    let mut total = 0f32;
    let row_scores = row * comptime!(tile + 1);
    let mut from = 0usize;
    while from < keys {
        sync_cube();
        let start = ((first_key + from + row) * kv + kv_head) * width;
        let inside = from + row < keys;
        load::<T>(&mut k_tile, row, k, start, inside, 1f32, shape);
        load::<T>(&mut v_tile, row, v, start, inside, 1f32, shape);
        sync_cube();
        let mut key = lane;
        while key < tile {
            let mut score = f32::new(NOTHING);
            if ((from + key) as i32) < seen {
                score = dot(&q_tile, row, &k_tile, key, shape);
            }
            scores[row_scores + key] = score;
            key += LANES;
        }
        sync_cube();
        let mut new = greatest;
        for key in 0..tile {
            let score = scores[row_scores + key];
            if score > new {
                new = score;
            }
        }
        let fade = (greatest - new).exp();
        greatest = new;
        total *= fade;
        #[unroll]
        for c in 0..comptime!(shape.columns) {
            sums[c] *= fade;
        }
        for key in 0..tile {
            if ((from + key) as i32) < seen {
                let weight = (scores[row_scores + key] - new).exp();
                total += weight;
                accumulate(&mut sums, weight, &v_tile, key, shape);
            }
        }
        from += tile;
    }

    if live && total > 0f32 {
        let place = pieces[at + 6] as usize * queries * kv * group + head;
        if lane == 0 {
            log_sums[place] = greatest + total.ln();
        }
        #[unroll]
        for c in 0..comptime!(shape.columns) {
            if c * LANES + lane < width {
                out[place * width + c * LANES + lane] = sums[c] / total;
            }
        }
    }
}

/// Joins the partial results of each row and head by their log-sums.
#[cube(launch)]
fn join_kernel<T: Float>(
    parts: &[f32],
    part_log_sums: &[f32],
    out: &mut [T],
    log_sums: &mut [T],
    heads: usize,
    slots: usize,
    #[comptime] width: usize,
    #[define(T)] _element: ElemType,
) {
    let element = ABSOLUTE_POS as usize;
    if element >= heads * width {
        terminate!();
    }
    let head = element / width;
    let mut greatest = f32::new(NOTHING);
    let mut slot = 0usize;
    while slot < slots {
        let log_sum = part_log_sums[slot * heads + head];
        if log_sum > greatest {
            greatest = log_sum;
        }
        slot += 1;
    }
    let mut total = 0f32;
    let mut sum = 0f32;
    let mut slot = 0usize;
    while slot < slots {
        let log_sum = part_log_sums[slot * heads + head];
        if log_sum > f32::new(NOTHING) {
            let weight = (log_sum - greatest).exp();
            total += weight;
            sum += weight * parts[(slot * heads) * width + element];
        }
        slot += 1;
    }
    if total > 0f32 {
        out[element] = T::cast_from(sum / total);
        if element % width == 0 {
            log_sums[head] = T::cast_from(greatest + total.ln());
        }
    } else {
        out[element] = T::cast_from(0f32);
        if element % width == 0 {
            log_sums[head] = T::cast_from(greatest);
        }
    }
}

pub fn attention_forward(
    q: CubeTensor,
    k: CubeTensor,
    v: CubeTensor,
    layout: AttentionLayout,
) -> (CubeTensor, CubeTensor) {
    let Some((plan, element)) = plan([&q, &k, &v], &layout) else {
        return portable::attention_forward::<CubeBackend>(q, k, v, layout);
    };
    let [n, heads, width]: [usize; 3] = q.shape().dims();
    let dtype = q.dtype;
    let f32 = DType::F32;
    let parts = empty(&q, [plan.slots, n, heads, width], f32);
    let nothing = f64::from(NOTHING).into();
    let part_log_sums = CubeBackend::float_full(
        [plan.slots * n * heads].into(),
        nothing,
        &q.device,
        f32.into(),
    );
    let (out, log_sums) = (
        empty(&q, [n, heads, width], dtype),
        empty(&q, [n, heads], dtype),
    );
    forward_kernel::launch(
        &out.client,
        CubeCount::Static(plan.count as u32, plan.shape.kv as u32, 1),
        plan.shape.cube(),
        buffer(q),
        buffer(k),
        buffer(v),
        plan.pieces.into_buffer_arg(),
        parts.clone().into_buffer_arg(),
        part_log_sums.clone().into_buffer_arg(),
        n,
        scale(plan.shape),
        plan.shape,
        element,
    );
    let (count, dim) = elementwise(n * heads * width);
    join_kernel::launch(
        &out.client,
        count,
        dim,
        parts.into_buffer_arg(),
        part_log_sums.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        log_sums.clone().into_buffer_arg(),
        n * heads,
        plan.slots,
        width,
        element,
    );
    (out, log_sums)
}
