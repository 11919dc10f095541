//! `Content-Type`, `Content-Encoding` and `Accept` of a POST.
//!
//! A browser can send a form or plain text across origins without asking first; `application/json`
//! it cannot. A compressed body would be judged by one decoder and used by another.

use super::error::{EnvelopeError, EnvelopeReason};
use super::headers::HeaderField;

/// The headers that say what the body is and what answers are understood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MediaView<'a> {
    /// `Content-Type`.
    pub content_type: HeaderField<'a>,
    /// `Content-Encoding`.
    pub content_encoding: HeaderField<'a>,
    /// `Accept`, all occurrences joined with commas; `None` when absent or not text.
    pub accept: Option<&'a str>,
}

/// Checks that the body is plain JSON in UTF-8 and that both kinds of answer are understood.
///
/// # Errors
/// `UnsupportedMediaType`, `UnsupportedEncoding` or `NotAcceptable`.
pub fn check_media(media: &MediaView<'_>) -> Result<(), EnvelopeError> {
    if media.content_encoding.count > 0 {
        let identity = media.content_encoding.read().ok().flatten();
        if !identity.is_some_and(|v| v.eq_ignore_ascii_case("identity")) {
            return Err(EnvelopeReason::UnsupportedEncoding.into());
        }
    }
    let content_type = media.content_type.read().ok().flatten();
    if !content_type.is_some_and(is_json) {
        return Err(EnvelopeReason::UnsupportedMediaType.into());
    }
    let accept = media.accept.unwrap_or_default();
    if !(accepts(accept, "application", "json") && accepts(accept, "text", "event-stream")) {
        return Err(EnvelopeReason::NotAcceptable.into());
    }
    Ok(())
}

fn is_json(value: &str) -> bool {
    let mut parts = value.split(';').map(|p| p.trim_matches([' ', '\t']));
    let media_type = parts.next().unwrap_or_default();
    let mut charsets = 0_usize;
    let parameters = parts.all(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return parameter.is_empty();
        };
        if !name.eq_ignore_ascii_case("charset") {
            return true;
        }
        charsets = charsets.saturating_add(1);
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        charsets == 1 && value.eq_ignore_ascii_case("utf-8")
    });
    media_type.eq_ignore_ascii_case("application/json") && parameters
}

/// Whether a range in `accept` covers the type; one with `q=0` excludes nothing but itself.
fn accepts(accept: &str, kind: &str, subtype: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(|p| p.trim_matches([' ', '\t']));
        let (k, s) = parts.next().unwrap_or_default().split_once('/').unwrap_or_default();
        let covers = (k == "*" && s == "*")
            || (k.eq_ignore_ascii_case(kind) && (s == "*" || s.eq_ignore_ascii_case(subtype)));
        covers && !parts.any(is_zero_weight)
    })
}

fn is_zero_weight(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.eq_ignore_ascii_case("q") && value.bytes().all(|b| matches!(b, b'0' | b'.'))
    })
}
