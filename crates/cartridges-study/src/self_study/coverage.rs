//! Coverage questions: every sentence of the text is asked about.
//!
//! Questions drawn at random leave parts of a text untouched, and a cartridge only learns what it was
//! asked. Here agent A gets one sentence (or a few, if there are fewer questions than sentences) and
//! asks about it; agent B answers with the whole context in view.

use std::ops::Range;

use super::config::SelfStudyConfig;
use super::sentences::{Segment, segments};
use crate::resource::{Document, Resource};

/// Sentences in one window at most; beyond that, questions would pass over most of them anyhow.
const MAX_SENTENCES: usize = 3;

/// The ways to ask. Walking through the text again, each sentence gets another one.
const STYLES: [&str; 6] = [
    "Write one short question that this part answers. Name the people, places or things in it, so \
     that the question is clear without it. Write only the question.",
    "Ask for one name, number, date or place that stands in this part. Say exactly what it belongs \
     to. Write only the question.",
    "Write one question that asks what this part says about its subject. Name the subject. Do not \
     give the answer. Write only the question.",
    "Write the question that a new reader would ask to learn what stands in this part. Use other \
     words than the part does, but keep the names. Write only the question.",
    "Write one message that asks an assistant to explain what this part says. Name the subject. \
     Write only the message.",
    "Write one question that begins with why, how, when or which and that this part answers. Name \
     what it is about. Write only the question.",
];

/// One question to be asked.
pub(super) struct CoverageTask {
    /// Index of the resource.
    pub resource: usize,
    /// The sentences asked about, as segments of that resource.
    pub window: Range<usize>,
    /// What agent A is asked.
    pub prompt: String,
}

/// A text cut into sentences.
pub(super) struct SegmentedText<'a> {
    document: &'a Document,
    segments: Vec<Segment>,
    /// Tokens of each segment by itself; their sum differs a little from the whole text's.
    lengths: Vec<usize>,
}

impl<'a> SegmentedText<'a> {
    fn new(document: &'a Document) -> Self {
        let segments = segments(document.text());
        let lengths = segments
            .iter()
            .map(|s| document.codec().encode(&document.text()[s.clone()]).len())
            .collect();
        Self {
            document,
            segments,
            lengths,
        }
    }

    fn text(&self, window: &Range<usize>) -> &str {
        match (
            self.segments.get(window.start),
            self.segments.get(window.end.wrapping_sub(1)),
        ) {
            (Some(first), Some(last)) => &self.document.text()[first.start..last.end],
            _ => "",
        }
    }

    /// The sentences in order, with the white space behind them.
    pub(super) fn sentences(&self) -> impl Iterator<Item = &str> {
        self.segments
            .iter()
            .map(|segment| &self.document.text()[segment.clone()])
    }

    /// The text they are of.
    pub(super) fn document(&self) -> &Document {
        self.document
    }

    /// Tokens from the first to the last sentence of a window.
    pub(super) fn num_tokens(&self, window: &Range<usize>) -> usize {
        self.lengths[window.clone()].iter().sum()
    }

    /// The context for questions about a window: the whole text if it has at most `max_tokens`, else
    /// as many whole sentences on both sides as fit.
    pub(super) fn context(&self, window: &Range<usize>, max_tokens: usize) -> String {
        if self.document.tokens().len() <= max_tokens {
            return self.document.text().to_owned();
        }
        let mut room = max_tokens.saturating_sub(self.num_tokens(window));
        let Range { mut start, mut end } = window.clone();
        loop {
            let mut grown = false;
            if start > 0 && self.lengths[start - 1] <= room {
                start -= 1;
                room -= self.lengths[start];
                grown = true;
            }
            if end < self.lengths.len() && self.lengths[end] <= room {
                room -= self.lengths[end];
                end += 1;
                grown = true;
            }
            if !grown {
                return self.text(&(start..end)).trim().to_owned();
            }
        }
    }
}

/// The texts of all resources that have one, cut into sentences.
pub(super) fn segmented<'a>(resources: &'a [Box<dyn Resource>]) -> Vec<Option<SegmentedText<'a>>> {
    resources
        .iter()
        .map(|r| r.document().map(SegmentedText::new))
        .collect()
}

/// `count` questions that walk through all texts. With fewer questions than sentences, neighbouring
/// sentences share one (up to [`MAX_SENTENCES`]) and the rest is spread evenly; with more, the texts
/// are walked through again in other words.
pub(super) fn coverage_tasks(
    texts: &[Option<SegmentedText<'_>>],
    count: usize,
) -> Vec<CoverageTask> {
    let total: usize = texts.iter().flatten().map(|t| t.segments.len()).sum();
    if total == 0 || count == 0 {
        return Vec::new();
    }
    let size = total.div_ceil(count).min(MAX_SENTENCES);
    let mut windows = Vec::new();
    for (resource, text) in texts.iter().enumerate() {
        let Some(text) = text else { continue };
        let n = text.segments.len();
        windows.extend(
            (0..n)
                .step_by(size)
                .map(|s| (resource, s..(s + size).min(n))),
        );
    }
    let mut tasks = Vec::with_capacity(count);
    let mut pass = 0;
    while tasks.len() < count {
        let take = (count - tasks.len()).min(windows.len());
        for i in 0..take {
            let at = i * windows.len() / take;
            let (resource, window) = &windows[at];
            let Some(text) = &texts[*resource] else {
                continue;
            };
            let style = STYLES[(at + pass) % STYLES.len()];
            let part = text.text(window).trim();
            tasks.push(CoverageTask {
                resource: *resource,
                window: window.clone(),
                prompt: format!("Here is a part of the information above:\n\n{part}\n\n{style}"),
            });
        }
        pass += 1;
    }
    tasks
}

/// Neighbouring questions that can share one context: the same resource, at most `batch_size`, and
/// not more text between the first and the last than fits.
pub(super) fn batches(
    texts: &[Option<SegmentedText<'_>>],
    tasks: Vec<CoverageTask>,
    config: &SelfStudyConfig,
) -> Vec<(usize, String, Vec<String>)> {
    let max_tokens = config.chunker.max_tokens();
    let mut out = Vec::new();
    let mut tasks = tasks.into_iter().peekable();
    while let Some(first) = tasks.next() {
        let Some(text) = &texts[first.resource] else {
            continue;
        };
        let whole = text.document.tokens().len() <= max_tokens;
        let mut span = first.window.clone();
        let mut prompts = vec![first.prompt];
        while prompts.len() < config.batch_size
            && let Some(next) = tasks.next_if(|next| {
                let joined = span.start.min(next.window.start)..span.end.max(next.window.end);
                next.resource == first.resource && (whole || text.num_tokens(&joined) <= max_tokens)
            })
        {
            span = span.start.min(next.window.start)..span.end.max(next.window.end);
            prompts.push(next.prompt);
        }
        out.push((first.resource, text.context(&span, max_tokens), prompts));
    }
    out
}
