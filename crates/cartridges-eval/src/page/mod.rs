//! Reports as one page that needs nothing else: `report.html`, with its figures beside it.

mod comparison;
mod costs;
mod error;
mod facts;
mod figures;
mod html;
mod load;
mod measurements;
mod query_time;
mod questions;
mod render;
mod speed;
#[cfg(test)]
mod tests;
mod write;

pub use costs::{BreakEven, break_even_with_caching, break_even_with_reading};
pub use error::PageError;
pub use load::load_reports;
pub use render::{Page, page};
pub use write::{PageFiles, write_page};
