//! What an answer gives its caller to come back with: the state of a question (MCP 2026-07-28 basic/patterns/mrtr) and
//! the name of a task. Neither is a credential: each works only together with a token of the principal it was given to.

use serde::Deserialize;

/// Something that a caller comes back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returnable {
    /// `result.requestState`, as decoded.
    State(String),
    /// `result.taskId` or `result.task.taskId`, as decoded.
    Task(String),
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Outcome>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    request_state: Option<String>,
    task_id: Option<String>,
    task: Option<Task>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    task_id: Option<String>,
}

/// What one JSON-RPC message of a server gives to come back with. A message that cannot be read gives nothing, so that
/// nobody can come back with what is in it.
#[must_use]
pub fn in_message(message: &[u8]) -> Vec<Returnable> {
    let holds = |name: &[u8]| message.windows(name.len()).any(|window| window == name);
    if !holds(b"requestState") && !holds(b"taskId") {
        return Vec::new();
    }
    let Ok(Answer { result: Some(result) }) = serde_json::from_slice(message) else { return Vec::new() };
    let task = result.task.and_then(|task| task.task_id);
    let tasks = result.task_id.into_iter().chain(task).map(Returnable::Task);
    result.request_state.map(Returnable::State).into_iter().chain(tasks).collect()
}

/// Finds them in an event stream as it passes, however it is cut.
#[derive(Debug, Default)]
pub struct EventReader {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The data of the event that is not complete yet.
    data: Vec<u8>,
    /// The event is too large to be read.
    lost: bool,
    after_cr: bool,
    limit: usize,
}

impl EventReader {
    /// Reads no event larger than `limit` bytes; such a one gives nothing.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes the next bytes and gives what the events that end in them give.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Returnable> {
        let mut found = Vec::new();
        for &byte in chunk {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(&mut found),
                _ if self.line.len().saturating_add(self.data.len()) >= self.limit => self.lost = true,
                _ => self.line.push(byte),
            }
        }
        found
    }

    fn end_line(&mut self, found: &mut Vec<Returnable>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            if !std::mem::take(&mut self.lost) {
                found.extend(in_message(&data));
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
        }
    }
}
