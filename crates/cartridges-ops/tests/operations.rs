//! Fast bodies against portable ones in f64, values and gradients, on random shapes.
#![recursion_limit = "256"]

use burn::Tensor;
use burn::tensor::{DType, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use cartridges_ops::*;

mod exact;
use exact::device;

fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f64> {
    (0..len)
        .map(|_| rng.random_range(-1.0f64..1.0) * 1.7)
        .collect()
}

/// A tensor in f32 (fast bodies) or f64 (portable bodies).
fn upload<const D: usize>(values: &[f64], shape: [usize; D], dtype: DType) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
    Tensor::from_data(data, (&device(dtype), dtype))
}

fn download<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor
        .into_data()
        .convert::<f64>()
        .try_to_vec::<f64>()
        .unwrap()
}

fn close(fast: &[f64], exact: &[f64], tolerance: f64, what: &str) {
    assert_eq!(fast.len(), exact.len(), "{what}");
    // A gradient that is exactly zero still comes out as rounding noise.
    let norm = exact.iter().map(|x| x * x).sum::<f64>().sqrt().max(1.0);
    let off = fast
        .iter()
        .zip(exact)
        .map(|(a, b)| (a - b) * (a - b))
        .sum::<f64>()
        .sqrt();
    assert!(
        off / norm < tolerance,
        "{what}: relative error {}",
        off / norm
    );
}

/// Runs `f` on tracked inputs in both precisions; compares the value and all input gradients.
fn compare<const D: usize>(
    what: &str,
    inputs: &[(Vec<f64>, [usize; D])],
    f: impl Fn(&[Tensor<D>], DType) -> Tensor<D>,
) {
    let run = |dtype: DType| {
        let tracked: Vec<Tensor<D>> = inputs
            .iter()
            .map(|(values, shape)| upload(values, *shape, dtype).autodiff().require_grad())
            .collect();
        let out = f(&tracked, dtype);
        // A fixed weighting so that the gradient of the output is not all ones.
        let weights: Vec<f64> = (0..out.shape().num_elements())
            .map(|i| ((i * 37 % 19) as f64 - 9.0) / 7.0)
            .collect();
        let weights = upload(&weights, out.dims(), dtype);
        let value = download(out.clone().inner());
        let mut grads = (out * weights.autodiff()).sum().backward();
        let grads: Vec<Vec<f64>> = tracked
            .iter()
            .map(|t| download(t.grad_remove(&mut grads).unwrap()))
            .collect();
        (value, grads)
    };
    let (fast, fast_grads) = run(DType::F32);
    let (exact, exact_grads) = run(DType::F64);
    close(&fast, &exact, 2e-6, what);
    for (i, (fast, exact)) in fast_grads.iter().zip(&exact_grads).enumerate() {
        close(fast, exact, 5e-6, &format!("{what}, gradient {i}"));
    }
}

#[test]
fn row_operations_agree_with_the_portable_bodies() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (n, h) in [(1, 8), (3, 37), (70, 64), (5, 896)] {
        let x = (random(&mut rng, n * h), [n, h]);
        let y = (random(&mut rng, n * h), [n, h]);
        let gamma = random(&mut rng, h);
        compare("rms_norm", std::slice::from_ref(&x), |t, dtype| {
            rms_norm(t[0].clone(), &upload(&gamma, [h], dtype), 1e-5)
        });
        compare("swiglu", &[x, y], |t, _| swiglu(t[0].clone(), t[1].clone()));
    }
    for (n, heads, d) in [(1, 1, 2), (9, 3, 24), (40, 14, 64)] {
        let x = (random(&mut rng, n * heads * d), [n, heads, d]);
        let angles = random(&mut rng, n * d / 2);
        let (cos, sin): (Vec<f64>, Vec<f64>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        compare("rotary", &[x], |t, dtype| {
            let half = [n, d / 2];
            rotary(
                t[0].clone(),
                &upload(&cos, half, dtype),
                &upload(&sin, half, dtype),
            )
        });
    }
}

