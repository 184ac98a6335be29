//! `cartridge.json`: which model a cartridge belongs to and how it was made.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dtype::CartridgeDtype;
use super::error::{CartridgeError, Difference};
use super::host::HostCartridge;
use crate::digest::is_sha256;

/// The only format version there is so far.
pub const FORMAT_VERSION: u32 = 1;

/// What tells one model from another as far as a cartridge is concerned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelIdentity {
    /// Hub id or file name; only for people, never compared.
    pub id: String,
    /// Fingerprint of the settings that shape the arithmetic (widths, norms, activation, ...).
    pub config_fingerprint: String,
    /// Fingerprint of the weights. A quantised copy of the same model has another one.
    pub weights_fingerprint: String,
    /// Fingerprint of the tokenizer.
    pub tokenizer_fingerprint: String,
    /// Number of decoder layers.
    pub num_layers: usize,
    /// Number of key/value heads.
    pub num_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rotary settings (theta, scaling). Keys are stored rotated, so these must agree.
    pub rope: Value,
}

/// The content of `cartridge.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CartridgeManifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The model the cartridge was made for; its layer and head counts are the cartridge's own.
    pub base_model: ModelIdentity,
    /// Number of slots `p`, frozen ones included.
    pub slots: usize,
    /// Number of leading slots that were not trained.
    pub frozen: usize,
    /// Element type of the tensor file.
    pub dtype: CartridgeDtype,
    /// How it was made: program version, stage, config, data set hash, steps, unix time, ...
    pub made_by: Value,
    /// SHA-256 of the whole tensor file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl CartridgeManifest {
    /// Checks that the cartridge fits `model`.
    ///
    /// Shapes, rotary settings and the config fingerprint must agree. The fingerprints of weights and
    /// tokenizer must agree too unless `allow_other_weights`, which is for another file of the same
    /// model, such as a quantised one. The id is not compared: a GGUF file and a folder of the same
    /// model have different ones.
    ///
    /// # Errors
    /// [`CartridgeError::ModelMismatch`] with every property that differs.
    pub fn check(
        &self,
        model: &ModelIdentity,
        allow_other_weights: bool,
    ) -> Result<(), CartridgeError> {
        self.base_model
            .check("cartridge", model, allow_other_weights)
    }

    /// Checks the fields against each other; `path` is named in errors.
    pub(super) fn validate_fields(&self, path: &Path) -> Result<(), CartridgeError> {
        let wrong = |field, problem: String| {
            Err(CartridgeError::Field {
                path: path.to_owned(),
                field,
                problem,
            })
        };
        if self.format_version != FORMAT_VERSION {
            let found = self.format_version;
            let problem = format!("is {found}, this program reads version {FORMAT_VERSION}");
            return wrong("format_version", problem);
        }
        for (field, size) in [
            ("base_model.num_layers", self.base_model.num_layers),
            ("base_model.num_kv_heads", self.base_model.num_kv_heads),
            ("base_model.head_dim", self.base_model.head_dim),
            ("slots", self.slots),
        ] {
            if size == 0 {
                return wrong(field, "is 0, expected at least 1".to_owned());
            }
        }
        if self.frozen > self.slots {
            let problem = format!(
                "is {}, expected at most the {} slots",
                self.frozen, self.slots
            );
            return wrong("frozen", problem);
        }
        if !is_sha256(&self.sha256) {
            return wrong(
                "sha256",
                "is not 64 lower-case hexadecimal digits".to_owned(),
            );
        }
        Ok(())
    }
}

