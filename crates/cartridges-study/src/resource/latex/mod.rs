//! LaTeX sources, as a folder, a file, or an archive such as arXiv gives.

mod arxiv;
mod clean;
mod expand;
mod resource;
mod source;

pub use resource::LatexConfig;
