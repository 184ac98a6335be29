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
    /// Cartridges that are resident in the engine, in the order they stand before the question.
    pub cartridges: Vec<CartridgeHandle>,
    /// Their slots together; 0 without any.
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
            cartridges: Vec::new(),
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
        Self::no_document(name).with_cartridge(handle, slots)
    }

    /// The same, behind one more cartridge.
    #[must_use]
    pub fn with_cartridge(mut self, handle: CartridgeHandle, slots: usize) -> Self {
        self.cartridges.push(handle);
        self.slots += slots;
        self
    }

    /// The same, with the model changed by an adapter.
    #[must_use]
    pub fn with_adapter(mut self, handle: AdapterHandle) -> Self {
        self.adapters.push(handle);
        self
    }

    /// What it is.
    pub fn kind(&self) -> ConditionKind {
        match &self.system {
            _ if !self.cartridges.is_empty() => ConditionKind::Cartridge,
            Some(_) => ConditionKind::Document,
            None if !self.adapters.is_empty() => ConditionKind::Adapter,
            None => ConditionKind::None,
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
        let behind = !self.cartridges.is_empty();
        prompt_ids(text, self.system.as_deref(), behind, messages)
    }
}
