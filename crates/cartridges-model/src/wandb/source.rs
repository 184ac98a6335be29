//! Names of artifacts and runs.

use std::fmt;
use std::str::FromStr;

use super::error::WandbError;

/// An artifact (`ENTITY/PROJECT/NAME:VERSION`) or a run (`ENTITY/PROJECT/RUN`). Without a version the
/// newest artifact of the name is meant, or else the run of that id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WandbSource {
    /// User or team.
    pub entity: String,
    /// Project.
    pub project: String,
    /// Name of the artifact or id of the run.
    pub name: String,
    /// The artifact's version or alias.
    pub version: Option<String>,
}

impl WandbSource {
    /// Whether a text is meant as one: it begins with `wandb:`.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("wandb:")
    }
}

impl FromStr for WandbSource {
    type Err = WandbError;

    /// With or without `wandb:` (or `wandb://`) in front.
    fn from_str(text: &str) -> Result<Self, WandbError> {
        let bad = || WandbError::Name {
            given: text.to_owned(),
        };
        let rest = text.strip_prefix("wandb:").unwrap_or(text);
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, version) = match rest.split_once(':') {
            Some((path, version)) => (path, Some(version)),
            None => (rest, None),
        };
        let plain = |part: &str| {
            let letters = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
            !part.is_empty() && part.chars().all(letters) && !part.chars().all(|c| c == '.')
        };
        let parts: Vec<&str> = path.split('/').collect();
        let [entity, project, name] = parts[..] else {
            return Err(bad());
        };
        if !(parts.iter().all(|part| plain(part)) && version.is_none_or(plain)) {
            return Err(bad());
        }
        Ok(Self {
            entity: entity.to_owned(),
            project: project.to_owned(),
            name: name.to_owned(),
            version: version.map(str::to_owned),
        })
    }
}

impl fmt::Display for WandbSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.entity, self.project, self.name)?;
        match &self.version {
            Some(version) => write!(f, ":{version}"),
            None => Ok(()),
        }
    }
}
