//! From events to a response.

mod choice;
mod fingerprint;
mod logprobs;
mod stream;
mod whole;

pub(crate) use choice::{Choice, run};
pub(crate) use stream::stream;
pub(crate) use whole::whole;
