//! Servers of the Model Context Protocol, as processes that are talked to over their standard input and
//! output.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::{CallToolRequestParams, CallToolResult, Tool};
use rmcp::service::{RoleClient, RunningService, ServiceExt};
use rmcp::transport::TokioChildProcess;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use super::error::ToolError;
use super::tool_set::{ToolDefinition, ToolSet};

/// After so many calls in a row that a server did not answer, it is not asked any more.
const MAX_LOST_CALLS: usize = 3;
/// The longest answer that is kept, in characters: it goes into a prompt.
const MAX_OUTPUT_CHARS: usize = 20_000;
/// What is kept of a server's messages to people, in bytes.
const TAIL_BYTES: usize = 400;
/// How long a server has to end when it is no longer needed.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A server of tools, started as a process. Its tools are found by asking it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpConfig {
    /// The program.
    pub command: String,
    /// Its arguments (default none).
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables beside those of this process (default none). Values are never written out.
    #[serde(default)]
    pub env: BTreeMap<String, Hidden>,
    /// Seconds that starting it, and each call, may take (default 30).
    #[serde(default = "thirty")]
    pub timeout_seconds: f64,
}

fn thirty() -> f64 {
    30.0
}

/// A value that is read from files and never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// A value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

impl McpConfig {
    /// A server without arguments.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            timeout_seconds: thirty(),
        }
    }

    fn timeout(&self) -> Result<Duration, ToolError> {
        Duration::try_from_secs_f64(self.timeout_seconds)
            .ok()
            .filter(|time| !time.is_zero())
            .ok_or_else(|| ToolError::Field {
                kind: "mcp",
                field: "timeout_seconds",
                found: self.timeout_seconds.to_string(),
                expected: "a number above 0",
            })
    }

    pub(super) fn check(&self) -> Result<(), ToolError> {
        self.timeout()?;
        match self.command.trim().is_empty() {
            false => Ok(()),
            true => Err(ToolError::Field {
                kind: "mcp",
                field: "command",
                found: "empty".to_owned(),
                expected: "a program",
            }),
        }
    }
}

/// A running server.
type Connection = RunningService<RoleClient, ()>;

/// The tools of one server. One that dies, hangs or talks nonsense is started anew for the next call, a
/// few times.
pub struct McpTools {
    config: McpConfig,
    timeout: Duration,
    /// Only `None` while it is dropped.
    runtime: Option<Runtime>,
    connection: Option<Connection>,
    definitions: Vec<ToolDefinition>,
    lost_in_row: usize,
}

