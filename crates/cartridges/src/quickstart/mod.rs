//! `cartridges quickstart`: the main job from end to end on a real model and a real text.

mod job;
mod recipe;

use std::path::PathBuf;

use anyhow::Result;
use cartridges_eval::{Question, QuestionList};
use clap::Args;

use crate::opening::{ModelArgs, RuntimeArgs, read_corpus, writable_folder};
pub use recipe::Recipe;

const DEMO_CORPUS: &str = include_str!("../../../../assets/harrow_point/corpus.txt");
const DEMO_QUESTIONS: &str = include_str!("../../../../assets/harrow_point/questions.json");

/// The main job, start to finish: self-study of a text, a trained cartridge, and a table that
/// compares it with the text in the context. Fetches its model by itself.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  cartridges quickstart\n  cartridges quickstart --corpus \
handbook.txt --questions questions.json --out runs/handbook\n\nThe questions are JSON: \
{\"questions\": [{\"id\": \"q1\", \"question\": \"...\", \"answers\": [\"...\"]}]}. Without \
--questions a text of your own is turned into a cartridge but not measured. A run that was stopped \
goes on where it was when the same command is given again."
)]
pub struct QuickstartArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A text of your own (UTF-8); by default the demo corpus, a fictional staff handbook.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Questions about it, with short answers.
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// Folder for the data set, the cartridges and the report.
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    out: PathBuf,
    /// About a minute with a handful of conversations: shows that everything works, not how well.
    #[arg(long)]
    smoke: bool,
    #[command(flatten)]
    recipe: recipe::RecipeArgs,
}

/// The text to study.
struct Corpus {
    name: String,
    text: String,
    questions: Option<QuestionList>,
}

impl QuickstartArgs {
    fn corpus(&self) -> Result<Corpus> {
        let questions = self
            .questions
            .as_deref()
            .map(QuestionList::from_file)
            .transpose()?;
        Ok(match &self.corpus {
            Some(path) => Corpus {
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                text: read_corpus(path)?,
                questions,
            },
            None => Corpus {
                name: "harrow_point".to_owned(),
                text: DEMO_CORPUS.to_owned(),
                questions: match questions {
                    Some(list) => Some(list),
                    None => Some(QuestionList::from_json(DEMO_QUESTIONS, "demo questions")?),
                },
            },
        })
    }
}

/// The questions that are answered on the screen at the end.
fn shown(questions: &QuestionList) -> impl Iterator<Item = &Question> {
    questions.questions.iter().take(2)
}

/// Runs the command.
///
/// # Errors
/// If text, questions, model or folder cannot be used, or a stage fails; everything finished stays.
pub fn run(args: QuickstartArgs, runtime: &RuntimeArgs) -> Result<()> {
    let recipe = args.recipe.resolve(args.smoke)?;
    let corpus = args.corpus()?;
    writable_folder(&args.out)?;
    recipe.save(&args.out)?;
    eprintln!(
        "cartridges {} · self-study, training and evaluation of {} ({} characters)",
        env!("CARGO_PKG_VERSION"),
        corpus.name,
        corpus.text.chars().count()
    );
    let runtime = runtime.open()?;
    let model = args.model.open(&runtime)?;
    job::run(&model, &runtime, &corpus, &recipe, &args.out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_whole() {
        let list = QuestionList::from_json(DEMO_QUESTIONS, "demo").unwrap();
        assert_eq!(list.questions.len(), 24);
        for question in &list.questions {
            let found = question
                .answers
                .iter()
                .any(|answer| DEMO_CORPUS.to_lowercase().contains(&answer.to_lowercase()));
            assert!(found, "{} has no answer in the text", question.id);
        }
    }
}
