//! Single files of a repository, by name.

use std::path::PathBuf;

use super::client::HubRepo;
use super::progress::human;
use super::reference::is_hub_id;
use super::snapshot::Visit;
use super::{HubError, ResolveOptions};

/// Fetches the files `names` of the hub repository `id` (`owner/name`), and gives the folder in the
/// hub's cache in which they lie. What is in the cache already is not fetched again.
///
/// # Errors
/// If the hub cannot be reached, a file is missing, longer than `limit` bytes, or not what the hub
/// says it is.
pub fn fetch_files(
    id: &str,
    names: &[&str],
    limit: u64,
    options: &ResolveOptions,
) -> Result<PathBuf, HubError> {
    if !is_hub_id(id) {
        return Err(HubError::BadReference {
            text: id.to_owned(),
            hint: "a repository is named owner/name".to_owned(),
        });
    }
    let repo = HubRepo::open(id, false, options)?;
    let revision = options.revision.as_deref().unwrap_or("main");
    let commit = repo.commit(revision, options.probe_timeout)?;
    let files = repo.files(&commit)?;
    let wanted: Vec<_> = names
        .iter()
        .map(|name| {
            let missing = || HubError::NotFound {
                what: format!("{name} in {id}"),
                hint: "the repository does not hold it".to_owned(),
            };
            let file = files.iter().find(|f| f.path == *name).ok_or_else(missing)?;
            if file.bytes > limit {
                return Err(HubError::Unusable {
                    id: id.to_owned(),
                    hint: format!(
                        "{name} has {}, more than {}",
                        human(file.bytes),
                        human(limit)
                    ),
                });
            }
            Ok(file)
        })
        .collect::<Result<_, _>>()?;
    let visit = Visit {
        repo: &repo,
        commit: &commit,
        files: &files,
        options,
    };
    let mut folder = PathBuf::new();
    for file in wanted {
        let (path, _) = visit.get(file)?;
        folder = path.parent().map(PathBuf::from).unwrap_or_default();
    }
    Ok(folder)
}
