//! Every kind of resource, as it stands in a configuration.

use serde::{Deserialize, Serialize};

use super::directory::DirectoryConfig;
use super::document::{Resource, SharedCodec};
use super::error::ResourceError;
use super::html::HtmlConfig;
use super::json::JsonConfig;
use super::latex::LatexConfig;
use super::loaded::{Drawing, LoadedResource};
use super::longhealth::LongHealthConfig;
use super::mail::MailConfig;
use super::material::Material;
use super::mtob::MtobConfig;
use super::needle::NiahConfig;
use super::pdf::PdfConfig;
use super::qasper::QasperConfig;
use super::text::{FileConfig, TextConfig};
use super::trail::VariableTrackingConfig;

/// A text to study, by its `type` and the fields of that type. Relative paths are taken from the
/// folder the program runs in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResourceConfig {
    /// `text`: a text in the configuration itself.
    Text(TextConfig),
    /// `file`: a text file.
    File(FileConfig),
    /// `directory`: the files of a folder.
    Directory(DirectoryConfig),
    /// `json`: a JSON file, or values in it.
    Json(JsonConfig),
    /// `html`: the visible text of a web page.
    Html(HtmlConfig),
    /// `pdf`: the text of a PDF file.
    Pdf(PdfConfig),
    /// `latex`: a LaTeX source.
    Latex(LatexConfig),
    /// `mail`: a mailbox.
    Mail(MailConfig),
    /// `longhealth`: patients' records.
    #[serde(rename = "longhealth")]
    LongHealth(LongHealthConfig),
    /// `mtob`: a grammar book with sentences and words.
    Mtob(MtobConfig),
    /// `qasper`: scientific papers.
    Qasper(QasperConfig),
    /// `niah`: facts hidden in a long text.
    Niah(NiahConfig),
    /// `variable_tracking`: assignments hidden in a long text.
    VariableTracking(VariableTrackingConfig),
}

impl ResourceConfig {
    /// Loads the resource, with the default chunker and all seed types.
    ///
    /// # Errors
    /// If the file cannot be read, is not what its type says, is larger than what is read, or holds
    /// nothing to study.
    pub fn load(&self, codec: SharedCodec) -> Result<Box<dyn Resource>, ResourceError> {
        self.load_with(codec, &Drawing::default())
    }

    /// Loads the resource with a chunker and seed types.
    ///
    /// # Errors
    /// As [`ResourceConfig::load`], and if the chunker's limits make no sense or there is no seed type.
    pub fn load_with(
        &self,
        codec: SharedCodec,
        drawing: &Drawing,
    ) -> Result<Box<dyn Resource>, ResourceError> {
        self.load_named(None, codec, drawing)
    }

    pub(super) fn load_named(
        &self,
        name: Option<&str>,
        codec: SharedCodec,
        drawing: &Drawing,
    ) -> Result<Box<dyn Resource>, ResourceError> {
        let mut material = self.material(&codec)?;
        if let Some(name) = name {
            material.name = name.to_owned();
        }
        Ok(Box::new(LoadedResource::new(material, codec, drawing)?))
    }

