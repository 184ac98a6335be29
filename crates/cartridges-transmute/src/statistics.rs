//! Streamed sufficient statistics of one linear map: all that ridge regression needs of its rows.
//!
//! Everything is a sum over tokens, so statistics of batches, shards and corpora add up, and a corpus
//! that is taken out again leaves the others as they were.

use std::collections::BTreeMap;
use std::fmt;

use faer::MatRef;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{TransmuteError, check_length, check_not_negative};
use crate::matrix::{Matrix, axpy, dot, product_into};
use crate::rank::Factors;
use crate::rows::{Element, Rows};

#[cfg(test)]
#[path = "statistics_tests.rs"]
mod tests;

/// Rows per product in the rows' own type; the products of the parts are added in f64.
pub(crate) const CHUNK: usize = 1024;
/// Rows of a product that are kept at a time.
const BLOCK: usize = 256;
/// Factors that went through a text file may differ in their last digits.
const SAME_FACTOR: f64 = 1e-12;
/// What is left of a sum after a subtraction, relative to what was taken, and is rounding.
const VANISHED: f64 = 1e-13;

/// SHA-256 of what a corpus consists of. A shard of a corpus that is counted elsewhere has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CorpusId(pub [u8; 32]);

impl CorpusId {
    /// The identity of these bytes.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl fmt::Display for CorpusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl TryFrom<String> for CorpusId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 64 || !digits {
            return Err(format!(
                "corpus '{text}' is not 64 lower-case hexadecimal digits"
            ));
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|e| e.to_string())?;
        }
        Ok(Self(bytes))
    }
}

impl From<CorpusId> for String {
    fn from(id: CorpusId) -> Self {
        id.to_string()
    }
}

/// What one corpus gave to statistics.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusShare {
    /// Its rows.
    pub tokens: u64,
    /// With what its sums have been multiplied since.
    pub factor: f64,
}

/// The sums over all rows `(h, t, w)` of one linear map: `S = Σ w h hᵀ [p, p]`, `C = Σ w t hᵀ [q, p]`,
/// in f64. With an intercept `h` has a 1 behind its inputs, so `p = inputs + 1`.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteStatistics {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) intercept: bool,
    /// Lower triangle of `S`, zeros above it.
    pub(crate) second_lower: Matrix,
    pub(crate) cross: Matrix,
    pub(crate) weight: f64,
    pub(crate) target_energy: f64,
    pub(crate) corpora: BTreeMap<CorpusId, CorpusShare>,
}

impl SiteStatistics {
    /// Statistics of no rows, for a map of `inputs` to `outputs` values.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if a width is 0 or too large for memory to be addressed.
    pub fn new(inputs: usize, outputs: usize, intercept: bool) -> Result<Self, TransmuteError> {
        let width = inputs.saturating_add(usize::from(intercept));
        let largest = width.saturating_mul(width.max(outputs)).saturating_mul(8);
        if inputs == 0 || outputs == 0 || largest > isize::MAX as usize {
            let problem = format!("are {inputs} and {outputs}, expected widths of a linear map");
            return Err(TransmuteError::field("inputs and outputs", problem));
        }
        Ok(Self {
            inputs,
            outputs,
            intercept,
            second_lower: Matrix::zeros(width, width),
            cross: Matrix::zeros(outputs, width),
            weight: 0.0,
            target_energy: 0.0,
            corpora: BTreeMap::new(),
        })
    }

    /// Width of the map's input, without the 1 of the intercept.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of the map's output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether the inputs have a 1 behind them.
    pub fn intercept(&self) -> bool {
        self.intercept
    }

    /// Rows and columns of `S`.
    pub fn width(&self) -> usize {
        self.second_lower.rows()
    }

    /// The number of rows, each counted once whatever its weight.
    pub fn tokens(&self) -> u64 {
        self.corpora.values().map(|share| share.tokens).sum()
    }

    /// `Σ w`
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// `Σ w ‖t‖²`
    pub fn target_energy(&self) -> f64 {
        self.target_energy
    }

    /// What is in them, by corpus.
    pub fn corpora(&self) -> &BTreeMap<CorpusId, CorpusShare> {
        &self.corpora
    }

    /// `S [p, p]`, a copy.
    pub fn second_moment(&self) -> Matrix {
        let mut second = self.second_lower.clone();
        mirror_lower(&mut second);
        second
    }

