//! Patterns over resource URIs and request paths, read so that the server behind us cannot read them another way.
//!
//! A text that is named byte for byte is that text. What only falls under a wider pattern must be in normal form
//! (RFC 3986 §6.2.2): no dot segments, no empty segments, nothing encoded that need not be. And it must not be what
//! a narrower pattern names in another case or with a slash more or less, since servers are found that make no
//! difference between these.

use serde::{Deserialize, Serialize};

use crate::raw_path;

/// No pattern is longer than this many bytes.
pub const MAX_PATTERN: usize = 512;

/// How a pattern is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PatternType {
    /// Byte for byte.
    Exact,
    /// The text itself and what stands below it, `/` being the boundary.
    Prefix,
    /// Literal text with variables `{name}`, each standing for some characters of one segment (RFC 6570, level 1).
    Template,
}

/// A pattern as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatternDocument {
    /// How it is compared.
    #[serde(rename = "type")]
    pub type_: PatternType,
    /// What it is compared with.
    pub value: String,
}

/// What texts a pattern is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Resource URIs of MCP.
    Uri,
    /// Paths of HTTP requests, without query.
    Path,
}

/// A pattern that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    space: Space,
    type_: PatternType,
    value: String,
    /// The literal text between variables; one piece when there are none.
    pieces: Vec<String>,
    /// The same for a reader that ignores case and a slash at the end.
    folded: Vec<String>,
}

impl Pattern {
    /// Reads a pattern. `None` when it could match something it does not seem to, or nothing at all.
    #[must_use]
    pub fn new(space: Space, document: &PatternDocument) -> Option<Self> {
        let (type_, value) = (document.type_, document.value.as_str());
        if value.is_empty() || value.len() > MAX_PATTERN || !value.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let pieces = match type_ {
            PatternType::Template => pieces(value)?,
            PatternType::Exact | PatternType::Prefix if value.contains(['{', '}']) => return None,
            PatternType::Exact | PatternType::Prefix => vec![value.to_owned()],
        };
        let head = pieces.first()?;
        match space {
            Space::Path if !head.starts_with('/') => return None,
            Space::Uri => drop(scheme(head)?),
            Space::Path => {}
        }
        if type_ != PatternType::Exact && !is_plain(space, &pieces.join("x")) {
            return None;
        }
        let mut folded: Vec<_> = pieces.iter().map(|piece| piece.to_ascii_lowercase()).collect();
        if let Some(last) = folded.last_mut()
            && last.ends_with('/')
        {
            last.pop();
        }
        Some(Self { space, type_, value: value.to_owned(), pieces, folded })
    }

    /// Whether the text is named by this pattern, without regard to what other patterns say of it.
    fn matches(&self, text: &str) -> bool {
        matches(self.type_, &self.pieces, text)
    }

    fn matches_folded(&self, text: &str) -> bool {
        matches(self.type_, &self.folded, text)
    }

    /// Whether the pattern names every text of a URI template, as a server lists it.
    fn covers_template(&self, template: &str) -> bool {
        let head = template.split('{').next().unwrap_or_default();
        match self.type_ {
            PatternType::Exact => false,
            PatternType::Template => self.value == template,
            PatternType::Prefix => self.matches(head) && is_plain(self.space, head),
        }
    }

    /// Greater is narrower.
    fn rank(&self) -> (bool, usize, usize) {
        let head = self.pieces.first().map_or(0, String::len);
        let all = self.pieces.iter().map(String::len).sum();
        (self.type_ == PatternType::Exact, head, all)
    }
}

/// The row for a text among rows with patterns: the narrowest that names it. None when a less exact reader would find
/// another row for it.
pub fn find<'r, R>(rows: &'r [R], pattern: impl Fn(&R) -> &Pattern, text: &str) -> Option<&'r R> {
    let narrowest = |of: &dyn Fn(&Pattern) -> bool| {
        let named = rows.iter().enumerate().filter(|(_, row)| of(pattern(row)));
        named.max_by_key(|(at, row)| (pattern(row).rank(), std::cmp::Reverse(*at)))
    };
    let (at, row) = narrowest(&|p| p.matches(text))?;
    if pattern(row).type_ == PatternType::Exact {
        return Some(row);
    }
    // Only a pattern with a query says anything of one.
    let query = text.contains('?') && !pattern(row).value.contains('?');
    if query || !is_plain(pattern(row).space, text) {
        return None;
    }
    let folded = text.to_ascii_lowercase();
    let folded = folded.strip_suffix('/').unwrap_or(&folded);
    let (same, _) = narrowest(&|p| p.matches_folded(folded))?;
    (same == at).then_some(row)
}