    /// The value of `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::File(_) => "file",
            Self::Directory(_) => "directory",
            Self::Json(_) => "json",
            Self::Html(_) => "html",
            Self::Pdf(_) => "pdf",
            Self::Latex(_) => "latex",
            Self::Mail(_) => "mail",
            Self::LongHealth(_) => "longhealth",
            Self::Mtob(_) => "mtob",
            Self::Qasper(_) => "qasper",
            Self::Niah(_) => "niah",
            Self::VariableTracking(_) => "variable_tracking",
        }
    }

    pub(super) fn material(&self, codec: &SharedCodec) -> Result<Material, ResourceError> {
        match self {
            Self::Text(config) => Ok(config.material()),
            Self::File(config) => config.material(),
            Self::Directory(config) => config.material(),
            Self::Json(config) => config.material(),
            Self::Html(config) => config.material(),
            Self::Pdf(config) => config.material(),
            Self::Latex(config) => config.material(),
            Self::Mail(config) => config.material(),
            Self::LongHealth(config) => config.material(),
            Self::Mtob(config) => config.material(codec),
            Self::Qasper(config) => config.material(),
            Self::Niah(config) => config.material(codec),
            Self::VariableTracking(config) => config.material(codec),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::{CharacterChunker, Chunker, test_codec::WordCodec};
    use crate::resource::{WeightedResource, load_all};
    use crate::seed_prompt::SeedType;
    use crate::self_study::{Plan, SelfStudyConfig};
    use std::sync::Arc;

    #[derive(Debug, Deserialize)]
    struct List {
        resources: Vec<WeightedResource>,
    }

    fn codec() -> SharedCodec {
        Arc::new(WordCodec::default())
    }

    #[test]
    fn a_list_in_toml_is_loaded_and_drawn_by_weight() {
        let list: List = toml::from_str(
            r#"
            [[resources]]
            type = "text"
            text = "The lamp is red and stands on the pier."
            weight = 9
            name = "lamps"

            [[resources]]
            type = "text"
            text = "The door is blue and leads to the yard."
            chunker = { type = "character", chunk_size = 8 }
            seed_types = ["question"]
            "#,
        )
        .unwrap();
        assert_eq!(
            list.resources[1].chunker,
            Some(Chunker::Character(CharacterChunker { chunk_size: 8 }))
        );
        let again = toml::to_string(&list.resources[1]).unwrap();
        assert_eq!(
            toml::from_str::<WeightedResource>(&again).unwrap(),
            list.resources[1]
        );
        let resources = load_all(&list.resources, &codec(), &Drawing::default()).unwrap();
        assert_eq!(resources[0].name(), "lamps");
        let config = SelfStudyConfig {
            num_conversations: 400,
            batch_size: 1,
            coverage_share: 0.0,
            verbatim: false,
            ..SelfStudyConfig::default()
        };
        let plan = Plan::new(&config, &resources).unwrap();
        let lamps = plan
            .batches
            .iter()
            .filter(|b| b.resource == "lamps")
            .count();
        // 360 of 400 expected, standard deviation 6.
        assert!((330..=390).contains(&lamps), "{lamps}");
        let doors = plan.batches.iter().find(|b| b.resource == "text").unwrap();
        assert_eq!(doors.tasks[0].seed_type, SeedType::Question.as_str());
    }

    #[test]
    fn unknown_types_and_fields_and_bad_weights_are_refused() {
        for (text, named) in [
            ("type = \"scroll\"", "scroll"),
            ("type = \"pdf\"\npath = \"a\"\npages = 3", "pages"),
            ("type = \"text\"\ntext = \"a\"\nwieght = 3", "wieght"),
            ("type = \"pdf\"", "path"),
            ("path = \"a\"", "type"),
            ("type = \"niah\"\nneedles = 3", "needles"),
        ] {
            let error = toml::from_str::<WeightedResource>(text).unwrap_err();
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut resource: WeightedResource = ResourceConfig::Text(TextConfig {
                text: "a b c".to_owned(),
            })
            .into();
            resource.weight = weight;
            let error = resource.load(codec(), &Drawing::default()).err().unwrap();
            assert!(error.to_string().contains("weight"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named_by_every_type() {
        for kind in [
            "file",
            "directory",
            "json",
            "html",
            "pdf",
            "latex",
            "mail",
            "longhealth",
            "qasper",
        ] {
            let text = format!("type = {kind:?}\npath = \"gone/away.x\"");
            let config: ResourceConfig = toml::from_str(&text).unwrap();
            assert_eq!(config.kind(), kind);
            let error = config.load(codec()).err().unwrap().to_string();
            assert!(error.contains("gone/away.x"), "{kind}: {error}");
        }
    }
}
