//! From a model's name to its files on this machine.

use std::path::{Path, PathBuf};

use super::card::{cards, find_card};
use super::client::HubRepo;
use super::reference::is_revision;
use super::snapshot::{Stored, Want, fetch, from_cache};
use super::stored::{remove_stored, snapshot};
use super::wheels::{assemble, assembled};
use super::{HubError, ModelCard, ModelRef, ResolveOptions};

/// Where a model's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPath {
    /// A folder in Hugging Face layout: `config.json`, tokenizer files, safetensors weights.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}

impl ModelPath {
    /// The folder or file.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Gguf(path) => path,
        }
    }
}

/// Where a model's files came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Named by a path.
    Local,
    /// The hub, now or earlier.
    Hub,
    /// Put together from Python wheels, now or earlier.
    Wheels,
}

/// A model's files on this machine, and what is known about them.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// The folder or GGUF file.
    pub path: ModelPath,
    /// The model's name for records; [`ModelRef::parse`] reads it.
    pub id: String,
    /// Where the files came from.
    pub origin: Origin,
    /// The commit on the hub.
    pub revision: Option<String>,
    /// sha256 of a GGUF file that was checked.
    pub sha256: Option<String>,
    /// The card, if the model has one.
    pub card: Option<&'static ModelCard>,
}

/// Finds a model's files, and fetches them if need be.
///
/// - A path is taken as it is.
/// - A card is looked for in the caches, then on the hub, and if the hub cannot be reached, in the
///   other places that the card names.
/// - A hub id is asked for on the hub (files that are in the cache are not fetched again), and if
///   the hub cannot be reached, looked for in the cache.
///
/// Every file that the hub keeps as a large file is checked against the sha256 that the hub states,
/// every assembled file against its card's; one that differs is refused and removed. Lines about
/// what is being done go to [`ResolveOptions::notice`].
///
/// # Errors
/// [`HubError`], which says what to do about it.
pub fn resolve(model: &ModelRef, options: &ResolveOptions) -> Result<ModelFiles, HubError> {
    if let Some(revision) = &options.revision
        && !is_revision(revision)
    {
        return Err(HubError::BadReference {
            text: revision.clone(),
            hint: "a revision is a branch, tag or commit".to_owned(),
        });
    }
    match model {
        ModelRef::Folder(path) => local(ModelPath::Folder(path.clone()), model),
        ModelRef::Gguf(path) => local(ModelPath::Gguf(path.clone()), model),
        ModelRef::Card(name) => match find_card(name)? {
            Some(card) => resolve_card(card, options),
            None => Err(HubError::BadReference {
                text: name.clone(),
                hint: "there is no model card of that name".to_owned(),
            }),
        },
        ModelRef::Hub { id, revision, file } => {
            let card = cards()?
                .iter()
                .find(|card| card.hub.id.eq_ignore_ascii_case(id));
            let wanted = options.revision.as_deref().or(revision.as_deref());
            let ask = Ask {
                id,
                revision: wanted.unwrap_or("main"),
                file: file.as_deref(),
                bytes: None,
                gated: card.is_some_and(|card| card.gated),
                has_elsewhere: false,
                options,
            };
            let stored = ask.hub_or_cache()?;
            let named = ModelRef::Hub {
                id: id.clone(),
                revision: wanted.map(str::to_owned),
                file: file.clone(),
            };
            Ok(from_hub(stored, named.to_string(), card))
        }
    }
}

fn local(path: ModelPath, model: &ModelRef) -> Result<ModelFiles, HubError> {
    if !path.as_path().exists() {
        return Err(HubError::PathMissing {
            path: path.as_path().to_owned(),
            hint: "check the spelling".to_owned(),
        });
    }
    Ok(ModelFiles {
        path,
        id: model.to_string(),
        origin: Origin::Local,
        revision: None,
        sha256: None,
        card: None,
    })
}

fn from_hub(stored: Stored, id: String, card: Option<&'static ModelCard>) -> ModelFiles {
    ModelFiles {
        path: stored.path,
        id,
        origin: Origin::Hub,
        revision: Some(stored.commit),
        sha256: stored.sha256,
        card,
    }
}

