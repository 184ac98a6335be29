//! Cartridges named inside system messages: `<cartridge>{"id": …}</cartridge>`.

use crate::job::{Message, Role};
use crate::request::body::CartridgeField;

const OPEN: &str = "<cartridge>";
const CLOSE: &str = "</cartridge>";

/// Takes the blocks out of all system messages. Gives the cartridges they name, or `None` if there
/// is no readable block; what cannot be read is warned of and taken out all the same.
pub(crate) fn take_blocks(messages: &mut Vec<Message>) -> Option<Vec<CartridgeField>> {
    let mut found = None;
    let mut emptied = Vec::new();
    for (at, message) in messages.iter_mut().enumerate() {
        if message.role != Role::System || !message.content.contains(OPEN) {
            continue;
        }
        let (text, blocks) = split(&message.content);
        for block in &blocks {
            match serde_json::from_str::<CartridgeField>(block) {
                Ok(field) => found.get_or_insert_with(Vec::new).push(field),
                Err(error) => tracing::warn!("a <cartridge> block cannot be read: {error}"),
            }
        }
        if !blocks.is_empty() {
            message.content = collapse_blank_lines(&text);
            if message.content.is_empty() {
                emptied.push(at);
            }
        }
    }
    // A system message that was nothing but blocks would otherwise be an empty turn in the prompt.
    for at in emptied.into_iter().rev() {
        if messages.len() > 1 {
            messages.remove(at);
        }
    }
    found
}

/// The text without its blocks, and the blocks' insides. A block that does not end is text.
fn split(content: &str) -> (String, Vec<String>) {
    let (mut text, mut blocks, mut rest) = (String::new(), Vec::new(), content);
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((inside, behind)) = after.split_once(CLOSE) else {
            break;
        };
        text.push_str(before);
        blocks.push(inside.trim().to_owned());
        rest = behind;
    }
    text.push_str(rest);
    (text, blocks)
}

/// At most one blank line in a row, none at the ends.
fn collapse_blank_lines(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.trim().lines() {
        let blank = line.trim().is_empty();
        if !(blank && lines.last().is_some_and(|last| last.trim().is_empty())) {
            lines.push(line);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(content: &str) -> Vec<Message> {
        let message = |role, content: &str| Message {
            role,
            content: content.into(),
        };
        vec![
            message(Role::System, content),
            message(Role::User, "<cartridge>{}</cartridge>"),
        ]
    }

    #[test]
    fn blocks_are_read_and_removed() {
        let mut messages = system(
            "Before\n\n<cartridge>\n{\"id\": \"a/b\", \"source\": \"local\"}\n</cartridge>\n\n\
             <cartridge>{\"id\": \"c\"}</cartridge>\n\n\nAfter",
        );
        let fields = take_blocks(&mut messages).unwrap();
        assert_eq!(fields.len(), 2);
        assert_eq!((fields[0].id.as_str(), fields[1].id.as_str()), ("a/b", "c"));
        assert_eq!(messages[0].content, "Before\n\nAfter");
        assert!(
            messages[1].content.contains("cartridge"),
            "only system messages"
        );
    }

    #[test]
    fn unreadable_blocks_only_warn() {
        let mut messages = system("Hello <cartridge>{nonsense</cartridge>");
        assert!(take_blocks(&mut messages).is_none());
        assert_eq!(messages[0].content, "Hello");
        let mut messages = system("an <cartridge> that does not end");
        assert!(take_blocks(&mut messages).is_none());
        assert_eq!(messages[0].content, "an <cartridge> that does not end");
    }

    #[test]
    fn a_message_of_blocks_only_goes() {
        let mut messages = system("<cartridge>{\"id\": \"a\"}</cartridge>\n");
        assert_eq!(take_blocks(&mut messages).unwrap().len(), 1);
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].role, Role::User);
    }
}
