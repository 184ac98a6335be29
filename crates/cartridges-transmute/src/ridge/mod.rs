//! Ridge regression of a delta: how much is penalised, the system, its factor, and both forms.

mod dual;
mod factor;
mod options;
mod primal;
mod search;
mod solved;
mod system;
#[cfg(test)]
mod tests;

pub use dual::solve_rows;
pub(crate) use factor::Factor;
pub use options::{Form, RidgeOptions, RidgeReport, RidgeRule};
pub(crate) use primal::{Refined, refined_solve};
pub use primal::{RidgeSolution, solve};
pub(crate) use search::{HeldOut, best_scale, search};
pub use solved::Solved;
pub use system::system_matrix;