impl McpTools {
    /// Starts the server and asks for its tools.
    ///
    /// # Errors
    /// If it does not start, does not speak the protocol in time, or has no tools.
    pub fn start(config: &McpConfig) -> Result<Self, ToolError> {
        config.check()?;
        let wrong = |reason: String| ToolError::Server {
            command: config.command.clone(),
            reason,
        };
        if Handle::try_current().is_ok() {
            let reason = "it was started inside an asynchronous task";
            return Err(wrong(reason.to_owned()));
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let mut tools = Self {
            timeout: config.timeout()?,
            config: config.clone(),
            runtime: Some(runtime.map_err(|error| wrong(error.to_string()))?),
            connection: None,
            definitions: Vec::new(),
            lost_in_row: 0,
        };
        let found = tools.connect().map_err(wrong)?;
        if found.is_empty() {
            return Err(wrong("it has no tools".to_owned()));
        }
        tools.definitions = found.into_iter().map(definition).collect();
        Ok(tools)
    }

    /// Starts the server; gives its tools.
    fn connect(&mut self) -> Result<Vec<Tool>, String> {
        let runtime = self.runtime.as_ref().ok_or("it has ended")?;
        let tail = Tail::default();
        let started = runtime.block_on(async {
            let result = timeout(self.timeout, begin(&self.config, &tail)).await;
            if !matches!(result, Ok(Ok(_))) {
                // What it says about its end comes a moment later.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result
        });
        let (connection, tools) = match started {
            Ok(result) => result.map_err(|reason| format!("{reason}{tail}"))?,
            Err(_) => return Err(format!("it does not answer in {:?}{tail}", self.timeout)),
        };
        self.connection = Some(connection);
        Ok(tools)
    }

    /// Ends the server.
    fn disconnect(&mut self) {
        if let (Some(runtime), Some(connection)) = (&self.runtime, self.connection.take()) {
            // One that does not end is killed when its runtime ends.
            let _ = runtime.block_on(async { timeout(END_TIMEOUT, connection.cancel()).await });
        }
    }

    fn ask(&mut self, request: CallToolRequestParams) -> Result<CallToolResult, String> {
        if self.lost_in_row >= MAX_LOST_CALLS {
            return Err(format!(
                "the tool server `{}` was lost {MAX_LOST_CALLS} times in a row and is not asked again",
                self.config.command
            ));
        }
        if self.connection.is_none() {
            self.connect().inspect_err(|_| self.lost_in_row += 1)?;
        }
        let (Some(runtime), Some(connection)) = (&self.runtime, &self.connection) else {
            return Err("the tool server has ended".to_owned());
        };
        let call = async { timeout(self.timeout, connection.call_tool(request)).await };
        let answer = runtime.block_on(call);
        let reason = match answer {
            Ok(Ok(result)) => {
                self.lost_in_row = 0;
                return Ok(result);
            }
            // The server is well and says what is wrong with the call.
            Ok(Err(rmcp::ServiceError::McpError(error))) => {
                self.lost_in_row = 0;
                return Err(error.message.into_owned());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {:?}", self.timeout),
        };
        self.lost_in_row += 1;
        self.disconnect();
        Err(format!(
            "the tool server `{}`: {reason}",
            self.config.command
        ))
    }
}

impl ToolSet for McpTools {
    fn definitions(&self) -> &[ToolDefinition] {
        &self.definitions
    }

    fn call(&mut self, name: &str, input: &Value) -> Result<String, String> {
        let mut request = CallToolRequestParams::new(name.to_owned());
        if let Value::Object(arguments) = input {
            request = request.with_arguments(arguments.clone());
        }
        let result = self.ask(request)?;
        let texts = result.content.iter().filter_map(|part| part.as_text());
        let texts: Vec<&str> = texts.map(|part| part.text.as_str()).collect();
        let text = match (texts.is_empty(), result.structured_content) {
            (true, Some(value)) => value.to_string(),
            _ => texts.join("\n"),
        };
        let text = match text.char_indices().nth(MAX_OUTPUT_CHARS) {
            Some((end, _)) => format!("{} [... cut off]", &text[..end]),
            None => text,
        };
        match result.is_error {
            Some(true) => Err(text),
            _ => Ok(text),
        }
    }
}

impl Drop for McpTools {
    fn drop(&mut self) {
        self.disconnect();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(END_TIMEOUT);
        }
    }
}

fn definition(tool: Tool) -> ToolDefinition {
    ToolDefinition {
        name: tool.name.into_owned(),
        description: tool.description.unwrap_or_default().into_owned(),
        input_schema: Value::Object((*tool.input_schema).clone()),
    }
}

async fn begin(config: &McpConfig, tail: &Tail) -> Result<(Connection, Vec<Tool>), String> {
    let mut command = Command::new(&config.command);
    let env = config.env.iter().map(|(name, Hidden(value))| (name, value));
    command.args(&config.args).envs(env).kill_on_drop(true);
    let (transport, stderr) = TokioChildProcess::builder(command)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(stderr) = stderr {
        tokio::spawn(tail.clone().follow(stderr));
    }
    let connection = ().serve(transport).await.map_err(|error| error.to_string())?;
    let tools = connection.list_all_tools().await;
    Ok((connection, tools.map_err(|error| error.to_string())?))
}

/// The end of what a server writes for people. Its pipe must be read, or the server stands still.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    async fn follow(self, mut from: impl AsyncRead + Unpin) {
        let mut buffer = [0; 4096];
        while let Ok(count) = from.read(&mut buffer).await
            && count > 0
        {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..count]);
            let surplus = kept.len().saturating_sub(TAIL_BYTES);
            kept.drain(..surplus);
        }
    }
}