    /// `C [q, p]`
    pub fn cross_moment(&self) -> &Matrix {
        &self.cross
    }

    /// Adds rows of a corpus. Products are taken in the rows' own type over at most 1024 rows and added
    /// in f64; sums that the intercept needs are taken in f64. Gives the number of rows.
    ///
    /// # Errors
    /// [`Rows::check`]'s, or [`TransmuteError::Corpus`] if the corpus has been scaled since; nothing is
    /// added then.
    pub fn add_rows<T: Element>(
        &mut self,
        corpus: CorpusId,
        rows: Rows<'_, T>,
    ) -> Result<usize, TransmuteError> {
        let count = rows.check(self.inputs, self.outputs)?;
        if let Some(share) = self.corpora.get(&corpus)
            && share.factor != 1.0
        {
            let problem = format!(
                "has been scaled by {}; expected its rows before that",
                share.factor
            );
            return Err(TransmuteError::Corpus { corpus, problem });
        }
        if count == 0 {
            return Ok(0);
        }
        let (p, q) = (self.inputs, self.outputs);
        let (mut scratch, mut weighted_h, mut weighted_t) = (Vec::new(), Vec::new(), Vec::new());
        for first in (0..count).step_by(CHUNK) {
            let n = CHUNK.min(count - first);
            let h = &rows.inputs[first * p..(first + n) * p];
            let t = &rows.targets[first * q..(first + n) * q];
            let (left_h, left_t) = match rows.weights {
                None => (h, t),
                Some(weights) => {
                    let weights = &weights[first..first + n];
                    scale_rows(&mut weighted_h, h, weights);
                    scale_rows(&mut weighted_t, t, weights);
                    (&weighted_h[..], &weighted_t[..])
                }
            };
            let h = MatRef::from_row_major_slice(h, n, p);
            let left_h = MatRef::from_row_major_slice(left_h, n, p);
            let left_t = MatRef::from_row_major_slice(left_t, n, q);
            add_product(&mut self.second_lower, left_h, h, true, &mut scratch);
            add_product(&mut self.cross, left_t, h, false, &mut scratch);
            self.add_sums(&rows, first..first + n);
        }
        let share = self.corpora.entry(corpus).or_insert(CorpusShare {
            tokens: 0,
            factor: 1.0,
        });
        share.tokens += count as u64;
        Ok(count)
    }

    /// The sums that need no product: weights, energy, and the border of the intercept.
    fn add_sums<T: Element>(&mut self, rows: &Rows<'_, T>, range: std::ops::Range<usize>) {
        let (p, q) = (self.inputs, self.outputs);
        let mut sum_h = vec![0.0; p];
        for row in range {
            let w = rows.weight(row);
            let t = &rows.targets[row * q..(row + 1) * q];
            self.weight += w;
            let energy = t.iter().map(|t| (*t).into() * (*t).into());
            self.target_energy += w * energy.sum::<f64>();
            if self.intercept {
                let h = &rows.inputs[row * p..(row + 1) * p];
                for (sum, h) in sum_h.iter_mut().zip(h) {
                    *sum += w * (*h).into();
                }
                let cross = self.cross.values_mut().chunks_exact_mut(p + 1);
                for (row, t) in cross.zip(t) {
                    row[p] += w * (*t).into();
                }
            }
        }
        if self.intercept {
            let weight = self.weight;
            let border = &mut self.second_lower.values_mut()[p * (p + 1)..];
            axpy(&mut border[..p], 1.0, &sum_h);
            border[p] = weight;
        }
    }

    /// Adds other statistics of the same map.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if they are of a map of another shape, [`TransmuteError::Corpus`] if a
    /// corpus would be counted twice; nothing is added then.
    pub fn add(&mut self, other: &Self) -> Result<(), TransmuteError> {
        self.check_same_map(other)?;
        if let Some(corpus) = other.corpora.keys().find(|k| self.corpora.contains_key(k)) {
            return Err(TransmuteError::Corpus {
                corpus: *corpus,
                problem: "is in the statistics already and would count twice".to_owned(),
            });
        }
        self.accumulate(1.0, other);
        self.corpora.extend(&other.corpora);
        Ok(())
    }

