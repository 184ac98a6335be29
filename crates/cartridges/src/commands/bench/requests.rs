//! Answering requests against the clock.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Result, bail};
use cartridges_engine::{Engine, GenerateRequest, RequestId, StepEvent};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// How requests were answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Wall time.
    pub seconds: f64,
    /// Tokens of all answers.
    pub tokens: usize,
    /// Seconds from the submission to the first token, 50th and 95th percentile.
    pub first_token_seconds: [f64; 2],
    /// Seconds between tokens, 50th and 95th percentile.
    pub between_tokens_seconds: [f64; 2],
    /// The most rows of keys and values that were in use.
    pub kv_rows: usize,
    /// Requests that lost their rows to others and began again.
    pub preemptions: u64,
}

/// Answers all requests, submitted at once or each when the one before is answered.
///
/// # Errors
/// If the engine refuses a request or fails at one; `name` is for the message.
pub fn answer(
    name: &str,
    engine: &mut Engine,
    requests: &[GenerateRequest],
    together: bool,
) -> Result<Answered> {
    let begin = Instant::now();
    let before = engine.stats().preemptions;
    let mut first = Vec::new();
    let mut between = Vec::new();
    let mut tokens = 0;
    for group in requests.chunks(if together { requests.len() } else { 1 }) {
        // When each was submitted, and when its last token came.
        let mut last: HashMap<RequestId, (Instant, bool)> = HashMap::new();
        for request in group {
            last.insert(engine.submit(request.clone())?, (Instant::now(), false));
        }
        let mut problem = None;
        while engine.step(&mut |event| match event {
            StepEvent::Token { request, .. } => {
                tokens += 1;
                if let Some((since, begun)) = last.get_mut(&request) {
                    let seconds = since.elapsed().as_secs_f64();
                    match begun {
                        true => between.push(seconds),
                        false => first.push(seconds),
                    }
                    (*since, *begun) = (Instant::now(), true);
                }
            }
            StepEvent::Failed { error, .. } => problem = Some(error),
            StepEvent::Started { .. } | StepEvent::Finished { .. } => {}
        })? {}
        if let Some(error) = problem {
            bail!("{name}: {error}");
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let stats = engine.stats();
    Ok(Answered {
        seconds,
        tokens,
        first_token_seconds: percentiles(&mut first),
        between_tokens_seconds: percentiles(&mut between),
        kv_rows: stats.kv_rows_high_water,
        preemptions: stats.preemptions - before,
    })
}

/// Random tokens of a vocabulary.
pub(super) fn random_ids(rng: &mut ChaCha8Rng, count: usize, vocab: u32) -> Vec<u32> {
    (0..count).map(|_| rng.random_range(0..vocab)).collect()
}

/// The 50th and 95th percentile.
pub(super) fn percentiles(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (share * values.len() as f64).ceil() as usize;
        values.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
    };
    [at(0.5), at(0.95)]
}

#[cfg(test)]
mod tests {
    use super::percentiles;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentiles(&mut values), [50.0, 95.0]);
        assert_eq!(percentiles(&mut [3.0]), [3.0, 3.0]);
        assert_eq!(percentiles(&mut []), [0.0, 0.0]);
    }
}
