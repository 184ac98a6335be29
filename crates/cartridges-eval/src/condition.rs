//! What stands before the questions.

use cartridges_engine::{AdapterHandle, CartridgeHandle};
use cartridges_model::text::{ChatMessage, ChatTokenizer, TextError};

use crate::measurement::ConditionKind;
use crate::prompt::prompt_ids;

/// How questions are asked.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Its name in reports.
    pub name: String,
    /// The system message, with the document in it. Without one, and without a cartridge, the
    /// chat template does what it does by default.
    pub system: Option<String>,
    /// A cartridge that is resident in the engine.
    pub cartridge: Option<CartridgeHandle>,
    /// The cartridge's slots; 0 without one.
    pub slots: usize,
    /// Adapters that are registered with the engine.
    pub adapters: Vec<AdapterHandle>,
}

impl Condition {
    /// The questions alone.
    pub fn no_document(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            system: None,
            cartridge: None,
            slots: 0,
            adapters: Vec::new(),
        }
    }

    /// The questions behind a system message.
    pub fn document(name: impl Into<String>, system: impl Into<String>) -> Self {
        Self {
            system: Some(system.into()),
            ..Self::no_document(name)
        }
    }

    /// The questions behind a cartridge of `slots` slots.
    pub fn cartridge(name: impl Into<String>, handle: CartridgeHandle, slots: usize) -> Self {
        Self {
            cartridge: Some(handle),
            slots,
            ..Self::no_document(name)
        }
    }

    /// The same, with the model changed by an adapter.
    #[must_use]
    pub fn with_adapter(mut self, handle: AdapterHandle) -> Self {
        self.adapters.push(handle);
        self
    }

    /// What it is.
    pub fn kind(&self) -> ConditionKind {
        match (&self.cartridge, &self.system) {
            (Some(_), _) => ConditionKind::Cartridge,
            (None, Some(_)) => ConditionKind::Document,
            (None, None) if !self.adapters.is_empty() => ConditionKind::Adapter,
            (None, None) => ConditionKind::None,
        }
    }

    /// Ids of a conversation under this condition; see [`prompt_ids`].
    ///
    /// # Errors
    /// Those of [`prompt_ids`].
    pub fn prompt(
        &self,
        text: &ChatTokenizer,
        messages: &[ChatMessage],
    ) -> Result<Vec<u32>, TextError> {
        let behind = self.cartridge.is_some();
        prompt_ids(text, self.system.as_deref(), behind, messages)
    }
}
