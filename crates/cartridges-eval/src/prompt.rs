//! The token ids of a conversation that the model is to continue.

use cartridges_model::text::{ChatMessage, ChatTokenizer, RenderOptions, TextError};
use serde_json::{Map, Value};

/// The template keywords that make a thinking model answer at once; others ignore them.
pub fn thinking_off() -> Map<String, Value> {
    Map::from_iter([("enable_thinking".to_owned(), Value::Bool(false))])
}

/// Ids of a conversation, up to where the assistant's next message begins, with `system` as its
/// system message if there is one. See [`chat_ids`]; thinking is off.
///
/// # Errors
/// Those of [`chat_ids`].
pub fn prompt_ids(
    text: &ChatTokenizer,
    system: Option<&str>,
    behind_cartridge: bool,
    messages: &[ChatMessage],
) -> Result<Vec<u32>, TextError> {
    let all: Vec<ChatMessage> = system
        .map(ChatMessage::system)
        .into_iter()
        .chain(messages.iter().cloned())
        .collect();
    let options = RenderOptions {
        add_generation_prompt: true,
        keywords: thinking_off(),
        ..RenderOptions::default()
    };
    chat_ids(text, behind_cartridge, &all, &options)
}

/// Ids of a conversation, as `options` say with or without the assistant's header behind it.
///
/// In front of everything (`behind_cartridge` false) that is the chat template's text; without a
/// system message the template may put its own default there. Behind a cartridge there is no BOS
/// and no default system prompt, for the cartridge stands in their place: each message is its
/// role's start, its content, and the turn's end, as in the training sequences (reference,
/// conversion of conversations).
///
/// # Errors
/// [`TextError`] if the template refuses the conversation or has no derivable message markers.
pub fn chat_ids(
    text: &ChatTokenizer,
    behind_cartridge: bool,
    messages: &[ChatMessage],
    options: &RenderOptions,
) -> Result<Vec<u32>, TextError> {
    if !behind_cartridge {
        return text.encode_chat(messages, options);
    }
    let markers = text.message_ids()?;
    let mut ids = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        ids.extend_from_slice(markers.start(&message.role)?);
        ids.extend(text.encode(&message.content, false)?);
        if options.continue_final_message && index + 1 == messages.len() {
            return Ok(ids);
        }
        ids.extend_from_slice(&markers.end);
        ids.extend_from_slice(&markers.extra_end);
    }
    if options.add_generation_prompt {
        ids.extend(text.generation_header(&options.keywords)?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TOKENIZER: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/tokenizers/smollm2"
    );
    /// Starts like Qwen's: a default system message, and an empty think block on demand.
    const TEMPLATE: &str = "{% if messages[0].role != 'system' %}\
<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}\
{% endif %}{% endif %}";

    fn tokenizer() -> ChatTokenizer {
        let text = ChatTokenizer::from_folder(Path::new(TOKENIZER)).unwrap();
        text.with_template(TEMPLATE).unwrap()
    }

    fn turns() -> Vec<ChatMessage> {
        vec![
            ChatMessage::user("What does Willow mean?"),
            ChatMessage::assistant("Fire."),
            ChatMessage::user("And Anvil?"),
        ]
    }

    const TURNS: &str = "<|im_start|>user\nWhat does Willow mean?<|im_end|>\n\
<|im_start|>assistant\nFire.<|im_end|>\n<|im_start|>user\nAnd Anvil?<|im_end|>\n\
<|im_start|>assistant\n<think>\n\n</think>\n\n";

    #[test]
    fn behind_a_cartridge_there_is_no_system_prompt() {
        let text = tokenizer();
        let ids = prompt_ids(&text, None, true, &turns()).unwrap();
        assert_eq!(text.decode(&ids, false).unwrap(), TURNS);
        let one = prompt_ids(&text, None, true, &turns()[..1]).unwrap();
        let markers = text.message_ids().unwrap();
        assert!(one.starts_with(&markers.user));
        assert!(ids.starts_with(&one[..one.len() - 10]));
    }

    #[test]
    fn elsewhere_the_template_decides() {
        let text = tokenizer();
        let show = |system| {
            let ids = prompt_ids(&text, system, false, &turns()).unwrap();
            text.decode(&ids, false).unwrap()
        };
        let with = |system: &str| format!("<|im_start|>system\n{system}<|im_end|>\n{TURNS}");
        assert_eq!(show(None), with("Be kind."));
        assert_eq!(show(Some("The document.")), with("The document."));
    }
}
