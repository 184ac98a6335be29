//! Products of a few rows with a matrix, plain or packed, and the unpacking of packed rows.
//!
//! A product of few rows is as fast as the matrix is read, so every number of it is read once, by
//! neighbouring units, and unpacked in registers. More rows go to the device's matrix products.

use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{MAX_CUBES, add_up, buffer, common, cubes, dims, element, elementwise, empty, zeros};
use crate::packed::{self, BLOCK, PackedLayout, Packing};
use crate::portable;

/// More rows than this are multiplied by the device's matrix product.
const FEW_ROWS: usize = 16;

/// Units that share an output.
const LANES: usize = 32;

/// Outputs of a cube.
const OUTPUTS: usize = 8;

/// From one row to the next, where a row has no gaps.
fn pitch(tensor: &CubeTensor) -> Option<usize> {
    let strides = tensor.meta.strides();
    (strides[1] == 1 && !tensor.meta.is_tiled()).then_some(strides[0])
}

/// The rows that a kernel is compiled for.
fn compiled_rows(rows: usize) -> Option<usize> {
    (rows <= FEW_ROWS).then(|| rows.next_power_of_two())
}

/// Cubes for so many outputs.
fn outputs_grid(outputs: usize) -> Option<(CubeCount, CubeDim)> {
    let count = outputs.div_ceil(OUTPUTS);
    let dim = CubeDim::new_2d(LANES as u32, OUTPUTS as u32);
    (count <= MAX_CUBES).then(|| (cubes(count), dim))
}

/// Writes the sums over the lanes of each row.
#[cube]
fn finish<T: Float>(
    sums: &Array<f32>,
    out: &mut [T],
    output: usize,
    outputs: usize,
    rows: usize,
    #[comptime] most: usize,
) {
    let mut parts = Shared::<[f32]>::new_slice(comptime!(LANES * OUTPUTS));
    let lane = UNIT_POS_X as usize;
    let first = UNIT_POS_Y as usize * LANES;
    #[unroll]
    for row in 0..most {
        sync_cube();
        parts[first + lane] = sums[row];
        sync_cube();
        add_up(&mut parts, first, lane, LANES);
        if lane == 0 && output < outputs && row < rows {
            out[row * outputs + output] = T::cast_from(parts[first]);
        }
    }
}

#[cube(launch)]
fn project_kernel<T: Float, W: Float, N: Size>(
    x: &[Vector<T, N>],
    weight: &[Vector<W, N>],
    out: &mut [T],
    rows: usize,
    outputs: usize,
    width: usize,
    pitch: usize,
    #[comptime] most: usize,
    #[comptime] vector: usize,
    #[define(T, W)] _elements: [ElemType; 2],
) {
    let output = CUBE_POS as usize * OUTPUTS + UNIT_POS_Y as usize;
    let mut sums = zeros(most);
    if output < outputs {
        let mut i = UNIT_POS_X as usize;
        while i < width {
            let w = Vector::<f32, N>::cast_from(weight[output * pitch + i]);
            #[unroll]
            for row in 0..most {
                if row < rows {
                    let product = w * Vector::<f32, N>::cast_from(x[row * width + i]);
                    #[unroll]
                    for e in 0..vector {
                        sums[row] += product.extract(e);
                    }
                }
            }
            i += LANES;
        }
    }
    finish::<T>(&sums, out, output, outputs, rows, most);
}

/// `x [n, in] · weightᵀ`, giving `[n, out]`.
pub fn project(x: CubeTensor, weight: CubeTensor) -> CubeTensor {
    let few = project_few(&x, &weight);
    few.unwrap_or_else(|| portable::linear_as_weight::<CubeBackend>(x, weight))
}

fn project_few(x: &CubeTensor, weight: &CubeTensor) -> Option<CubeTensor> {
    let elements = [common(&[x])?, common(&[weight])?];
    let ([rows, width], [outputs, _]) = (dims(x), dims(weight));
    let (most, pitch) = (compiled_rows(rows)?, pitch(weight)?);
    let (count, dim) = outputs_grid(outputs)?;
    let vector = if width.is_multiple_of(4) && pitch.is_multiple_of(4) {
        4
    } else {
        1
    };
    let out = empty(x, [rows, outputs], x.dtype);
    project_kernel::launch(
        &out.client,
        count,
        dim,
        vector,
        buffer(x.clone()),
        weight.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        rows,
        outputs,
        width / vector,
        pitch / vector,
        most,
        vector,
        elements,
    );
    Some(out)
}

/// The integer of a block of Q8 in byte `byte` of a word.
#[cube]
fn signed_byte(word: i32, #[comptime] byte: i32) -> f32 {
    let value = (word << comptime!(24 - 8 * byte)) >> 24;
    f32::cast_from(value)
}

/// The integer of a block of Q4 in the nibble that starts at bit `from` of a word.
#[cube]
fn nibble(word: i32, #[comptime] from: i32) -> f32 {
    let value = ((word >> from) & 15) - 8;
    f32::cast_from(value)
}

/// Adds the product of one weight with that column of every row.
#[cube]
fn add_column<T: Float>(
    sums: &mut Array<f32>,
    x: &[T],
    weight: f32,
    column: usize,
    width: usize,
    rows: usize,
    #[comptime] most: usize,
) {
    if column < width {
        #[unroll]
        for row in 0..most {
            if row < rows {
                sums[row] += weight * f32::cast_from(x[row * width + column]);
            }
        }
    }
}

