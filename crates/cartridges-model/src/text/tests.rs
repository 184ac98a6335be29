//! Tests of the whole path from files to ids, against Hugging Face's numbers.

mod gguf;
mod golden;
mod markers;
mod random;
mod templates;
mod tokenizer_files;
