//! The `tools/list` answer without the tools its caller may not call.
//!
//! Order, `nextCursor` and every other member stay as the server wrote them; only entries are taken
//! out. An answer that cannot be read is refused as a whole, because it may show what it should not.
//! A filtered page is one caller's, so that a modern one is always `cacheScope: private` (MCP
//! 2026-07-28 server/utilities/caching).

use std::fmt;

use crate::envelope::json::{self, Duplicates, JsonError, Limits, Node, Value};
use crate::envelope::{Era, read_id};

/// Why an answer could not be filtered. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Larger, deeper or with more members than the limits allow.
    #[error("the server's answer is over a limit")]
    TooLarge,
    /// Not one JSON value, or an object outside the list has a duplicate member.
    #[error("the server's answer is not JSON without duplicate members")]
    NotJson,
    /// An array of answers.
    #[error("the server's answer is a batch")]
    Batch,
    /// Not a JSON-RPC response whose result has an array `tools`.
    #[error("the server's answer is not a list of tools")]
    Shape,
}

impl ListingError {
    /// The name used in records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "ListTooLarge",
            Self::NotJson => "ListNotJson",
            Self::Batch => "ListBatch",
            Self::Shape => "ListShape",
        }
    }
}

impl From<JsonError> for ListingError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::TooLarge | JsonError::TooDeep | JsonError::TooManyKeys => Self::TooLarge,
            JsonError::NotUtf8 | JsonError::Malformed | JsonError::Duplicate => Self::NotJson,
        }
    }
}

/// Filters an `application/json` answer to `tools/list`; an error answer passes unchanged.
///
/// An entry without a string `name`, or with a duplicate member, is taken out whatever `keep` says.
///
/// # Errors
/// When the answer cannot be read as one response; then none of it may be passed on.
pub fn filter_tools_result(
    body: &[u8],
    keep: &dyn Fn(&str) -> bool,
    era: Era,
    limits: &Limits,
) -> Result<Vec<u8>, ListingError> {
    let root = json::read(body, limits, Duplicates::RefusedOutsideArrays)?;
    if root.is_array() {
        return Err(ListingError::Batch);
    }
    match (root.get("result"), root.get("error"), root.get("method")) {
        (Some(result), None, None) => {
            let text = std::str::from_utf8(body).map_err(|_| ListingError::NotJson)?;
            Ok(filtered(text, result, keep, era, limits)?.into_bytes())
        }
        (None, Some(_), None) => Ok(body.to_vec()),
        _ => Err(ListingError::Shape),
    }
}

/// `text` with the list in `result` (a node of it) filtered.
fn filtered(
    text: &str,
    result: &Node<'_>,
    keep: &dyn Fn(&str) -> bool,
    era: Era,
    limits: &Limits,
) -> Result<String, ListingError> {
    let members = result.members().ok_or(ListingError::Shape)?;
    let tools = result.get("tools").filter(|t| t.is_array()).ok_or(ListingError::Shape)?;
    let mut edits = vec![Edit::replace(tools, filtered_array(tools, keep, limits)?)];
    if era == Era::Modern {
        let private = "\"private\"";
        edits.push(match result.get("cacheScope") {
            Some(scope) => Edit::replace(scope, private.to_owned()),
            // `tools` is a member, so that there is one to stand in front of.
            None => Edit {
                start: result.start.saturating_add(1),
                end: result.start.saturating_add(1),
                text: format!("\"cacheScope\":{private}{}", if members.is_empty() { "" } else { "," }),
            },
        });
    }
    splice(text, edits).ok_or(ListingError::Shape)
}

fn filtered_array(
    tools: &Node<'_>,
    keep: &dyn Fn(&str) -> bool,
    limits: &Limits,
) -> Result<String, ListingError> {
    let mut dropped = false;
    let mut kept: Vec<&str> = Vec::new();
    tools.elements(&mut |raw| {
        let entry = json::read(raw.as_bytes(), limits, Duplicates::Refused).ok();
        let name = entry.as_ref().and_then(|e| e.get("name")).and_then(Node::as_str);
        if name.is_some_and(keep) {
            kept.push(raw);
        } else {
            dropped = true;
        }
    })?;
    Ok(if dropped { format!("[{}]", kept.join(",")) } else { tools.raw.to_owned() })
}

