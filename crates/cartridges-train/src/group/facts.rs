//! What must be the same in all processes of a group.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::TrainConfig;

/// Model, data and settings, for comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts(Map<String, Value>);

impl Facts {
    /// Of a run with these fingerprints of the model's weights and of the data.
    pub fn new(model: &str, data: &str, config: &TrainConfig) -> Self {
        let mut facts = match serde_json::to_value(config.essence()) {
            Ok(Value::Object(settings)) => settings,
            _ => Map::new(),
        };
        let others = [
            ("model weights", json!(model)),
            ("data", json!(data)),
            ("program version", json!(env!("CARGO_PKG_VERSION"))),
        ];
        facts.extend(others.map(|(name, value)| (name.to_owned(), value)));
        Self(facts)
    }

    /// The first thing that differs, in words.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let names = self.0.keys().chain(other.0.keys());
        let say = |value: Option<&Value>| value.map_or("not set".to_owned(), Value::to_string);
        names
            .map(|name| (name, self.0.get(name), other.0.get(name)))
            .find(|(_, here, there)| here != there)
            .map(|(name, here, there)| {
                format!(
                    "{name} is {} there and {} at the leader",
                    say(there),
                    say(here)
                )
            })
    }
}
