//! What the machine can do at most: products of matrices, and copying.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::tensor::{DType, Device, Tensor, TensorData};
use cartridges_model::decoder::Precision;
use cartridges_ops::{DeviceChoice, Matrix};
use rayon::prelude::*;
use serde::Serialize;

use crate::opening::Runtime;

/// Measured ceilings.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Ceilings {
    /// 10⁹ operations per second of products with plain matrices.
    pub(super) matmul_gflops: f64,
    /// 10⁹ bytes per second copied from one place in memory to another.
    pub(super) copy_gb_per_s: f64,
}

impl Ceilings {
    /// Measures for about a second.
    ///
    /// # Errors
    /// If the device fails at a multiplication.
    pub(super) fn measure(runtime: &Runtime, precision: Precision) -> Result<Self> {
        Ok(Self {
            matmul_gflops: matmul_gflops(&runtime.device, precision)?,
            copy_gb_per_s: match runtime.choice {
                DeviceChoice::Cpu | DeviceChoice::NdArray => host_copy_gb_per_s(),
                _ => device_copy_gb_per_s(&runtime.device)?,
            },
        })
    }
}

/// 512 × 896 times 896 × 4864, the feed-forward multiplication of a small model, through the operation that
/// models use, in 10⁹ operations per second; with a matrix in bf16 if that is the precision, else in f32.
///
/// # Errors
/// If the device fails at it.
pub(crate) fn matmul_gflops(device: &Device, precision: Precision) -> Result<f64> {
    const SHAPE: [usize; 3] = [512, 896, 4864];
    let [n, k, m] = SHAPE;
    let matrix = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns)
            .map(|i| (i % 251) as f32 / 251.0 - 0.5)
            .collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device)
    };
    let (x, weight) = (matrix(n, k), matrix(m, k));
    let weight = match precision {
        Precision::Bf16 => weight.cast(DType::BF16),
        _ => weight,
    };
    let weight = Matrix::from(weight);
    let seconds = seconds_each(device, || drop(black_box(weight.project(x.clone()))))?;
    Ok(2.0 * (n * k * m) as f64 / seconds / 1e9)
}

/// Values of the buffers that are copied: 128 MiB.
const FLOATS: usize = 32 << 20;

/// 10⁹ bytes per second that the device writes while it reads as many.
fn device_copy_gb_per_s(device: &Device) -> Result<f64> {
    let source = Tensor::<1>::ones([FLOATS], device);
    let seconds = seconds_each(device, || drop(black_box(source.clone() + 1.0)))?;
    Ok((FLOATS * 4) as f64 / seconds / 1e9)
}

/// The same in the host's memory, with all threads; the best of a few.
pub(crate) fn host_copy_gb_per_s() -> f64 {
    const PIECE: usize = 1 << 18;
    let source = vec![1.0f32; FLOATS];
    let mut target = vec![0.0f32; FLOATS];
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let begin = Instant::now();
        target
            .par_chunks_mut(PIECE)
            .zip(source.par_chunks(PIECE))
            .for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&target);
        best = best.min(begin.elapsed().as_secs_f64());
    }
    (FLOATS * 4) as f64 / best / 1e9
}

/// Seconds of one call of `work`, which the device has finished, over many after one.
fn seconds_each(device: &Device, work: impl Fn()) -> Result<f64> {
    const ENOUGH: Duration = Duration::from_millis(600);
    const ROUND: u32 = 4;
    let round = || -> Result<()> {
        (0..ROUND).for_each(|_| work());
        let done = device.sync().ok();
        done.context("the device failed at a multiplication")
    };
    round()?;
    let begin = Instant::now();
    let mut rounds = 0u32;
    while rounds < 1 || begin.elapsed() < ENOUGH {
        round()?;
        rounds += 1;
    }
    Ok(begin.elapsed().as_secs_f64() / f64::from(ROUND * rounds))
}
