//! The stages one after the other, and the report.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use cartridges_engine::{Engine, EngineOptions, Event, Flow, GenerateRequest, StopRules};
use cartridges_eval::{
    Build, Condition, Corpus as CorpusRecord, Machine, MeasureOptions, Measurement, QuestionList,
    Report, Timing,
};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{CartridgeDtype, HostCartridge, save};
use cartridges_model::text::ChatMessage;
use cartridges_study::conversation::Conversation;
use cartridges_train::TrainConfig;

use super::recipe::Recipe;
use super::{Corpus, shown};
use crate::opening::Runtime;
use crate::pipeline::{
    MatchArgs, SizeArgs, StartArgs, ask, distill, document_ids, read_data, self_study_of_text,
    start,
};
use crate::provenance::{command, program, sha256, today};

/// Room for a batch of self-study behind the demo text, and a few stored prompts: the whole job
/// stays below 4 GiB.
const ENGINE: EngineOptions = EngineOptions {
    max_batch: 32,
    max_kv_rows: 12 * 1024,
    prefill_rows: 1024,
    max_queue: usize::MAX,
};

/// A cartridge that is to be made.
struct Wanted {
    name: &'static str,
    slots: Option<usize>,
    ratio: f64,
    steps: usize,
    /// Whether it is also measured as it is before training.
    measure_start: bool,
}

/// Everything the stages share.
struct Job<'a> {
    model: Arc<LanguageModel>,
    engine: Engine,
    corpus: &'a Corpus,
    questions: Option<QuestionList>,
    recipe: &'a Recipe,
    out: &'a Path,
    document_tokens: usize,
    rows: Vec<Measurement>,
    timings: Vec<Timing>,
    begin: Instant,
}

/// Runs all stages and prints the result.
pub(super) fn run(
    model: &Arc<LanguageModel>,
    runtime: &Runtime,
    corpus: &Corpus,
    recipe: &Recipe,
    out: &Path,
) -> Result<()> {
    let questions = corpus.questions.clone().map(|mut list| {
        list.questions
            .truncate(recipe.questions.unwrap_or(usize::MAX));
        list
    });
    let mut job = Job {
        engine: Engine::new(model.clone(), ENGINE),
        model: model.clone(),
        corpus,
        questions,
        recipe,
        out,
        document_tokens: document_ids(model, &corpus.text)?.len(),
        rows: Vec::new(),
        timings: Vec::new(),
        begin: Instant::now(),
    };
    let cartridge = job.stages()?;
    job.finish(&cartridge, runtime)
}

