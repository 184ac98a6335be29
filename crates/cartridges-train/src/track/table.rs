//! Tables in logs: what was asked, what was expected and what came.

use serde_json::{Map, Value, json};

/// A table that is logged after some steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What it is called, as `generate_lamp/table`.
    pub name: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows, each with a value per column.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A row as an object, in the columns' order.
    pub fn record(&self, row: &[Value]) -> Map<String, Value> {
        self.columns
            .iter()
            .cloned()
            .zip(row.iter().cloned())
            .collect()
    }

    /// As a table of GitHub's Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.columns.iter().map(|name| cell(name)).collect());
        text += &line(vec!["---".to_owned(); self.columns.len()]);
        for row in &self.rows {
            let cells = row.iter().map(|value| match value {
                Value::String(text) => cell(text),
                other => other.to_string(),
            });
            text += &line(cells.collect());
        }
        text
    }

    /// As the file of a table of Weights & Biases.
    pub fn wandb_file(&self) -> Value {
        json!({ "columns": self.columns, "data": self.rows })
    }
}

/// A text that stays in its cell.
fn cell(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('|', "\\|");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stay_cells() {
        let table = Table {
            name: "t".to_owned(),
            columns: vec!["pred".to_owned(), "score".to_owned()],
            rows: vec![vec![json!("a|b\nc"), json!(true)]],
        };
        assert_eq!(
            table.markdown(),
            "| pred | score |\n| --- | --- |\n| a\\|b c | true |\n"
        );
        let row = table.record(&table.rows[0]);
        assert_eq!(Value::from(row), json!({"pred": "a|b\nc", "score": true}));
    }
}
