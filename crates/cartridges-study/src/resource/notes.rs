//! What was left out of a resource, or read in an unusual way.

use std::fmt;

use serde::Serialize;

/// Examples kept per note.
const MAX_EXAMPLES: usize = 5;

/// One thing that loading a resource has to tell, and how often it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What happened, said of one case ("file is not text, skipped").
    pub what: String,
    /// How often.
    pub count: usize,
    /// The first few places.
    pub examples: Vec<String>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.what, self.count)?;
        if !self.examples.is_empty() {
            write!(f, ": {}", self.examples.join(", "))?;
            if self.examples.len() < self.count {
                f.write_str(", …")?;
            }
        }
        f.write_str(")")
    }
}

/// Notes in the making.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    /// Counts one case.
    pub(super) fn add(&mut self, what: &str, example: impl Into<String>) {
        let note = self.entry(what);
        note.count += 1;
        let example = example.into();
        if note.examples.len() < MAX_EXAMPLES && !example.is_empty() {
            note.examples.push(example);
        }
    }

    /// Counts `count` cases; none leaves no note.
    pub(super) fn add_count(&mut self, what: &str, count: usize) {
        if count > 0 {
            self.entry(what).count += count;
        }
    }

    /// Takes over another collection, its examples under `name`.
    pub(super) fn merge(&mut self, name: &str, other: Self) {
        for other in other.0 {
            let note = self.entry(&other.what);
            note.count += other.count;
            for example in other.examples {
                if note.examples.len() < MAX_EXAMPLES {
                    note.examples.push(format!("{name}: {example}"));
                }
            }
        }
    }

    fn entry(&mut self, what: &str) -> &mut Note {
        let at = match self.0.iter().position(|note| note.what == what) {
            Some(at) => at,
            None => {
                self.0.push(Note {
                    what: what.to_owned(),
                    count: 0,
                    examples: Vec::new(),
                });
                self.0.len() - 1
            }
        };
        &mut self.0[at]
    }

    /// The notes.
    pub(super) fn finish(self) -> Vec<Note> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted_and_few_are_named() {
        let mut notes = Notes::default();
        for i in 0..7 {
            notes.add("file skipped", format!("f{i}"));
        }
        notes.add_count("attachment not read", 0);
        notes.add_count("attachment not read", 2);
        let notes = notes.finish();
        assert_eq!(
            notes[0].to_string(),
            "file skipped (7: f0, f1, f2, f3, f4, …)"
        );
        assert_eq!(notes[1].to_string(), "attachment not read (2)");
        assert_eq!(notes.len(), 2);
    }
}
