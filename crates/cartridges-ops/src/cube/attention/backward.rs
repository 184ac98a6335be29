//! The gradients of attention. Probabilities are computed again from the log-sums.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::{buffer, dims, elementwise, empty, zeros};
use super::{LANES, Plan, Shape, accumulate, dot, load, own_row, plan, scale, visible};
use crate::layout::AttentionLayout;
use crate::plan::FIELDS;
use crate::portable;

/// For each row and head its log-sum and `Σ out · grad`.
#[cube(launch)]
fn rows_kernel<T: Float>(
    out: &[T],
    grad: &[T],
    log_sums: &[T],
    rows: &mut [f32],
    heads: usize,
    #[comptime] width: usize,
    #[define(T)] _element: ElemType,
) {
    let head = ABSOLUTE_POS as usize;
    if head >= heads {
        terminate!();
    }
    let mut sum = 0f32;
    for i in 0..width {
        sum += f32::cast_from(out[head * width + i]) * f32::cast_from(grad[head * width + i]);
    }
    rows[2 * head] = f32::cast_from(log_sums[head]);
    rows[2 * head + 1] = sum;
}

#[cube(launch)]
fn query_grad_kernel<T: Float>(
    q: &[T],
    k: &[T],
    v: &[T],
    grad: &[T],
    rows: &[f32],
    pieces: &[i32],
    d_q: &mut [f32],
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
    let mut log_sum = 0f32;
    let mut along = 0f32;
    if own.live {
        log_sum = rows[2 * own.head];
        along = rows[2 * own.head + 1];
    }

    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut g_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut slopes = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));
    load::<T>(
        &mut q_tile,
        row,
        q,
        own.head * width,
        own.live,
        scale,
        shape,
    );
    load::<T>(
        &mut g_tile,
        row,
        grad,
        own.head * width,
        own.live,
        1f32,
        shape,
    );

    let mut sums = zeros(comptime!(shape.columns));
    let row_slopes = row * comptime!(tile + 1);
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
            let mut slope = 0f32;
            if ((from + key) as i32) < own.seen {
                let p = (dot(&q_tile, row, &k_tile, key, shape) - log_sum).exp();
                slope = p * (dot(&g_tile, row, &v_tile, key, shape) - along) * scale;
            }
            slopes[row_slopes + key] = slope;
            key += LANES;
        }
        sync_cube();
        for key in 0..tile {
            if ((from + key) as i32) < own.seen {
                let slope = slopes[row_slopes + key];
                accumulate(&mut sums, slope, &k_tile, key, shape);
            }
        }
        from += tile;
    }

    if own.live {
        #[unroll]
        for c in 0..comptime!(shape.columns) {
            if c * LANES + lane < width {
                d_q[own.place * width + c * LANES + lane] = sums[c];
            }
        }
    }
}

/// Adds the partial results of each row and head.
#[cube(launch)]
fn add_kernel<T: Float>(
    parts: &[f32],
    out: &mut [T],
    elements: usize,
    slots: usize,
    #[define(T)] _element: ElemType,
) {
    let element = ABSOLUTE_POS as usize;
    if element >= elements {
        terminate!();
    }
    let mut sum = 0f32;
    let mut slot = 0usize;
    while slot < slots {
        sum += parts[slot * elements + element];
        slot += 1;
    }
    out[element] = T::cast_from(sum);
}

