//! Products of f32 rows with bf16 weights on processors that multiply bf16 pairs (AVX512-BF16).
//!
//! The rows are rounded to bf16 as well; products are exact and summed in f32. Such a processor does
//! twice as many of these per cycle as f32 multiply-adds, and the weights are half as many bytes.

use half::bf16;
use rayon::prelude::*;

use super::tiles::{Rows, column_tasks, rows_per_task};

/// Proof that this processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub struct Bf16(());

/// Values of the contraction that one pass covers: what a task touches stays in the second cache.
const DEPTH: usize = 2560;
/// Most weight rows of a task that goes over them more than once.
const TASK_ROWS: usize = 64;
/// Input rows that share one pass over a task's weights.
const PANEL_ROWS: usize = 64;

impl Bf16 {
    /// The instructions, if they are there.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512bf16")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512f")
        {
            return Some(Self(()));
        }
        None
    }

    /// `x [n, width] · weightᵀ [width, out]` into `[n, out]`.
    pub fn linear(self, x: &[f32], weight: &[bf16], width: usize) -> Vec<f32> {
        let (n, out_rows) = (x.len() / width, weight.len() / width);
        let x = self.rounded(x);
        let x = Rows::packed(&x, width);
        let mut out = vec![0f32; n * out_rows];
        let rows = match rows_per_task(out_rows, width * n) {
            rows if n > PANEL_ROWS => rows.min(TASK_ROWS),
            rows => rows,
        };
        let tasks = column_tasks(&mut out, out_rows, rows);
        tasks
            .into_par_iter()
            .zip(weight.par_chunks(rows * width))
            .for_each(|(mut out, weight)| {
                let weight = Rows::packed(weight, width);
                for from in (0..width).step_by(DEPTH) {
                    let to = (from + DEPTH).min(width);
                    self.add_products(x.columns(from, to), weight.columns(from, to), &mut out);
                }
            });
        out
    }

    /// `grad [n, out] · weight [out, width]` into `[n, width]`.
    pub fn linear_grad(self, grad: &[f32], weight: &[bf16], width: usize) -> Vec<f32> {
        let out_rows = weight.len() / width;
        let n = grad.len() / out_rows;
        let grad = self.rounded(grad);
        let grad = Rows::packed(&grad, out_rows);
        let mut out = vec![0f32; n * width];
        let tasks = column_tasks(&mut out, width, TASK_ROWS);
        tasks.into_par_iter().enumerate().for_each_init(
            || vec![bf16::ZERO; TASK_ROWS * DEPTH],
            |turned, (task, mut out)| {
                let first = task * TASK_ROWS;
                let count = TASK_ROWS.min(width - first);
                for from in (0..out_rows).step_by(DEPTH) {
                    let to = (from + DEPTH).min(out_rows);
                    let turned = &mut turned[..count * (to - from)];
                    turn(&weight[from * width..to * width], width, first, turned);
                    let turned = Rows::packed(turned, to - from);
                    self.add_products(grad.columns(from, to), turned, &mut out);
                }
            },
        );
        out
    }

    fn rounded(self, values: &[f32]) -> Vec<bf16> {
        const TASK: usize = 32 * 1024;
        let mut out = vec![bf16::ZERO; values.len()];
        out.par_chunks_mut(TASK)
            .zip(values.par_chunks(TASK))
            .for_each(|(out, values)| self.round(values, out));
        out
    }

    fn round(self, values: &[f32], out: &mut [bf16]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` exists only where the processor has the instructions.
        #[allow(unsafe_code)]
        unsafe {
            x86::round(values, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{:?}", (values, out))
    }

    /// `out[r][o] += x_r · weight_o`.
    fn add_products(self, x: Rows<'_, bf16>, weight: Rows<'_, bf16>, out: &mut [&mut [f32]]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `self` exists only where the processor has the instructions.
        #[allow(unsafe_code)]
        unsafe {
            x86::add_products(x, weight, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{:?}", (x, weight, out))
    }
}

/// The columns from `first` on of `weight [rows, width]` as rows of `turned [columns, rows]`.
fn turn(weight: &[bf16], width: usize, first: usize, turned: &mut [bf16]) {
    /// Rows that are turned together: a cache line of the result.
    const STRIP: usize = 32;
    let rows = weight.len() / width;
    for from in (0..rows).step_by(STRIP) {
        let to = (from + STRIP).min(rows);
        for (column, out) in turned.chunks_exact_mut(rows).enumerate() {
            let source = weight[from * width + first + column..]
                .iter()
                .step_by(width);
            for (out, value) in out[from..to].iter_mut().zip(source) {
                *out = *value;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::super::simd::prefetch;
    use super::super::tiles::Rows;
    use super::PANEL_ROWS;

    /// bf16 values of a vector.
    const LANES: usize = 32;

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    pub fn round(values: &[f32], out: &mut [bf16]) {
        let (blocks, tail) = values.as_chunks::<16>();
        let (out_blocks, out_tail) = out.as_chunks_mut::<16>();
        for (values, out) in blocks.iter().zip(out_blocks) {
            // SAFETY: both are 16 values long; bf16 is two plain bytes.
            unsafe {
                let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(values.as_ptr()));
                out.as_mut_ptr().cast::<__m256bh>().write_unaligned(rounded);
            }
        }
        for (value, out) in tail.iter().zip(out_tail) {
            *out = bf16::from_f32(*value);
        }
    }

    /// `out[r][o] += x_r · weight_o`.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn add_products(x: Rows<'_, bf16>, weight: Rows<'_, bf16>, out: &mut [&mut [f32]]) {
        for (panel, x) in x.parts(PANEL_ROWS) {
            let out = &mut out[panel..panel + x.len];
            let tiles = x.len.div_ceil(4);
            for (o, here) in weight.parts(4) {
                // The next weight rows come from memory while these are multiplied.
                let mut ahead = weight.pieces(o + 4, 4, tiles);
                for (r, x) in x.parts(4) {
                    let ahead = ahead.next().unwrap_or_default();
                    let out = &mut out[r..];
                    match (here.len, x.len) {
                        (4, 4) => tile::<4, 4>(here, x, ahead, o, out),
                        (4, 3) => tile::<4, 3>(here, x, ahead, o, out),
                        (4, 2) => tile::<4, 2>(here, x, ahead, o, out),
                        (4, 1) => tile::<4, 1>(here, x, ahead, o, out),
                        _ => {
                            for (i, here) in here.parts(1) {
                                for (j, x) in x.parts(1) {
                                    tile::<1, 1>(here, x, &[], o + i, &mut out[j..]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(clippy::needless_range_loop)] // fixed arrays that are to stay in registers
    fn tile<const O: usize, const R: usize>(
        weight: Rows<'_, bf16>,
        x: Rows<'_, bf16>,
        ahead: &[bf16],
        first: usize,
        out: &mut [&mut [f32]],
    ) {
        let width = weight.width;
        let mut weights = [weight.row(0); O];
        for o in 1..O {
            weights[o] = weight.row(o);
        }
        let mut rows = [x.row(0); R];
        for r in 1..R {
            rows[r] = x.row(r);
        }
        let mut sums = [[_mm512_setzero_ps(); R]; O];
        let full = width / LANES;
        for step in 0..full {
            prefetch(ahead, step, full);
            let at = step * LANES;
            let mut vectors = [load(rows[0], at); R];
            for r in 1..R {
                vectors[r] = load(rows[r], at);
            }
            for o in 0..O {
                let weight = load(weights[o], at);
                for r in 0..R {
                    sums[o][r] = _mm512_dpbf16_ps(sums[o][r], weight, vectors[r]);
                }
            }
        }
        if full * LANES < width {
            let mut vectors = [load_tail(&rows[0][full * LANES..]); R];
            for r in 1..R {
                vectors[r] = load_tail(&rows[r][full * LANES..]);
            }
            for o in 0..O {
                let weight = load_tail(&weights[o][full * LANES..]);
                for r in 0..R {
                    sums[o][r] = _mm512_dpbf16_ps(sums[o][r], weight, vectors[r]);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(totals(&sums)) {
            for (out, sum) in out[first..first + O].iter_mut().zip(sums) {
                *out += sum;
            }
        }
    }

    /// The sum of every vector, `[r][o]` from `[o][r]`; what is not there is zero.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    fn totals<const O: usize, const R: usize>(sums: &[[__m512; R]; O]) -> [[f32; 4]; R] {
        let mut rows = [_mm512_setzero_ps(); 4];
        for (r, row) in rows[..R].iter_mut().enumerate() {
            let mut four = [_mm512_setzero_ps(); 4];
            for (o, sums) in sums.iter().enumerate() {
                four[o] = sums[r];
            }
            let [a, b, c, d] = four;
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
            let high = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
            // Four quarters, each with a part of the sums of a, b, c and d.
            *row = _mm512_add_ps(low, high);
        }
        let [a, b, c, d] = rows;
        let x = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
        let x = _mm512_add_ps(x, _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b));
        let y = _mm512_shuffle_f32x4::<0b01_00_01_00>(c, d);
        let y = _mm512_add_ps(y, _mm512_shuffle_f32x4::<0b11_10_11_10>(c, d));
        let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(x, y);
        let all = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(x, y));
        let mut totals = [[0f32; 4]; 4];
        // SAFETY: the array is one vector long.
        unsafe { _mm512_storeu_ps(totals.as_mut_ptr().cast(), all) };
        let mut first = [[0f32; 4]; R];
        first.copy_from_slice(&totals[..R]);
        first
    }

    /// The [`LANES`] values from `at` on.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    fn load(row: &[bf16], at: usize) -> __m512bh {
        let values = &row[at..at + LANES];
        // SAFETY: the slice is one vector long; bf16 is two plain bytes.
        unsafe { values.as_ptr().cast::<__m512bh>().read_unaligned() }
    }

    /// Fewer than [`LANES`] values and zeros behind them.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    fn load_tail(values: &[bf16]) -> __m512bh {
        let mut padded = [bf16::ZERO; LANES];
        padded[..values.len()].copy_from_slice(values);
        // SAFETY: the array is one vector long; bf16 is two plain bytes.
        unsafe { padded.as_ptr().cast::<__m512bh>().read_unaligned() }
    }
}
