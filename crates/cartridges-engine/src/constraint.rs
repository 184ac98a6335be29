//! Decoding that can only give JSON, or JSON of one schema.

mod error;
mod multiples;
mod schema;
#[cfg(test)]
mod tests;
mod vocabulary;

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, SimpleVob};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use error::in_short;

pub use error::ConstraintError;
pub use vocabulary::TokenBytes;

/// What one schema and one step may cost. The units are the library's: a step of this size takes
/// some tens of milliseconds, the usual one far less than one.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 50_000,
        max_grammar_size: 100_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// The tokens that may follow.
#[derive(Debug, Clone)]
pub struct TokenMask(SimpleVob);

impl TokenMask {
    /// Whether a token may follow.
    pub fn allows(&self, id: u32) -> bool {
        (id as usize) < self.0.len() && self.0.is_allowed(id)
    }

    /// How many tokens may follow.
    pub fn count(&self) -> usize {
        self.0.num_set()
    }

    /// Sets the logits of all other tokens to -inf, those behind the vocabulary too.
    fn exclude(&self, logits: &mut [f32]) {
        let (known, padding) = logits.split_at_mut(self.0.len());
        self.0
            .iter_unset_entries(|id| known[id] = f32::NEG_INFINITY);
        padding.fill(f32::NEG_INFINITY);
    }
}

/// Makes constraints for one model; made once, because it sorts the whole vocabulary.
pub struct ConstraintFactory {
    parsers: ParserFactory,
    vocab_size: usize,
    left_out: usize,
}

impl ConstraintFactory {
    /// A factory for a vocabulary, the bytes of each token by id, and the tokens that end an
    /// answer. The bytes of stop tokens are ignored, since they cannot be part of a document.
    ///
    /// # Errors
    /// If the vocabulary is empty or too large, or a stop token is missing or outside of it.
    pub fn new(vocabulary: &[TokenBytes], stop_ids: &[u32]) -> Result<Self, ConstraintError> {
        let (env, left_out) = vocabulary::environment(vocabulary, stop_ids)?;
        let capabilities = InferenceCapabilities::default();
        let slices = SlicedBiasComputer::json_slices();
        let mut parsers = ParserFactory::new(&env, capabilities, &slices)
            .map_err(|error| ConstraintError::Schema(in_short(&format!("{error:#}"))))?;
        parsers.quiet();
        *parsers.limits_mut() = limits();
        Ok(Self {
            parsers,
            vocab_size: vocabulary.len(),
            left_out,
        })
    }

    /// Ordinary tokens that no constraint ever allows, because they are empty or too long.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Any JSON object.
    ///
    /// # Errors
    /// If the vocabulary cannot spell one.
    pub fn json_object(&self) -> Result<Constraint, ConstraintError> {
        self.constraint(json!({"type": "object"}))
    }

    /// JSON that a schema describes. Properties come in the schema's order. Numbers are JSON's:
    /// an integer may be `-0`, and a number without bounds larger than an f64 holds.
    ///
    /// # Errors
    /// If the schema is too large, cannot be satisfied, or uses something that cannot be enforced.
    pub fn json_schema(&self, schema: &str) -> Result<Constraint, ConstraintError> {
        self.constraint(schema::parse(schema)?)
    }

    fn constraint(&self, mut schema: Value) -> Result<Constraint, ConstraintError> {
        schema::options().apply_to(&mut schema);
        let grammar = TopLevelGrammar::from_json_schema(schema);
        let parser = self.parsers.create_parser(grammar);
        let parser = parser
            .map_err(|error| ConstraintError::Schema(schema::in_words(&format!("{error:#}"))))?;
        let mut matcher = Matcher::new(Ok(parser));
        let mut constraint = Constraint {
            warnings: matcher.grammar_warnings(),
            matcher,
            mask: None,
            vocab_size: self.vocab_size,
        };
        // A contradiction may show only now; the first token needs the mask anyway.
        constraint.mask()?;
        Ok(constraint)
    }
}

/// Where one document stands.
pub struct Constraint {
    matcher: Matcher,
    /// For the next token, once it was asked for.
    mask: Option<TokenMask>,
    vocab_size: usize,
    warnings: Vec<String>,
}

impl Constraint {
    /// The tokens that may follow now, at least one. Only stop tokens follow a finished document.
    ///
    /// # Errors
    /// If no token can follow, or if finding out costs too much. The document cannot be continued
    /// then.
    pub fn mask(&mut self) -> Result<&TokenMask, ConstraintError> {
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => self.next_mask()?,
        };
        Ok(self.mask.insert(mask))
    }

    /// Sets the logits of tokens that may not follow to -inf. There may be more logits than tokens.
    ///
    /// # Errors
    /// Like [`mask`](Self::mask), and if all tokens that may follow have a logit of -inf already.
    pub fn apply(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        if logits.len() < self.vocab_size {
            return Err(ConstraintError::Logits {
                found: logits.len(),
                size: self.vocab_size,
            });
        }
        self.mask()?.exclude(logits);
        if logits.iter().all(|x| *x == f32::NEG_INFINITY) {
            return Err(ConstraintError::Excluded);
        }
        Ok(())
    }

    /// Takes the next token in.
    ///
    /// # Errors
    /// If it may not follow; the document stands where it was.
    pub fn accept(&mut self, id: u32) -> Result<(), ConstraintError> {
        if !self.mask()?.allows(id) {
            return Err(ConstraintError::Refused(id));
        }
        // Only stop tokens come after the end.
        if !self.is_finished() {
            self.mask = None;
            let taken = self.matcher.consume_token(id);
            taken.map_err(|error| ConstraintError::Step(in_short(&format!("{error:#}"))))?;
        }
        Ok(())
    }

    /// Whether the document is complete and cannot go on, with or without a stop token after it.
    pub fn is_finished(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// Whether a stop token may follow now.
    pub fn may_stop(&mut self) -> bool {
        self.is_finished() || self.matcher.is_accepting().unwrap_or(false)
    }

    /// What the schema asks for and is not fully enforced.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn next_mask(&mut self) -> Result<TokenMask, ConstraintError> {
        match self.matcher.compute_mask_or_eos() {
            Ok(mask) if mask.num_set() > 0 => Ok(TokenMask(mask)),
            Ok(_) => Err(ConstraintError::NoToken),
            Err(error) => {
                let message = format!("{error:#}");
                if message.starts_with(&StopReason::NoExtensionBias.to_string()) {
                    return Err(ConstraintError::NoToken);
                }
                Err(ConstraintError::Step(in_short(&message)))
            }
        }
    }
}

/// A second document that stands where this one does.
impl Clone for Constraint {
    fn clone(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            mask: self.mask.clone(),
            vocab_size: self.vocab_size,
            warnings: self.warnings.clone(),
        }
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}
