//! Lists in event streams.

use std::fmt;

use super::{KINDS, ListingError, Onlooker, filtered, names};
use crate::envelope::json::{self, Duplicates, JsonError, Limits, Value};
use crate::envelope::{Era, ListKind, read_id};

/// Filters a `text/event-stream` answer to a list as it arrives.
///
/// Only the event that holds the response is written anew; comments, ids, retry times, other
/// messages and every line ending pass as they came, and no later than their event is complete.
/// What was fed and how it was cut makes no difference to what comes out.
pub struct SseFilter<K> {
    onlooker: K,
    /// The list that was asked for under `id`; none on a stream that replays answers to anything.
    asked: Option<(ListKind, String)>,
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

impl<K: Onlooker> SseFilter<K> {
    /// A filter for the stream that answers the request of this list with this `id` (JSON text, as
    /// [`crate::envelope::Message::id_text`] gives it), or that replays answers to earlier requests.
    /// `limits.bytes` bounds one event, in which every line counts for some bytes more than it has.
    pub fn new(asked: Option<(ListKind, &str)>, era: Era, limits: Limits, onlooker: K) -> Self {
        Self {
            onlooker,
            asked: asked.map(|(kind, id)| (kind, id.to_owned())),
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

    /// The data of an event anew, on one line, when it is a response that holds a list.
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
        let id = root.get("id").and_then(|id| read_id(id).ok());
        let mine = self.asked.as_ref().filter(|(_, asked)| id.as_ref() == Some(asked));
        // A server that writes the id in another way still shows its things to the same caller.
        if mine.is_none() && KINDS.iter().all(|kind| result.get(names(*kind).0).is_none()) {
            return Ok(None);
        }
        let text = std::str::from_utf8(data).map_err(|_| ListingError::NotJson)?;
        let asked = mine.map(|(kind, _)| *kind);
        let mut anew = filtered(text, result, asked, &self.onlooker, self.era, &self.limits)?;
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
