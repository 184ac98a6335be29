//! What is measured while a cartridge is trained: the loss on held-out conversations, and question lists
//! by likelihood and by generation.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges_engine::{Engine, EngineOptions};
use cartridges_eval::{
    Condition, EvalError, GeneratedAnswer, MeasureOptions, Question, QuestionList, QuestionRecord,
    generate_answers, measure,
};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::Cartridge;
use cartridges_train::{
    BestBy, EvalQuestions, Evaluation, PackedRow, QuestionKind, Table, TrainConfig, examples,
    held_out, pack, read_mixture,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Room for the cartridge and a batch of short questions. Memory is taken as it is needed and given back
/// after every evaluation: training wants it.
const ENGINE: EngineOptions = EngineOptions {
    max_batch: 32,
    max_kv_rows: 32 * 1024,
    prefill_rows: 1024,
    max_queue: usize::MAX,
};

/// Columns that both kinds of tables begin with, named as in the reference's tables.
const COLUMNS: [&str; 8] = [
    "index",
    "optimizer_step",
    "prompt",
    "answer",
    "pred",
    "convo_id",
    "num_system_and_user_tokens",
    "num_assistant_tokens",
];

/// A question list and how it is asked.
struct Asked {
    settings: EvalQuestions,
    name: String,
    list: QuestionList,
}

/// Everything that is measured, read and checked before the first step.
pub(super) struct Evaluations<'a> {
    model: &'a Arc<LanguageModel>,
    rows: Vec<PackedRow>,
    lists: Vec<Asked>,
    decided_by: BestBy,
}

/// Sums over all lists of a kind.
#[derive(Default)]
struct Totals {
    nll: f64,
    gold_tokens: usize,
    chosen: (usize, usize),
    generated: (usize, usize),
}

impl<'a> Evaluations<'a> {
    /// Reads what the settings name; `None` where nothing is scored.
    pub(super) fn open(
        model: &'a Arc<LanguageModel>,
        config: &TrainConfig,
    ) -> Result<Option<Self>> {
        if config.eval_every == 0 {
            return Ok(None);
        }
        let Some(decided_by) = config.decided_by() else {
            bail!(
                "training: eval_every is {}, but neither eval_data nor eval_questions names a file",
                config.eval_every
            );
        };
        let mut lists = Vec::new();
        let mut names = HashSet::new();
        for settings in &config.eval_questions {
            let asked = read_list(settings).context("eval_questions")?;
            if !names.insert((asked.name.clone(), settings.kind as u8)) {
                bail!(
                    "eval_questions: two lists are called `{}` in the logs; give {} a `name`",
                    asked.name,
                    settings.path.display()
                );
            }
            lists.push(asked);
        }
        Ok(Some(Self {
            model,
            rows: held_back_rows(model, config)?,
            lists,
            decided_by,
        }))
    }

    /// What the scores mean.
    pub(super) fn decided_by(&self) -> BestBy {
        self.decided_by
    }

