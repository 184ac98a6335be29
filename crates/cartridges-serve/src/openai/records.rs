//! What is known of a file and of a batch.

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

/// A file.
#[derive(Debug, Clone)]
pub(crate) struct StoredFile {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// What for.
    pub purpose: String,
    /// When it came, in seconds since 1970.
    pub created: u64,
    /// What is in it.
    pub content: Bytes,
}

impl StoredFile {
    /// The file's description.
    pub fn describe(&self) -> Value {
        json!({
            "id": self.id, "object": "file", "bytes": self.content.len(),
            "created_at": self.created, "filename": self.name, "purpose": self.purpose,
            "status": "uploaded",
        })
    }
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It runs.
    InProgress,
    /// All lines have an answer or an error.
    Completed,
    /// It could not be finished.
    Failed,
    /// A client ended it.
    Cancelled,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }
}

/// A batch.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// The path all its lines go to.
    pub endpoint: String,
    /// The file with the lines.
    pub input: String,
    /// The client's word for how long it may take; all that comes of it is that it is told again.
    pub window: String,
    /// The client's own notes.
    pub metadata: Value,
    /// How far it is.
    pub status: Status,
    /// The file with the answers.
    pub output: Option<String>,
    /// Why it failed.
    pub problem: Option<String>,
    /// When it came, in seconds since 1970.
    pub created: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// Lines in all, answered, failed.
    pub counts: [usize; 3],
    /// Bytes it holds while it runs: its lines and the answers so far.
    pub bytes: usize,
    /// Ends its task.
    pub task: Option<AbortHandle>,
}

impl Batch {
    /// The batch's description.
    pub fn describe(&self) -> Value {
        let when = |status| self.ended.filter(|_| self.status == status);
        let [total, completed, failed] = self.counts;
        let errors = self.problem.as_ref().map(|problem| {
            json!({"object": "list", "data": [{"code": "batch_failed", "message": problem}]})
        });
        json!({
            "id": self.id, "object": "batch", "endpoint": self.endpoint, "errors": errors,
            "input_file_id": self.input, "completion_window": self.window,
            "status": self.status.as_str(), "output_file_id": self.output, "error_file_id": null,
            "created_at": self.created, "in_progress_at": self.created,
            "completed_at": when(Status::Completed), "failed_at": when(Status::Failed),
            "cancelled_at": when(Status::Cancelled),
            "request_counts": {"total": total, "completed": completed, "failed": failed},
            "metadata": self.metadata,
        })
    }
}