#[test]
fn few_and_many_rows_of_a_product_agree() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for n in [1, 2, 3, 4, 5, 7, 16, 23, 24, 50] {
        for (width, out) in [(16, 4), (37, 13), (896, 130)] {
            let x = (random(&mut rng, n * width), [n, width]);
            let weight = random(&mut rng, out * width);
            compare(&format!("linear {n}x{width}x{out}"), &[x], |t, dtype| {
                linear(t[0].clone(), &upload(&weight, [out, width], dtype))
            });
        }
    }
}

#[test]
fn attention_agrees_on_packed_and_paged_layouts() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let packed = |p: usize, lengths: &[usize]| AttentionLayout::packed(p, lengths);
    let key = |start, len, causal| KeyRange { start, len, causal };
    let paged = AttentionLayout::new(
        vec![
            QueryRun {
                start: 0,
                len: 1,
                keys: vec![key(0, 5, false), key(30, 4, true)],
            },
            QueryRun {
                start: 1,
                len: 1,
                keys: vec![key(0, 5, false), key(10, 9, true)],
            },
            QueryRun {
                start: 2,
                len: 3,
                keys: vec![key(5, 5, false), key(40, 7, true)],
            },
        ],
        5,
        50,
    )
    .unwrap();
    let layouts = [
        packed(0, &[1]),
        packed(3, &[4, 1, 6]),
        packed(300, &[90, 70]),
        packed(17, &[150]),
        paged,
    ];
    for layout in layouts {
        for (heads, kv, d) in [(4, 2, 16), (3, 3, 24), (14, 2, 64)] {
            let (n, m) = (layout.num_queries(), layout.num_keys());
            let q = (random(&mut rng, n * heads * d), [n, heads, d]);
            let k = (random(&mut rng, m * kv * d), [m, kv, d]);
            let v = (random(&mut rng, m * kv * d), [m, kv, d]);
            compare(
                &format!("attention {n}/{m}, {heads}/{kv}"),
                &[q, k, v],
                |t, _| prefix_attention(t[0].clone(), t[1].clone(), t[2].clone(), &layout),
            );
        }
    }
}

#[test]
fn attention_survives_scores_that_overflow_without_shifting() {
    let layout = AttentionLayout::packed(2, &[2]);
    let q = upload(&[300.0, 300.0], [2, 1, 1], DType::F32);
    let k = upload(&[300.0, -300.0, 299.0, 300.0], [4, 1, 1], DType::F32);
    let v = upload(&[1.0, 2.0, 3.0, 4.0], [4, 1, 1], DType::F32);
    let out = download(prefix_attention(q, k, v, &layout));
    assert_eq!(out[0], 1.0);
    assert!((out[1] - 2.5).abs() < 1e-6, "{}", out[1]);
}

#[test]
fn cross_entropy_agrees_and_matches_the_worked_example() {
    // The reference's worked example: log-softmax values −0.4076, −1.4076, −0.4076.
    let identity = upload(&[1., 0., 0., 0., 1., 0., 0., 0., 1.], [3, 3], DType::F32);
    let hidden = upload(&[2., 1., 0., 0., 1., 2., 1., 1., 1.], [3, 3], DType::F32);
    let entries = vec![(0, 0, 0.70), (0, 1, 0.25), (1, 2, 0.90)];
    let targets = TopkTargets::new(entries, 3, 3).unwrap();
    let (sum, _) = topk_cross_entropy(hidden, &identity.into(), &targets);
    assert!((sum / 3.0 - 0.3347).abs() < 5e-5 && (sum / 2.0 - 0.5020).abs() < 5e-5);

    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (rows, h, vocab) = (300, 24, 211);
    let hidden = random(&mut rng, rows * h);
    let head = random(&mut rng, vocab * h);
    let entries = (0..rows as u32)
        .flat_map(|row| (0..row % 4).map(move |j| (row, (row * 7 + j * 31) % 211, 0.3)))
        .collect();
    let targets = TopkTargets::new(entries, rows, vocab).unwrap();
    let run = |dtype| {
        let head = upload(&head, [vocab, h], dtype);
        let (sum, grad) =
            topk_cross_entropy(upload(&hidden, [rows, h], dtype), &head.into(), &targets);
        (sum, download(grad))
    };
    let ((fast, fast_grad), (exact, exact_grad)) = (run(DType::F32), run(DType::F64));
    assert!((fast - exact).abs() / exact.abs() < 1e-6, "{fast} {exact}");
    close(&fast_grad, &exact_grad, 3e-6, "cross entropy gradient");
}

