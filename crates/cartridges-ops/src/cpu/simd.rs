//! Loops that the compiler turns into the widest vectors the machine has.

/// Lanes that a loop keeps apart so that sums can be vectorised without reordering surprises.
pub const LANES: usize = 16;
/// Bytes that come from memory together.
const LINE_BYTES: usize = 64;

/// Asks for one of `parts` equal shares of the cache lines of `values`, the one numbered `part`; a hint
/// without effect elsewhere. Called for every part, it spreads the whole over a loop.
#[inline(always)]
pub fn prefetch<T>(values: &[T], part: usize, parts: usize) {
    let line = LINE_BYTES / size_of::<T>();
    let share = values.len().div_ceil(line * parts);
    for at in part * share..(part + 1) * share {
        #[cfg(target_arch = "x86_64")]
        if let Some(value) = values.get(at * line) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: a prefetch of an address inside a slice that is borrowed here.
            #[allow(unsafe_code)]
            unsafe {
                _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(value).cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

/// Runs `f` compiled for the best instruction set found at run time.
///
/// Only what is inlined profits: `f` itself must be written `#[inline(always)] || ...`, which the
/// compiler would not do by itself for a large closure, and so must the helpers that it calls.
#[inline(always)]
pub fn vectorize<R>(f: impl FnOnce() -> R) -> R {
    struct Run<F>(F);
    impl<R, F: FnOnce() -> R> pulp::WithSimd for Run<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Run(f))
}

/// `eˣ` to about one unit in the last place, 0 below −87, without branches.
///
/// Cephes' polynomial after the usual reduction by `ln 2` in two parts; rounding to the nearest
/// integer is done by adding and taking away 1.5 · 2²³, whose low mantissa bits then hold it.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { y * power }
}

/// `Σ aᵢ bᵢ`.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a_chunks
        .remainder()
        .iter()
        .zip(b_chunks.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// The largest value, −∞ for an empty slice.
#[inline(always)]
pub fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let tail = chunks
        .remainder()
        .iter()
        .fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] {
                chunk[i]
            } else {
                lanes[i]
            };
        }
    }
    lanes.iter().fold(tail, |m, &x| if x > m { x } else { m })
}

/// Replaces every value by `e^(value − shift)` and gives their sum.
#[inline(always)]
pub fn exp_sum(values: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let mut chunks = values.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for i in 0..LANES {
            chunk[i] = exp(chunk[i] - shift);
            lanes[i] += chunk[i];
        }
    }
    let mut sum = lanes.iter().sum::<f32>();
    for x in chunks.into_remainder() {
        *x = exp(*x - shift);
        sum += *x;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_follows_the_library_over_its_whole_range() {
        let mut worst = 0f64;
        for i in 0..200_000 {
            let x = -86.9 + i as f32 * (174.0 / 200_000.0);
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - want).abs() / want);
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn sums_cover_tails() {
        let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
        let squares: f32 = (0..37).map(|i| (i * i) as f32).sum();
        assert_eq!(
            vectorize(
                #[inline(always)]
                || dot(&a, &a)
            ),
            squares
        );
        assert_eq!(
            vectorize(
                #[inline(always)]
                || max(&a)
            ),
            36.0
        );
        let mut b = vec![0.0; 21];
        assert_eq!(
            vectorize(
                #[inline(always)]
                || exp_sum(&mut b, 0.0)
            ),
            21.0
        );
    }
}