/// Nothing, or the words in brackets.
impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let words = text.split(|c: char| c.is_whitespace() || c.is_control());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        match words.is_empty() {
            true => Ok(()),
            false => write!(f, " (it says: {})", words.join(" ")),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::self_study::SelfStudyConfig;
    use crate::self_study::tests::resources;
    use crate::tool::{RetrievalConfig, ToolBox, ToolConfig};

    /// A server in a few lines of shell. `call` is what it does with a call; `$id` is the request's id.
    fn server(folder: &Path, call: &str) -> McpConfig {
        let script = format!(
            r#"echo run >> "$0.starts"; echo $$ >> "$0.pids"
echo "tools are loading" >&2
say() {{ printf '{{"jsonrpc":"2.0","id":%s,"result":%s}}\n' "$id" "$1"; }}
text() {{ say '{{"content":[{{"type":"text","text":"'"$1"'"}},{{"type":"text","text":"second part"}}]}}'; }}
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case "$line" in
    *'"initialize"'*) say '{{"protocolVersion":"2025-06-18","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"stand-in","version":"1"}}}}' ;;
    *'"tools/list"'*) say '{{"tools":[{{"name":"lamp","description":"Tells of lamps.","inputSchema":{{"title":"L","type":"object"}}}}]}}' ;;
    *'"tools/call"'*) {call} ;;
  esac
