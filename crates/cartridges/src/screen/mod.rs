//! `--tui`: a training run on the whole terminal.

mod board;
mod draw;
mod terminal;

pub(crate) use terminal::{Screen, restore};
