//! Blocks against their formula, products against those of the matrix that the blocks stand for.
#![recursion_limit = "256"]

use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use cartridges_ops::{
    Matrix, PackedLayout, PackedMatrix, PackedRows, Packing, TopkTargets, topk_cross_entropy,
};

mod exact;
use exact::device;

const KINDS: [Packing; 2] = [Packing::Q8, Packing::Q4];

fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// Rows of very different sizes, with blocks of zeros and of one sign.
fn weights(rng: &mut ChaCha8Rng, rows: usize, width: usize) -> Vec<f32> {
    let mut values = random(rng, rows * width);
    for (row, values) in values.chunks_mut(width).enumerate() {
        let size = [1.0, 0.02, 300.0][row % 3];
        values.iter_mut().for_each(|x| *x *= size);
        match row % 5 {
            1 => values.iter_mut().take(32).for_each(|x| *x = 0.0),
            2 => values.iter_mut().for_each(|x| *x = x.abs()),
            _ => {}
        }
    }
    values
}

fn download<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let data = tensor.into_data().convert::<f64>();
    data.try_to_vec::<f64>().unwrap()
}

fn close(found: &[f64], wanted: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let off = norm(&mut found.iter().zip(wanted).map(|(a, b)| a - b));
    let size = norm(&mut wanted.iter().copied()).max(1e-30);
    assert!(off / size < tolerance, "{what}: off by {}", off / size);
}

#[test]
fn values_are_off_by_at_most_half_a_scale() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for packing in KINDS {
        let (rows, width) = (30, 101);
        let values = weights(&mut rng, rows, width);
        let packed = PackedRows::quantise(&values, PackedLayout { packing, width });
        assert_eq!(packed.rows(), rows);
        let back = packed.values();
        for (at, (x, y)) in values.iter().zip(&back).enumerate() {
            let start = at / width * width + at % width / 32 * 32;
            let end = (start + 32).min((at / width + 1) * width);
            let greatest = values[start..end]
                .iter()
                .fold(0f32, |max, x| if x.abs() > max.abs() { *x } else { max });
            let (scale, half) = match packing {
                Packing::Q8 => (greatest / 127.0, 0.5),
                // What is opposite to the greatest is cut to 7.
                Packing::Q4 => (greatest / -8.0, if x * greatest < 0.0 { 1.0 } else { 0.5 }),
            };
            let scale = f16::from_f32(scale).to_f32().abs();
            // The scale itself is rounded to 11 bits, which moves what 127 stands for.
            let bound = (half * scale).max(greatest.abs() / 2048.0) * 1.001;
            assert!(
                (x - y).abs() <= bound,
                "{packing:?} {at}: {y} for {x}, scale {scale}"
            );
        }
    }
}

#[test]
fn blocks_are_those_of_ggml() {
    // −32, −30, …, 30: the greatest magnitude is −32, so the scale of Q4 is 4.
    let values: Vec<f32> = (0..32).map(|i| 2.0 * (i - 16) as f32).collect();
    let words = |bytes: &[u8]| -> Vec<i32> {
        let words = bytes.as_chunks::<4>().0.iter();
        words.map(|bytes| i32::from_le_bytes(*bytes)).collect()
    };
    let check = |packing, bytes: &[u8], scale: f32| {
        let layout = PackedLayout { packing, width: 32 };
        let wanted = PackedRows::from_blocks(layout, words(bytes), vec![f16::from_f32(scale)]);
        assert_eq!(PackedRows::quantise(&values, layout), wanted, "{packing:?}");
    };
    // 30 is 7.5 scales and is cut.
    let nibble = |i: usize| ((values[i] / 4.0).round().min(7.0) + 8.0) as u8;
    let q4: Vec<u8> = (0..16).map(|i| nibble(i) | nibble(i + 16) << 4).collect();
    check(Packing::Q4, &q4, 4.0);
    let scale = f16::from_f32(32.0 / 127.0).to_f32();
    let byte = |x: &f32| (x / scale).round().max(-127.0) as i8 as u8;
    let q8: Vec<u8> = values.iter().map(byte).collect();
    check(Packing::Q8, &q8, scale);
}