/// `Σ −w log p` and `−r log q` with `q = 1 − Σ p` over the candidates, by log1mexp in f64.
fn tail_bucket_by_formula(hidden: &[f64], head: &[f64], targets: &TopkTargets, h: usize) -> f64 {
    let rest = targets.rest().unwrap();
    let mut loss = 0.0;
    for (row, hidden) in hidden.chunks(h).enumerate() {
        let dot = |w: &[f64]| w.iter().zip(hidden).map(|(a, b)| a * b).sum::<f64>();
        let logits: Vec<f64> = head.chunks(h).map(dot).collect();
        let log_sum = logits.iter().map(|z| z.exp()).sum::<f64>().ln();
        let entries = targets.row(row as u32);
        let log_p = |id: u32| logits[id as usize] - log_sum;
        let candidates = entries.iter().map(|e| log_p(e.1).exp()).sum::<f64>().ln();
        loss -= (entries.iter()).fold(0.0, |sum, e| sum + f64::from(e.2) * log_p(e.1));
        // log(1 − eˣ) as Mächler 2012 splits it.
        let log_rest = match candidates > -std::f64::consts::LN_2 {
            true => (-candidates.exp_m1()).ln(),
            false => (-candidates.exp()).ln_1p(),
        };
        loss -= f64::from(rest[row]) * log_rest.max(1e-6f64.ln());
    }
    loss
}

#[test]
fn the_tail_bucket_has_the_value_and_the_slope_of_its_formula() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let (rows, h, vocab) = (133, 7, 41);
    let mut hidden = random(&mut rng, rows * h);
    let head = random(&mut rng, vocab * h);
    // One row is so sure of its candidate that the rest lies under the floor.
    let sure = 131;
    let along = &head[..h];
    let length = along.iter().map(|x| x * x).sum::<f64>();
    for (x, along) in hidden[sure * h..][..h].iter_mut().zip(along) {
        *x = 60.0 * along / length;
    }
    let entries = (0..rows as u32)
        .flat_map(|row| (0..1 + row % 4).map(move |j| (row, j * 9, 0.2)))
        .collect();
    let rest = (0..rows).map(|row| 0.1 * (row % 3) as f32).collect();
    let targets = TopkTargets::new(entries, rows, vocab).unwrap();
    let targets = targets.with_rest(rest).unwrap();
    assert!(targets.rest().unwrap()[sure] > 0.0);
    let at = |values: &[f64]| tail_bucket_by_formula(values, &head, &targets, h);
    let wanted = at(&hidden);
    let slope: Vec<f64> = (0..hidden.len())
        .map(|i| {
            let moved = |by: f64| {
                let mut values = hidden.clone();
                values[i] += by;
                at(&values)
            };
            (moved(1e-5) - moved(-1e-5)) / 2e-5
        })
        .collect();
    for (dtype, tolerance) in [(DType::F64, 1e-7), (DType::F32, 3e-6)] {
        let head = upload(&head, [vocab, h], dtype);
        let hidden = upload(&hidden, [rows, h], dtype);
        let (sum, grad) = topk_cross_entropy(hidden, &head.into(), &targets);
        let off = (sum - wanted).abs() / wanted;
        assert!(off < 1e-6, "{dtype:?}: {sum} instead of {wanted}");
        close(&download(grad), &slope, tolerance, &format!("{dtype:?}"));
    }
}

