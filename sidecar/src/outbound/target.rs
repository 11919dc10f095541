//! Where a request on the way out goes: told by its target, byte by byte, never by what it decodes to.
//!
//! Two forms are taken. `/payroll/a?b` (origin form) is `/a?b` below the base path of the downstream
//! `payroll`. `http://payroll.hr.svc/api/a?b` (absolute form, what a client sends that was given this
//! listener as `HTTP_PROXY`) is that path of the catalogue row whose origin has this authority:
//!
//! * The scheme is `http` or `https`; either stands for the row's own, which is `https`. What the client
//!   believes to be plain leaves here over TLS.
//! * The authority is that of the row's origin as the row writes it: the same host, compared without
//!   regard to ASCII case, and the same port. Where the row names none, the client names none or 443;
//!   never 80. There is no user info, no trailing dot, no other spelling of the host.
//! * `Host` repeats the authority (RFC 9112 §3.2.2).
//! * The path is the row's base path, byte for byte, followed by `/`, `?` or nothing. Of several rows the
//!   longest base path wins; when two rows have one URL, the base URL of the row must be used instead.
//!
//! Every other absolute target is refused, and so is the asterisk form. `CONNECT` never gets this far.

use std::collections::BTreeMap;

use behalf_policy::bundle::Downstream;
use behalf_policy::ids::EntryName;
use behalf_policy::raw_path;
use http::Uri;

use super::request::RequestRefusal;

/// No request target is longer than this many bytes.
const MAX_TARGET: usize = 16 * 1024;

/// A target whose shape was judged. Its row is looked up in the bundle.
pub(super) enum Target {
    /// By the name of the row: the name, and path and query below the row's base path; these are empty,
    /// or start with `/` or `?`.
    Named(EntryName, String),
    /// By origin: the authority, and path and query at that origin.
    At(String, String),
}

impl Target {
    /// Judges a target by its shape.
    pub(super) fn judge(uri: &Uri) -> Result<Self, RequestRefusal> {
        let text = uri.path_and_query().map_or("", |t| t.as_str());
        if text.len() > MAX_TARGET {
            return Err(RequestRefusal::TargetTooLong);
        }
        match (uri.scheme_str(), uri.authority()) {
            (None, None) => {
                let (name, target) = split(text)?;
                check(target)?;
                Ok(Self::Named(name, target.to_owned()))
            }
            (Some("http" | "https"), Some(authority)) => {
                check(text)?;
                Ok(Self::At(authority.as_str().to_ascii_lowercase(), text.to_owned()))
            }
            _ => Err(RequestRefusal::OriginNotInCatalogue),
        }
    }

    /// What `Host` must say; for a name, any of loopback.
    pub(super) fn authority(&self) -> Option<&str> {
        match self {
            Self::Named(..) => None,
            Self::At(authority, _) => Some(authority),
        }
    }

    /// True when a text stands in it.
    pub(super) fn contains(&self, text: &str) -> bool {
        let (Self::Named(_, target) | Self::At(_, target)) = self;
        target.contains(text)
    }

    /// The row it goes to, and path and query below that row's base path.
    pub(super) fn find<'p>(
        &self,
        rows: &'p BTreeMap<EntryName, Downstream>,
    ) -> Result<(&'p EntryName, &'p Downstream, &str), RequestRefusal> {
        match self {
            Self::Named(name, target) => {
                let (name, row) = rows.get_key_value(name).ok_or(RequestRefusal::UnknownDownstream)?;
                Ok((name, row, target))
            }
            Self::At(authority, target) => at(authority, target, rows),
        }
    }
}

/// `/payroll/a?b` is `/a?b` at `payroll`. The name is compared as it stands, never decoded.
fn split(target: &str) -> Result<(EntryName, &str), RequestRefusal> {
    let rest = target.strip_prefix('/').ok_or(RequestRefusal::UnknownDownstream)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (name, target) = rest.split_at_checked(end).ok_or(RequestRefusal::UnknownDownstream)?;
    let name = EntryName::new(name).map_err(|_| RequestRefusal::UnknownDownstream)?;
    Ok((name, target))
}

/// The rules of the raw path on what stands before the query.
fn check(target: &str) -> Result<(), RequestRefusal> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path.is_empty() { Ok(()) } else { Ok(raw_path::check(path)?) }
}

fn at<'p, 't>(
    authority: &str,
    target: &'t str,
    rows: &'p BTreeMap<EntryName, Downstream>,
) -> Result<(&'p EntryName, &'p Downstream, &'t str), RequestRefusal> {
    let mut same_origin = rows.iter().filter(|(_, row)| is_authority_of(authority, &row.origin)).peekable();
    if same_origin.peek().is_none() {
        return Err(RequestRefusal::OriginNotInCatalogue);
    }
    let below = same_origin.filter_map(|(name, row)| {
        let rest = target.strip_prefix(row.base_path.as_str())?;
        (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((name, row, rest))
    });
    let mut found: Vec<_> = below.collect();
    found.sort_by_key(|(_, row, _)| std::cmp::Reverse(row.base_path.len()));
    match found.as_slice() {
        [] => Err(RequestRefusal::OutsideBasePath),
        [(_, first, _), (_, second, _), ..] if first.base_path == second.base_path => {
            Err(RequestRefusal::AmbiguousDownstream)
        }
        [(name, row, rest), ..] => {
            check(rest)?;
            Ok((*name, *row, *rest))
        }
    }
}

/// Whether an authority, in lower case, is that of an https origin.
fn is_authority_of(authority: &str, origin: &str) -> bool {
    let Some(own) = origin.strip_prefix("https://") else { return false };
    let named_port = own
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    authority == own || (!named_port && authority.strip_suffix(":443") == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_the_origins_only_as_the_row_writes_it() {
        for (authority, origin) in [
            ("payroll.hr.svc", "https://payroll.hr.svc"),
            ("payroll.hr.svc:443", "https://payroll.hr.svc"),
            ("payroll.hr.svc:8443", "https://payroll.hr.svc:8443"),
            ("[2001:db8::1]", "https://[2001:db8::1]"),
            ("[2001:db8::1]:443", "https://[2001:db8::1]"),
            ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ] {
            assert!(is_authority_of(authority, origin), "{authority} {origin}");
        }
        for (authority, origin) in [
            ("payroll.hr.svc:80", "https://payroll.hr.svc"),
            ("payroll.hr.svc:", "https://payroll.hr.svc"),
            ("payroll.hr.svc.", "https://payroll.hr.svc"),
            ("payroll.hr.svc:0443", "https://payroll.hr.svc"),
            ("a@payroll.hr.svc", "https://payroll.hr.svc"),
            ("payroll.hr.svc@evil.test", "https://payroll.hr.svc"),
            ("payroll.hr.svc.evil.test", "https://payroll.hr.svc"),
            ("evil-payroll.hr.svc", "https://payroll.hr.svc"),
            ("payroll.hr", "https://payroll.hr.svc"),
            ("payroll.hr.svc", "https://payroll.hr.svc:8443"),
            ("payroll.hr.svc:443", "https://payroll.hr.svc:8443"),
            ("payroll.hr.svc:8443:443", "https://payroll.hr.svc:8443"),
            ("payroll.hr.svc", "http://payroll.hr.svc"),
            ("2001:db8::1", "https://[2001:db8::1]"),
            ("", "https://payroll.hr.svc"),
        ] {
            assert!(!is_authority_of(authority, origin), "{authority} {origin}");
        }
    }
}
