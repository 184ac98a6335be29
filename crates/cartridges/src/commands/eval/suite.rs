//! Which suite is asked, and where its questions and its text come from.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges_eval::{
    Direction, MeasureOptions, MtobSuite, QuestionList, Suite, longhealth, mmlu, mtob, multi_turn,
    needles, qasper, quality, variables,
};
use cartridges_model::LanguageModel;
use cartridges_model::hub::{ResolveOptions, fetch_by_digest};
use cartridges_study::resource::{
    LongHealthConfig, NiahConfig, ResourceConfig, SharedCodec, VariableTrackingConfig, file_name,
};
use clap::{Args, ValueEnum};

use crate::local_client::TokenizerCodec;

/// The suites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum SuiteName {
    /// A question list of your own (--questions).
    #[default]
    Questions,
    /// The same, each question behind earlier ones with their answers (--turns).
    MultiTurn,
    /// LongHealth: multiple choice about patient records (--data benchmark_v5.json, --only PATIENT).
    Longhealth,
    /// QuALITY: multiple choice about a story (--data FILE.jsonl, --only STORY).
    Quality,
    /// QASPER: questions about papers (--data FILE, --only PAPER).
    Qasper,
    /// MTOB: translation by a grammar book (--data FILE, --list, --fields, --direction, --corpus BOOK).
    Mtob,
    /// Needles in a haystack of your own text (--corpus FILE, --length).
    Niah,
    /// Chains of variables in a haystack (--corpus FILE, --length).
    VariableTracking,
    /// MMLU: what else the model knows (--data FILE.jsonl).
    Mmlu,
}

/// What the suites are made of.
#[derive(Debug, Clone, Args)]
pub struct SuiteArgs {
    /// What is asked.
    #[arg(value_enum, default_value_t)]
    suite: SuiteName,
    /// Questions with short answers (JSON, see `cartridges quickstart --help`), about one text or several;
    /// may repeat.
    #[arg(long, value_name = "FILE")]
    questions: Vec<PathBuf>,
    /// The suite's file, as its authors publish it; or its https address, which needs --sha256.
    #[arg(long, value_name = "FILE|URL")]
    data: Option<PathBuf>,
    /// What the file at the address must be; it is fetched once.
    #[arg(long, value_name = "HEX", requires = "data")]
    sha256: Option<String>,
    /// The patient, story or paper to ask about; may repeat (quality: one).
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// The text that the questions are about, of any kind that `synthesize --corpus` takes; several are put
    /// one behind the other. It adds the conditions of having it in the context, and the share of the gap
    /// that is closed.
    #[arg(long, value_name = "PATH")]
    corpus: Vec<PathBuf>,
    /// Let the model think before it answers (longhealth, quality, mtob).
    #[arg(long)]
    cot: bool,
    /// mtob: ke translates into English, ek from it.
    #[arg(long, value_enum, default_value = "ke", value_name = "WAY")]
    direction: Way,
    /// mtob: the list in a file with several.
    #[arg(long, value_name = "NAME")]
    list: Option<String>,
    /// mtob: the fields of a pair, the language's and English.
    #[arg(long, value_name = "THEIRS,ENGLISH")]
    fields: Option<String>,
    /// niah, variable-tracking: tokens of the text with what is hidden in it.
    #[arg(long, default_value_t = 4096, value_name = "N")]
    length: usize,
    /// niah: keys; variable-tracking: chains.
    #[arg(long, default_value_t = 8, value_name = "N")]
    hidden: usize,
    /// multi-turn: earlier questions before each.
    #[arg(long, default_value_t = 3, value_name = "N")]
    turns: usize,
    /// Ask only the first N questions (mmlu: N drawn ones).
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    Ke,
    Ek,
}

