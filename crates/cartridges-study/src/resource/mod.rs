//! Texts to study and the contexts drawn from them.
//!
//! A [`ResourceConfig`] names a text or a file of some kind; loading it gives a [`Resource`]. What a
//! kind offers is the same for all: a text to walk through, contexts drawn at random, and
//! [notes](Note) on everything that was left out or read in an unusual way.

mod burial;
mod config;
mod contexts;
mod directory;
mod document;
mod error;
mod haystack;
mod html;
mod json;
mod kind_of_path;
mod latex;
mod loaded;
mod longhealth;
mod mail;
mod material;
mod mtob;
mod needle;
mod notes;
mod pdf;
mod qasper;
mod read;
mod text;
mod trail;
mod weighted;
mod words;

pub use burial::Haystack;
pub use config::ResourceConfig;
pub use directory::DirectoryConfig;
pub use document::{Document, Resource, SharedCodec};
pub use error::ResourceError;
pub use html::HtmlConfig;
pub use json::JsonConfig;
pub use latex::LatexConfig;
pub use loaded::{Drawing, LoadedResource};
pub use longhealth::LongHealthConfig;
pub use mail::MailConfig;
pub use mtob::MtobConfig;
pub use needle::{NeedleText, NiahConfig};
pub use notes::Note;
pub use pdf::PdfConfig;
pub use qasper::{QASPER_PAPERS, QasperConfig};
pub use read::{MAX_TEXT_BYTES, file_name, read_text};
pub use text::{FileConfig, TextConfig, TextResource};
pub use trail::{AssignmentFormat, TrailText, VariableTrackingConfig};
pub use weighted::{WeightedResource, load_all};
pub use words::ValueKind;