/// The row for a URI template, as a server lists it.
pub fn find_template<'r, R>(
    rows: &'r [R],
    pattern: impl Fn(&R) -> &Pattern,
    template: &str,
) -> Option<&'r R> {
    let named = rows.iter().filter(|row| pattern(row).covers_template(template));
    named.max_by_key(|row| (pattern(row).type_, pattern(row).rank()))
}

/// The literal text between the variables of a template, of which there is at least one.
fn pieces(template: &str) -> Option<Vec<String>> {
    let (mut pieces, mut rest) = (Vec::new(), template);
    while let Some((literal, tail)) = rest.split_once('{') {
        let (name, after) = tail.split_once('}')?;
        let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        // Two variables side by side could be told apart in more than one way.
        if !named || literal.contains('}') || (literal.is_empty() && !pieces.is_empty()) {
            return None;
        }
        pieces.push(literal.to_owned());
        rest = after;
    }
    if pieces.is_empty() || rest.contains('}') {
        return None;
    }
    pieces.push(rest.to_owned());
    Some(pieces)
}

fn matches(type_: PatternType, pieces: &[String], text: &str) -> bool {
    let Some((head, tail)) = pieces.split_first() else { return false };
    let Some(rest) = text.strip_prefix(head.as_str()) else { return false };
    match type_ {
        PatternType::Exact => rest.is_empty(),
        PatternType::Prefix => rest.is_empty() || head.ends_with(['/', ':']) || rest.starts_with('/'),
        PatternType::Template => variables(tail, rest),
    }
}

/// Whether `text` is a value, then the first piece, then a value, and so on; the last piece stands at the end.
fn variables(pieces: &[String], text: &str) -> bool {
    let Some((literal, tail)) = pieces.split_first() else { return text.is_empty() };
    let run = text.bytes().position(|b| !is_value(b)).unwrap_or(text.len());
    if tail.is_empty() {
        let value = text.strip_suffix(literal.as_str());
        return value.is_some_and(|value| !value.is_empty() && value.bytes().all(is_value));
    }
    // The shortest value: a longer one leaves less for those that follow.
    let found = text.match_indices(literal.as_str()).find(|(at, _)| *at > 0);
    let Some((at, found)) = found.filter(|(at, _)| *at <= run) else { return false };
    text.get(at.saturating_add(found.len())..).is_some_and(|rest| variables(tail, rest))
}

/// What a variable may stand for: characters of one path segment or one query value.
fn is_value(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~%!$'()*+,=:@".contains(&b)
}

/// The scheme of a URI and what follows its colon.
fn scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let first = scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let valid = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    (first && valid).then_some((scheme, rest))
}

/// Whether there is one way to read the text (RFC 3986 §6.2.2).
fn is_plain(space: Space, text: &str) -> bool {
    let hierarchical = match space {
        Space::Path => text,
        Space::Uri => {
            let Some((_, rest)) = scheme(text) else { return false };
            rest
        }
    };
    let (path, query) = match hierarchical.split_once('?') {
        Some(_) if space == Space::Path => return false,
        Some((path, query)) => (path, query),
        None => (hierarchical, ""),
    };
    let (authority, path) = match path.strip_prefix("//").filter(|_| space == Space::Uri) {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", path),
    };
    let rooted =
        |text: &str| raw_path::check(&format!("/{}", text.strip_prefix('/').unwrap_or(text))).is_ok();
    let query_ok = query.bytes().all(|b| is_value(b) || matches!(b, b'&' | b'/' | b'?'));
    let segments = path.strip_prefix('/').unwrap_or(path);
    // A slash at the end leaves an empty segment there, and nowhere else.
    let whole = segments.strip_suffix('/').unwrap_or(segments);
    let empty_segment = !segments.is_empty() && whole.split('/').any(str::is_empty);
    !empty_segment && query_ok && rooted(authority) && rooted(path) && encoded_as_needed(hierarchical)
}

/// Whether nothing is percent-encoded but what must be, and no delimiter hides behind it.
fn encoded_as_needed(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let byte = rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        byte.is_some_and(|b| {
            !(b.is_ascii_alphanumeric() || b"-._~/\\%;".contains(&b) || b.is_ascii_control())
        })
    })
}
