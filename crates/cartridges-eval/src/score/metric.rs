//! Scores of a whole corpus that can be resampled by segment.

/// A score of a corpus from 0 to 100, higher is better.
///
/// Most such scores are not means over segments: they divide sums. So each segment gives numbers
/// that add, and a bootstrap over segments adds the numbers of the segments that it draws.
pub trait CorpusMetric {
    /// The name under which the score is published.
    fn name(&self) -> &'static str;

    /// The numbers of one segment; always as many. A segment without references gives zeros.
    fn statistics(&self, hypothesis: &str, references: &[&str]) -> Vec<f64>;

    /// The score of the segments whose numbers were added; 0 for no numbers at all.
    fn value(&self, sums: &[f64]) -> f64;
}

/// The numbers of several segments, added place by place.
pub fn sum_statistics<'a>(segments: impl IntoIterator<Item = &'a [f64]>) -> Vec<f64> {
    let mut sums = Vec::new();
    for segment in segments {
        if sums.len() < segment.len() {
            sums.resize(segment.len(), 0.0);
        }
        for (sum, number) in sums.iter_mut().zip(segment) {
            *sum += number;
        }
    }
    sums
}

/// The score of a corpus of hypotheses, each with its references.
pub fn corpus_value<'a>(
    metric: &dyn CorpusMetric,
    segments: impl IntoIterator<Item = (&'a str, &'a [&'a str])>,
) -> f64 {
    let numbers: Vec<Vec<f64>> = segments
        .into_iter()
        .map(|(hypothesis, references)| metric.statistics(hypothesis, references))
        .collect();
    metric.value(&sum_statistics(numbers.iter().map(Vec::as_slice)))
}