/// A cube for each block of keys and key/value head goes over all rows that see the block.
#[cube(launch)]
fn key_grad_kernel<T: Float>(
    q: &[T],
    k: &[T],
    v: &[T],
    grad: &[T],
    rows: &[f32],
    plan: &[i32],
    d_kv: &mut [T],
    keys: usize,
    scale: f32,
    #[comptime] shape: Shape,
    #[define(T)] _element: ElemType,
) {
    let width = comptime!(shape.width);
    let (kv, group, tile) = comptime!((shape.kv, shape.group, shape.tile));
    let per_tile = comptime!(shape.queries());
    let lane = UNIT_POS_X as usize;
    let unit_row = UNIT_POS_Y as usize;
    let kv_head = CUBE_POS_Y as usize;
    let block = CUBE_POS_X as usize;
    let blocks = keys.div_ceil(tile);

    let key = block * tile + unit_row;
    let start = (key * kv + kv_head) * width;
    let mut q_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut g_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut k_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut v_tile = Shared::<[f32]>::new_slice(comptime!(tile * (width + 1)));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));
    let mut slopes = Shared::<[f32]>::new_slice(comptime!(tile * (tile + 1)));
    load::<T>(&mut k_tile, unit_row, k, start, key < keys, 1f32, shape);
    load::<T>(&mut v_tile, unit_row, v, start, key < keys, 1f32, shape);

    let mut d_k = zeros(comptime!(shape.columns));
    let mut d_v = zeros(comptime!(shape.columns));
    let key_scores = unit_row * comptime!(tile + 1);
    let mut piece = plan[block] as usize;
    let last = plan[block + 1] as usize;
    while piece < last {
        let at = blocks + 1 + piece * FIELDS;
        let first_query = plan[at] as usize;
        let queries = plan[at + 1] as usize;
        // Before the piece's first key this is negative, and no row sees it.
        let offset = key as i32 - plan[at + 2];
        let mut from = 0usize;
        while from < queries {
            sync_cube();
            let query = first_query + from + unit_row / group;
            let live = unit_row < per_tile * group && from + unit_row / group < queries;
            let head = query * kv * group + kv_head * group + unit_row % group;
            load::<T>(&mut q_tile, unit_row, q, head * width, live, scale, shape);
            load::<T>(&mut g_tile, unit_row, grad, head * width, live, 1f32, shape);
            sync_cube();
            let mut row = lane;
            while row < tile {
                let mut p = 0f32;
                let mut slope = 0f32;
                let query = from + row / group;
                if row < per_tile * group && query < queries && offset >= 0 {
                    if offset < visible(plan, at, query) {
                        let head =
                            (first_query + query) * kv * group + kv_head * group + row % group;
                        p = (dot(&q_tile, row, &k_tile, unit_row, shape) - rows[2 * head]).exp();
                        let gain = dot(&g_tile, row, &v_tile, unit_row, shape);
                        // The scale is in the rows of `q_tile`.
                        slope = p * (gain - rows[2 * head + 1]);
                    }
                }
                weights[key_scores + row] = p;
                slopes[key_scores + row] = slope;
                row += LANES;
            }
            sync_cube();
            for row in 0..comptime!(per_tile * group) {
                accumulate(&mut d_k, slopes[key_scores + row], &q_tile, row, shape);
                accumulate(&mut d_v, weights[key_scores + row], &g_tile, row, shape);
            }
            from += per_tile;
        }
        piece += 1;
    }

    if key < keys {
        let values = keys * kv * width;
        #[unroll]
        for c in 0..comptime!(shape.columns) {
            let column = c * LANES + lane;
            if column < width {
                d_kv[start + column] = T::cast_from(d_k[c]);
                d_kv[values + start + column] = T::cast_from(d_v[c]);
            }
        }
    }
}

pub fn attention_grad(
    q: CubeTensor,
    k: CubeTensor,
    v: CubeTensor,
    out: CubeTensor,
    log_sum: CubeTensor,
    grad: CubeTensor,
    layout: AttentionLayout,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let Some((plan, element)) = plan([&q, &k, &v], &layout) else {
        return portable::attention_grad::<CubeBackend>(q, k, v, out, log_sum, grad, layout);
    };
    let [n, heads, width] = dims(&q);
    let [m, kv, _] = dims(&k);
    let (q, k, v) = (into_contiguous(q), into_contiguous(k), into_contiguous(v));
    let grad = into_contiguous(grad);
    let (dtype, f32) = (q.dtype, DType::F32);
    let client = q.client.clone();
    let Plan { shape, .. } = plan;

    let rows = empty(&q, [n, heads, 2], f32);
    let (count, dim) = elementwise(n * heads);
    rows_kernel::launch(
        &client,
        count,
        dim,
        buffer(out),
        grad.clone().into_buffer_arg(),
        buffer(log_sum),
        rows.clone().into_buffer_arg(),
        n * heads,
        width,
        element,
    );

    let elements = n * heads * width;
    let parts = CubeBackend::float_zeros([plan.slots * elements].into(), &q.device, f32.into());
    query_grad_kernel::launch(
        &client,
        CubeCount::Static(plan.count as u32, kv as u32, 1),
        shape.cube(),
        q.clone().into_buffer_arg(),
        k.clone().into_buffer_arg(),
        v.clone().into_buffer_arg(),
        grad.clone().into_buffer_arg(),
        rows.clone().into_buffer_arg(),
        plan.pieces.clone().into_buffer_arg(),
        parts.clone().into_buffer_arg(),
        n,
        scale(shape),
        shape,
        element,
    );
    let d_q = empty(&q, [n, heads, width], dtype);
    let (count, dim) = elementwise(elements);
    add_kernel::launch(
        &client,
        count,
        dim,
        parts.into_buffer_arg(),
        d_q.clone().into_buffer_arg(),
        elements,
        plan.slots,
        element,
    );

    let d_kv = empty(&q, [2, m, kv, width], dtype);
    key_grad_kernel::launch(
        &client,
        CubeCount::Static(m.div_ceil(shape.tile) as u32, kv as u32, 1),
        shape.cube(),
        q.into_buffer_arg(),
        k.into_buffer_arg(),
        v.into_buffer_arg(),
        grad.into_buffer_arg(),
        rows.into_buffer_arg(),
        plan.by_keys(&layout).into_buffer_arg(),
        d_kv.clone().into_buffer_arg(),
        m,
        scale(shape),
        shape,
        element,
    );
    let half = |at: usize| {
        let part = CubeBackend::float_slice(d_kv.clone(), &[Slice::from(at..at + 1)]);
        CubeBackend::float_reshape(part, [m, kv, width].into())
    };
    (d_q, half(0), half(1))
}