    /// A digest of what is asked: scores of other questions are no scores of this run.
    pub(super) fn digest(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        for row in &self.rows {
            row.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
        for asked in &self.lists {
            hash.update(serde_json::to_vec(&asked.list).unwrap_or_default());
        }
        hash.finalize().to_vec()
    }

    /// Measures a cartridge.
    pub(super) fn run(
        &self,
        cartridge: &Cartridge,
        step: usize,
    ) -> Result<Evaluation, Box<dyn Error + Send + Sync>> {
        let mut found = Evaluation {
            score: f64::NAN,
            scalars: Vec::new(),
            tables: Vec::new(),
        };
        if !self.rows.is_empty() {
            found = held_out(&self.model.decoder, &self.rows, "held_out")(cartridge, step)?;
        }
        let mut totals = Totals::default();
        if !self.lists.is_empty() {
            let host = cartridge.to_host()?;
            let mut engine = Engine::new(Arc::clone(self.model), ENGINE);
            let handle = engine.add_cartridge(&host)?;
            let condition = Condition::cartridge("in training", handle, host.slots);
            for asked in &self.lists {
                asked.ask(&mut engine, &condition, step, &mut found, &mut totals)?;
            }
        }
        found.score = match self.decided_by {
            BestBy::HeldOutLoss => found.score,
            BestBy::Nll => -totals.nll / totals.gold_tokens as f64,
            BestBy::Choice => share(totals.chosen),
            BestBy::Generation => share(totals.generated),
        };
        Ok(found)
    }
}

impl Asked {
    /// Asks all questions; adds numbers and a table to `found`.
    fn ask(
        &self,
        engine: &mut Engine,
        condition: &Condition,
        step: usize,
        found: &mut Evaluation,
        totals: &mut Totals,
    ) -> Result<(), EvalError> {
        let options = MeasureOptions {
            instruction: self.settings.instruction.clone(),
            max_new_tokens: self.settings.max_new_tokens,
            generate: false,
            ..MeasureOptions::default()
        };
        let list = &self.list;
        let (prefix, numbers, table) = match self.settings.kind {
            QuestionKind::Likelihood => {
                let measured = measure(engine, condition, list, &options, &mut |_, _| ())?;
                let records = measured.questions;
                let nll: f64 = records.iter().map(|q| q.nll).sum();
                let gold: usize = records.iter().map(|q| q.gold_tokens).sum();
                let right = records.iter().filter(|q| q.choice_correct).count();
                totals.nll += nll;
                totals.gold_tokens += gold;
                add(&mut totals.chosen, right, records.len());
                let loss = nll / gold as f64;
                let numbers = vec![
                    ("loss", loss),
                    ("perplexity", loss.exp()),
                    ("choice", share((right, records.len()))),
                ];
                ("eval", numbers, likelihood_table(step, &records))
            }
            QuestionKind::Generation => {
                let answers = generate_answers(engine, condition, list, &options, &mut || ())?;
                let right = answers.iter().filter(|a| a.correct == Some(true)).count();
                add(&mut totals.generated, right, answers.len());
                let numbers = vec![("score", share((right, answers.len())))];
                let table = generation_table(step, &list.questions, &answers);
                ("generate", numbers, table)
            }
        };
        let prefix = format!("{prefix}_{}", self.name);
        let sum = |column: usize| -> f64 {
            let cells = table
                .rows
                .iter()
                .filter_map(|row| row.get(column)?.as_f64());
            cells.sum()
        };
        let counts = [
            ("num_elements", table.rows.len() as f64),
            (COLUMNS[6], sum(6)),
            (COLUMNS[7], sum(7)),
        ];
        let all = numbers.into_iter().chain(counts);
        found
            .scalars
            .extend(all.map(|(name, x)| (format!("{prefix}/{name}"), x)));
        found.tables.push(Table {
            name: format!("{prefix}/table"),
            ..table
        });
        Ok(())
    }
}

fn add(sum: &mut (usize, usize), right: usize, all: usize) {
    *sum = (sum.0 + right, sum.1 + all);
}

fn share((right, all): (usize, usize)) -> f64 {
    right as f64 / all as f64
}

fn likelihood_table(step: usize, records: &[QuestionRecord]) -> Table {
    let row = |(index, q): (usize, &QuestionRecord)| {
        let chosen = q.candidates.get(q.chosen).map(|c| c.text.as_str());
        vec![
            json!(index),
            json!(step),
            json!(q.question),
            json!(q.gold),
            json!(chosen),
            json!(q.id),
            json!(q.prompt_tokens),
            json!(q.gold_tokens),
            json!(q.nll),
            json!(q.choice_correct),
        ]
    };
    table(
        &["nll", "choice"],
        records.iter().enumerate().map(row).collect(),
    )
}

fn generation_table(step: usize, questions: &[Question], answers: &[GeneratedAnswer]) -> Table {
    let row = |(index, (q, answer)): (usize, (&Question, &GeneratedAnswer))| {
        vec![
            json!(index),
            json!(step),
            json!(q.question),
            json!(q.gold()),
            json!(answer.text),
            json!(q.id),
            json!(answer.prompt_tokens),
            json!(answer.tokens),
            json!(answer.correct),
        ]
    };
    let rows = questions.iter().zip(answers).enumerate().map(row).collect();
    table(&["score"], rows)
}

fn table(own: &[&str], rows: Vec<Vec<Value>>) -> Table {
    let columns = COLUMNS.iter().chain(own).map(|c| (*c).to_owned()).collect();
    Table {
        name: String::new(),
        columns,
        rows,
    }
}

fn read_list(settings: &EvalQuestions) -> Result<Asked> {
    let mut list = QuestionList::from_file(&settings.path)?;
    if settings.limit > 0 {
        list.questions.truncate(settings.limit);
    }
    let name = match settings.name.as_str() {
        "" => &list.id,
        name => name,
    };
    // It becomes part of file names.
    let plain = |c: char| match c.is_alphanumeric() || matches!(c, '-' | '.') {
        true => c,
        false => '_',
    };
    Ok(Asked {
        name: name.trim_matches('.').chars().map(plain).collect(),
        settings: settings.clone(),
        list,
    })
}

/// The rows of `eval_data`, packed as those that are trained on.
pub(super) fn held_back_rows(
    model: &LanguageModel,
    config: &TrainConfig,
) -> Result<Vec<PackedRow>> {
    if config.eval_data.is_empty() {
        return Ok(Vec::new());
    }
    let (conversations, _) = read_mixture(&config.eval_data, config.seed)?;
    let vocab = model.decoder.config().vocab_size;
    let (made, left_out) =
        examples(&conversations, &model.text, vocab, config).context("eval_data")?;
    if left_out > 0 {
        eprintln!("{left_out} conversations of eval_data have no targets and are left out");
    }
    Ok(pack(&made, config))
}
