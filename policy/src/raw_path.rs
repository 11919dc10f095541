//! The raw path of a call that leaves the pod: refused, or forwarded byte for byte.
//!
//! The origin behind us, or a proxy in front of it, may decode the path once or twice and then
//! resolve what it finds. Whatever could leave the base path that way is refused here; nothing is
//! ever rewritten, because a signature or a cache key may cover the bytes.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathRefusal {
    /// It does not start with `/`.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A character that no path holds unencoded (RFC 3986 §3.3), `?` and `#` among them.
    #[error("the path holds a character that must be encoded")]
    Character,
    /// A `%` without two hexadecimal digits.
    #[error("the path holds an invalid percent sequence")]
    Percent,
    /// Decoded bytes that are not UTF-8: some decoders read overlong forms as `/` or `.`.
    #[error("the decoded path is not UTF-8")]
    NotUtf8,
    /// NUL or another control character, decoded.
    #[error("the decoded path holds a control character")]
    Control,
    /// A backslash, which some origins take for a slash.
    #[error("the decoded path holds a backslash")]
    Backslash,
    /// A semicolon, which some origins cut a segment at.
    #[error("the decoded path holds a semicolon")]
    Semicolon,
    /// A segment `.` or `..`, decoded.
    #[error("the decoded path holds a dot segment")]
    DotSegment,
    /// An empty first segment, which can be taken for an authority.
    #[error("the first segment of the decoded path is empty")]
    EmptyFirstSegment,
}

impl PathRefusal {
    /// The name used in records and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotAbsolute => "PathNotAbsolute",
            Self::Character => "PathCharacter",
            Self::Percent => "PathPercent",
            Self::NotUtf8 => "PathNotUtf8",
            Self::Control => "PathControl",
            Self::Backslash => "PathBackslash",
            Self::Semicolon => "PathSemicolon",
            Self::DotSegment => "PathDotSegment",
            Self::EmptyFirstSegment => "PathEmptyFirstSegment",
        }
    }
}

/// Checks a path, without its query, as it stood in the request line.
///
/// # Errors
/// The first rule that it breaks: as it is, decoded once, or decoded twice.
pub fn check(raw_path: &str) -> Result<(), PathRefusal> {
    if !raw_path.starts_with('/') {
        return Err(PathRefusal::NotAbsolute);
    }
    check_decoded(raw_path)?;
    if raw_path.bytes().any(|b| !is_path_byte(b)) {
        return Err(PathRefusal::Character);
    }
    let once = decode(raw_path, BadPercent::Refused)?;
    check_decoded(&once)?;
    // Decoding once may rightly leave a bare `%` (`/100%25`); the second time it stands for itself.
    check_decoded(&decode(&once, BadPercent::Literal)?)
}

/// Puts a checked path and its query, if any, under the base path, changing no byte of it.
#[must_use]
pub fn join(base_path: &str, raw_path_and_query: &str) -> String {
    let base = base_path.strip_suffix('/').unwrap_or(base_path);
    format!("{base}{raw_path_and_query}")
}

/// `pchar` and `/` of RFC 3986 §3.3, but for `;`.
fn is_path_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'/' | b'%'
                | b'-'
                | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
                | b':'
                | b'@'
        )
}

fn check_decoded(path: &str) -> Result<(), PathRefusal> {
    if path.chars().any(char::is_control) {
        return Err(PathRefusal::Control);
    }
    // Compatibility forms (`．`, `＼`) become the plain ones in whatever normalises names.
    let plain: Cow<'_, str> =
        if path.is_ascii() { path.into() } else { path.nfkc().collect::<String>().into() };
    for (found, refusal) in [('\\', PathRefusal::Backslash), (';', PathRefusal::Semicolon)] {
        if plain.contains(found) {
            return Err(refusal);
        }
    }
    if plain.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(PathRefusal::DotSegment);
    }
    if plain.starts_with("//") { Err(PathRefusal::EmptyFirstSegment) } else { Ok(()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BadPercent {
    Refused,
    Literal,
}

fn decode(path: &str, bad: BadPercent) -> Result<String, PathRefusal> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let pair = tail.split_at_checked(2).and_then(|(pair, after)| hex(pair).map(|b| (b, after)));
        match (first, pair) {
            (b'%', Some((byte, after))) => {
                out.push(byte);
                rest = after;
            }
            (b'%', None) if bad == BadPercent::Refused => return Err(PathRefusal::Percent),
            _ => out.push(first),
        }
    }
    String::from_utf8(out).map_err(|_| PathRefusal::NotUtf8)
}

fn hex(pair: &[u8]) -> Option<u8> {
    pair.iter().try_fold(0_u8, |byte, b| {
        let digit = u8::try_from(char::from(*b).to_digit(16)?).ok()?;
        Some((byte << 4) | digit)
    })
}