impl SuiteArgs {
    /// Looks at what can be looked at without a model.
    ///
    /// # Errors
    /// If a question list is wrong, or the suite's file is not given or not there.
    pub fn check(&self) -> Result<()> {
        match self.suite {
            SuiteName::Questions | SuiteName::MultiTurn => {
                self.list()?;
            }
            SuiteName::Niah | SuiteName::VariableTracking => {
                self.one_corpus()?;
            }
            _ => {
                let path = self.data()?;
                std::fs::metadata(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Reads the suite, with the text that it is about if there is one.
    ///
    /// # Errors
    /// If something that it needs is not given or cannot be used.
    pub fn load(&self, model: &Arc<LanguageModel>, seed: u64) -> Result<Suite> {
        let codec: SharedCodec = Arc::new(TokenizerCodec(model.text.clone()));
        let mut suite = match self.suite {
            SuiteName::Questions => Suite {
                name: "questions",
                questions: self.list()?,
                text: None,
                options: MeasureOptions::default(),
            },
            SuiteName::MultiTurn => multi_turn(self.list()?, self.turns)?,
            SuiteName::Longhealth => {
                let path = self.data()?;
                let resource = ResourceConfig::LongHealth(LongHealthConfig {
                    patient_ids: self.only.clone(),
                    ..LongHealthConfig::new(&path)
                });
                Suite {
                    text: Some(text_of(&resource, &codec)?),
                    ..longhealth(&path, &self.only, self.cot)?
                }
            }
            SuiteName::Quality => match self.only.as_slice() {
                [] => quality(&self.data()?, "1", self.cot)?,
                [story] => quality(&self.data()?, story, self.cot)?,
                _ => bail!("quality asks about one story at a time: give --only once"),
            },
            SuiteName::Qasper => qasper(&self.data()?, &self.only)?,
            SuiteName::Mtob => mtob(&self.data()?, &self.translation()?)?,
            SuiteName::Niah => needles(
                NiahConfig {
                    path: Some(self.one_corpus()?.clone()),
                    max_seq_length: self.length,
                    num_needle_k: self.hidden,
                    seed,
                    ..NiahConfig::default()
                }
                .generate(&codec)?,
            )?,
            SuiteName::VariableTracking => variables(
                VariableTrackingConfig {
                    path: Some(self.one_corpus()?.clone()),
                    max_seq_length: self.length,
                    num_chains: self.hidden,
                    seed,
                    ..VariableTrackingConfig::default()
                }
                .generate(&codec)?,
            )?,
            SuiteName::Mmlu => mmlu(&self.data()?, self.limit.unwrap_or(usize::MAX), seed)?,
        };
        if suite.text.is_none() && !self.corpus.is_empty() {
            let texts = self.corpus.iter().map(|path| {
                text_of(&ResourceConfig::for_path(path), &codec)
                    .with_context(|| path.display().to_string())
            });
            suite.text = Some(texts.collect::<Result<Vec<_>>>()?.join("\n\n"));
        }
        let limit = self.limit.unwrap_or(usize::MAX).max(1);
        suite.questions.questions.truncate(limit);
        Ok(suite)
    }

    /// What reports call the text.
    pub fn corpus_name(&self) -> String {
        let paths = self.corpus.iter().chain(&self.data);
        let names = paths.map(|path| file_name(path));
        let all: Vec<String> = names.chain(self.only.iter().cloned()).collect();
        all.join(" ")
    }

    /// All question lists as one.
    fn list(&self) -> Result<QuestionList> {
        let mut lists = self.questions.iter();
        let Some(first) = lists.next() else {
            bail!(
                "nothing to ask: give --questions FILE, or a suite such as longhealth --data FILE"
            );
        };
        let mut list = QuestionList::from_file(first)?;
        for path in lists {
            let more = QuestionList::from_file(path)?;
            list.id = format!("{} and {}", list.id, more.id);
            let prefix = &more.id;
            list.questions
                .extend(more.questions.into_iter().map(|mut question| {
                    question.id = format!("{prefix}/{}", question.id);
                    question
                }));
        }
        Ok(list)
    }

    /// The suite's file on this machine.
    fn data(&self) -> Result<PathBuf> {
        let Some(path) = &self.data else {
            let home = match self.suite {
                SuiteName::Longhealth => "benchmark_v5.json of github.com/kbressem/LongHealth",
                SuiteName::Quality => "a .jsonl file of github.com/nyu-mll/quality",
                SuiteName::Qasper => "a file of allenai/qasper on the hub, as JSON",
                SuiteName::Mtob => "test_examples_ke.json of github.com/lukemelas/mtob",
                _ => "the test split of cais/mmlu on the hub, as JSON lines",
            };
            bail!("this suite needs --data FILE: {home}");
        };
        let address = path.to_str().filter(|text| text.contains("://"));
        match (address, &self.sha256) {
            (None, _) => Ok(path.clone()),
            (Some(address), Some(digest)) => {
                eprintln!("data     {address}");
                Ok(fetch_by_digest(
                    address,
                    digest,
                    &ResolveOptions::from_env(),
                )?)
            }
            (Some(_), None) => {
                bail!("--data with an address needs --sha256, the digest of the file")
            }
        }
    }

    fn one_corpus(&self) -> Result<&PathBuf> {
        match self.corpus.as_slice() {
            [path] => Ok(path),
            _ => bail!("this suite hides something in a text of yours: give one --corpus FILE"),
        }
    }

    fn translation(&self) -> Result<MtobSuite> {
        let fields = match self.fields.as_deref().map(|text| text.split_once(',')) {
            None => None,
            Some(Some((theirs, english))) => Some((theirs.to_owned(), english.to_owned())),
            Some(None) => bail!("--fields has two names with a comma between, such as kgv,eng"),
        };
        Ok(MtobSuite {
            direction: match self.direction {
                Way::Ke => Direction::Ke,
                Way::Ek => Direction::Ek,
            },
            list: self.list.clone(),
            fields,
            cot: self.cot,
            ..MtobSuite::default()
        })
    }
}

fn text_of(resource: &ResourceConfig, codec: &SharedCodec) -> Result<String> {
    let loaded = resource.load(codec.clone())?;
    match loaded.document() {
        Some(document) => Ok(document.text().to_owned()),
        None => bail!("{} has no text that can be read in one go", loaded.name()),
    }
}
