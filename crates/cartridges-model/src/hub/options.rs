//! How models are looked for and fetched.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::HubError;

/// Takes one line for the person who waits; no newline at its end.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// How models are looked for and fetched.
///
/// [`ResolveOptions::from_env`] is what a program wants; [`ResolveOptions::default`] reads
/// `HF_HUB_OFFLINE` not.
#[derive(Clone)]
pub struct ResolveOptions {
    /// Ask no one; use what is on this machine.
    pub offline: bool,
    /// Token for the hub. `None`: `HF_TOKEN`, else the token file of the hub's own tools
    /// (`HF_TOKEN_PATH`, `$HF_HOME/token`).
    pub token: Option<String>,
    /// Branch, tag or commit; wins over the one in the reference or the card. A card that is asked
    /// for another revision is taken from the hub only.
    pub revision: Option<String>,
    /// Folder for files that are put together here. `None`: `CARTRIDGES_CACHE`, else
    /// `cartridges/models` in the platform's cache folder.
    pub cache_dir: Option<PathBuf>,
    /// The hub cache, in the layout of the hub's own tools. `None`: `HF_HUB_CACHE`, else
    /// `$HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub hub_cache: Option<PathBuf>,
    /// Address of the hub. `None`: `HF_ENDPOINT`, else `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// Show a progress bar, if stderr is a terminal.
    pub progress: bool,
    /// How long the hub may take for its first answer before another source, or the cache, is used
    /// instead. Where there is neither, it gets four times as long.
    pub probe_timeout: Duration,
    /// How long a transfer may stand still.
    pub stall_timeout: Duration,
    /// The pip to use, as a command and its first arguments. Empty: `python3 -m pip`, then
    /// `python -m pip`.
    pub pip_command: Vec<String>,
    /// Where lines for the person who waits go. `None`: `tracing`, level info.
    pub notice: Option<Notice>,
}

impl Default for ResolveOptions {
    fn default() -> Self {
        Self {
            offline: false,
            token: None,
            revision: None,
            cache_dir: None,
            hub_cache: None,
            endpoint: None,
            progress: true,
            probe_timeout: Duration::from_secs(8),
            stall_timeout: Duration::from_secs(60),
            pip_command: Vec::new(),
            notice: None,
        }
    }
}

impl fmt::Debug for ResolveOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolveOptions")
            .field("offline", &self.offline)
            .field("token_set", &self.token.is_some())
            .field("revision", &self.revision)
            .field("cache_dir", &self.cache_dir)
            .field("hub_cache", &self.hub_cache)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl ResolveOptions {
    /// The defaults, offline if `HF_HUB_OFFLINE` is `1`, `true`, `yes` or `on` (the hub crate does
    /// not read that variable itself).
    #[must_use]
    pub fn from_env() -> Self {
        Self {
            offline: std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| is_yes(&v)),
            ..Self::default()
        }
    }

    /// The folder for files that are put together here.
    ///
    /// # Errors
    /// [`HubError::NoCache`] if neither the options nor the environment name one.
    pub fn models_folder(&self) -> Result<PathBuf, HubError> {
        match &self.cache_dir {
            Some(folder) => Ok(folder.clone()),
            None => platform_cache(|name| std::env::var_os(name)).ok_or(HubError::NoCache),
        }
    }

    /// The hub cache.
    #[must_use]
    pub fn hub_folder(&self) -> PathBuf {
        self.hub_cache
            .clone()
            .unwrap_or_else(hf_hub::resolve_cache_dir)
    }

    /// Says one line to the person who waits.
    pub(crate) fn say(&self, line: &str) {
        match &self.notice {
            Some(notice) => notice(line),
            None => tracing::info!("{line}"),
        }
    }
}

fn is_yes(value: &str) -> bool {
    ["1", "true", "yes", "on"]
        .iter()
        .any(|yes| value.trim().eq_ignore_ascii_case(yes))
}

/// `CARTRIDGES_CACHE`, else the place where the platform keeps what can be fetched again.
fn platform_cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(own) = folder("CARTRIDGES_CACHE") {
        return Some(own);
    }
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")?
    } else if cfg!(target_os = "macos") {
        folder("HOME")?.join("Library/Caches")
    } else {
        // A relative XDG path is to be ignored, says its specification.
        match folder("XDG_CACHE_HOME").filter(|p| p.is_absolute()) {
            Some(xdg) => xdg,
            None => folder("HOME")?.join(".cache"),
        }
    };
    Some(base.join("cartridges").join("models"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(pairs: &[(&str, &str)]) -> Option<PathBuf> {
        platform_cache(|name| {
            let hit = pairs.iter().find(|(n, _)| *n == name)?;
            Some(OsString::from(hit.1))
        })
    }

    #[test]
    fn the_cache_folder_follows_the_environment() {
        assert_eq!(
            cache(&[("CARTRIDGES_CACHE", "/big"), ("HOME", "/home/u")]),
            Some(PathBuf::from("/big"))
        );
        assert_eq!(cache(&[]), None);
        if cfg!(target_os = "linux") {
            assert_eq!(
                cache(&[("CARTRIDGES_CACHE", ""), ("HOME", "/home/u")]),
                Some(PathBuf::from("/home/u/.cache/cartridges/models"))
            );
            assert_eq!(
                cache(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/home/u")]),
                Some(PathBuf::from("/x/cartridges/models"))
            );
            assert_eq!(
                cache(&[("XDG_CACHE_HOME", "x"), ("HOME", "/home/u")]),
                Some(PathBuf::from("/home/u/.cache/cartridges/models"))
            );
        }
    }

    #[test]
    fn the_token_is_not_shown_and_yes_has_many_spellings() {
        let options = ResolveOptions {
            token: Some("hf_secret".into()),
            ..ResolveOptions::default()
        };
        assert!(!format!("{options:?}").contains("secret"));
        assert!(is_yes("1") && is_yes("TRUE") && is_yes("On"));
        assert!(!is_yes("0") && !is_yes(""));
    }
}
