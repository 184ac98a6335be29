//! OpenAI's paths.

mod batch_run;
mod batches;
mod files;
mod generate;
mod models;
mod records;
mod store;

pub(crate) use batches::{cancel_batch, create_batch, get_batch, list_batches};
pub(crate) use files::{create_file, delete_file, file_content, get_file, list_files};
pub(crate) use generate::{
    cartridge_chat, cartridge_text, chat_completions, completions, run_patiently,
};
pub(crate) use models::{get_model, list_models};
pub(crate) use store::Store;

pub(crate) mod documented {
    //! The handlers with their descriptions, for the OpenAPI document.
    pub(crate) use super::batches::*;
    pub(crate) use super::files::*;
    pub(crate) use super::generate::*;
    pub(crate) use super::models::*;
}
