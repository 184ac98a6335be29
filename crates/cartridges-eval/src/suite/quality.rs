//! QuALITY: multiple choice about whole stories (Pang et al., arXiv 2112.08608).

use std::path::Path;

use cartridges_study::resource::file_name;
use serde_json::Value;

use super::Suite;
use super::choice;
use super::error::SuiteError;
use super::read;
use crate::questions::Question;

const NAME: &str = "quality";
const ABOUT: &str = "Answer the question below about the story.";

/// The questions about one story, which the file has too: that of line `story` (from 1), or with the
/// `article_id` of that name.
///
/// Read are the lines of the authors' files (`article`, `questions` with `options` and a `gold_label`
/// from 1) and those of L-Eval (`input`, `instructions` with lettered options, `outputs`). Graded as
/// LongHealth is.
///
/// # Errors
/// [`SuiteError`], with the story and the question.
pub fn quality(path: &Path, story: &str, cot: bool) -> Result<Suite, SuiteError> {
    let wrong = |problem: String| SuiteError::format(NAME, path, problem);
    let root = read::json(NAME, path)?;
    let Some(lines) = root.as_array() else {
        return Err(wrong("expected a story per line".to_owned()));
    };
    let named = |line: &&Value| read::field(line, "article_id") == Some(story);
    let numbered = || lines.get(story.parse::<usize>().ok()?.checked_sub(1)?);
    let Some(found) = lines.iter().find(named).or_else(numbered) else {
        let count = lines.len();
        return Err(wrong(format!("there is no story `{story}` among {count}")));
    };
    let text = read::field(found, "article").or_else(|| read::field(found, "input"));
    let text = text.ok_or_else(|| wrong(format!("story `{story}` has no text")))?;
    let items = match found.get("questions").and_then(Value::as_array) {
        Some(list) => list.iter().map(official).collect::<Vec<_>>(),
        None => lettered(found),
    };
    let mut questions = Vec::new();
    for (number, item) in (1..).zip(items) {
        let Some((asked, options, gold)) = item else {
            return Err(wrong(format!(
                "question {number} of story `{story}` lacks its text, its options or the right one"
            )));
        };
        questions.push(Question {
            id: format!("{story}_{number}"),
            question: choice::ask(ABOUT, &asked, &options, cot),
            answers: vec![gold],
            options,
            earlier: Vec::new(),
        });
    }
    if questions.is_empty() {
        return Err(wrong(format!("story `{story}` has no questions")));
    }
    Ok(Suite::new(
        NAME,
        format!("{} {story}", file_name(path)),
        questions,
        Some(text.to_owned()),
        choice::options(cot),
    ))
}

/// Text, options and the right one.
type Item = Option<(String, Vec<String>, String)>;

fn official(item: &Value) -> Item {
    let options = read::texts(item, "options")?;
    let label = item.get("gold_label")?.as_u64()?.checked_sub(1)?;
    let gold = options.get(label as usize)?.clone();
    Some((read::field(item, "question")?.to_owned(), options, gold))
}

/// L-Eval's form: ` (A) text` on lines of their own behind the question, and `(B) text` as the answer.
fn lettered(line: &Value) -> Vec<Item> {
    let asked = read::texts(line, "instructions").unwrap_or_default();
    let answers = read::texts(line, "outputs").unwrap_or_default();
    let each = asked.iter().zip(answers);
    each.map(|(asked, answer)| {
        let start = asked.find("(A)")?;
        let mut options = Vec::new();
        let mut rest = &asked[start..];
        for letter in 'A'..='Z' {
            let Some(body) = rest.strip_prefix(&format!("({letter})")) else {
                break;
            };
            let next = char::from_u32(u32::from(letter) + 1)?;
            let end = body.find(&format!("({next})")).unwrap_or(body.len());
            options.push(body[..end].trim().to_owned());
            rest = &body[end..];
        }
        let letter = answer.strip_prefix('(')?.chars().next()?;
        let at = u32::from(letter).checked_sub(u32::from('A'))? as usize;
        let gold = options.get(at)?.clone();
        Some((asked[..start].trim().to_owned(), options, gold))
    })
    .collect()
}
