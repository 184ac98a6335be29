//! Drawing contexts, for every shape of material.

mod draw;
mod items;
mod nodes;
mod records;
mod sentences;

pub(super) use draw::Contexts;
