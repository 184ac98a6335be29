//! The ids and log-probs that Tokasaurus puts, packed, into `system_fingerprint`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::reply::choice::Choice;

/// The fingerprint, a JSON object as a string. Arrays are raw little-endian in base64: float32 and
/// int32, the top ones row by row. `top_logprobs` is `None` where they are not to be packed.
pub(crate) fn fingerprint(choices: &[Choice], top_logprobs: Option<usize>) -> String {
    let ids: Vec<&Vec<u32>> = choices.iter().map(|choice| &choice.ids).collect();
    let (mut chosen, mut indices, mut top) = (Value::Null, Value::Null, Value::Null);
    if let Some(wanted) = top_logprobs {
        chosen = packed(choices, |choice| floats(choice.logprobs.iter().copied()));
        if wanted > 0 {
            indices = packed(choices, |choice| {
                let ids = choice.top.iter().flatten().map(|(id, _)| *id);
                ids.flat_map(|id| id.to_le_bytes()).collect()
            });
            top = packed(choices, |choice| {
                floats(choice.top.iter().flatten().map(|(_, logprob)| *logprob))
            });
        }
    }
    json!({
        "completion_ids": ids,
        "packed_chosen_logprobs": chosen,
        "packed_topk_indices": indices,
        "packed_topk_logprobs": top,
    })
    .to_string()
}

fn packed(choices: &[Choice], bytes: impl Fn(&Choice) -> Vec<u8>) -> Value {
    choices
        .iter()
        .map(|choice| STANDARD.encode(bytes(choice)))
        .collect()
}

fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_packed_row_by_row() {
        let row = |ids: [u32; 3]| ids.map(|id| (id, -1.0)).to_vec();
        let choice = Choice {
            ids: vec![11, 21, 31],
            logprobs: vec![-1.0; 3],
            top: vec![row([11, 12, 13]), row([21, 22, 23]), row([31, 32, 33])],
            ..Choice::default()
        };
        let text = fingerprint(&[choice], Some(3));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["completion_ids"], json!([[11, 21, 31]]));
        let indices = "CwAAAAwAAAANAAAAFQAAABYAAAAXAAAAHwAAACAAAAAhAAAA";
        assert_eq!(value["packed_topk_indices"], json!([indices]));
        assert_eq!(value["packed_chosen_logprobs"], json!(["AACAvwAAgL8AAIC/"]));
    }

    #[test]
    fn nothing_is_packed_unless_asked_for() {
        let text = fingerprint(
            &[Choice {
                ids: vec![1],
                ..Choice::default()
            }],
            None,
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["packed_chosen_logprobs"], Value::Null);
        let text = fingerprint(
            &[Choice {
                ids: vec![1],
                ..Choice::default()
            }],
            Some(0),
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["packed_chosen_logprobs"].is_array());
        assert_eq!(value["packed_topk_logprobs"], Value::Null);
    }
}
