//! What one would do instead: look the question up in the document and paste what is found.

use cartridges_model::text::{ChatTokenizer, TextError};
use cartridges_study::tool::Bm25;

/// The document in pieces, with an index of their words (BM25).
pub struct Retriever {
    pieces: Vec<String>,
    index: Bm25,
    count: usize,
    budget: usize,
    /// A system message with a document in the place of the marker.
    around: (String, String),
}

impl Retriever {
    /// Cuts a document at sentences into pieces of about `piece` tokens, of which as many are found as fit
    /// into `budget` tokens, at least one. `around` is what stands before and behind them in the system
    /// message.
    ///
    /// # Errors
    /// [`TextError`] of the tokenizer.
    pub fn new(
        document: &str,
        text: &ChatTokenizer,
        piece: usize,
        budget: usize,
        around: (String, String),
    ) -> Result<Self, TextError> {
        let mut pieces: Vec<(String, usize)> = Vec::new();
        for sentence in document.split_inclusive(['.', '!', '?', '\n']) {
            let tokens = text.encode(sentence, false)?.len();
            match pieces.last_mut() {
                Some((last, length)) if *length + tokens <= piece => {
                    last.push_str(sentence);
                    *length += tokens;
                }
                _ => pieces.push((sentence.to_owned(), tokens)),
            }
        }
        let pieces: Vec<String> = pieces
            .into_iter()
            .map(|(text, _)| text.trim().to_owned())
            .filter(|text| !text.is_empty())
            .collect();
        Ok(Self {
            index: Bm25::new(pieces.iter().map(String::as_str)),
            count: (budget / piece.max(1)).max(1),
            pieces,
            budget,
            around,
        })
    }

    /// Tokens that what is found may have, about.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// The pieces that have most in common with a question, in the document's order.
    pub fn find(&self, question: &str) -> Vec<&str> {
        let mut best = self.index.best(question, self.count);
        best.sort_unstable();
        let all = best.into_iter().filter_map(|at| self.pieces.get(at));
        all.map(String::as_str).collect()
    }

    /// The system message for a question.
    pub fn system(&self, question: &str) -> String {
        let (before, behind) = &self.around;
        format!("{before}{}{behind}", self.find(question).join("\n...\n"))
    }
}

impl std::fmt::Debug for Retriever {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retriever")
            .field("pieces", &self.pieces.len())
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_the_question_names_is_found_within_the_budget() {
        let tokenizer = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/tokenizers/smollm2"
        );
        let text = ChatTokenizer::from_folder(Path::new(tokenizer)).unwrap();
        let document = "The lamp burns oil. Maren keeps the keys. The bay is deep. Boats come at noon. \
                        Nobody likes the fog.";
        let around = ("<".to_owned(), ">".to_owned());
        let retriever = Retriever::new(document, &text, 8, 16, around).unwrap();
        let found = retriever.find("Who keeps the keys of the bay?");
        assert_eq!(found, ["Maren keeps the keys.", "The bay is deep."]);
        assert_eq!(retriever.system("fog?"), "<Nobody likes the fog.>");
        let whole: Vec<&str> = retriever.pieces.iter().map(String::as_str).collect();
        assert_eq!(whole.join(" "), document);
    }
}
