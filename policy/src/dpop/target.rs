//! Whether `htu` is the target of a request, after the normalisation that needs no knowledge of the server (RFC 9449 §4.3;
//! RFC 3986 §6.2.2 and §6.2.3).

/// No target is longer than this many bytes.
const MAX_TARGET: usize = 4096;

/// Whether `htu`, without query and fragment, is `path` at `origin`. What is no http URL is nothing's.
#[must_use]
pub fn same_target(htu: &str, origin: &str, path: &str) -> bool {
    let here = normalized(&format!("{origin}{path}"));
    here.is_some() && normalized(htu) == here
}

/// Scheme and host in lower case, no default port, percent-encoding only where it is needed and in upper case, no dot
/// segments, no query, no fragment.
fn normalized(text: &str) -> Option<String> {
    let usable = |b: u8| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>');
    if text.len() > MAX_TARGET || !text.bytes().all(usable) {
        return None;
    }
    let text = text.split(['?', '#']).next()?;
    let (scheme, rest) = text.split_once("://")?;
    let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "https" => ("https", 443),
        "http" => ("http", 80),
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = authority_of(authority, default_port)?;
    Some(format!("{scheme}://{authority}{}", without_dots(&decoded(path)?)))
}

fn authority_of(authority: &str, default_port: u16) -> Option<String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?.checked_add(2)?;
            authority.split_at_checked(end)?
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    // Neither user information nor percent-encoding: nothing of ours is named so.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(plain) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        Some("") => default_port,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
        None if port.is_empty() => default_port,
        _ => return None,
    };
    let host = host.to_ascii_lowercase();
    Some(if port == default_port { host } else { format!("{host}:{port}") })
}

/// Percent-encoded octets that need not be are decoded; the others get upper-case digits (RFC 3986 §6.2.2).
fn decoded(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let octet = u8::from_str_radix(digits, 16).ok()?;
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(octet));
        } else {
            out.push('%');
            out.push_str(&digits.to_ascii_uppercase());
        }
        rest = after.get(2..)?;
    }
    out.push_str(rest);
    Some(out)
}

/// RFC 3986 §5.2.4; an empty path is `/` (§6.2.3).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}
