//! A strict JSON reader (RFC 8259) that borrows from its input.
//!
//! `serde_json` keeps the last of two equal members, takes an array where a struct is expected, and
//! turns numbers into floats. A server behind us may choose otherwise in each case, so that it would
//! act on something else than what was judged. Here equal members are refused after unescaping at
//! every depth, shapes are asked for by name, and a number stays the text it was.

use std::borrow::Cow;

mod write;

pub(crate) use write::{compact_into, quote_into};

/// How much of a body is read before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest text, in bytes.
    pub bytes: usize,
    /// Deepest nesting of arrays and objects; the outermost counts as one. Never above 64.
    pub depth: usize,
    /// Largest number of object members in the whole text.
    pub keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 * 1024 * 1024, depth: MAX_DEPTH, keys: 20_000 }
    }
}

/// The reader is recursive; this keeps its stack small whatever the caller asks for.
const MAX_DEPTH: usize = 64;

/// Why a text was not read. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("larger than the limit")]
    TooLarge,
    #[error("not UTF-8 without a byte order mark")]
    NotUtf8,
    #[error("not one JSON value")]
    Malformed,
    #[error("nested too deeply")]
    TooDeep,
    #[error("too many members")]
    TooManyKeys,
    #[error("duplicate member")]
    Duplicate,
}

/// Where equal members are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duplicates {
    /// Everywhere.
    Refused,
    /// Outside arrays; for a list whose bad entries are dropped one by one.
    RefusedOutsideArrays,
}

/// One value with the text it was read from.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    /// Offset of `raw` in the text that was read.
    pub(crate) start: usize,
    pub(crate) raw: &'a str,
    pub(crate) value: Value<'a>,
}

#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Null,
    Bool,
    /// Kept as text in [`Node::raw`].
    Number,
    String(Cow<'a, str>),
    /// Verified, but not kept apart: see [`Node::elements`]. This bounds the memory of a read by the
    /// number of members.
    Array,
    Object(Vec<Member<'a>>),
}

#[derive(Debug, Clone)]
pub(crate) struct Member<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) node: Node<'a>,
}