    /// Takes other statistics out again; without any corpus left all sums are exactly 0.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if they are of a map of another shape, [`TransmuteError::Corpus`] if one
    /// of their corpora is not in these, or not with the same rows and factor; nothing is changed then.
    pub fn subtract(&mut self, other: &Self) -> Result<(), TransmuteError> {
        self.check_same_map(other)?;
        for (corpus, share) in &other.corpora {
            let problem = match self.corpora.get(corpus) {
                None => "is not in the statistics, expected one that is".to_owned(),
                Some(mine) if !mine.same(share) => format!(
                    "is in the statistics with {} rows times {}, expected {} rows times {}",
                    mine.tokens, mine.factor, share.tokens, share.factor
                ),
                Some(_) => continue,
            };
            let corpus = *corpus;
            return Err(TransmuteError::Corpus { corpus, problem });
        }
        self.corpora.retain(|k, _| !other.corpora.contains_key(k));
        if self.corpora.is_empty() {
            *self = Self::new(self.inputs, self.outputs, self.intercept)?;
        } else {
            self.accumulate(-1.0, other);
            self.clear_vanished(other);
        }
        Ok(())
    }

    /// Multiplies all sums, as if every weight had been larger by this factor.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if the factor is not finite and above 0, or too large for the sums.
    pub fn scale(&mut self, factor: f64) -> Result<(), TransmuteError> {
        let values = [&self.second_lower, &self.cross].map(|m| m.values().iter());
        let all = values.into_iter().flatten().copied();
        let largest = all.chain([self.weight, self.target_energy]);
        let largest = largest.fold(1.0, |most: f64, x| most.max(x.abs()));
        if !(factor > 0.0 && (factor * largest).is_finite()) {
            let problem = format!("is {factor}, expected one above 0 that leaves the sums finite");
            return Err(TransmuteError::field("factor", problem));
        }
        for matrix in [&mut self.second_lower, &mut self.cross] {
            matrix.values_mut().iter_mut().for_each(|x| *x *= factor);
        }
        self.weight *= factor;
        self.target_energy *= factor;
        self.corpora.values_mut().for_each(|s| s.factor *= factor);
        Ok(())
    }

    /// `Σ w ‖t - W h - b‖²` of a delta `W [outputs, inputs]` and a bias `b [outputs]`. The difference of
    /// larger sums: errors below about 1e-13 of [`Self::target_energy`] are not seen.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if a shape is another, or there is a bias but no intercept.
    pub fn squared_error(
        &self,
        weight: &Matrix,
        bias: Option<&[f64]>,
    ) -> Result<f64, TransmuteError> {
        let whole = self.augmented(weight, bias)?;
        let second = self.second_moment();
        let fitted = dot(whole.times(&second).values(), whole.values());
        let shared = dot(self.cross.values(), whole.values());
        Ok((self.target_energy - 2.0 * shared + fitted).max(0.0))
    }

    /// [`Self::squared_error`] of a delta `B A` without a bias, at the cost of its rank.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] if a shape is another or there is an intercept.
    pub(crate) fn squared_error_of(&self, factors: &Factors) -> Result<f64, TransmuteError> {
        let (a, b) = (factors.a(), factors.b());
        if self.intercept {
            return self.squared_error(&factors.product(), None);
        }
        check_length("weight rows", b.rows(), self.outputs)?;
        check_length("weight columns", a.columns(), self.inputs)?;
        let inner = a.times(&self.second_moment()).times_transposed(a);
        let fitted = dot(inner.values(), b.transposed_times(b).values());
        let shared = dot(self.cross.times_transposed(a).values(), b.values());
        Ok((self.target_energy - 2.0 * shared + fitted).max(0.0))
    }

    /// `[W b]` as wide as `S`.
    pub(crate) fn augmented(
        &self,
        weight: &Matrix,
        bias: Option<&[f64]>,
    ) -> Result<Matrix, TransmuteError> {
        check_length("weight rows", weight.rows(), self.outputs)?;
        check_length("weight columns", weight.columns(), self.inputs)?;
        match bias {
            Some(bias) => check_length("bias", bias.len(), self.outputs)?,
            None if self.intercept => {}
            None => return Ok(weight.clone()),
        }
        if !self.intercept {
            let problem = "needs statistics with an intercept";
            return Err(TransmuteError::field("bias", problem));
        }
        let mut whole = Vec::with_capacity(self.outputs * self.width());
        for (i, row) in weight.iter_rows().enumerate() {
            whole.extend_from_slice(row);
            whole.push(bias.map_or(0.0, |bias| bias[i]));
        }
        Ok(Matrix::of(self.outputs, self.width(), whole))
    }

