//! `plan.json`: what a folder's run is about, so that nothing else is mixed into it.

use serde::{Deserialize, Serialize};

use crate::resource::Resource;
use crate::self_study::{Plan, SelfStudyConfig};

/// Version of the folder's layout.
const FORMAT_VERSION: u32 = 1;

/// A text of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedResource {
    /// Its name.
    pub name: String,
    /// Digest of its content.
    pub sha256: String,
}

/// The content of `plan.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// Version of the folder's layout.
    pub format_version: u32,
    /// The model that answers.
    pub model: String,
    /// The texts.
    pub resources: Vec<PlannedResource>,
    /// The number of tasks.
    pub num_tasks: usize,
    /// Digest of all tasks: catches another tokenizer or another version of this program.
    pub plan_sha256: String,
    /// The configuration.
    pub config: SelfStudyConfig,
}

impl PlanFile {
    pub(super) fn new(
        config: &SelfStudyConfig,
        resources: &[Box<dyn Resource>],
        model: &str,
        plan: &Plan,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            model: model.to_owned(),
            resources: resources
                .iter()
                .map(|r| PlannedResource {
                    name: r.name().to_owned(),
                    sha256: r.fingerprint(),
                })
                .collect(),
            num_tasks: plan.num_tasks,
            plan_sha256: plan.sha256(),
            config: config.clone(),
        }
    }

    /// What differs from another plan, in words; `None` if it is the same work.
    /// `batches_in_parallel` may differ, it does not change the result.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        if self.format_version != other.format_version {
            return Some(format!(
                "format_version is {} there and {} here",
                self.format_version, other.format_version
            ));
        }
        if self.model != other.model {
            return Some(format!(
                "the model is {:?} there and {:?} here",
                self.model, other.model
            ));
        }
        let names = |plan: &Self| -> Vec<String> {
            plan.resources.iter().map(|r| r.name.clone()).collect()
        };
        if names(self) != names(other) {
            return Some(format!(
                "the texts are {:?} there and {:?} here",
                names(self),
                names(other)
            ));
        }
        for (a, b) in self.resources.iter().zip(&other.resources) {
            if a.sha256 != b.sha256 {
                return Some(format!("the content of the text `{}` has changed", a.name));
            }
        }
        if let Some(fields) = config_difference(&self.config, &other.config) {
            return Some(fields);
        }
        (self.plan_sha256 != other.plan_sha256).then(|| {
            "the planned tasks differ (another tokenizer, or another version of this program)"
                .to_owned()
        })
    }
}

/// The configuration fields that differ.
fn config_difference(there: &SelfStudyConfig, here: &SelfStudyConfig) -> Option<String> {
    let fields = |config: &SelfStudyConfig| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (there, here) = (fields(there), fields(here));
    let differing: Vec<String> = there
        .iter()
        .filter(|(name, _)| *name != "batches_in_parallel")
        .filter_map(|(name, a)| {
            let b = here.get(name)?;
            (a != b).then(|| format!("{name} is {a} there and {b} here"))
        })
        .collect();
    (!differing.is_empty()).then(|| differing.join(", "))
}
