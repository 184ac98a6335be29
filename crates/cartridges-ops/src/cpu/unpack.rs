//! Blocks of packed weights as vectors of f32, by the best instructions that the processor has.

use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};

use crate::packed::{BLOCK, PackedLayout, Packing};

/// Instructions that turn a block into vectors. Their values are those of
/// [`PackedRows::values`](crate::packed::PackedRows::values) to the last bit.
pub trait Unpack: Copy {
    /// Whether unpacking costs so little that values are unpacked again for every few rows.
    const IN_REGISTERS: bool;
    /// What goes on with the vectors.
    type Simd: Simd;
    /// The vectors of a block.
    type Block: Copy;

    fn simd(self) -> Self::Simd;
    fn q8(self, words: &[i32; 8], scale: f32) -> Self::Block;
    fn q4(self, words: &[i32; 4], scale: f32) -> Self::Block;
    fn vectors(block: &Self::Block) -> &[<Self::Simd as Simd>::f32s];
}

/// The words of a block, whose number tells how it is packed.
pub trait Words: Copy {
    /// The blocks that `words` are.
    fn blocks(words: &[i32]) -> &[Self];
    /// The block's values.
    fn unpack<U: Unpack>(&self, unpack: U, scale: f32) -> U::Block;
}

impl Words for [i32; 8] {
    #[inline(always)]
    fn blocks(words: &[i32]) -> &[Self] {
        words.as_chunks().0
    }

    #[inline(always)]
    fn unpack<U: Unpack>(&self, unpack: U, scale: f32) -> U::Block {
        unpack.q8(self, scale)
    }
}

impl Words for [i32; 4] {
    #[inline(always)]
    fn blocks(words: &[i32]) -> &[Self] {
        words.as_chunks().0
    }

    #[inline(always)]
    fn unpack<U: Unpack>(&self, unpack: U, scale: f32) -> U::Block {
        unpack.q4(self, scale)
    }
}

/// Work that is compiled for every kind of instructions.
pub trait WithUnpack {
    /// To be `#[inline(always)]`, as all that it calls.
    fn with_unpack<U: Unpack>(self, unpack: U);

    /// Does the work with the best instructions found at run time.
    #[inline(always)]
    fn dispatch(self)
    where
        Self: Sized,
    {
        match Arch::new() {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(simd) => Simd::vectorize(
                simd,
                #[inline(always)]
                || self.with_unpack(simd),
            ),
            #[cfg(target_arch = "x86_64")]
            Arch::V3(simd) => Simd::vectorize(
                simd,
                #[inline(always)]
                || self.with_unpack(simd),
            ),
            arch => arch.dispatch(Anywhere(self)),
        }
    }
}

struct Anywhere<W>(W);

impl<W: WithUnpack> WithSimd for Anywhere<W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.0.with_unpack(Portable(simd));
    }
}

/// Loops left to the compiler.
#[derive(Clone, Copy)]
pub struct Portable<S>(pub S);

impl<S: Simd> Unpack for Portable<S> {
    const IN_REGISTERS: bool = false;
    type Simd = S;
    type Block = [f32; BLOCK];

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn q8(self, words: &[i32; 8], scale: f32) -> Self::Block {
        let mut block = [0f32; BLOCK];
        let bytes = words.map(i32::to_le_bytes);
        for (byte, out) in bytes.as_flattened().iter().zip(&mut block) {
            *out = f32::from(*byte as i8) * scale;
        }
        block
    }

    #[inline(always)]
    fn q4(self, words: &[i32; 4], scale: f32) -> Self::Block {
        let mut block = [0f32; BLOCK];
        let bytes = words.map(i32::to_le_bytes);
        let (low, high) = block.split_at_mut(BLOCK / 2);
        for ((byte, low), high) in bytes.as_flattened().iter().zip(low).zip(high) {
            *low = f32::from((byte & 15) as i8 - 8) * scale;
            *high = f32::from((byte >> 4) as i8 - 8) * scale;
        }
        block
    }

    #[inline(always)]
    fn vectors(block: &Self::Block) -> &[S::f32s] {
        S::as_simd_f32s(block).0
    }
}