/// A card's model. Public to the crate so that tests can bring cards of their own.
pub(crate) fn resolve_card(
    card: &'static ModelCard,
    options: &ResolveOptions,
) -> Result<ModelFiles, HubError> {
    let hub = &card.hub;
    let other_revision = options.revision.as_ref().filter(|r| **r != hub.revision);
    let ask = Ask {
        id: &hub.id,
        revision: other_revision.unwrap_or(&hub.revision),
        file: hub.file.as_deref(),
        bytes: hub.bytes.filter(|_| other_revision.is_none()),
        gated: card.gated,
        has_elsewhere: other_revision.is_none() && !card.elsewhere.is_empty(),
        options,
    };
    if other_revision.is_some() {
        let id = format!("{}@{}", hub.id, ask.revision);
        let id = hub.file.iter().fold(id, |id, file| format!("{id}:{file}"));
        return Ok(from_hub(ask.hub_or_cache()?, id, Some(card)));
    }
    let wheels = |path: PathBuf, sha256: &str| ModelFiles {
        path: ModelPath::Gguf(path),
        id: card.name.clone(),
        origin: Origin::Wheels,
        revision: None,
        sha256: Some(sha256.to_owned()),
        card: Some(card),
    };

    for place in &card.elsewhere {
        match assembled(place, options) {
            Ok(Some(path)) => return Ok(wheels(path, &place.sha256)),
            Ok(None) => {}
            Err(e) if options.offline => return Err(e),
            Err(e) => options.say(&format!("{e}; looking for another copy")),
        }
    }
    // A card's GGUF file does not change, so a checked copy needs no question to the hub.
    let stored = match &hub.file {
        Some(_) if !options.offline => match ask.cache() {
            Ok(stored) => stored,
            Err(e) => {
                options.say(&format!("{e}; fetching it anew"));
                None
            }
        },
        _ => None,
    };
    let answer = match stored {
        Some(stored) => Ok(stored),
        None => ask.hub_or_cache(),
    };
    let answer = answer.and_then(|stored| {
        check_card_file(card, &stored).inspect_err(|_| remove_stored(stored.path.as_path()))?;
        Ok(from_hub(stored, card.name.clone(), Some(card)))
    });
    let mut error = match answer {
        Err(e) if e.is_unreachable() && !card.elsewhere.is_empty() => e,
        done => return done,
    };
    for place in &card.elsewhere {
        let count = place.packages.len();
        options.say(&format!(
            "{}; putting {} together from {count} Python wheel{} instead",
            error.brief(),
            card.title,
            if count == 1 { "" } else { "s" }
        ));
        match assemble(&card.name, place, options) {
            Ok(path) => return Ok(wheels(path, &place.sha256)),
            Err(e) => error = e,
        }
    }
    Err(error)
}

/// What a card states about its file on the hub, beyond what the hub states.
fn check_card_file(card: &ModelCard, stored: &Stored) -> Result<(), HubError> {
    let ModelPath::Gguf(path) = &stored.path else {
        return Ok(());
    };
    if let Some(expected) = card.hub.bytes {
        let actual = std::fs::metadata(path)
            .map_err(HubError::io("read", path))?
            .len();
        if actual != expected {
            return Err(HubError::Size {
                file: path.display().to_string(),
                expected,
                actual,
            });
        }
    }
    match (&card.hub.sha256, &stored.sha256) {
        (Some(expected), Some(actual)) if expected != actual => Err(HubError::Digest {
            file: path.display().to_string(),
            stated_by: "the model card",
            expected: expected.clone(),
            actual: actual.clone(),
        }),
        _ => Ok(()),
    }
}

/// One question to the hub.
struct Ask<'a> {
    id: &'a str,
    revision: &'a str,
    file: Option<&'a str>,
    /// Length of `file`, where a card states it.
    bytes: Option<u64>,
    gated: bool,
    /// Whether there is another place to turn to, so that the hub need not be waited for long.
    has_elsewhere: bool,
    options: &'a ResolveOptions,
}

impl Ask<'_> {
    fn cache(&self) -> Result<Option<Stored>, HubError> {
        from_cache(self.id, self.revision, self.file, self.options)
    }

    fn what(&self) -> String {
        let file = self.file.map_or(String::new(), |f| format!(":{f}"));
        format!("{}@{}{file}", self.id, self.revision)
    }

    /// The model from the hub, or from the cache if the hub is not to be, or cannot be, asked.
    fn hub_or_cache(&self) -> Result<Stored, HubError> {
        let options = self.options;
        if options.offline {
            return self.cache()?.ok_or_else(|| HubError::Offline {
                what: self.what(),
                hint: "Fetch it once with a network and without HF_HUB_OFFLINE, or give a model \
                       file or folder with --model"
                    .to_owned(),
            });
        }
        let has_other = self.has_elsewhere || snapshot(self.id, self.revision, options).is_some();
        let want = Want {
            revision: self.revision,
            file: self.file,
            bytes: self.bytes,
            first_answer: options.probe_timeout * if has_other { 1 } else { 4 },
        };
        let repo = HubRepo::open(self.id, self.gated, options)?;
        let error = match fetch(&repo, want, options) {
            Err(e) if e.is_unreachable() => e,
            done => return done,
        };
        match self.cache()? {
            Some(stored) => {
                options.say(&format!(
                    "{}; taking {} from the cache",
                    error.brief(),
                    self.what()
                ));
                Ok(stored)
            }
            None => Err(error),
        }
    }
}