impl<'a> Node<'a> {
    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn members(&self) -> Option<&[Member<'a>]> {
        match &self.value {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    pub(crate) fn is_array(&self) -> bool {
        matches!(self.value, Value::Array)
    }

    /// The value of the member of that exact name, if this is an object that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.members()?.iter().find(|m| m.key == key).map(|m| &m.node)
    }

    /// Calls `each` with the text of every element; does nothing when this is not an array.
    pub(crate) fn elements(&self, each: &mut dyn FnMut(&'a str)) -> Result<(), JsonError> {
        if !self.is_array() {
            return Ok(());
        }
        let unlimited = Limits { bytes: usize::MAX, depth: MAX_DEPTH, keys: usize::MAX };
        let mut reader = Reader::new(self.raw, &unlimited, Duplicates::RefusedOutsideArrays);
        reader.array(&mut |node| each(node.raw)).map(|_| ())
    }
}

/// Reads exactly one value with nothing but whitespace around it.
pub(crate) fn read<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    duplicates: Duplicates,
) -> Result<Node<'a>, JsonError> {
    if bytes.len() > limits.bytes {
        return Err(JsonError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
    if text.starts_with('\u{feff}') {
        return Err(JsonError::NotUtf8);
    }
    let mut reader = Reader::new(text, limits, duplicates);
    reader.space();
    let node = reader.value()?;
    reader.space();
    if reader.peek().is_some() { Err(JsonError::Malformed) } else { Ok(node) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth_left: usize,
    keys_left: usize,
    duplicates: Duplicates,
    /// How many arrays are open around the current value.
    arrays: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, limits: &Limits, duplicates: Duplicates) -> Self {
        Self {
            text,
            at: 0,
            depth_left: limits.depth.min(MAX_DEPTH),
            keys_left: limits.keys,
            duplicates,
            arrays: 0,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at = self.at.saturating_add(1);
        Some(byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at = self.at.saturating_add(1);
        }
        found
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at = self.at.saturating_add(1);
        }
    }

    fn value(&mut self) -> Result<Node<'a>, JsonError> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.object()?,
            Some(b'[') => self.array(&mut |_| ())?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Value::Bool)?,
            Some(b'f') => self.word("false", Value::Bool)?,
            Some(b'n') => self.word("null", Value::Null)?,
            _ => return Err(JsonError::Malformed),
        };
        let raw = self.text.get(start..self.at).ok_or(JsonError::Malformed)?;
        Ok(Node { start, raw, value })
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.depth_left = self.depth_left.checked_sub(1).ok_or(JsonError::TooDeep)?;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth_left = self.depth_left.saturating_add(1);
    }

    fn object(&mut self) -> Result<Value<'a>, JsonError> {
        self.enter()?;
        self.at = self.at.saturating_add(1);
        let mut members = Vec::new();
        self.space();
        if !self.eat(b'}') {
            loop {
                self.space();
                if self.peek() != Some(b'"') {
                    return Err(JsonError::Malformed);
                }
                self.keys_left = self.keys_left.checked_sub(1).ok_or(JsonError::TooManyKeys)?;
                let key = self.string()?;
                self.space();
                if !self.eat(b':') {
                    return Err(JsonError::Malformed);
                }
                self.space();
                let node = self.value()?;
                members.push(Member { key, node });
                self.space();
                match self.next() {
                    Some(b',') => {}
                    Some(b'}') => break,
                    _ => return Err(JsonError::Malformed),
                }
            }
        }
        self.leave();
        let lenient = self.duplicates == Duplicates::RefusedOutsideArrays && self.arrays > 0;
        if !lenient && has_duplicates(&members) {
            return Err(JsonError::Duplicate);
        }
        Ok(Value::Object(members))
    }

    fn array(&mut self, each: &mut dyn FnMut(Node<'a>)) -> Result<Value<'a>, JsonError> {
        self.enter()?;
        self.arrays = self.arrays.saturating_add(1);
        self.at = self.at.saturating_add(1);
        self.space();
        if !self.eat(b']') {
            loop {
                self.space();
                each(self.value()?);
                self.space();
                match self.next() {
                    Some(b',') => {}
                    Some(b']') => break,
                    _ => return Err(JsonError::Malformed),
                }
            }
        }
        self.arrays = self.arrays.saturating_sub(1);
        self.leave();
        Ok(Value::Array)
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(JsonError::Malformed);
        }
        self.at = self.at.saturating_add(word.len());
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at = self.at.saturating_add(1);
        }
        if self.at == from { Err(JsonError::Malformed) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(Value::Number)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at = self.at.saturating_add(1);
        let mut unescaped: Option<String> = None;
        loop {
            let rest = self.text.get(self.at..).ok_or(JsonError::Malformed)?;
            let run = rest
                .bytes()
                .position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f))
                .ok_or(JsonError::Malformed)?;
            let chunk = rest.get(..run).ok_or(JsonError::Malformed)?;
            self.at = self.at.saturating_add(run);
            match self.next() {
                Some(b'"') => {
                    return Ok(match unescaped {
                        None => Cow::Borrowed(chunk),
                        Some(text) => Cow::Owned(text + chunk),
                    });
                }
                Some(b'\\') => {
                    let text = unescaped.get_or_insert_default();
                    text.push_str(chunk);
                    text.push(self.escape()?);
                }
                _ => return Err(JsonError::Malformed),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        Ok(match self.next() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(JsonError::Malformed),
        })
    }

    /// A lone surrogate has no code point; every parser replaces it by something else.
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let high = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&high) {
            if !(self.eat(b'\\') && self.eat(b'u')) {
                return Err(JsonError::Malformed);
            }
            let low = self.hex4()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(JsonError::Malformed);
            }
            (((high & 0x3ff) << 10) | (low & 0x3ff)).saturating_add(0x1_0000)
        } else {
            high
        };
        char::from_u32(code).ok_or(JsonError::Malformed)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|b| char::from(b).to_digit(16)).ok_or(JsonError::Malformed)?;
            code = (code << 4) | digit;
        }
        Ok(code)
    }
}

fn has_duplicates(members: &[Member<'_>]) -> bool {
    let mut keys: Vec<&str> = members.iter().map(|m| m.key.as_ref()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair.first() == pair.last())
}