impl ModelIdentity {
    /// Checks that `what` was made for `model`, if this is the model that it names.
    pub(crate) fn check(
        &self,
        what: &'static str,
        model: &ModelIdentity,
        allow_other_weights: bool,
    ) -> Result<(), CartridgeError> {
        let mut differences = Vec::new();
        let mut compare = |property, expected: &str, found: &str| {
            if expected != found {
                differences.push(Difference {
                    property,
                    expected: expected.to_owned(),
                    found: found.to_owned(),
                });
            }
        };
        for (property, expected, found) in [
            ("num_layers", self.num_layers, model.num_layers),
            ("num_kv_heads", self.num_kv_heads, model.num_kv_heads),
            ("head_dim", self.head_dim, model.head_dim),
        ] {
            compare(property, &expected.to_string(), &found.to_string());
        }
        if !same_json(&self.rope, &model.rope) {
            compare("rope", &self.rope.to_string(), &model.rope.to_string());
        }
        compare(
            "config_fingerprint",
            &self.config_fingerprint,
            &model.config_fingerprint,
        );
        let only_files_can_differ = differences.is_empty();
        if !allow_other_weights {
            for (property, expected, found) in [
                (
                    "tokenizer_fingerprint",
                    &self.tokenizer_fingerprint,
                    &model.tokenizer_fingerprint,
                ),
                (
                    "weights_fingerprint",
                    &self.weights_fingerprint,
                    &model.weights_fingerprint,
                ),
            ] {
                if expected != found {
                    differences.push(Difference {
                        property,
                        expected: expected.clone(),
                        found: found.clone(),
                    });
                }
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(CartridgeError::ModelMismatch {
            what,
            made_for: describe(self),
            given: describe(model),
            differences,
            advice: if only_files_can_differ {
                "If this is another file of the same model (for example quantised), say so by \
                 allowing other weights; else load the model it was made for"
            } else {
                "Load the model it was made for, or make one for this model"
            },
        })
    }

    /// Checks that a cartridge has this model's number of layers, heads and head width.
    ///
    /// # Errors
    /// [`CartridgeError::Shape`] for the first that differs.
    pub fn check_shape(&self, cartridge: &HostCartridge) -> Result<(), CartridgeError> {
        for (field, found, expected) in [
            ("layers", cartridge.layers.len(), self.num_layers),
            ("kv_heads", cartridge.kv_heads, self.num_kv_heads),
            ("head_dim", cartridge.head_dim, self.head_dim),
        ] {
            if found != expected {
                let problem = format!("is {found}, the model {} has {expected}", self.id);
                return Err(CartridgeError::shape(field, problem));
            }
        }
        Ok(())
    }
}

/// "Qwen/X (weights 1a2b3c4d…)".
fn describe(model: &ModelIdentity) -> String {
    let full = &model.weights_fingerprint;
    let short: String = full.chars().take(12).collect();
    let dots = if short.len() < full.len() { "…" } else { "" };
    format!("{} (weights {short}{dots})", model.id)
}

/// Equality in which 10000 and 10000.0 are the same number.
fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same_json(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && (x.iter()).all(|(k, x)| y.get(k).is_some_and(|y| same_json(x, y)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model() -> ModelIdentity {
        ModelIdentity {
            id: "Qwen/Qwen3-0.6B".into(),
            config_fingerprint: "cfg".into(),
            weights_fingerprint: "0123456789abcdef".into(),
            tokenizer_fingerprint: "tok".into(),
            num_layers: 28,
            num_kv_heads: 8,
            head_dim: 128,
            rope: json!({"theta": 1000000, "scaling": null}),
        }
    }

    fn manifest() -> CartridgeManifest {
        CartridgeManifest {
            format_version: 1,
            base_model: model(),
            slots: 128,
            frozen: 1,
            dtype: CartridgeDtype::Bf16,
            made_by: json!({"stage": "train"}),
            sha256: "0".repeat(64),
        }
    }

    #[test]
    fn the_same_model_under_another_name_fits() {
        let mut other = model();
        other.id = "qwen3-0.6b.gguf".into();
        other.rope = json!({"scaling": null, "theta": 1e6});
        manifest().check(&other, false).unwrap();
    }

    #[test]
    fn other_weights_need_permission() {
        let mut other = model();
        other.weights_fingerprint = "fedcba9876543210".into();
        other.tokenizer_fingerprint = "gguf-tok".into();
        let text = manifest().check(&other, false).unwrap_err().to_string();
        for part in [
            "made for Qwen/Qwen3-0.6B (weights 0123456789ab…)",
            "weights_fingerprint is fedcba9876543210, expected 0123456789abcdef",
            "tokenizer_fingerprint is gguf-tok, expected tok",
            "allowing other weights",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        manifest().check(&other, true).unwrap();
    }

    #[test]
    fn shape_rope_and_config_never_pass() {
        let mut other = model();
        other.num_layers = 36;
        other.head_dim = 64;
        other.rope = json!({"theta": 1e4, "scaling": null});
        other.config_fingerprint = "else".into();
        let error = manifest().check(&other, true).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("num_layers is 36, expected 28"), "{text}");
        assert!(text.contains("make one for this model"), "{text}");
        let CartridgeError::ModelMismatch { differences, .. } = error else {
            panic!("{error}");
        };
        let names: Vec<_> = differences.iter().map(|d| d.property).collect();
        assert_eq!(
            names,
            ["num_layers", "head_dim", "rope", "config_fingerprint"]
        );
    }

    #[test]
    fn unknown_fields_and_bad_values_are_refused() {
        let mut json = serde_json::to_value(manifest()).unwrap();
        assert_eq!(json["dtype"], "bf16");
        json["extra"] = json!(1);
        assert!(serde_json::from_value::<CartridgeManifest>(json).is_err());
        let path = Path::new("x.json");
        manifest().validate_fields(path).unwrap();
        type Change = fn(&mut CartridgeManifest);
        let changes: [(&str, Change); 4] = [
            ("format_version", |m| m.format_version = 2),
            ("slots", |m| m.slots = 0),
            ("frozen", |m| m.frozen = 129),
            ("sha256", |m| m.sha256 = "A".repeat(64)),
        ];
        for (field, change) in changes {
            let mut bad = manifest();
            change(&mut bad);
            let text = bad.validate_fields(path).unwrap_err().to_string();
            assert!(text.contains(field), "{text}");
        }
    }
}
