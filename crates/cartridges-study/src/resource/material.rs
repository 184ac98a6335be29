//! What reading a resource gives, before there is a tokenizer.

use std::ops::Range;

use super::notes::Notes;

/// A text, how contexts are drawn from it, and what there is to tell about it.
pub(super) struct Material {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) shape: Shape,
    pub(super) notes: Notes,
}

/// How contexts are drawn. All ranges are byte ranges of the text.
pub(super) enum Shape {
    /// A chunk of the whole, behind an introduction if there is one.
    Running {
        /// What every context begins with.
        intro: String,
    },
    /// A chunk of one item, behind the item's header.
    Items(Vec<Item>),
    /// Some parts of one record.
    Records {
        /// The records.
        records: Vec<Record>,
        /// Fewest parts in a context.
        min_parts: usize,
        /// Most parts in a context.
        max_parts: usize,
        /// A longer part is replaced by a window of this many characters.
        max_chars: Option<usize>,
    },
    /// A node of a tree, with the nodes around it that still fit.
    Nodes(Vec<Node>),
    /// Runs of consecutive sentences.
    Sentences {
        /// What every context begins with.
        intro: String,
        /// The sentences.
        sentences: Vec<Range<usize>>,
        /// Fewest and most sentences of a run.
        per_run: (usize, usize),
        /// Fewest and most runs of a context.
        runs: (usize, usize),
    },
}

/// A file, a message thread, or the like.
pub(super) struct Item {
    pub(super) header: String,
    pub(super) body: Range<usize>,
}

/// A patient, a paper, or the like.
pub(super) struct Record {
    pub(super) header: String,
    pub(super) parts: Vec<Part>,
    pub(super) footer: String,
}

/// A piece of a record, which is shown between its opening and closing line.
pub(super) struct Part {
    pub(super) open: String,
    pub(super) body: Range<usize>,
    pub(super) close: String,
}

/// A value somewhere in a tree.
pub(super) struct Node {
    pub(super) path: String,
    pub(super) range: Range<usize>,
    /// The node that holds it, which stands before it in the list.
    pub(super) parent: Option<usize>,
    /// Whether contexts may be drawn from it.
    pub(super) offered: bool,
}

impl Material {
    /// A text that chunks are drawn from.
    pub(super) fn running(name: impl Into<String>, text: String) -> Self {
        Self {
            name: name.into(),
            text,
            shape: Shape::Running {
                intro: String::new(),
            },
            notes: Notes::default(),
        }
    }
}

/// Puts the text of items together.
#[derive(Default)]
pub(super) struct ItemText {
    pub(super) text: String,
    pub(super) items: Vec<Item>,
}

impl ItemText {
    /// Adds an item: its header, a blank line, its body.
    pub(super) fn push(&mut self, header: String, body: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        self.text.push_str(&header);
        self.text.push_str("\n\n");
        let start = self.text.len();
        self.text.push_str(body.trim_matches('\n'));
        self.items.push(Item {
            header,
            body: start..self.text.len(),
        });
    }
}
