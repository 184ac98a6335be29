//! One module per command.

pub mod adapter;
pub mod bench;
pub mod chat;
pub mod compact;
pub mod convert;
pub mod doctor;
pub mod eval;
pub mod inspect;
pub mod logits;
pub mod pull;
pub mod push;
pub mod report;
pub mod serve;
pub mod synthesize;
pub mod train;
pub mod transmute;