impl Job<'_> {
    fn stages(&mut self) -> Result<PathBuf> {
        eprintln!(
            "document {} tokens · {} conversations to write · {} training steps",
            self.document_tokens, self.recipe.study.num_conversations, self.recipe.train.steps
        );
        self.measure(Condition::no_document("no document"))?;
        let system = self.recipe.study.system_prompt(&self.corpus.text);
        self.measure(Condition::document("document in context", system))?;
        let conversations = self.study()?;

        let slots = self.recipe.slots;
        let (folder, steps) = (self.out.join("cartridge"), self.recipe.train.steps);
        let main = Wanted {
            name: "cartridge",
            slots,
            ratio: self.recipe.ratio,
            steps,
            measure_start: true,
        };
        self.cartridge(&main, &conversations, &folder)?;
        if self.recipe.tenth_steps > 0 {
            let tenth = Wanted {
                name: "tenth",
                slots: None,
                ratio: 0.1,
                steps: self.recipe.tenth_steps,
                measure_start: false,
            };
            let folder = self.out.join("cartridge-tenth");
            self.cartridge(&tenth, &conversations, &folder)?;
        }
        Ok(folder)
    }

    /// Writes the conversations.
    fn study(&mut self) -> Result<Vec<Conversation>> {
        let begin = Instant::now();
        let (dataset, report) = self_study_of_text(
            &mut self.engine,
            &self.corpus.name,
            &self.corpus.text,
            &self.recipe.study,
            &self.out.join("study"),
        )?;
        let seconds = begin.elapsed().as_secs_f64();
        self.timings.push(Timing {
            name: "self-study".to_owned(),
            seconds,
        });
        eprintln!(
            "study    {} conversations, {} tokens · {seconds:.0} s",
            report.finished,
            report.tokens()
        );
        read_data(&[dataset])
    }

    /// Starts, measures, trains, measures and saves one cartridge.
    fn cartridge(
        &mut self,
        wanted: &Wanted,
        conversations: &[Conversation],
        folder: &Path,
    ) -> Result<()> {
        let (name, steps) = (wanted.name, wanted.steps);
        let begin = Instant::now();
        let args = StartArgs {
            size: SizeArgs {
                slots: wanted.slots,
                ratio: wanted.ratio,
                ..SizeArgs::default()
            },
            matching: MatchArgs {
                max_queries: self.recipe.max_queries,
                ..MatchArgs::default()
            },
            ..StartArgs::default()
        };
        let text = Some(self.corpus.text.as_str());
        let seed = self.recipe.train.seed;
        let begun = start(&self.model, &args, text, conversations, seed)?;
        let matching = begin.elapsed().as_secs_f64();
        self.timings.push(Timing {
            name: format!("{name}: matching"),
            seconds: matching,
        });
        let count = begun.cartridge.slots;
        eprintln!(
            "matched  {count} slots for {} tokens · {matching:.0} s",
            self.document_tokens
        );
        if wanted.measure_start {
            let name = format!("{name} of {count} before training");
            self.measure_cartridge(&name, &begun.cartridge, matching)?;
        }

        let begin = Instant::now();
        let config = TrainConfig {
            steps,
            ..self.recipe.train.clone()
        };
        // Training wants the memory that stored prompts take.
        self.engine.forget_prefixes();
        let done = distill(
            &self.model,
            &begun.cartridge,
            conversations,
            &config,
            folder,
        )?;
        let seconds = begin.elapsed().as_secs_f64();
        self.timings.push(Timing {
            name: format!("{name}: training"),
            seconds,
        });
        eprintln!(
            "trained  {steps} steps, last loss {:.3} · {seconds:.0} s",
            done.loss
        );
        let made_by = serde_json::json!({
            "program": program(),
            "corpus": self.corpus.name,
            "corpus_sha256": sha256(&self.corpus.text),
            "start": begun.how,
            "training": done.how,
            "seconds": matching + seconds,
        });
        save(
            folder,
            &done.cartridge,
            &self.model.identity,
            &made_by,
            CartridgeDtype::F32,
        )?;
        let name = format!("{name} of {count}");
        self.measure_cartridge(&name, &done.cartridge, matching + seconds)
    }

    /// Measures what took so many seconds to make.
    fn measure_cartridge(
        &mut self,
        name: &str,
        cartridge: &HostCartridge,
        seconds: f64,
    ) -> Result<()> {
        if self.questions.is_none() {
            return Ok(());
        }
        let handle = self.engine.add_cartridge(cartridge)?;
        let result = self.measure(Condition::cartridge(name, handle, cartridge.slots));
        self.engine.remove_cartridge(handle);
        if let Some(row) = self.rows.last_mut() {
            row.build = Some(Build {
                seconds,
                bytes: cartridge.byte_len(CartridgeDtype::F32) as u64,
            });
        }
        result
    }

    fn measure(&mut self, condition: Condition) -> Result<()> {
        let Some(questions) = &self.questions else {
            return Ok(());
        };
        let options = MeasureOptions {
            instruction: self.recipe.instruction.clone(),
            ..MeasureOptions::default()
        };
        let row = ask(&mut self.engine, &condition, questions, &options)?;
        eprintln!(
            "measured {:<32} {} · {:.0} s",
            row.condition,
            row.in_words(),
            row.seconds
        );
        self.rows.push(row);
        Ok(())
    }

    /// The report, two answers, and what to do next.
    fn finish(mut self, folder: &Path, runtime: &Runtime) -> Result<()> {
        self.timings.push(Timing {
            name: "everything after loading the model".to_owned(),
            seconds: self.begin.elapsed().as_secs_f64(),
        });
        let report = Report {
            program: program(),
            model: self.model.identity.id.clone(),
            corpus: CorpusRecord {
                name: self.corpus.name.clone(),
                sha256: sha256(&self.corpus.text),
                tokens: self.document_tokens,
            },
            questions: self
                .questions
                .as_ref()
                .map_or_else(String::new, |q| q.id.clone()),
            date: today(),
            machine: Machine::this(runtime.threads),
            recipe: serde_json::to_value(self.recipe)?,
            rows: std::mem::take(&mut self.rows),
            timings: std::mem::take(&mut self.timings),
            suite: String::new(),
            command: command(),
            throughput: Vec::new(),
        };
        report.save(self.out)?;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "\n{}", report.text())?;
        if let Some(questions) = self.questions.clone() {
            let (cartridge, _) = cartridges_model::cartridge::load(folder)?;
            let handle = self.engine.add_cartridge(&cartridge)?;
            for question in shown(&questions) {
                let condition = Condition::cartridge("answer", handle, cartridge.slots);
                let messages = [ChatMessage::user(question.question.as_str())];
                let prompt = condition.prompt(&self.model.text, &messages)?;
                writeln!(stdout, "? {}", question.question)?;
                let request = GenerateRequest {
                    cartridges: vec![handle],
                    stop: StopRules {
                        ids: self.model.text.stop_ids(),
                        strings: Vec::new(),
                    },
                    ..GenerateRequest::new(prompt, 64)
                };
                self.engine.generate(&[request], &mut |event| {
                    if let Event::Token { text, .. } = event {
                        // A closed pipe is noticed by the next write below.
                        let _ = write!(stdout, "{text}");
                        let _ = stdout.flush();
                    }
                    Flow::Continue
                })?;
                writeln!(stdout, "\n")?;
            }
        }
        let out = self.out.display();
        writeln!(
            stdout,
            "Wrote {out}/cartridge, {out}/report.json and {out}/report.txt."
        )?;
        writeln!(
            stdout,
            "Chat with it:    cartridges chat --cartridge {out}/cartridge"
        )?;
        writeln!(
            stdout,
            "Your own text:   cartridges quickstart --model MODEL --corpus TEXT.txt --questions \
             QUESTIONS.json --out DIR"
        )?;
        Ok(())
    }
}
