//! The headers that mirror the body (MCP 2026-07-28 basic/transports/streamable-http, Request
//! Metadata): `MCP-Protocol-Version`, `Mcp-Method`, `Mcp-Name`.
//!
//! Policy reads the body only; the headers are checked so that nothing in front of us or behind us
//! can have routed by something else.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::{EnvelopeError, EnvelopeReason};
use super::message::{Era, Kind, Message};

/// One header field of a request: how often it occurs, and its value if it can be read as text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderField<'a> {
    /// The first value; `None` when there is none or it is not visible ASCII, space and tab.
    pub value: Option<&'a str>,
    /// How many times the field occurs.
    pub count: usize,
}

impl<'a> HeaderField<'a> {
    /// A field that occurs once.
    #[must_use]
    pub fn once(value: &'a str) -> Self {
        Self { value: Some(value), count: 1 }
    }

    /// From every occurrence of the field, `None` standing for one that is not text.
    pub fn from_values(values: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        values.into_iter().fold(Self::default(), |field, value| Self {
            value: if field.count == 0 { value } else { field.value },
            count: field.count.saturating_add(1),
        })
    }

    /// The value without surrounding white space, or nothing when the field is absent.
    pub(super) fn read(&self) -> Result<Option<&'a str>, EnvelopeReason> {
        match (self.count, self.value) {
            (0, _) => Ok(None),
            (1, Some(value)) => {
                let value = value.trim_matches([' ', '\t']);
                let readable = value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
                if value.is_empty() || !readable {
                    return Err(EnvelopeReason::HeaderMalformed);
                }
                Ok(Some(value))
            }
            (1, None) => Err(EnvelopeReason::HeaderMalformed),
            _ => Err(EnvelopeReason::HeaderRepeated),
        }
    }
}

/// The mirrored headers of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// `MCP-Protocol-Version`.
    pub protocol_version: HeaderField<'a>,
    /// `Mcp-Method`.
    pub method: HeaderField<'a>,
    /// `Mcp-Name`.
    pub name: HeaderField<'a>,
}

/// Checks that the headers say what the body says.
///
/// In the stateless era a request must carry them; elsewhere one that is present must still agree.
/// [`Message::read`] has already done this.
///
/// # Errors
/// A header that is missing, repeated, malformed or different; never with its value.
pub fn check_headers(headers: &HeaderView<'_>, message: &Message) -> Result<(), EnvelopeError> {
    check(headers, message).map_err(|reason| EnvelopeError::from(reason).with_id(message.id_text()))
}

fn check(headers: &HeaderView<'_>, message: &Message) -> Result<(), EnvelopeReason> {
    let required = message.era() == Era::Modern && message.kind() == Kind::Request;
    match headers.protocol_version.read()? {
        Some(value) if value == message.protocol_version() => {}
        Some(_) => return Err(EnvelopeReason::HeaderMismatch),
        None if message.era() == Era::Modern => return Err(EnvelopeReason::HeaderMissing),
        None => {}
    }
    agree(headers.method.read()?, message.method(), required)?;
    let name = headers.name.read()?.map(decode).transpose()?;
    agree(name.as_deref(), message.target().mirrored_name(), required)
}

fn agree(header: Option<&str>, body: Option<&str>, required: bool) -> Result<(), EnvelopeReason> {
    match (header, body) {
        (Some(header), Some(body)) if header == body => Ok(()),
        (Some(_), _) => Err(EnvelopeReason::HeaderMismatch),
        (None, Some(_)) if required => Err(EnvelopeReason::HeaderMissing),
        (None, _) => Ok(()),
    }
}

/// A name in its own form; one with control characters is none.
fn decode(value: &str) -> Result<Cow<'_, str>, EnvelopeReason> {
    let text = sentinel(value)?;
    if text.chars().any(char::is_control) {
        return Err(EnvelopeReason::HeaderMalformed);
    }
    Ok(text)
}

/// Undoes the base64 form, whose markers count only when they are exactly these.
pub(super) fn sentinel(value: &str) -> Result<Cow<'_, str>, EnvelopeReason> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|v| v.strip_suffix("?=")) else {
        return Ok(Cow::Borrowed(value));
    };
    let bytes = STANDARD.decode(encoded).map_err(|_| EnvelopeReason::HeaderMalformed)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| EnvelopeReason::HeaderMalformed)
}