#[cube(launch)]
fn project_packed_kernel<T: Float, S: Float>(
    x: &[T],
    words: &[i32],
    scales: &[S],
    out: &mut [T],
    rows: usize,
    outputs: usize,
    width: usize,
    blocks: usize,
    words_pitch: usize,
    scales_pitch: usize,
    #[comptime] most: usize,
    #[comptime] packing: Packing,
    #[define(T, S)] _elements: [ElemType; 2],
) {
    let count = comptime!(packing.block_words());
    let output = CUBE_POS as usize * OUTPUTS + UNIT_POS_Y as usize;
    let mut sums = zeros(most);
    if output < outputs {
        let mut block = UNIT_POS_X as usize;
        while block < blocks {
            let scale = f32::cast_from(scales[output * scales_pitch + block]);
            let from = output * words_pitch + block * count;
            let column = block * BLOCK;
            #[unroll]
            for w in 0..count {
                let word = words[from + w];
                #[unroll]
                for byte in 0..4usize {
                    let at = column + comptime!(w * 4 + byte);
                    if comptime!(packing == Packing::Q8) {
                        let weight = scale * signed_byte(word, comptime!(byte as i32));
                        add_column::<T>(&mut sums, x, weight, at, width, rows, most);
                    } else {
                        let low = scale * nibble(word, comptime!(8 * byte as i32));
                        let high = scale * nibble(word, comptime!(8 * byte as i32 + 4));
                        add_column::<T>(&mut sums, x, low, at, width, rows, most);
                        add_column::<T>(&mut sums, x, high, at + 16, width, rows, most);
                    }
                }
            }
            block += LANES;
        }
    }
    finish::<T>(&sums, out, output, outputs, rows, most);
}

/// `x [n, width]` times packed rows, giving `[n, rows]`.
pub fn project_packed(
    x: CubeTensor,
    words: CubeTensor,
    scales: CubeTensor,
    layout: PackedLayout,
) -> CubeTensor {
    let few = project_packed_few(&x, &words, &scales, layout);
    few.unwrap_or_else(|| packed::project::<CubeBackend>(x, words, scales, layout))
}

fn project_packed_few(
    x: &CubeTensor,
    words: &CubeTensor,
    scales: &CubeTensor,
    layout: PackedLayout,
) -> Option<CubeTensor> {
    let elements = [common(&[x])?, packed_elements(words, scales)?];
    let ([rows, width], [outputs, blocks]) = (dims(x), dims(scales));
    let most = compiled_rows(rows)?;
    let (words_pitch, scales_pitch) = (pitch(words)?, pitch(scales)?);
    let (count, dim) = outputs_grid(outputs)?;
    let out = empty(x, [rows, outputs], x.dtype);
    project_packed_kernel::launch(
        &out.client,
        count,
        dim,
        buffer(x.clone()),
        words.clone().into_buffer_arg(),
        scales.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        rows,
        outputs,
        width,
        blocks,
        words_pitch,
        scales_pitch,
        most,
        layout.packing,
        elements,
    );
    Some(out)
}

/// The type of the scales, if words and scales are as the kernels read them.
fn packed_elements(words: &CubeTensor, scales: &CubeTensor) -> Option<ElemType> {
    common(&[scales]).filter(|_| words.dtype == DType::I32)
}

/// A unit unpacks one word.
#[cube(launch)]
fn unpack_kernel<S: Float, T: Float>(
    words: &[i32],
    scales: &[S],
    out: &mut [T],
    count: usize,
    row_words: usize,
    width: usize,
    words_pitch: usize,
    scales_pitch: usize,
    #[comptime] packing: Packing,
    #[define(S, T)] _elements: [ElemType; 2],
) {
    let of_block = comptime!(packing.block_words());
    let at = ABSOLUTE_POS as usize;
    if at >= count {
        terminate!();
    }
    let row = at / row_words;
    let in_row = at % row_words;
    let block = in_row / of_block;
    let word = words[row * words_pitch + in_row];
    let scale = f32::cast_from(scales[row * scales_pitch + block]);
    let first = block * BLOCK + in_row % of_block * 4;
    #[unroll]
    for byte in 0..4usize {
        let column = first + byte;
        if comptime!(packing == Packing::Q8) {
            if column < width {
                let value = scale * signed_byte(word, comptime!(byte as i32));
                out[row * width + column] = T::cast_from(value);
            }
        } else {
            if column < width {
                let value = scale * nibble(word, comptime!(8 * byte as i32));
                out[row * width + column] = T::cast_from(value);
            }
            if column + 16 < width {
                let value = scale * nibble(word, comptime!(8 * byte as i32 + 4));
                out[row * width + column + 16] = T::cast_from(value);
            }
        }
    }
}

/// The values `[rows, width]` of packed rows.
pub fn unpack(
    words: CubeTensor,
    scales: CubeTensor,
    layout: PackedLayout,
    dtype: FloatDType,
) -> CubeTensor {
    let values = unpack_words(&words, &scales, layout, dtype);
    values.unwrap_or_else(|| packed::unpack::<CubeBackend>(words, scales, layout, dtype))
}

fn unpack_words(
    words: &CubeTensor,
    scales: &CubeTensor,
    layout: PackedLayout,
    dtype: FloatDType,
) -> Option<CubeTensor> {
    let dtype = DType::from(dtype);
    let elements = [packed_elements(words, scales)?, element(dtype)?];
    let [rows, _] = dims(scales);
    let (words_pitch, scales_pitch) = (pitch(words)?, pitch(scales)?);
    let out = empty(words, [rows, layout.width], dtype);
    let count = rows * layout.row_words();
    let (grid, dim) = elementwise(count);
    unpack_kernel::launch(
        &out.client,
        grid,
        dim,
        words.clone().into_buffer_arg(),
        scales.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        count,
        layout.row_words(),
        layout.width,
        words_pitch,
        scales_pitch,
        layout.packing,
        elements,
    );
    Some(out)
}
