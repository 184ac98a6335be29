//! Self-study of texts, with whichever model writes the conversations.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use cartridges_engine::Engine;
use cartridges_model::cartridge::ModelIdentity;
use cartridges_model::text::ChatTokenizer;
use cartridges_study::client::ChatClient;
use cartridges_study::conversation::Conversation;
use cartridges_study::parquet::read_conversations;
use cartridges_study::resource::{Drawing, Resource, SharedCodec, WeightedResource, load_all};
use cartridges_study::run::{Outcome, SynthesisReport, SynthesisRun};
use cartridges_study::self_study::SelfStudyConfig;

use crate::interrupt::{Interrupted, stop_flag};
use crate::local_client::{LocalClient, TokenizerCodec};
use crate::progress::progress;

/// Runs (or resumes) self-study of `resources` in `folder`; gives the data set and what was made. `model`
/// is the record of who writes.
///
/// # Errors
/// If the folder holds another run or cannot be written, or nothing was made; [`Interrupted`] if Ctrl-C
/// stopped it, with everything finished on disk.
pub fn self_study(
    client: &mut dyn ChatClient,
    model: &str,
    resources: &[Box<dyn Resource>],
    config: &SelfStudyConfig,
    folder: &Path,
) -> Result<(PathBuf, SynthesisReport)> {
    for resource in resources {
        for note in resource.notes() {
            eprintln!("{}: {note}", resource.name());
        }
    }
    let mut run = SynthesisRun::open(folder, config.clone(), resources, model)?;
    let stop = stop_flag();
    let total = run.plan().num_tasks as u64;
    let progress = progress(total, "self-study", "conversations");
    let begin = Instant::now();
    let mut first_tokens = None;
    let result = run.run(client, &stop, &mut |p| {
        let before = *first_tokens.get_or_insert(p.tokens);
        let seconds = begin.elapsed().as_secs_f64().max(1e-3);
        let rate = (p.tokens - before) as f64 / seconds;
        progress.set(p.position() as u64, format!("{rate:.0} tok/s"));
    });
    drop(progress);
    let outcome = result.map_err(|error| {
        for (cause, count) in &run.report().failed {
            eprintln!("  failed: {count} ({cause})");
        }
        let error = anyhow::Error::new(error);
        match run.report().settled() {
            0 => error,
            settled => error.context(format!(
                "{settled} of {} conversations are done and kept, the same command goes on from there",
                run.report().planned
            )),
        }
    })?;
    match outcome {
        Outcome::Finished { dataset, report } => Ok((dataset, report)),
        Outcome::Stopped { .. } => Err(Interrupted("self-study").into()),
    }
}

/// Loads what is to be studied, in the tokens of `text`.
///
/// # Errors
/// The first that cannot be loaded.
pub fn load_sources(
    sources: &[WeightedResource],
    text: &ChatTokenizer,
    config: &SelfStudyConfig,
) -> Result<Vec<Box<dyn Resource>>> {
    let codec: SharedCodec = Arc::new(TokenizerCodec(text.clone()));
    let drawing = Drawing {
        chunker: config.chunker,
        prompts: config.prompts(),
    };
    Ok(load_all(sources, &codec, &drawing)?)
}

/// Self-study of one text with the model in this process; see [`self_study`].
///
/// # Errors
/// As [`self_study`], and if the text is empty.
pub fn self_study_of_text(
    engine: &mut Engine,
    name: &str,
    text: &str,
    config: &SelfStudyConfig,
    folder: &Path,
) -> Result<(PathBuf, SynthesisReport)> {
    let model = engine.model().clone();
    let codec = Arc::new(TokenizerCodec(model.text.clone()));
    let resource = config.text_resource(name, text, codec)?;
    let mut client = LocalClient::new(engine, stop_flag());
    let name = model_name(&model.identity);
    self_study(&mut client, &name, &[Box::new(resource)], config, folder)
}

/// What a run of self-study records as its model.
pub fn model_name(model: &ModelIdentity) -> String {
    format!("{} {}", model.id, model.weights_fingerprint)
}

/// Reads data sets one after the other.
///
/// # Errors
/// If one cannot be read or all of them together are empty.
pub fn read_data(paths: &[PathBuf]) -> Result<Vec<Conversation>> {
    let mut all = Vec::new();
    for path in paths {
        let read = read_conversations(path, None)
            .with_context(|| format!("reading conversations from {}", path.display()))?;
        all.extend(read);
    }
    if all.is_empty() {
        anyhow::bail!("the data holds no conversations");
    }
    Ok(all)
}
