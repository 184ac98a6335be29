//! The output of attention and the log of each softmax sum.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::{buffer, dims, elementwise, empty, zeros};
use super::{LANES, NOTHING, Shape, accumulate, dot, load, own_row, plan, scale};
use crate::layout::AttentionLayout;
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
    let (width, kv, tile) = comptime!((shape.width, shape.kv, shape.tile));
    let lane = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let kv_head = CUBE_POS_Y as usize;
    let own = own_row(pieces, queries, shape);

    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut scores = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));
    load::<T>(
        &mut q_tile,
        row,
        q,
        own.head * width,
        own.live,
        scale,
        shape,
    );

    let mut sums = zeros(comptime!(shape.columns));
    let mut greatest = f32::new(NOTHING);
    let mut total = 0f32;
    let row_scores = row * comptime!(tile + 1);
    let mut from = 0usize;
    while from < own.keys {
        sync_cube();
        let start = ((own.first_key + from + row) * kv + kv_head) * width;
        let inside = from + row < own.keys;
        load::<T>(&mut k_tile, row, k, start, inside, 1f32, shape);
        load::<T>(&mut v_tile, row, v, start, inside, 1f32, shape);
        sync_cube();
        let mut key = lane;
        while key < tile {
            let mut score = f32::new(NOTHING);
            if ((from + key) as i32) < own.seen {
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
            if ((from + key) as i32) < own.seen {
                let weight = (scores[row_scores + key] - new).exp();
                total += weight;
                accumulate(&mut sums, weight, &v_tile, key, shape);
            }
        }
        from += tile;
    }

    if own.live && total > 0f32 {
        if lane == 0 {
            log_sums[own.place] = greatest + total.ln();
        }
        #[unroll]
        for c in 0..comptime!(shape.columns) {
            if c * LANES + lane < width {
                out[own.place * width + c * LANES + lane] = sums[c] / total;
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
    let [n, heads, width] = dims(&q);
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
