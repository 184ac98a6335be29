//! Self-study of one text with the in-process engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use cartridges_engine::Engine;
use cartridges_model::LanguageModel;
use cartridges_study::conversation::Conversation;
use cartridges_study::parquet::read_conversations;
use cartridges_study::resource::Resource;
use cartridges_study::run::{Outcome, SynthesisReport, SynthesisRun};
use cartridges_study::self_study::SelfStudyConfig;

use crate::interrupt::stop_flag;
use crate::local_client::{LocalClient, TokenizerCodec};
use crate::progress::bar;

/// Runs (or resumes) self-study of `text` in `folder`; gives the data set and what was made, or
/// `None` if Ctrl-C stopped it, with everything finished on disk.
///
/// # Errors
/// If the text is empty, the folder holds another run or cannot be written, or nothing was made.
pub fn self_study(
    engine: &mut Engine,
    name: &str,
    text: &str,
    config: &SelfStudyConfig,
    folder: &Path,
) -> Result<Option<(PathBuf, SynthesisReport)>> {
    let model = engine.model().clone();
    let codec = Arc::new(TokenizerCodec(model.text.clone()));
    let resource = config.text_resource(name, text, codec)?;
    let resources: Vec<Box<dyn Resource>> = vec![Box::new(resource)];
    let mut run = SynthesisRun::open(folder, config.clone(), &resources, &model_name(&model))?;
    let stop = stop_flag();
    let total = run.plan().num_tasks as u64;
    let progress = bar(total, "self-study", "conversations");
    let begin = Instant::now();
    let mut first_tokens = None;
    let mut client = LocalClient::new(engine, stop.clone());
    let outcome = run.run(&mut client, &stop, &mut |p| {
        let before = *first_tokens.get_or_insert(p.tokens);
        progress.set_position(p.done as u64);
        let seconds = begin.elapsed().as_secs_f64().max(1e-3);
        let rate = (p.tokens - before) as f64 / seconds;
        progress.set_prefix(format!("{rate:.0} tok/s"));
    })?;
    progress.finish_and_clear();
    Ok(match outcome {
        Outcome::Finished { dataset, report } => Some((dataset, report)),
        Outcome::Stopped { .. } => None,
    })
}

/// What a run of self-study records as its model.
fn model_name(model: &LanguageModel) -> String {
    format!(
        "{} {}",
        model.identity.id, model.identity.weights_fingerprint
    )
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
