//! Cartridges against adapters, and both against the document and nothing: recall (LongHealth), a skill
//! (MTOB), your own questions, and speed, each beside its anchors and in one page. It is the reference's
//! `transmute_vs_cartridge.py`, made of `cartridges eval`, `bench serve` and `report`, and like them goes on
//! where it was stopped.
//!
//! Unlike the reference: answers are scored on what the model writes, not on the prompt; questions are those of
//! the patients that you name; sentences are scored by chrF; all ways are asked through the same engine and
//! chat template, and tokens are counted as they come.
//!
//! ```console
//! cargo run --release --example transmute_vs_cartridge -- --questions assets/harrow_point/questions.json \
//!     --corpus assets/harrow_point/corpus.txt --cartridge-ids quickstart/cartridge \
//!     --adapter-path adapters/harrow_point --out reports/harrow_point
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cartridges::RuntimeArgs;
use cartridges::commands::{bench, eval, report};
use clap::{Args, Parser};

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compare cartridges and adapters by the suites that you give.
#[derive(Parser)]
struct Compare {
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// The model, as for `cartridges eval`.
    #[arg(long, alias = "model", default_value = "qwen2.5-coder-0.5b")]
    model_name: String,
    /// Adapter folders.
    #[arg(long, num_args = 1.., value_name = "DIR")]
    adapter_path: Vec<PathBuf>,
    /// Cartridge folders, or with --tokasaurus-url what the server calls them.
    #[arg(long, num_args = 1.., value_name = "ID")]
    cartridge_ids: Vec<String>,
    /// Where the server finds cartridges: local, wandb or huggingface.
    #[arg(long, default_value = "local", value_name = "SOURCE")]
    cartridge_source: String,
    /// A server that is asked behind the cartridges, in place of this process.
    #[arg(long, value_name = "URL")]
    tokasaurus_url: Option<String>,
    /// Questions of your own (JSON).
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// The text that the questions or sentences are about.
    #[arg(long, value_name = "PATH")]
    corpus: Option<PathBuf>,
    /// LongHealth's benchmark_v5.json.
    #[arg(long, value_name = "FILE")]
    longhealth: Option<PathBuf>,
    /// The patients that the cartridges and adapters are about.
    #[arg(long, num_args = 1.., value_name = "ID")]
    patient_ids: Vec<String>,
    /// MTOB's sentences with their translations.
    #[arg(long, value_name = "FILE")]
    mtob: Option<PathBuf>,
    /// Most questions of a suite.
    #[arg(long, default_value_t = 64, value_name = "N")]
    limit: usize,
    /// Requests of the measurement of speed; 0 for none.
    #[arg(long, default_value_t = 32, value_name = "N")]
    throughput_requests: usize,
    /// Folder for the reports and the page.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// More words for each evaluation, such as --baseline or --unrelated, behind --.
    #[arg(last = true)]
    more: Vec<String>,
}

/// A command's arguments alone.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Words<A: Args> {
    #[command(flatten)]
    args: A,
}

fn main() -> Result<()> {
    let compare = Compare::parse();
    let suites = compare.suites()?;
    let mut reports = Vec::new();
    for (name, words) in &suites {
        eprintln!("suite    {name}");
        let mut words = words.clone();
        words.extend(compare.behind(name)?);
        eval::run(parsed(words), &compare.runtime)?;
        reports.push(compare.place(name));
    }
    if compare.throughput_requests > 0 {
        let out = compare.place("throughput");
        let requests = compare.throughput_requests.to_string();
        let words = [
            "serve",
            "--model",
            &compare.model_name,
            "--requests",
            &requests,
        ];
        let words = words.map(str::to_owned).into_iter();
        let words = words.chain(["--out".to_owned(), out.clone()]).collect();
        bench::run(parsed(words), &compare.runtime)?;
        reports.push(out);
    }
    let page = compare.out.display().to_string();
    reports.extend(["--out".to_owned(), page]);
    report::run(parsed(reports))
}

fn parsed<A: Args>(words: Vec<String>) -> A {
    Words::<A>::parse_from(words).args
}

impl Compare {
    /// The suites that data was given for, with the words that name it.
    fn suites(&self) -> Result<Vec<(&'static str, Vec<String>)>> {
        let path = |path: &Path| path.display().to_string();
        let word = |text: &str| text.to_owned();
        let mut all = Vec::new();
        if let Some(file) = &self.questions {
            all.push(("questions", vec![word("--questions"), path(file)]));
        }
        if let Some(file) = &self.longhealth {
            let mut words = vec![word("longhealth"), word("--data"), path(file)];
            for id in &self.patient_ids {
                words.extend([word("--only"), id.clone()]);
            }
            all.push(("longhealth", words));
        }
        if let Some(file) = &self.mtob {
            all.push(("mtob", vec![word("mtob"), word("--data"), path(file)]));
        }
        if all.is_empty() {
            bail!("nothing to ask: give --questions, --longhealth or --mtob");
        }
        for (name, words) in &mut all {
            if let Some(corpus) = self.corpus.as_deref().filter(|_| *name != "longhealth") {
                words.extend([word("--corpus"), path(corpus)]);
            }
        }
        Ok(all)
    }

    /// The words that say what is asked behind.
    fn behind(&self, suite: &str) -> Result<Vec<String>> {
        let mut words = vec!["--model".to_owned(), self.model_name.clone()];
        words.extend(["--limit".to_owned(), self.limit.to_string()]);
        words.extend(["--out".to_owned(), self.place(suite)]);
        for path in &self.adapter_path {
            words.extend(["--adapter".to_owned(), path.display().to_string()]);
        }
        match &self.tokasaurus_url {
            None => {
                for id in &self.cartridge_ids {
                    words.extend(["--cartridge".to_owned(), id.clone()]);
                }
            }
            Some(url) => {
                let entry = |id: &String| {
                    let fields = [("id", id), ("source", &self.cartridge_source)];
                    let fields = fields.map(|(key, value)| (key.to_owned(), value.clone().into()));
                    toml::Value::Table(fields.into_iter().collect())
                };
                let cartridges: Vec<toml::Value> = self.cartridge_ids.iter().map(entry).collect();
                let mut servers = toml::Table::new();
                servers.insert("type".to_owned(), "tokasaurus".into());
                servers.insert("urls".to_owned(), vec![url.clone()].into());
                servers.insert("cartridges".to_owned(), cartridges.into());
                std::fs::create_dir_all(&self.out)?;
                let file = self.out.join("servers.toml");
                std::fs::write(&file, toml::to_string(&servers)?)?;
                words.extend(["--client".to_owned(), file.display().to_string()]);
            }
        }
        words.extend(self.more.iter().cloned());
        Ok(words)
    }

    fn place(&self, suite: &str) -> String {
        self.out.join(suite).display().to_string()
    }
}
