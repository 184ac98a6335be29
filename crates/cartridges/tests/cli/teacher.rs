//! `synthesize --teacher local`: servers give text, the model here gives the distribution.

use std::collections::BTreeMap;

use cartridges_model::text::{ChatMessage, ChatTokenizer, RenderOptions};
use cartridges_study::conversation::{Conversation, ConversationKind};
use cartridges_study::parquet::read_conversations;

use super::stages::Place;
use super::text_server::{QUESTION, TextServer, talk};
use super::*;

const ANSWER: &str = "Edda Falk keeps it, and the bell rings twice a minute.";
const RUN: &str = "synthesize --corpus path:text.txt --out path:study --config path:study.toml \
    --conversations 4 --client path:servers.toml";

fn place(server: &TextServer, kind: &str) -> Place {
    let place = Place::new();
    let url = &server.url;
    place.write(
        "servers.toml",
        &format!("type = {kind:?}\nurls = [{url:?}]\n"),
    );
    place
}

/// What `cartridges logits` says of the same ids: natural log-probs `[ids, vocab]`.
fn log_probs(place: &Place, ids: &[u32]) -> Vec<Vec<f64>> {
    let (at, out) = (place.path("ids.json"), place.path("logits.safetensors"));
    std::fs::write(&at, json!(ids).to_string()).unwrap();
    place.works("logits --ids path:ids.json --out path:logits.safetensors");
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, tensor) = file.tensors().remove(0);
    let values: Vec<f64> = tensor
        .data()
        .chunks_exact(4)
        .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
        .collect();
    let rows = values.chunks_exact(tensor.shape()[1]).map(|row| {
        let most = row.iter().copied().fold(f64::MIN, f64::max);
        let sum = row.iter().map(|x| (x - most).exp()).sum::<f64>().ln() + most;
        row.iter().map(|x| x - sum).collect()
    });
    rows.collect()
}

/// Checks the stored rows of an answer against the logits of the whole sequence.
fn check(place: &Place, conversation: &Conversation, prompt: &[u32]) {
    let answer = conversation.messages.last().unwrap();
    let ids = answer.token_ids.as_ref().unwrap();
    let top = answer.top_logprobs.as_ref().unwrap();
    let expected = log_probs(place, &[prompt, ids].concat());
    assert_eq!(top.shape, (ids.len(), 20));
    let mut rows: BTreeMap<usize, Vec<(u32, f64)>> = BTreeMap::new();
    for ((row, id), logprob) in top.token_idx.iter().zip(&top.token_id).zip(&top.logprobs) {
        let row = rows.entry(usize::try_from(*row).unwrap()).or_default();
        row.push((*id, f64::from(*logprob)));
    }
    assert_eq!(rows.len(), ids.len());
    for (row, found) in rows {
        let expected = &expected[prompt.len() - 1 + row];
        let mut best: Vec<f64> = expected.clone();
        best.sort_by(|a, b| b.total_cmp(a));
        for (place, (id, logprob)) in found.iter().enumerate() {
            assert!((expected[*id as usize] - logprob).abs() < 1e-4, "row {row}");
            assert!(
                (best[place] - logprob).abs() < 1e-4,
                "row {row}, place {place}"
            );
        }
    }
}

#[test]
fn the_local_model_teaches_what_a_server_wrote() {
    for (kind, finish, stored) in [("openai", "stop", true), ("tokasaurus", "length", false)] {
        let server = TextServer::start(move |body, _| talk(body, ANSWER, finish));
        let place = place(&server, kind);
        let said = place.works(&format!("{RUN} --teacher local"));
        for body in server.asked() {
            assert!(body.get("logprobs").is_none(), "{body}");
        }
        let dataset = place.home.path().join("study/dataset.parquet");
        let all = read_conversations(&dataset, None).unwrap();
        let text = ChatTokenizer::from_folder(&place.home.path().join("model")).unwrap();
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let of = |kind: ConversationKind| {
            let mut all = all.iter().filter(|c| c.metadata.kind == Some(kind));
            let first = all.next().unwrap_or_else(|| panic!("no {kind:?}: {said}"));
            (first, 1 + all.count())
        };
        let (conversation, count) = of(ConversationKind::Conversation);
        assert_eq!(count, 4);
        let (piece, _) = of(ConversationKind::Verbatim);
        for one in [conversation, piece] {
            let messages = [
                ChatMessage::system(&*one.system_prompt),
                ChatMessage::user(&*one.messages[0].content),
            ];
            let prompt = text.encode_chat(&messages, &options).unwrap();
            check(&place, one, &prompt);
        }
        let [question, answer] = conversation.messages.as_slice() else {
            panic!("two messages");
        };
        assert!(question.content.starts_with(QUESTION));
        assert_eq!(answer.content, ANSWER);
        let mut ids = text.encode(ANSWER, false).unwrap();
        // The turn's end is a target only where the writer ended it.
        ids.extend(stored.then(|| text.token_id("<|im_end|>").unwrap()));
        assert_eq!(answer.token_ids.as_ref(), Some(&ids));
        // The same command finds everything done.
        let asked = server.asked().len();
        place.works(&format!("{RUN} --teacher local"));
        assert_eq!(server.asked().len(), asked);
        place.works(&format!("{} --steps 1", super::stages::TRAIN));
    }
}

#[test]
fn without_log_probs_the_run_says_what_to_do_before_it_begins() {
    for kind in ["openai", "tokasaurus"] {
        let server = TextServer::start(|body, _| talk(body, ANSWER, "stop"));
        let place = place(&server, kind);
        place.fails(RUN, &["--teacher local", "num_top_logprobs = 0"]);
        assert!(!Path::new(&place.path("study/plan.json")).exists());
        // Text only, if that is what is wanted.
        let settings = std::fs::read_to_string(place.path("study.toml")).unwrap();
        place.write("study.toml", &format!("num_top_logprobs = 0\n{settings}"));
        place.works(RUN);
    }
    let place = Place::new();
    let args = place.args("synthesize --corpus path:text.txt --out path:o --teacher local");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(run(&args).status.code(), Some(2), "nobody writes");
}
