//! Contexts from the nodes of a tree.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::draw::chunk_of;
use crate::chunker::{ChunkError, Chunker};
use crate::resource::document::Document;
use crate::resource::material::Node;

/// Bytes that a token has at most, on average, in anything worth reading; more text is not counted.
const MAX_BYTES_PER_TOKEN: usize = 16;

/// Nodes. One is drawn uniformly and then widened to the largest node around it that still fits in
/// the longest chunk, so that a bare number does not stand alone.
pub(in crate::resource) struct Nodes {
    nodes: Vec<Node>,
    offered: Vec<usize>,
    chunker: Chunker,
}

impl Nodes {
    pub(super) fn new(nodes: Vec<Node>, chunker: Chunker) -> Self {
        Self {
            offered: (0..nodes.len()).filter(|&i| nodes[i].offered).collect(),
            nodes,
            chunker,
        }
    }

    pub(super) fn draw(
        &self,
        document: &Document,
        rng: &mut ChaCha8Rng,
    ) -> Result<String, ChunkError> {
        if self.offered.is_empty() {
            return Err(ChunkError::Empty);
        }
        let mut node = &self.nodes[self.offered[rng.random_range(0..self.offered.len())]];
        while let Some(parent) = node.parent.map(|parent| &self.nodes[parent])
            && parent.offered
            && self.fits(document, parent)
        {
            node = parent;
        }
        let text = document.text().get(node.range.clone()).unwrap_or_default();
        let body = chunk_of(text, document, self.chunker, rng)?;
        Ok(match node.path.is_empty() {
            true => body,
            false => format!(
                "The following is located at the path {}:\n\n{body}",
                node.path
            ),
        })
    }

    fn fits(&self, document: &Document, node: &Node) -> bool {
        let most = self.chunker.max_tokens();
        let text = document.text().get(node.range.clone()).unwrap_or_default();
        text.len() <= most.saturating_mul(MAX_BYTES_PER_TOKEN)
            && document.codec().encode(text).len() <= most
    }
}
