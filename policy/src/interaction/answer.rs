//! Whether a server's answer to a call says that the call failed.

use crate::envelope::json::{self, Duplicates, Limits, Node};
use crate::envelope::read_id;

/// What a JSON-RPC message says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// It is the answer to the call, and an error: of JSON-RPC, or of the tool (`isError`).
    Failed,
    /// It is anything else, or cannot be read in one way.
    Otherwise,
}

/// Reads a message as the answer to the request of this `id` (JSON text, as
/// [`Message::id_text`](crate::envelope::Message::id_text) gives it).
#[must_use]
pub fn answered(message: &[u8], id: &str) -> Answered {
    let Ok(root) = json::read(message, &Limits::default(), Duplicates::Refused) else {
        return Answered::Otherwise;
    };
    let is_its = root.get("id").and_then(|id| read_id(id).ok()).is_some_and(|its| its == id);
    let failed = match (root.get("result"), root.get("error"), root.get("method")) {
        (Some(result), None, None) => result.get("isError").is_some_and(|it| it.raw == "true"),
        (None, Some(error), None) => Node::members(error).is_some(),
        _ => false,
    };
    if is_its && failed { Answered::Failed } else { Answered::Otherwise }
}

/// The data of the first event of a stream (HTML standard §9.2.6), once all of it is there. What has `ended` has no
/// more to come; some readers take an event without its blank line then.
#[must_use]
pub fn first_event(stream: &[u8], ended: bool) -> Option<Vec<u8>> {
    let mut rest = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut data: Option<Vec<u8>> = None;
    loop {
        let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
            return if ended {
                take(rest, &mut data);
                Some(data.unwrap_or_default())
            } else {
                None
            };
        };
        let (line, after) = rest.split_at_checked(end)?;
        if line.is_empty() {
            return Some(data.unwrap_or_default());
        }
        take(line, &mut data);
        rest = after.strip_prefix(b"\r\n").or_else(|| after.get(1..))?;
    }
}

fn take(line: &[u8], data: &mut Option<Vec<u8>>) {
    let Some(value) = line.strip_prefix(b"data").filter(|v| v.is_empty() || v.starts_with(b":")) else {
        return;
    };
    let value = value.strip_prefix(b":").unwrap_or(value);
    let value = value.strip_prefix(b" ").unwrap_or(value);
    match data {
        Some(data) => {
            data.push(b'\n');
            data.extend_from_slice(value);
        }
        None => *data = Some(value.to_vec()),
    }
}