struct Edit {
    start: usize,
    end: usize,
    text: String,
}

impl Edit {
    fn replace(node: &Node<'_>, text: String) -> Self {
        Self { start: node.start, end: node.start.saturating_add(node.raw.len()), text }
    }
}

fn splice(text: &str, mut edits: Vec<Edit>) -> Option<String> {
    edits.sort_by_key(|e| e.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in &edits {
        out.push_str(text.get(at..edit.start)?);
        out.push_str(&edit.text);
        at = edit.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// Filters a `text/event-stream` answer to `tools/list` as it arrives.
///
/// Only the event that holds the response is written anew; comments, ids, retry times, other
/// messages and every line ending pass as they came, and no later than their event is complete.
/// What was fed and how it was cut makes no difference to what comes out.
pub struct SseFilter<K> {
    keep: K,
    id: String,
    era: Era,
    limits: Limits,
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The complete lines of the event that is not complete yet.
    event: Vec<Line>,
    /// Bytes in `event`.
    held: usize,
    after_cr: AfterCr,
    first_line: bool,
    failed: Option<ListingError>,
}

struct Line {
    text: Vec<u8>,
    end: &'static [u8],
}

/// Where a line feed belongs that comes right after a carriage return.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterCr {
    No,
    /// To the last held line.
    Held,
    /// To what was already let out.
    Out,
}

impl<K> fmt::Debug for SseFilter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseFilter").field("era", &self.era).field("held", &self.held).finish_non_exhaustive()
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";
/// What a held line counts beyond its text, so that many short ones do not cost more than they count.
const LINE_COST: usize = 32;

impl<K: Fn(&str) -> bool> SseFilter<K> {
    /// A filter for the stream that answers the request with this `id` (JSON text, as
    /// [`crate::envelope::Message::id_text`] gives it). `limits.bytes` bounds one event,
    /// in which every line counts for some bytes more than it has.
    pub fn new(id_text: &str, era: Era, limits: Limits, keep: K) -> Self {
        Self {
            keep,
            id: id_text.to_owned(),
            era,
            limits,
            line: Vec::new(),
            event: Vec::new(),
            held: 0,
            after_cr: AfterCr::No,
            first_line: true,
            failed: None,
        }
    }

    /// Takes the next bytes of the stream and gives those that may go on.
    ///
    /// # Errors
    /// An event over the limit, or one that cannot be read; the stream must then be cut, and every
    /// later call gives the same error.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<Vec<u8>, ListingError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut out = Vec::new();
        self.take(chunk, &mut out).inspect_err(|error| self.failed = Some(*error))?;
        Ok(out)
    }

    /// The stream ended: gives what is still held. An event without its blank line is filtered like
    /// any other, since some readers take it.
    ///
    /// # Errors
    /// As for [`Self::feed`].
    pub fn finish(mut self) -> Result<Vec<u8>, ListingError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut out = Vec::new();
        if !self.line.is_empty() {
            let text = std::mem::take(&mut self.line);
            self.event.push(Line { text, end: b"" });
        }
        self.dispatch(&mut out)?;
        Ok(out)
    }

    fn take(&mut self, chunk: &[u8], out: &mut Vec<u8>) -> Result<(), ListingError> {
        let mut rest = chunk;
        while let Some(&first) = rest.first() {
            let after_cr = std::mem::replace(&mut self.after_cr, AfterCr::No);
            if first == b'\n' && after_cr != AfterCr::No {
                match (after_cr, self.event.last_mut()) {
                    (AfterCr::Held, Some(line)) => line.end = b"\r\n",
                    _ => out.push(b'\n'),
                }
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let run = rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
            let (text, tail) = rest.split_at_checked(run).unwrap_or((rest, &[]));
            let held = self.held.saturating_add(self.line.len()).saturating_add(text.len());
            if !text.is_empty() && held > self.limits.bytes {
                return Err(ListingError::TooLarge);
            }
            self.line.extend_from_slice(text);
            match tail.split_first() {
                Some((b'\r', tail)) => {
                    self.after_cr = self.end_line(b"\r", out)?;
                    rest = tail;
                }
                Some((_, tail)) => {
                    self.end_line(b"\n", out)?;
                    rest = tail;
                }
                None => rest = &[],
            }
        }
        Ok(())
    }

    fn end_line(&mut self, end: &'static [u8], out: &mut Vec<u8>) -> Result<AfterCr, ListingError> {
        let text = std::mem::take(&mut self.line);
        let bare = if self.first_line { text.strip_prefix(BOM).unwrap_or(&text) } else { &text };
        let (blank, comment) = (bare.is_empty(), bare.starts_with(b":"));
        if blank {
            self.dispatch(out)?;
        }
        // A keep-alive between events must not wait for one.
        let through = blank || (comment && self.event.is_empty());
        if through {
            self.first_line = false;
            out.extend_from_slice(&text);
            out.extend_from_slice(end);
            return Ok(AfterCr::Out);
        }
        self.held = self.held.saturating_add(text.len()).saturating_add(LINE_COST);
        self.event.push(Line { text, end });
        Ok(AfterCr::Held)
    }

    /// Lets the held event out, written anew if it is the response.
    fn dispatch(&mut self, out: &mut Vec<u8>) -> Result<(), ListingError> {
        let event = std::mem::take(&mut self.event);
        self.held = 0;
        let mut first = self.first_line;
        self.first_line = first && event.is_empty();
        let (mut data, mut kind): (Option<Vec<u8>>, &[u8]) = (None, b"");
        let mut is_data = Vec::with_capacity(event.len());
        for line in &event {
            let bare = if std::mem::take(&mut first) {
                line.text.strip_prefix(BOM).unwrap_or(&line.text)
            } else {
                &line.text
            };
            let (name, value) = field(bare);
            is_data.push(name == b"data");
            match name {
                b"event" => kind = value,
                b"data" => match &mut data {
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                    None => data = Some(value.to_vec()),
                },
                _ => {}
            }
        }
        let mut anew = match data {
            Some(data) if !data.is_empty() => self.anew(&data, kind)?,
            _ => None,
        };
        let rewritten = anew.is_some();
        for (line, is_data) in event.iter().zip(is_data) {
            if rewritten && is_data {
                if let Some(text) = anew.take() {
                    out.extend_from_slice(b"data: ");
                    out.extend_from_slice(text.as_bytes());
                    out.extend_from_slice(line.end);
                }
            } else {
                out.extend_from_slice(&line.text);
                out.extend_from_slice(line.end);
            }
        }
        Ok(())
    }

    /// The data of an event anew, on one line, when it is a response that may show tools.
    fn anew(&self, data: &[u8], kind: &[u8]) -> Result<Option<String>, ListingError> {
        let root = match json::read(data, &self.limits, Duplicates::RefusedOutsideArrays) {
            Ok(root) => root,
            // Events of other types (`ping`) are not messages and may hold plain words.
            Err(JsonError::Malformed) if is_other(kind) && !data.iter().any(|b| b"{[".contains(b)) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let Value::Object(_) = root.value else {
            return if root.is_array() { Err(ListingError::Batch) } else { Ok(None) };
        };
        let Some(result) = root.get("result") else {
            return Ok(None);
        };
        if root.get("method").is_some() || root.get("error").is_some() {
            return Err(ListingError::Shape);
        }
        // A server that writes the id in another way still shows tools to the same caller.
        let mine = root.get("id").is_some_and(|id| read_id(id).is_ok_and(|id| id == self.id));
        if !mine && result.get("tools").is_none() {
            return Ok(None);
        }
        let text = std::str::from_utf8(data).map_err(|_| ListingError::NotJson)?;
        let mut anew = filtered(text, result, &self.keep, self.era, &self.limits)?;
        // No string holds a bare line break, so that these stood between tokens.
        anew.retain(|c| !matches!(c, '\n' | '\r'));
        Ok(Some(anew))
    }
}

/// Whether an event of this type is not a message (HTML standard §9.2.6: no type means `message`).
fn is_other(kind: &[u8]) -> bool {
    !kind.is_empty() && kind != b"message"
}

/// Name and value of a line (HTML standard §9.2.6).
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = line.iter().position(|b| *b == b':') else {
        return (line, b"");
    };
    let (name, rest) = line.split_at_checked(colon).unwrap_or((line, b""));
    let value = rest.get(1..).unwrap_or_default();
    (name, value.strip_prefix(b" ").unwrap_or(value))
}