    /// That other statistics are of a map of the same shape.
    pub(crate) fn check_same_map(&self, other: &Self) -> Result<(), TransmuteError> {
        let shape = |s: &Self| (s.inputs, s.outputs, s.intercept);
        if shape(self) == shape(other) {
            return Ok(());
        }
        let problem = format!(
            "are of a map with (inputs, outputs, intercept) = {:?}, expected {:?}",
            shape(other),
            shape(self)
        );
        Err(TransmuteError::field("other statistics", problem))
    }

    /// Clears the sums of inputs that occurred only in what was taken out: the rounding that is left of
    /// them would weigh like an input that is merely small.
    fn clear_vanished(&mut self, taken: &Self) {
        let (width, inputs) = (self.width(), self.inputs);
        let energy = |m: &Matrix, i: usize| m.values()[i * width + i];
        let vanished: Vec<usize> = (0..inputs)
            .filter(|i| {
                energy(&self.second_lower, *i) <= VANISHED * energy(&taken.second_lower, *i)
            })
            .collect();
        for i in vanished {
            let second = self.second_lower.values_mut();
            second[i * width..(i + 1) * width].fill(0.0);
            second
                .iter_mut()
                .skip(i)
                .step_by(width)
                .for_each(|x| *x = 0.0);
            let cross = self.cross.values_mut().iter_mut();
            cross.skip(i).step_by(width).for_each(|x| *x = 0.0);
        }
    }

    fn accumulate(&mut self, factor: f64, other: &Self) {
        self.second_lower.add(factor, &other.second_lower);
        self.cross.add(factor, &other.cross);
        self.weight += factor * other.weight;
        self.target_energy += factor * other.target_energy;
    }
}

impl CorpusShare {
    fn same(&self, other: &Self) -> bool {
        let error = (self.factor - other.factor).abs();
        self.tokens == other.tokens && error <= SAME_FACTOR * self.factor
    }

    /// That the factor can be one.
    pub(crate) fn check(&self) -> Result<(), TransmuteError> {
        check_not_negative("factor", self.factor)
    }
}

/// Copies the lower triangle onto the upper one.
pub(crate) fn mirror_lower(matrix: &mut Matrix) {
    const TILE: usize = 32;
    let size = matrix.rows();
    let values = matrix.values_mut();
    for i in (0..size).step_by(TILE) {
        for j in (0..=i).step_by(TILE) {
            for row in i..size.min(i + TILE) {
                for column in j..row.min(j + TILE) {
                    values[column * size + row] = values[row * size + column];
                }
            }
        }
    }
}

fn scale_rows<T: Element>(out: &mut Vec<T>, rows: &[T], weights: &[T]) {
    out.clear();
    let width = rows.len() / weights.len();
    for (row, weight) in rows.chunks_exact(width).zip(weights) {
        out.extend(row.iter().map(|x| *x * *weight));
    }
}

/// The leading columns of `sum += leftᵀ · right`; of a square one only its lower triangle.
fn add_product<T: Element>(
    sum: &mut Matrix,
    left: MatRef<'_, T>,
    right: MatRef<'_, T>,
    lower: bool,
    scratch: &mut Vec<T>,
) {
    let stride = sum.columns();
    for first in (0..left.ncols()).step_by(BLOCK) {
        let rows = BLOCK.min(left.ncols() - first);
        let columns = if lower { first + rows } else { right.ncols() };
        scratch.resize(rows * columns, T::zero_impl());
        let block = left.subcols(first, rows).transpose();
        product_into(scratch, block, right.subcols(0, columns));
        let sums = sum.values_mut().chunks_exact_mut(stride).skip(first);
        for (i, (sums, found)) in sums.zip(scratch.chunks_exact(columns)).enumerate() {
            let used = if lower { first + i + 1 } else { columns };
            for (sum, x) in sums.iter_mut().zip(&found[..used]) {
                *sum += (*x).into();
            }
        }
    }
}