#[test]
fn tail_weights_that_do_not_fit_are_refused() {
    let targets = TopkTargets::new(vec![(0, 1, 0.5)], 2, 3).unwrap();
    for wrong in [vec![0.1], vec![0.1, -0.1], vec![f32::NAN, 0.0]] {
        assert!(targets.clone().with_rest(wrong).is_err());
    }
    assert!(targets.with_rest(vec![0.0; 2]).unwrap().rest().is_none());
}

#[test]
fn rows_are_written_where_they_belong() {
    let pool = upload(&[0.0; 12], [3, 2, 2], DType::F32);
    let rows = upload(&[1., 2., 3., 4., 5., 6., 7., 8.], [2, 2, 2], DType::F32);
    let other = pool.clone();
    let written = write_rows(pool, &[2, 0].into(), rows);
    assert_eq!(
        download(written),
        [5., 6., 7., 8., 0., 0., 0., 0., 1., 2., 3., 4.]
    );
    assert_eq!(download(other), [0.0; 12], "a shared pool is copied first");

    // Scattered over many places, and in order.
    let (at, width) = ([9, 2, 5, 6, 0], 3 * 4);
    let values: Vec<f64> = (0..at.len() * width).map(|i| i as f64).collect();
    let pool = upload(&vec![-1.0; 11 * width], [11, 3, 4], DType::F32);
    let kept = pool.clone();
    let rows = upload(&values, [at.len(), 3, 4], DType::F32);
    let mut wanted = vec![-1.0; 11 * width];
    for (row, values) in at.iter().zip(values.chunks(width)) {
        wanted[row * width..][..width].copy_from_slice(values);
    }
    let written = write_rows(pool, &at.into(), rows.clone());
    assert_eq!(download(written.clone()), wanted);
    assert_eq!(download(kept), vec![-1.0; 11 * width]);
    wanted[7 * width..].fill(0.0);
    let zeros = upload(&vec![0.0; 4 * width], [4, 3, 4], DType::F32);
    assert_eq!(
        download(write_rows(written, &[7, 8, 9, 10].into(), zeros)),
        wanted
    );
}

#[test]
fn bf16_weights_give_exact_products_of_rounded_rows() {
    if !device(DType::F32).supports_dtype(DType::BF16) {
        eprintln!("passed over: the device has no bf16");
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    // Values that bf16 holds, so that rounding changes nothing.
    let mut rounded = |len: usize| -> Vec<f64> {
        let values = TensorData::new(random(&mut rng, len), [len]);
        let values = values.convert_dtype(DType::BF16).convert::<f64>();
        values.try_to_vec().unwrap()
    };
    for (n, width, out) in [
        (1, 32, 8),
        (3, 70, 13),
        (5, 33, 2),
        (66, 96, 130),
        (130, 2600, 70),
        (9, 64, 2700),
    ] {
        let (x, w, g) = (rounded(n * width), rounded(out * width), rounded(n * out));
        let run = |dtype: DType, weight_dtype: DType| {
            let x = upload(&x, [n, width], dtype).autodiff().require_grad();
            let y = linear(x.clone(), &upload(&w, [out, width], weight_dtype));
            let gradient = upload(&g, [n, out], dtype).autodiff();
            let mut gradients = (y.clone() * gradient).sum().backward();
            let dx = x.grad_remove(&mut gradients).unwrap();
            (download(y.inner()), download(dx))
        };
        let (y, dx) = run(DType::F32, DType::BF16);
        let (exact_y, exact_dx) = run(DType::F64, DType::F64);
        close(&y, &exact_y, 1e-6, &format!("{n}x{width}x{out}"));
        close(&dx, &exact_dx, 1e-6, &format!("gradient {n}x{width}x{out}"));
    }
}
