//! Who may come in, and how fast they must be.

mod body;
mod caller;
mod keys;
mod origin;
mod stall;

pub(crate) use body::JsonBody;
pub(crate) use caller::{Caller, Peer, guard};
pub(crate) use keys::Keys;
pub(crate) use stall::Stall;