done
"#
        );
        let path = folder.join("server.sh");
        std::fs::write(&path, script).unwrap();
        McpConfig {
            args: vec![path.to_str().unwrap().to_owned()],
            timeout_seconds: 30.0,
            ..McpConfig::new("sh")
        }
    }

    fn lines(folder: &Path, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn is_alive(pid: &str) -> bool {
        // A process that was killed and not yet waited for has no command line.
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
    }

    #[test]
    fn tools_are_found_and_called() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = server(
            folder.path(),
            r#"case "$line" in
      *'"wrong"'*) say '{"isError":true,"content":[{"type":"text","text":"no such lamp"}]}' ;;
      *'"odd"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"odd arguments"}}\n' "$id" ;;
      *'"plain"'*) say '{"content":[],"structuredContent":{"oil":"whale"}}' ;;
      *) text "lit by $KEEPER" ;;
    esac"#,
        );
        config
            .env
            .insert("KEEPER".to_owned(), Hidden::new("Edda Falk"));
        let mut tools = McpTools::start(&config).unwrap();
        let [lamp] = tools.definitions() else {
            panic!("one tool");
        };
        assert_eq!(lamp.name, "lamp");
        assert_eq!(lamp.description, "Tells of lamps.");
        assert_eq!(lamp.input_schema["type"], "object");
        let mut call = |input: Value| tools.call("lamp", &input);
        assert_eq!(
            call(json!({})),
            Ok("lit by Edda Falk\nsecond part".to_owned())
        );
        assert_eq!(
            call(json!({"x": "plain"})),
            Ok(r#"{"oil":"whale"}"#.to_owned())
        );
        assert_eq!(call(json!({"x": "wrong"})), Err("no such lamp".to_owned()));
        // More of them than a lost server would be given.
        for _ in 0..5 {
            assert_eq!(call(json!({"x": "odd"})), Err("odd arguments".to_owned()));
        }
        assert!(call(json!({})).is_ok());
        assert_eq!(lines(folder.path(), "server.sh.starts").len(), 1);
        drop(tools);
        assert!(!is_alive(&lines(folder.path(), "server.sh.pids")[0]));
    }

    #[test]
    fn its_tools_stand_in_the_box_beside_others() {
        let folder = tempfile::tempdir().unwrap();
        let config = server(folder.path(), "text well");
        let mcp = json!({"type": "mcp", "command": "sh", "args": config.args});
        let mcp: ToolConfig = serde_json::from_value(mcp).unwrap();
        let search = ToolConfig::Retrieval(RetrievalConfig::default());
        let texts = resources(&SelfStudyConfig::default(), "The lamp burns whale oil.");
        let mut tools = ToolBox::new(&[search.clone(), mcp.clone()], &texts).unwrap();
        let told = tools.description();
        assert!(
            told.contains("Tells of lamps.") && told.contains("\"retrieve\""),
            "{told}"
        );
        assert!(!told.contains("\"title\""), "{told}");
        let calls = tools.answer(
            "<tool_call>{\"name\": \"lamp\"}</tool_call> <tool_call>{\"name\": \"retrieve\", \
             \"arguments\": {\"query\": \"oil\"}}",
        );
        let said: Vec<&str> = calls.iter().map(|call| call.output.as_str()).collect();
        assert_eq!(said, ["well\nsecond part", "The lamp burns whale oil."]);
        let error = ToolBox::new(&[mcp.clone(), mcp], &texts).err().unwrap();
        assert!(matches!(error, ToolError::SameName(name) if name == "lamp"));
    }

    #[test]
    fn a_server_that_dies_is_started_again_and_given_up_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let call =
            r#"case "$line" in *'"die"'*) echo "out of oil" >&2; exit 3 ;; *) text well ;; esac"#;
        let mut tools = McpTools::start(&server(folder.path(), call)).unwrap();
        let (die, live) = (json!({"x": "die"}), json!({}));
        let starts = || lines(folder.path(), "server.sh.starts").len();
        assert!(tools.call("lamp", &die).unwrap_err().contains("`sh`"));
        assert!(tools.call("lamp", &live).is_ok(), "started again");
        assert_eq!(starts(), 2);
        for _ in 0..3 {
            assert!(tools.call("lamp", &die).is_err());
        }
        let begun = starts();
        let error = tools.call("lamp", &live).unwrap_err();
        assert!(error.contains("3 times in a row"), "{error}");
        assert_eq!(starts(), begun, "not asked again");
    }

    #[test]
    fn a_server_that_hangs_or_talks_nonsense_is_cut_short_and_ended() {
        for call in ["sleep 600", "echo '<html>'; echo '{}'; echo '[1'"] {
            let folder = tempfile::tempdir().unwrap();
            let config = McpConfig {
                timeout_seconds: 3.0,
                ..server(folder.path(), call)
            };
            let mut tools = McpTools::start(&config).unwrap();
            let begun = Instant::now();
            let error = tools.call("lamp", &json!({})).unwrap_err();
            assert!(error.contains("`sh`"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{call}");
            drop(tools);
            let begun = Instant::now();
            while is_alive(&lines(folder.path(), "server.sh.pids")[0]) {
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "{call}: still there"
                );
            }
        }
    }

    #[test]
    fn a_program_that_is_no_server_is_named_with_what_it_says() {
        let start = |config: &McpConfig| McpTools::start(config).err().unwrap().to_string();
        let error = start(&McpConfig::new("/no/such/program"));
        assert!(
            error.contains("/no/such/program") && error.contains("No such file"),
            "{error}"
        );
        let shell = |script: &str| McpConfig {
            args: vec!["-c".to_owned(), script.to_owned()],
            timeout_seconds: 2.0,
            ..McpConfig::new("sh")
        };
        let error = start(&shell("echo 'KEY is not set' >&2; exit 1"));
        assert!(error.contains("KEY is not set"), "{error}");
        let error = start(&shell("sleep 600"));
        assert!(error.contains("does not answer in"), "{error}");
        for script in ["while :; do echo nonsense; sleep 0.05; done", "cat"] {
            let error = start(&shell(script));
            assert!(error.contains("`sh` cannot be used"), "{error}");
        }
        for (config, field) in [
            (McpConfig::new(" "), "command"),
            (
                McpConfig {
                    timeout_seconds: f64::NAN,
                    ..McpConfig::new("sh")
                },
                "timeout_seconds",
            ),
        ] {
            assert!(start(&config).contains(field));
        }
    }

    #[test]
    fn secrets_stay_in_the_file_that_they_were_read_from() {
        let config: McpConfig =
            serde_json::from_value(json!({"command": "s", "env": {"TOKEN": "secret"}})).unwrap();
        assert_eq!(config.env["TOKEN"], Hidden::new("secret"));
        let written = serde_json::to_string(&config).unwrap();
        assert!(
            !written.contains("secret") && written.contains("TOKEN"),
            "{written}"
        );
        assert!(!format!("{config:?}").contains("secret"));
    }
}
