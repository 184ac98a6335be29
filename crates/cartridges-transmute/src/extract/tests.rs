//! Property 14: what teacher and student read; and that batches with a shared prompt are the plain runs.

use std::path::Path;

use burn::tensor::Tensor;
use cartridges_model::adapter::BatchAdapters;
use cartridges_model::decoder::{NoPast, Packed};
use cartridges_model::text::{ChatMessage, ChatTokenizer, RenderOptions};
use cartridges_ops::AttentionLayout;
use cartridges_study::conversation::{Conversation, Message, Metadata, Role};

use super::stream::values;
use super::{Batch, PairOptions, Stream, StudentContext, pair};
use crate::statistics::CorpusId;
use crate::tiny;

const PROMPT: &str = "Zanzibar keeps nine lighthouses. Their keeper is Quillon.";

fn tokenizer() -> ChatTokenizer {
    ChatTokenizer::from_folder(Path::new(&tiny::fixture("tokenizers/smollm2"))).unwrap()
}

fn conversation(system_prompt: &str) -> Conversation {
    let message = |role, content: &str| Message {
        content: content.to_owned(),
        role,
        token_ids: None,
        top_logprobs: None,
    };
    Conversation {
        messages: vec![
            message(Role::User, "Who keeps them?"),
            message(Role::Assistant, "A man called so."),
            message(Role::User, "How many?"),
            message(Role::Assistant, "Nine."),
        ],
        system_prompt: system_prompt.to_owned(),
        metadata: Metadata::default(),
        conversation_type: None,
    }
}

fn rendered(text: &ChatTokenizer, system: Option<&str>) -> Vec<u32> {
    let mut messages: Vec<ChatMessage> = system.map(ChatMessage::system).into_iter().collect();
    for message in &conversation("").messages {
        messages.push(ChatMessage::new(
            message.role.as_str(),
            message.content.as_str(),
        ));
    }
    text.encode_chat(&messages, &RenderOptions::default())
        .unwrap()
}

#[test]
fn teacher_and_student_read_what_the_template_writes_with_and_without_the_prompt() {
    let text = tokenizer();
    let corpus = CorpusId::of(b"a");
    let made = |prompt: &str, options: PairOptions| {
        let conversation = conversation(prompt);
        pair([(corpus, &conversation)], &text, 1 << 18, &options).unwrap()
    };
    let pairs = made(PROMPT, PairOptions::default());
    let (group, turns) = (&pairs.groups[0], &pairs.groups[0].turns[0]);
    // The stored turns end with the last message; the template goes on a little.
    let teacher = [group.teacher.as_slice(), &turns.ids].concat();
    let student = [group.student.as_slice(), &turns.ids].concat();
    assert!(rendered(&text, Some(PROMPT)).starts_with(&teacher));
    assert!(rendered(&text, None).starts_with(&student));
    assert!(text.decode(&teacher, false).unwrap().contains("Zanzibar"));
    let seen = text.decode(&student, false).unwrap();
    assert!(
        !seen.contains("Zanzibar") && !seen.contains("Quillon"),
        "{seen}"
    );
    // What is fitted predicts the assistant's words and nothing else.
    let predicted: Vec<u32> = turns.fit.iter().map(|row| turns.ids[row + 1]).collect();
    let said = text.decode(&predicted, true).unwrap();
    assert_eq!(said.replace('\n', ""), "A man called so.Nine.");

    // Without a prompt both read the same.
    let same = made("", PairOptions::default());
    assert_eq!(same.groups[0].teacher, same.groups[0].student);
    // Behind a cartridge the conversation begins with its first message, and the sink lies in it.
    let sink = 9;
    let options = PairOptions {
        student: StudentContext::Cartridge,
        sink,
    };
    let behind = made(PROMPT, options);
    assert!(behind.groups[0].student.is_empty());
    assert!(behind.groups[0].turns[0].fit.iter().all(|row| *row >= sink));
    // A window is a shorter prompt.
    let options = PairOptions {
        student: StudentContext::Window(3),
        ..PairOptions::default()
    };
    let window = made(PROMPT, options);
    let seen = text.decode(&window.groups[0].student, false).unwrap();
    assert!(seen.contains("Zan") && !seen.contains("Quillon"), "{seen}");
}

#[test]
fn conversations_with_one_prompt_share_it_and_odd_ones_are_refused() {
    let text = tokenizer();
    let all = [
        conversation(PROMPT),
        conversation("other"),
        conversation(PROMPT),
    ];
    let corpus = CorpusId::of(b"a");
    let rows = || all.iter().map(|c| (corpus, c));
    let mut pairs = pair(rows(), &text, 1 << 18, &PairOptions::default()).unwrap();
    let sizes: Vec<usize> = pairs.groups.iter().map(|g| g.turns.len()).collect();
    assert_eq!(sizes, [2, 1]);
    let positions = pairs.positions();
    let taken = pairs.split_off(3);
    assert_eq!(taken.positions() + pairs.positions(), positions);
    assert_eq!(taken.groups.len(), 1);
    let error = pair(rows(), &text, 40, &PairOptions::default()).unwrap_err();
    assert!(error.to_string().contains("conversation 0"), "{error}");
}

#[test]
fn rows_behind_a_shared_prompt_are_those_of_single_runs() {
    let decoder = tiny::decoder();
    let pairs = tiny::pairs(5, 1, 3, true);
    let group = &pairs.groups[0];
    let sequences: Vec<(&[u32], &[usize])> = (group.turns.iter())
        .map(|t| (t.ids.as_slice(), t.fit.as_slice()))
        .collect();
    let batch = Batch::new(0, &group.teacher, &sequences, decoder.device()).unwrap();
    let stream = Stream::new(&decoder, &[], vec![batch]);
    let found = stream.finish(BatchAdapters::NONE).remove(0);
    let mut wanted = Vec::new();
    for turns in &group.turns {
        let ids = [group.teacher.as_slice(), &turns.ids].concat();
        let positions: Vec<u32> = (0..ids.len() as u32).collect();
        let layout = AttentionLayout::packed(0, &[ids.len()]);
        let packed = Packed {
            ids: &ids,
            positions: &positions,
            layout: &layout,
            adapters: BatchAdapters::NONE,
        };
        let hidden = decoder.hidden(packed, &mut NoPast);
        let normed: Tensor<2> = decoder.final_norm(hidden, BatchAdapters::NONE);
        let width = decoder.config().hidden_size;
        let all = values(normed).unwrap();
        for row in &turns.fit {
            wanted.extend_from_slice(&all[(group.teacher.len() + row) * width..][..width]);
        }
    }
    for (a, b) in values(found).unwrap().iter().zip(&wanted) {
        assert!((a - b).abs() < 1e-4, "{a} for {b}");
    }
}