#[test]
fn unpacked_rows_are_integers_times_scales() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for packing in KINDS {
        for (rows, width) in [(1, 32), (7, 37), (9, 96), (3, 2600), (5, 1)] {
            let values = weights(&mut rng, rows, width);
            let packed = PackedRows::quantise(&values, PackedLayout { packing, width });
            let wanted: Vec<f64> = packed.values().into_iter().map(f64::from).collect();
            let on = |dtype| Matrix::from(PackedMatrix::new(packed.clone(), &device(dtype)));
            let matrix = on(DType::F32);
            assert_eq!(matrix.dims(), [rows, width]);
            let blocks = rows * width.div_ceil(32);
            // Scales are f32 where the device has no f16.
            let wider = if device(DType::F32).supports_dtype(DType::F16) {
                0
            } else {
                2
            };
            assert_eq!(
                matrix.resident_bytes(),
                blocks * (packing.block_bytes() + wider)
            );
            let all: Vec<i32> = (0..rows as i32).rev().collect();
            let at = |dtype| {
                let data = TensorData::new(all.clone(), [rows]);
                Tensor::<1, Int>::from_data(data, &device(dtype))
            };
            let wanted: Vec<f64> = wanted.chunks(width).rev().flatten().copied().collect();
            let fast = download(matrix.rows(at(DType::F32), FloatDType::F32));
            assert_eq!(fast, wanted, "{packing:?} {rows}x{width}");
            // The portable body, in numbers that hold every product exactly.
            let exact = download(on(DType::F64).rows(at(DType::F64), FloatDType::F64));
            close(&exact, &wanted, 1e-7, "portable");
        }
    }
}

#[test]
fn products_and_gradients_are_those_of_the_unpacked_matrix() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let shapes = [
        (1, 32, 8),
        (3, 70, 13),
        (5, 33, 2),
        (66, 96, 130),
        (130, 2600, 70),
        (97, 64, 2700),
        (2, 1100, 5),
    ];
    for packing in KINDS {
        for (n, width, out) in shapes {
            let layout = PackedLayout { packing, width };
            let packed = PackedRows::quantise(&weights(&mut rng, out, width), layout);
            let unpacked = packed.values();
            let (x, g) = (random(&mut rng, n * width), random(&mut rng, n * out));
            let run = |matrix: &Matrix, dtype: DType| {
                let upload = |values: &[f32], columns: usize| {
                    let data = TensorData::new(values.to_vec(), [n, columns]).convert_dtype(dtype);
                    Tensor::<2>::from_data(data, (&device(dtype), dtype))
                };
                let x = upload(&x, width).autodiff().require_grad();
                let y = matrix.project(x.clone());
                let mut gradients = (y.clone() * upload(&g, out).autodiff()).sum().backward();
                let dx = x.grad_remove(&mut gradients).unwrap();
                (download(y.inner()), download(dx))
            };
            let data = TensorData::new(unpacked, [out, width]).convert_dtype(DType::F64);
            let dense = Tensor::<2>::from_data(data, (&device(DType::F64), DType::F64)).into();
            let (wanted, wanted_dx) = run(&dense, DType::F64);
            for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-7)] {
                let matrix = PackedMatrix::new(packed.clone(), &device(dtype)).into();
                let (y, dx) = run(&matrix, dtype);
                let what = format!("{packing:?} {n}x{width}x{out} in {dtype:?}");
                close(&y, &wanted, tolerance, &what);
                close(&dx, &wanted_dx, tolerance, &format!("gradient, {what}"));
            }
        }
    }
}

#[test]
fn cross_entropy_with_a_packed_head_is_that_of_the_unpacked_one() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (rows, h, vocab) = (150, 40, 211);
    let hidden = TensorData::new(random(&mut rng, rows * h), [rows, h]);
    let entries = (0..rows as u32)
        .flat_map(|row| (0..row % 4).map(move |j| (row, (row * 7 + j * 31) % 211, 0.3)))
        .collect();
    let targets = TopkTargets::new(entries, rows, vocab).unwrap();
    let targets = targets.with_rest(vec![0.1; rows]).unwrap();
    for packing in KINDS {
        let layout = PackedLayout { packing, width: h };
        let packed = PackedRows::quantise(&random(&mut rng, vocab * h), layout);
        let dense = TensorData::new(packed.values(), [vocab, h]);
        let dense: Matrix = Tensor::<2>::from_data(dense, &device(DType::F32)).into();
        let run = |head: &Matrix| {
            let hidden = Tensor::<2>::from_data(hidden.clone(), &device(DType::F32));
            let (sum, grad) = topk_cross_entropy(hidden, head, &targets);
            (sum, download(grad))
        };
        let (wanted, wanted_grad) = run(&dense);
        let (sum, grad) = run(&PackedMatrix::new(packed, &device(DType::F32)).into());
        assert!((sum - wanted).abs() / wanted < 1e-6, "{sum} for {wanted}");
        close(&grad, &wanted_grad, 1e-5, "gradient");
    }
}
