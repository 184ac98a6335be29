//! Writing a JSON value as text, remembering where each part of it stands.

use serde_json::Value;

use super::paths::join;
use crate::resource::material::Node;

/// Nodes that are remembered; what lies beyond is text all the same.
pub(super) const MAX_NODES: usize = 200_000;

/// Text with the nodes of the values in it.
pub(super) struct Outline {
    pub(super) text: String,
    pub(super) nodes: Vec<Node>,
    /// Nodes that were too many to remember.
    pub(super) not_remembered: usize,
    leaves_only: bool,
}

impl Outline {
    pub(super) fn new(leaves_only: bool) -> Self {
        Self {
            text: String::new(),
            nodes: Vec::new(),
            not_remembered: 0,
            leaves_only,
        }
    }

    /// Writes a value, indented as deep as it lies; a string that stands alone is written as it is.
    pub(super) fn value(&mut self, path: &str, value: &Value) {
        if let Value::String(text) = value {
            let node = self.open(path, None, value);
            self.text.push_str(text);
            self.close(node);
        } else {
            self.nested(path, value, None, 0);
        }
    }

    fn nested(&mut self, path: &str, value: &Value, parent: Option<usize>, depth: usize) {
        let node = self.open(path, parent, value);
        match value {
            Value::Array(values) if !values.is_empty() => {
                self.text.push('[');
                for (i, value) in values.iter().enumerate() {
                    self.line(i, depth + 1);
                    self.nested(&join(path, &i.to_string()), value, node, depth + 1);
                }
                self.line_end(depth, ']');
            }
            Value::Object(fields) if !fields.is_empty() => {
                self.text.push('{');
                for (i, (key, value)) in fields.iter().enumerate() {
                    self.line(i, depth + 1);
                    self.text.push_str(&Value::from(key.as_str()).to_string());
                    self.text.push_str(": ");
                    self.nested(&join(path, key), value, node, depth + 1);
                }
                self.line_end(depth, '}');
            }
            leaf => self.text.push_str(&leaf.to_string()),
        }
        self.close(node);
    }

    fn line(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.text.push(',');
        }
        self.text.push('\n');
        self.text.push_str(&"  ".repeat(depth));
    }

    fn line_end(&mut self, depth: usize, bracket: char) {
        self.text.push('\n');
        self.text.push_str(&"  ".repeat(depth));
        self.text.push(bracket);
    }

    fn open(&mut self, path: &str, parent: Option<usize>, value: &Value) -> Option<usize> {
        if self.nodes.len() >= MAX_NODES {
            self.not_remembered += 1;
            return None;
        }
        let leaf = !matches!(value, Value::Array(_) | Value::Object(_));
        self.nodes.push(Node {
            path: path.to_owned(),
            range: self.text.len()..self.text.len(),
            parent,
            offered: leaf || !self.leaves_only,
        });
        Some(self.nodes.len() - 1)
    }

    fn close(&mut self, node: Option<usize>) {
        let end = self.text.len();
        if let Some(node) = node.and_then(|node| self.nodes.get_mut(node)) {
            node.range.end = end;
            // Nothing can be drawn from an empty string.
            node.offered &= !node.range.is_empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_text_is_ordinary_indented_json_and_nodes_are_parts_of_it() {
        let value = json!({"a": [1, {"b": "x\"y"}, []], "c": {}, "d": null});
        let mut outline = Outline::new(false);
        outline.value("", &value);
        assert_eq!(outline.text, serde_json::to_string_pretty(&value).unwrap());
        for node in &outline.nodes {
            let at = super::super::paths::select(&value, &node.path);
            let part: Value = serde_json::from_str(&outline.text[node.range.clone()]).unwrap();
            assert_eq!(&part, at[0].1, "{}", node.path);
        }
        let paths: Vec<&str> = outline.nodes.iter().map(|n| n.path.as_str()).collect();
        assert_eq!(paths, ["", "a", "a/0", "a/1", "a/1/b", "a/2", "c", "d"]);
        assert_eq!(outline.nodes[4].parent, Some(3));
        let mut leaves = Outline::new(true);
        leaves.value("", &value);
        assert_eq!(leaves.nodes.iter().filter(|n| n.offered).count(), 3);
    }
}
