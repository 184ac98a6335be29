//! What the settings of a LoRA adapter say about its arithmetic, and which of them are refused.

use serde_json::Value;

use crate::peft_folder::{Settings, short};
use crate::tensor_folder::FolderError;

/// Settings that change what the adapter computes in ways that deltas and biases cannot follow.
const REFUSED: [&str; 12] = [
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
];

/// Starts that leave the base model's weights as they were.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Rank and scale of an adapter.
pub(super) struct LoraSettings {
    rank: usize,
    alpha: f64,
    /// Divide by the square root of the rank, not by the rank.
    root: bool,
    ranks: Vec<(String, f64)>,
    alphas: Vec<(String, f64)>,
}

impl LoraSettings {
    /// Reads and checks the settings.
    pub(super) fn read(settings: &Settings) -> Result<Self, FolderError> {
        for field in REFUSED {
            if let Some(value) = settings.get(field).filter(|value| says_something(value)) {
                let problem = format!("{}, which is more than LoRA", short(value));
                return Err(settings.wrong(field, problem));
            }
        }
        if let Some(start) = settings.get("init_lora_weights")
            && let Some(name) = start.as_str()
            && !PLAIN_STARTS.contains(&name)
        {
            let problem = format!(
                "{}, which changes the base model's weights; save it converted to LoRA",
                short(start)
            );
            return Err(settings.wrong("init_lora_weights", problem));
        }
        if let Some(kind) = settings.text("bias")?
            && kind != "none"
        {
            let problem =
                format!("{kind:?}, expected \"none\": biases of the model are not replaced");
            return Err(settings.wrong("bias", problem));
        }
        Ok(Self {
            rank: settings.size("r")?,
            alpha: number(settings, "lora_alpha", settings.get("lora_alpha"))?,
            root: flag(settings, "use_rslora")?,
            ranks: patterns(settings, "rank_pattern")?,
            alphas: patterns(settings, "alpha_pattern")?,
        })
    }

    /// What the delta at `path` is multiplied with. Its tensors have rank `found`.
    pub(super) fn scale(
        &self,
        path: &str,
        found: usize,
        settings: &Settings,
    ) -> Result<f32, FolderError> {
        let rank = of(&self.ranks, path).unwrap_or(self.rank as f64);
        if rank != found as f64 {
            let problem = format!("{rank} for {path}, its tensors have rank {found}");
            return Err(settings.wrong("r", problem));
        }
        let alpha = of(&self.alphas, path).unwrap_or(self.alpha);
        let divisor = if self.root { rank.sqrt() } else { rank };
        Ok((alpha / divisor) as f32)
    }
}

/// Whether a setting is anything but absent, false or empty.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

fn number(settings: &Settings, field: &str, value: Option<&Value>) -> Result<f64, FolderError> {
    value
        .and_then(Value::as_f64)
        .filter(|n| n.is_finite())
        .ok_or_else(|| {
            let found = value.map_or("missing".to_owned(), short);
            settings.wrong(field, format!("{found}, expected a number"))
        })
}

fn flag(settings: &Settings, field: &str) -> Result<bool, FolderError> {
    match settings.get(field) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => {
            Err(settings.wrong(field, format!("{}, expected true or false", short(other))))
        }
    }
}

/// Exceptions for some modules. PEFT takes the names as regular expressions; only plain ones are read.
fn patterns(settings: &Settings, field: &str) -> Result<Vec<(String, f64)>, FolderError> {
    let entries = match settings.get(field) {
        None => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => {
            let problem = format!("{}, expected an object", short(other));
            return Err(settings.wrong(field, problem));
        }
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
    let read = |(name, value): (&String, &Value)| {
        // The caret is how PEFT marks a whole path.
        let bare = name.strip_prefix('^').unwrap_or(name);
        if bare.is_empty() || !bare.bytes().all(plain) {
            let name: String = name.chars().take(60).collect();
            let problem = format!("a pattern for {name:?}, expected plain names of modules");
            return Err(settings.wrong(field, problem));
        }
        Ok((name.clone(), number(settings, field, Some(value))?))
    };
    entries.iter().map(read).collect()
}

/// The first exception that fits a path: it is the path or its end, from a dot on.
fn of(patterns: &[(String, f64)], path: &str) -> Option<f64> {
    let fits = |name: &str| match name.strip_prefix('^') {
        Some(whole) => path == whole,
        None => path
            .strip_suffix(name)
            .is_some_and(|before| before.is_empty() || before.ends_with('.')),
    };
    patterns
        .iter()
        .find(|(name, _)| fits(name))
        .map(|(_, n)| *n)
}