/// No closures here: the compiler might not inline them, and then it could not use the instructions.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m128i, __m256i, __m512};

    use pulp::x86::{V3, V4};
    use pulp::{Simd, cast, f32x8, f32x16};

    use super::Unpack;

    impl Unpack for V4 {
        const IN_REGISTERS: bool = true;
        type Simd = Self;
        type Block = [f32x16; 2];

        #[inline(always)]
        fn simd(self) -> Self {
            self
        }

        #[inline(always)]
        fn q8(self, words: &[i32; 8], scale: f32) -> Self::Block {
            let [low, high]: [__m128i; 2] = cast(*words);
            [sixteen(self, low, scale), sixteen(self, high, scale)]
        }

        /// The sixteen values that the scale allows are looked up by the low four bits of each lane.
        #[inline(always)]
        fn q4(self, words: &[i32; 4], scale: f32) -> Self::Block {
            const INTEGERS: f32x16 = f32x16(
                -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0,
                7.0,
            );
            let values: __m512 = cast(self.mul_f32s(INTEGERS, self.splat_f32s(scale)));
            let low = self.avx512f._mm512_cvtepu8_epi32(cast(*words));
            let high = self.avx512f._mm512_srli_epi32::<4>(low);
            [
                cast(self.avx512f._mm512_permutexvar_ps(low, values)),
                cast(self.avx512f._mm512_permutexvar_ps(high, values)),
            ]
        }

        #[inline(always)]
        fn vectors(block: &Self::Block) -> &[f32x16] {
            block
        }
    }

    #[inline(always)]
    fn sixteen(simd: V4, bytes: __m128i, scale: f32) -> f32x16 {
        let integers = simd.avx512f._mm512_cvtepi8_epi32(bytes);
        let floats = simd.avx512f._mm512_cvtepi32_ps(integers);
        simd.mul_f32s(cast(floats), simd.splat_f32s(scale))
    }

    impl Unpack for V3 {
        const IN_REGISTERS: bool = true;
        type Simd = Self;
        type Block = [f32x8; 4];

        #[inline(always)]
        fn simd(self) -> Self {
            self
        }

        #[inline(always)]
        fn q8(self, words: &[i32; 8], scale: f32) -> Self::Block {
            let [a, b, c, d]: [u64; 4] = cast(*words);
            [
                eight(self, self.avx2._mm256_cvtepi8_epi32(cast([a, 0])), scale),
                eight(self, self.avx2._mm256_cvtepi8_epi32(cast([b, 0])), scale),
                eight(self, self.avx2._mm256_cvtepi8_epi32(cast([c, 0])), scale),
                eight(self, self.avx2._mm256_cvtepi8_epi32(cast([d, 0])), scale),
            ]
        }

        #[inline(always)]
        fn q4(self, words: &[i32; 4], scale: f32) -> Self::Block {
            let [a, b]: [u64; 2] = cast(*words);
            let a = self.avx2._mm256_cvtepu8_epi32(cast([a, 0]));
            let b = self.avx2._mm256_cvtepu8_epi32(cast([b, 0]));
            let nibble: __m256i = cast([15u32; 8]);
            [
                eight(
                    self,
                    offset(self, self.avx2._mm256_and_si256(a, nibble)),
                    scale,
                ),
                eight(
                    self,
                    offset(self, self.avx2._mm256_and_si256(b, nibble)),
                    scale,
                ),
                eight(
                    self,
                    offset(self, self.avx2._mm256_srli_epi32::<4>(a)),
                    scale,
                ),
                eight(
                    self,
                    offset(self, self.avx2._mm256_srli_epi32::<4>(b)),
                    scale,
                ),
            ]
        }

        #[inline(always)]
        fn vectors(block: &Self::Block) -> &[f32x8] {
            block
        }
    }

    #[inline(always)]
    fn offset(simd: V3, nibbles: __m256i) -> __m256i {
        simd.avx2._mm256_sub_epi32(nibbles, cast([8u32; 8]))
    }

    #[inline(always)]
    fn eight(simd: V3, integers: __m256i, scale: f32) -> f32x8 {
        let floats = simd.avx._mm256_cvtepi32_ps(integers);
        simd.mul_f32s(cast(floats), simd.splat_f32s(scale))
    }
}

/// Blocks whose scales are converted together.
const BLOCKS: usize = 64;

/// The blocks of a matrix.
#[derive(Clone, Copy)]
pub struct Blocks<'a> {
    pub words: &'a [i32],
    pub scales: &'a [f16],
    pub layout: PackedLayout,
}

impl<'a> Blocks<'a> {
    pub fn rows(&self) -> usize {
        self.scales.len() / self.layout.blocks()
    }

    /// The words and the scales of the rows `first .. first + len`.
    #[inline(always)]
    pub fn part(&self, first: usize, len: usize) -> (&'a [i32], &'a [f16]) {
        let (words, blocks) = (self.layout.row_words(), self.layout.blocks());
        (
            &self.words[first * words..][..len * words],
            &self.scales[first * blocks..][..len * blocks],
        )
    }

    /// `len` words, fewer at the end, from `distance` words behind the start of row `first` on.
    #[inline(always)]
    pub fn ahead(&self, first: usize, distance: usize, len: usize) -> &'a [i32] {
        let end = self.words.len();
        let from = (first * self.layout.row_words() + distance).min(end);
        &self.words[from..(from + len).min(end)]
    }

    /// Unpacks the blocks `from .. to` of as many rows as there is room for, from row `first` on.
    pub fn unpack_rows(self, first: usize, (from, to): (usize, usize), out: &mut [f32]) {
        UnpackRows {
            weight: self,
            first,
            blocks: (from, to),
            out,
        }
        .dispatch();
    }
}

/// [`Blocks::unpack_rows`] as part of other work.
pub struct UnpackRows<'a> {
    pub weight: Blocks<'a>,
    pub first: usize,
    pub blocks: (usize, usize),
    pub out: &'a mut [f32],
}

impl WithUnpack for UnpackRows<'_> {
    #[inline(always)]
    fn with_unpack<U: Unpack>(self, unpack: U) {
        match self.weight.layout.packing {
            Packing::Q8 => self.run::<U, [i32; 8]>(unpack),
            Packing::Q4 => self.run::<U, [i32; 4]>(unpack),
        }
    }
}

impl UnpackRows<'_> {
    #[inline(always)]
    fn run<U: Unpack, W: Words>(self, unpack: U) {
        let (from, to) = self.blocks;
        let mut scales = [0f32; BLOCKS];
        for (row, out) in self.out.chunks_exact_mut((to - from) * BLOCK).enumerate() {
            let (words, halves) = self.weight.part(self.first + row, 1);
            let words = W::blocks(words)[from..to].chunks(BLOCKS);
            let halves = halves[from..to].chunks(BLOCKS);
            let out = out.as_chunks_mut::<BLOCK>().0.chunks_mut(BLOCKS);
            for ((words, halves), out) in words.zip(halves).zip(out) {
                let scales = &mut scales[..halves.len()];
                halves.convert_to_f32_slice(scales);
                for ((words, scale), out) in words.iter().zip(scales).zip(out) {
                    let block = words.unpack(unpack, *scale);
                    <U::Simd as Simd>::as_mut_simd_f32s(out)
                        .0
                        .copy_from_slice(U::vectors(&block));
                }
            }
        }
    }
}
