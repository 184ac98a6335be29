//! The part of a completion that is its answer.

use super::white_space::strip;

const THINKING: &str = "<think>";
const THINKING_END: &str = "</think>";
const ANSWER: &str = "<answer>";
const ANSWER_END: &str = "</answer>";
const FINAL_ANSWER: &str = "final answer:";

/// What the chat templates of the models write at the end of a turn or of a text.
const END_MARKERS: [&str; 7] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "</s>",
];

/// What follows the last `</think>`, or the whole text if it does not think. Nothing if the text
/// begins with `<think>` and was cut off in thought: a draft in there is no answer.
pub fn after_thinking(completion: &str) -> &str {
    let rest = match completion.rfind(THINKING_END) {
        Some(at) => &completion[at + THINKING_END.len()..],
        None => completion,
    };
    if strip(rest).starts_with(THINKING) {
        ""
    } else {
        rest
    }
}

/// The text without the markers at its end, and without white space around those.
pub fn without_end_markers(text: &str) -> &str {
    let mut text = text;
    loop {
        let end = text.trim_end();
        let shorter = END_MARKERS
            .iter()
            .find_map(|marker| end.strip_suffix(marker));
        match shorter {
            Some(shorter) => text = shorter.trim_end(),
            None => return text,
        }
    }
}

/// What the model says after its thinking, without markers at the end.
pub fn reply(completion: &str) -> &str {
    without_end_markers(after_thinking(completion))
}

/// The contents of all `<answer>…</answer>` of the reply, in order, without white space around
/// them. The case of the tags does not matter; what is not closed is not answered.
pub fn tagged_answers(completion: &str) -> Vec<&str> {
    let mut rest = reply(completion);
    // Lower case of ASCII keeps all places.
    let lower = rest.to_ascii_lowercase();
    let mut lower = lower.as_str();
    let mut answers = Vec::new();
    while let Some(begin) = lower.find(ANSWER).map(|at| at + ANSWER.len()) {
        let Some(end) = lower[begin..].find(ANSWER_END).map(|at| at + begin) else {
            break;
        };
        answers.push(strip(&rest[begin..end]));
        rest = &rest[end + ANSWER_END.len()..];
        lower = &lower[end + ANSWER_END.len()..];
    }
    answers
}

/// The content of the first `<answer>…</answer>` of the reply, see [`tagged_answers`].
pub fn tagged_answer(completion: &str) -> Option<&str> {
    tagged_answers(completion).into_iter().next()
}

/// What follows the last `Final answer:` of the reply, whatever its case, without white space
/// around it.
pub fn final_answer(completion: &str) -> Option<&str> {
    let text = reply(completion);
    let at = text.to_ascii_lowercase().rfind(FINAL_ANSWER)?;
    Some(strip(&text[at + FINAL_ANSWER.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_left_out() {
        assert_eq!(after_thinking("plain text"), "plain text");
        assert_eq!(after_thinking("<think>\nhm\n</think>\n\nyes"), "\n\nyes");
        assert_eq!(after_thinking("hm</think>a</think>b"), "b");
        assert_eq!(after_thinking("hm</think>"), "");
        assert_eq!(after_thinking("\n<think>is it <answer>x</answer>?"), "");
        assert_eq!(after_thinking("a</think>\n<think>again"), "");
        assert_eq!(
            after_thinking("the tag <think> opens"),
            "the tag <think> opens"
        );
        assert_eq!(
            after_thinking("<thinking>hm</thinking> x"),
            "<thinking>hm</thinking> x"
        );
        assert_eq!(after_thinking(""), "");
    }

    #[test]
    fn markers_at_the_end_are_left_out() {
        assert_eq!(without_end_markers("yes<|eot_id|>"), "yes");
        assert_eq!(
            without_end_markers("yes \n<|im_end|>\n<|endoftext|>\n"),
            "yes"
        );
        assert_eq!(without_end_markers("a<|im_end|>b "), "a<|im_end|>b ");
        assert_eq!(without_end_markers("</s>"), "");
        assert_eq!(without_end_markers(" kept "), " kept ");
        assert_eq!(reply("hm</think> ok<|im_end|>"), " ok");
    }

    #[test]
    fn the_first_closed_tag_is_the_answer() {
        assert_eq!(tagged_answer("so <answer>\n B \n</answer> done"), Some("B"));
        assert_eq!(tagged_answer("<ANSWER>É</Answer>"), Some("É"));
        assert_eq!(
            tagged_answer("<answer>a</answer><answer>b</answer>"),
            Some("a")
        );
        assert_eq!(tagged_answer("<answer></answer>"), Some(""));
        assert_eq!(
            tagged_answer("<answer>a <answer>b</answer>"),
            Some("a <answer>b")
        );
        assert_eq!(tagged_answer("</answer> <answer>x</answer>"), Some("x"));
        assert_eq!(tagged_answer("İ<answer>İ</answer>"), Some("İ"));
    }

    #[test]
    fn an_answer_that_is_cut_off_or_only_thought_of_is_none() {
        assert_eq!(tagged_answer("I think <answer>the first"), None);
        assert_eq!(tagged_answer("<answer>the first<|im_end|>"), None);
        assert_eq!(tagged_answer("<answer>the first</answe"), None);
        assert_eq!(tagged_answer("the first"), None);
        assert_eq!(tagged_answer(""), None);
        assert_eq!(tagged_answer("<answer>a</answer></think> b"), None);
        assert_eq!(
            tagged_answer("<think><answer>a</answer></think><answer>b</answer>"),
            Some("b")
        );
        assert_eq!(
            tagged_answers("<answer>a</answer> or <answer> b</answer> or <answer>c"),
            ["a", "b"]
        );
    }

    #[test]
    fn the_last_final_answer_counts() {
        assert_eq!(
            final_answer("Final answer: 5. No. FINAL ANSWER:\n 6 <|eot_id|>"),
            Some("6")
        );
        assert_eq!(final_answer("final answer:"), Some(""));
        assert_eq!(final_answer("answer: 5"), None);
        assert_eq!(final_answer("Final answer: 5</think>it is 6"), None);
    }
}
