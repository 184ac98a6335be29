//! The values of `multipleOf`: the library makes a state of every remainder, which no fuel of its
//! limits, and finds common multiples in 32 bits, unchecked.

use super::error::ConstraintError;

/// The largest value, counted in its last decimal place.
const MAX_COEFFICIENT: f64 = 10_000.0;
/// All values of a schema together, counted likewise.
const MAX_TOTAL: f64 = 100_000.0;
/// The largest common multiple, counted in the last place of any.
const MAX_COMMON: u64 = 1 << 15;

/// All values of one schema as whole numbers over a power of ten.
#[derive(Default)]
pub struct Multiples {
    values: Vec<(u64, u32)>,
    total: f64,
}

impl Multiples {
    /// Adds a value of the schema.
    pub fn add(&mut self, value: f64) -> Result<(), ConstraintError> {
        let (mut coefficient, mut places) = (value, 0);
        while coefficient.fract() != 0.0 && places < 9 {
            coefficient *= 10.0;
            places += 1;
        }
        let known = (0.0..=MAX_COEFFICIENT).contains(&coefficient);
        if coefficient.fract() != 0.0 || !known {
            return Err(ConstraintError::Schema(format!(
                "multipleOf {value} is negative or has more than four digits"
            )));
        }
        self.total += coefficient;
        if self.total > MAX_TOTAL {
            let words = "it has too many or too large values of multipleOf";
            return Err(ConstraintError::Schema(words.to_string()));
        }
        let pair = (coefficient as u64, places);
        if !self.values.contains(&pair) {
            self.values.push(pair);
        }
        Ok(())
    }

    /// Checks that the library can find the common multiples of any of them, as it has to where
    /// several apply to one number.
    pub fn check(&self) -> Result<(), ConstraintError> {
        let [_, _, ..] = self.values.as_slice() else {
            return Ok(());
        };
        let most = self
            .values
            .iter()
            .map(|(_, places)| *places)
            .max()
            .unwrap_or(0);
        let common = self
            .values
            .iter()
            .try_fold(1u64, |common, (coefficient, places)| {
                let scaled = coefficient.checked_mul(10u64.pow(most - places))?.max(1);
                let common = (common / gcd(common, scaled)).checked_mul(scaled)?;
                (common <= MAX_COMMON).then_some(common)
            });
        if common.is_none() {
            let words = "its values of multipleOf have too large a common multiple";
            return Err(ConstraintError::Schema(words.to_string()));
        }
        Ok(())
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
