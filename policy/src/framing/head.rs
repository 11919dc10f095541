//! A whole head: which body follows it, if that can be told without doubt.

use super::FramingRefusal;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
    /// Of an answer only: until the connection ends (RFC 9112 §6.3, case 8).
    UntilEnd,
}

/// What kind of answer a head begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Interim,
    Final(Body),
}

/// The head of a request without its last line feed: the body that follows, and whether it is a `HEAD`.
pub(super) fn request(text: &[u8]) -> Result<(Body, bool), FramingRefusal> {
    let (first, fields) = split(text);
    let mut parts = first.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FramingRefusal::StartLine);
    };
    let visible = |b: &u8| (0x21..=0x7e).contains(b) && *b != b'#';
    if !is_token(method) || target.is_empty() || !target.iter().all(visible) {
        return Err(FramingRefusal::StartLine);
    }
    let framing = Declared::read(fields, version == b"HTTP/1.1")?;
    if !matches!(version, b"HTTP/1.1" | b"HTTP/1.0") {
        return Err(FramingRefusal::StartLine);
    }
    let body = match framing {
        Declared { chunked: true, .. } => Body::Chunked,
        Declared { length: Some(length), .. } if length > 0 => Body::Length(length),
        _ => Body::None,
    };
    Ok((body, method == b"HEAD"))
}

/// The head of an answer without its last line feed.
pub(super) fn answer(text: &[u8], head_only: bool) -> Result<Answer, FramingRefusal> {
    let (first, fields) = split(text);
    let (version, rest) = first.split_at_checked(9).ok_or(FramingRefusal::StartLine)?;
    if !matches!(version, b"HTTP/1.1 " | b"HTTP/1.0 ") {
        return Err(FramingRefusal::StartLine);
    }
    // The reason phrase may be absent, and with it, by many servers, the space before it.
    let (code, phrase) = rest.split_at_checked(3).ok_or(FramingRefusal::StartLine)?;
    if !code.iter().all(u8::is_ascii_digit) || !(phrase.is_empty() || phrase.starts_with(b" ")) {
        return Err(FramingRefusal::StartLine);
    }
    let framing = Declared::read(fields, version == b"HTTP/1.1 ")?;
    let bodiless = !framing.chunked && framing.length.is_none_or(|length| length == 0);
    match code {
        // There is no other protocol than HTTP here.
        b"101" => Err(FramingRefusal::Interim),
        [b'1', ..] if bodiless => Ok(Answer::Interim),
        [b'1', ..] => Err(FramingRefusal::NoBodyHere),
        [b'0', ..] => Err(FramingRefusal::StartLine),
        b"204" if !bodiless => Err(FramingRefusal::NoBodyHere),
        b"204" | b"304" => Ok(Answer::Final(Body::None)),
        _ if head_only => Ok(Answer::Final(Body::None)),
        _ => Ok(Answer::Final(match framing {
            Declared { chunked: true, .. } => Body::Chunked,
            Declared { length: Some(0), .. } => Body::None,
            Declared { length: Some(length), .. } => Body::Length(length),
            Declared { length: None, .. } => Body::UntilEnd,
        })),
    }
}

/// The first line, and the lines after it up to the empty one.
fn split(text: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let mut lines = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    (first, lines.filter(|line| !line.is_empty()))
}

#[derive(Debug, Default)]
struct Declared {
    length: Option<u64>,
    chunked: bool,
}

impl Declared {
    fn read<'a>(
        fields: impl Iterator<Item = &'a [u8]>,
        chunks_allowed: bool,
    ) -> Result<Self, FramingRefusal> {
        let mut found = Self::default();
        for field in fields {
            let colon = field.iter().position(|b| *b == b':').ok_or(FramingRefusal::FieldName)?;
            let (name, value) = field.split_at_checked(colon).ok_or(FramingRefusal::FieldName)?;
            if !is_token(name) {
                return Err(FramingRefusal::FieldName);
            }
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"content-length") {
                if found.length.is_some() {
                    return Err(FramingRefusal::SeveralLengths);
                }
                found.length = Some(length(value)?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if found.chunked || !chunks_allowed || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(FramingRefusal::TransferCoding);
                }
                found.chunked = true;
            }
        }
        if found.chunked && found.length.is_some() {
            return Err(FramingRefusal::LengthAndCoding);
        }
        Ok(found)
    }
}

/// `1*DIGIT`, within what every parser can count.
fn length(value: &[u8]) -> Result<u64, FramingRefusal> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(FramingRefusal::Length);
    }
    std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).ok_or(FramingRefusal::Length)
}

/// `token` of RFC 9110 §5.6.2.
fn is_token(text: &[u8]) -> bool {
    let mark = |b: &u8| b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || mark(b))
}
