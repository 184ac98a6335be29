//! What stands before the questions.

use std::sync::Arc;

use cartridges_engine::{AdapterHandle, CartridgeHandle};
use cartridges_model::text::{ChatMessage, ChatTokenizer, TextError};

use crate::measurement::ConditionKind;
use crate::prompt::prompt_ids;
use crate::retriever::Retriever;

/// How questions are asked.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Its name in reports.
    pub name: String,
    /// The system message, with the document in it. Without one, and without a cartridge, the
    /// chat template does what it does by default.
    pub system: Option<String>,
    /// The document, of which what looks most like the question becomes the system message.
    pub retriever: Option<Arc<Retriever>>,
    /// Cartridges that are resident in the engine, in the order they stand before the question.
    pub cartridges: Vec<CartridgeHandle>,
    /// Their slots together; 0 without any.
    pub slots: usize,
    /// Adapters that are registered with the engine.
    pub adapters: Vec<AdapterHandle>,
    /// What it is.
    pub kind: ConditionKind,
}

impl Condition {
    /// The questions alone.
    pub fn no_document(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            system: None,
            retriever: None,
            cartridges: Vec::new(),
            slots: 0,
            adapters: Vec::new(),
            kind: ConditionKind::None,
        }
    }

    /// The questions behind a system message.
    pub fn document(name: impl Into<String>, system: impl Into<String>) -> Self {
        Self {
            system: Some(system.into()),
            kind: ConditionKind::Document,
            ..Self::no_document(name)
        }
    }

    /// The questions, each behind the pieces of a document that look most like it.
    pub fn retrieval(name: impl Into<String>, retriever: Retriever) -> Self {
        Self {
            retriever: Some(Arc::new(retriever)),
            kind: ConditionKind::Retrieval,
            ..Self::no_document(name)
        }
    }

    /// The same as another kind of thing: the beginning of a document, or a summary.
    #[must_use]
    pub fn called(mut self, kind: ConditionKind) -> Self {
        self.kind = kind;
        self
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
        self.kind = ConditionKind::Cartridge;
        self
    }

    /// The same, with the model changed by an adapter.
    #[must_use]
    pub fn with_adapter(mut self, handle: AdapterHandle) -> Self {
        self.adapters.push(handle);
        if self.cartridges.is_empty() {
            self.kind = ConditionKind::Adapter;
        }
        self
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
        let found = match (&self.retriever, messages.last()) {
            (Some(retriever), Some(asked)) => Some(retriever.system(&asked.content)),
            _ => None,
        };
        let system = found.as_deref().or(self.system.as_deref());
        prompt_ids(text, system, behind, messages)
    }
}
