//! Chat templates: Jinja as Hugging Face runs it, with a bounded amount of work.

use std::io;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::error::TextError;
use super::{python_json, python_methods};

/// A ChatML template (`<|im_start|>role … <|im_end|>`) for models that bring none but were
/// trained on that form. It adds no default system message.
pub const CHATML_TEMPLATE: &str = "{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const NAME: &str = "chat_template";
/// Real templates are a few thousand bytes.
const LONGEST_SOURCE: usize = 1 << 20;
const LONGEST_OUTPUT: usize = 16 << 20;
/// The engine charges about one unit per instruction and per 64 bytes of data it makes, so this
/// also bounds the memory of one rendering to about 128 MB.
const FUEL: u64 = 2_000_000;
/// Values nested as deeply as the fuel allows are compared, printed and dropped by recursion in
/// the engine, which took up to 80 MB. The memory is only reserved; a usual rendering touches a
/// few pages of it.
const STACK: usize = 256 << 20;
const DEEPEST_CALL: usize = 64;
/// What the renderer itself sets; the rest may be overridden by keywords, as upstream.
const RESERVED: [&str; 2] = ["messages", "add_generation_prompt"];

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`; other roles are passed to the template as they are.
    pub role: String,
    /// The text.
    pub content: String,
}

impl ChatMessage {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }

    /// A system message.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// A user message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// An assistant message.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// How a conversation is rendered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// Ends with the header of an assistant turn that the model is to write.
    pub add_generation_prompt: bool,
    /// Ends right behind the last message's content, for the model to go on writing it.
    pub continue_final_message: bool,
    /// More template variables, such as `enable_thinking`.
    pub keywords: Map<String, serde_json::Value>,
}

/// A compiled chat template. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: Arc<str>,
    environment: Arc<Environment<'static>>,
}

/// Marks the errors that a template raises on purpose.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`TextError::TemplateTooLarge`] above 1 MiB; [`TextError::Template`] with the line if it
    /// does not parse.
    pub fn new(source: &str) -> Result<Self, TextError> {
        if source.len() > LONGEST_SOURCE {
            return Err(TextError::TemplateTooLarge {
                found: source.len(),
                limit: LONGEST_SOURCE,
            });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| describe(&error))?;
        environment.set_syntax(syntax);
        environment.set_debug(false);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEEPEST_CALL);
        environment.set_unknown_method_callback(python_methods::call);
        // Chat templates have no use for these, and their work on nested values is not bounded.
        environment.remove_filter("pprint");
        environment.remove_global("debug");
        environment.add_filter("tojson", python_json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| describe(&error))?;
        Ok(Self {
            source: source.into(),
            environment: Arc::new(environment),
        })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation. `specials` are the tokenizer's named special tokens
    /// (`bos_token`, `eos_token`, …).
    ///
    /// # Errors
    /// [`TextError::TemplateRaised`] if the template refuses the conversation,
    /// [`TextError::Template`] with the line if it fails or works too long,
    /// [`TextError::OutputTooLarge`] above 16 MiB, and the errors of contradicting options.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        options: &RenderOptions,
        specials: &Map<String, serde_json::Value>,
    ) -> Result<String, TextError> {
        if !options.continue_final_message {
            return self.render_plain(messages, options, specials);
        }
        if options.add_generation_prompt {
            return Err(TextError::ConflictingOptions);
        }
        let Some((last, earlier)) = messages.split_last() else {
            return Err(TextError::FinalMessage {
                message: "there is no message".to_string(),
            });
        };
        let content = last.content.trim();
        if content.is_empty() {
            // Nothing to look for: let a mark stand where the text would begin.
            const MARK: &str = "CARTRIDGESCONTINUEHERE";
            let mut marked = earlier.to_vec();
            marked.push(ChatMessage::new(last.role.clone(), MARK));
            let mut text = self.render_plain(&marked, options, specials)?;
            let at = text.rfind(MARK).ok_or_else(content_missing)?;
            text.truncate(at);
            return Ok(text);
        }
        let mut text = self.render_plain(messages, options, specials)?;
        let at = text.rfind(content).ok_or_else(content_missing)?;
        // Keep trailing blanks only if the template does.
        let whole = last.content.trim_start();
        let kept = text.get(at..).is_some_and(|rest| rest.starts_with(whole));
        text.truncate(at + if kept { whole.len() } else { content.len() });
        Ok(text)
    }

    fn render_plain(
        &self,
        messages: &[ChatMessage],
        options: &RenderOptions,
        specials: &Map<String, serde_json::Value>,
    ) -> Result<String, TextError> {
        let mut context = specials.clone();
        context.insert("tools".to_string(), json!(null));
        context.insert("documents".to_string(), json!(null));
        for (name, value) in &options.keywords {
            if RESERVED.contains(&name.as_str()) {
                return Err(TextError::ReservedKeyword { name: name.clone() });
            }
            context.insert(name.clone(), value.clone());
        }
        context.insert("messages".to_string(), json!(messages));
        context.insert(
            "add_generation_prompt".to_string(),
            json!(options.add_generation_prompt),
        );
        let failed = |message: String| TextError::Template { line: 0, message };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("chat-template".to_string())
                .stack_size(STACK)
                .spawn_scoped(scope, || self.render_context(&context))
                .map_err(|error| failed(format!("no thread to render on: {error}")))?
                .join()
                .unwrap_or_else(|_| Err(failed("the template engine panicked".to_string())))
        })
    }

    fn render_context(
        &self,
        context: &Map<String, serde_json::Value>,
    ) -> Result<String, TextError> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| describe(&error))?;
        let mut output = BoundedOutput {
            bytes: Vec::new(),
            overflow: false,
        };
        let outcome = template
            .render_captured_to(Value::from(Serde(context)), &mut output)
            .map(|_captured| ())
            .map_err(|error| describe(&error));
        if output.overflow {
            return Err(TextError::OutputTooLarge {
                limit: LONGEST_OUTPUT,
            });
        }
        outcome?;
        String::from_utf8(output.bytes).map_err(|error| TextError::Template {
            line: 0,
            message: error.to_string(),
        })
    }
}

fn content_missing() -> TextError {
    TextError::FinalMessage {
        message: "the template does not show its content".to_string(),
    }
}

struct BoundedOutput {
    bytes: Vec<u8>,
    overflow: bool,
}

impl io::Write for BoundedOutput {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + chunk.len() > LONGEST_OUTPUT {
            self.overflow = true;
            return Err(io::Error::other("the rendered conversation is too long"));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    // An unknown specifier is an error of `Display`; `to_string` would panic on it.
    write!(text, "{}", chrono::Local::now().format(format)).map_err(|_| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now cannot use `{format}`"),
        )
    })?;
    Ok(text)
}

fn describe(error: &Error) -> TextError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref::<Raised>() {
            return TextError::TemplateRaised {
                message: message.clone(),
            };
        }
        cause = current.source();
    }
    let detail = error
        .detail()
        .map(|detail| format!(": {detail}"))
        .unwrap_or_default();
    TextError::Template {
        line: error.line().unwrap_or(0),
        message: format!("{}{detail}", error.kind()),
    }
}

/// Replaces `{% generation %}` … `{% endgeneration %}` (marks for training masks, no output of
/// their own) by a condition that always holds; lines and whitespace control stay as they are.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let (inner, after) = tag.split_at(end);
        let replacement = match inner.trim_matches(['-', '+']).trim() {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => continue,
        };
        let word = inner.trim_matches(['-', '+']).trim();
        out.push_str(&inner.replacen(word, replacement, 1));
        rest = after;
    }
    out.push_str(rest);
    out
}
