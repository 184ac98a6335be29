//! The statistics of an adapter beside it: `statistics/TARGET-CORPUS.safetensors`, one file per map
//! and corpus, and `statistics/TARGET-background.safetensors`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cartridges_model::adapter::Target;

use crate::error::TransmuteError;
use crate::statistics::{CorpusId, SiteStatistics};
use crate::sweep::TargetStatistics;

const FOLDER: &str = "statistics";
const BACKGROUND: &str = "background";
/// Digits of a corpus's identity in the name of a file; the file itself has all of them.
const DIGITS: usize = 12;

/// The folder `statistics` of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsFolder(PathBuf);

impl StatisticsFolder {
    /// That of the adapter in `folder`.
    pub fn of(folder: &Path) -> Self {
        Self(folder.join(FOLDER))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Saves one file per corpus and one for the background.
    ///
    /// # Errors
    /// [`TransmuteError::Write`] for the first file that cannot be written.
    pub fn save(&self, statistics: &TargetStatistics) -> Result<(), TransmuteError> {
        let target = statistics.target;
        for corpus in &statistics.corpora {
            let ids: Vec<CorpusId> = corpus.corpora().keys().copied().collect();
            corpus.save(&self.0.join(file_name(target, &ids)))?;
        }
        statistics.background.save(&self.background(target))
    }

    /// Loads what was saved of a map.
    ///
    /// # Errors
    /// [`TransmuteError::Read`] if there is no folder or no background in it, and
    /// [`SiteStatistics::load`]'s.
    pub fn load(&self, target: Target) -> Result<TargetStatistics, TransmuteError> {
        let files = self.corpus_files(target)?;
        let corpora = files.values().map(|path| SiteStatistics::load(path));
        Ok(TargetStatistics {
            target,
            corpora: corpora.collect::<Result<_, _>>()?,
            background: SiteStatistics::load(&self.background(target))?,
        })
    }

    /// The files of a map's corpora by name.
    fn corpus_files(&self, target: Target) -> Result<BTreeMap<String, PathBuf>, TransmuteError> {
        let failed = |source| TransmuteError::Read {
            path: self.0.clone(),
            source,
        };
        let prefix = format!("{target}-");
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let corpus = name
                .and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".safetensors"))
                .filter(|corpus| *corpus != BACKGROUND);
            if let Some(corpus) = corpus {
                found.insert(corpus.to_owned(), path);
            }
        }
        Ok(found)
    }

    fn background(&self, target: Target) -> PathBuf {
        self.0.join(format!("{target}-{BACKGROUND}.safetensors"))
    }
}

fn file_name(target: Target, corpora: &[CorpusId]) -> String {
    let ids = corpora.iter().map(|id| id.to_string()[..DIGITS].to_owned());
    let ids: Vec<String> = ids.collect();
    format!("{target}-{}.safetensors", ids.join("-"))
}
