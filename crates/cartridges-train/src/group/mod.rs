//! Several processes that train one cartridge: each computes the gradient of its share of the rows, the
//! sum goes to all, and all take the same step.

mod devices;
mod exchange;
mod facts;
mod link;
mod options;
mod star;
mod start;

pub use devices::DeviceGroup;
pub use exchange::{Alone, Exchange, GroupError};
pub use facts::Facts;
pub use options::GroupOptions;
pub use star::Star;
pub use start::share_start;
