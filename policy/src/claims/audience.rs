//! Whom a token is for (RFC 7519 §4.1.3, RFC 8707, MCP canonical server URI).

use serde_json::{Map, Value};

use super::{TokenRefusal, read};
use crate::bundle::{Policy, Provider};

/// Takes a token one of whose audiences is this server's: its URL, or one the provider's row adds.
pub(super) fn check(
    policy: &Policy,
    provider: &Provider,
    claims: &Map<String, Value>,
) -> Result<(), TokenRefusal> {
    let audiences = read::string_or_array(claims, "aud")?.ok_or(TokenRefusal::WrongAudience)?;
    let ours = |audience: &str| {
        same(audience, policy.server.url.as_str())
            || provider.tokens.audiences.iter().any(|own| same(audience, own.as_str()))
    };
    if audiences.iter().any(|audience| ours(audience)) { Ok(()) } else { Err(TokenRefusal::WrongAudience) }
}

/// Equal code point by code point; of two http URLs, scheme and host in whatever case (A11). Nothing else is
/// normalised: not the port, not the slash, not an escape.
fn same(audience: &str, own: &str) -> bool {
    if audience == own {
        return true;
    }
    match (parts(audience), parts(own)) {
        (Some((scheme, host, rest)), Some((own_scheme, own_host, own_rest))) => {
            scheme.eq_ignore_ascii_case(own_scheme) && host.eq_ignore_ascii_case(own_host) && rest == own_rest
        }
        _ => false,
    }
}

/// Scheme, authority and the rest of an http URL without user info.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, after) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (authority, rest) = after.split_at_checked(end)?;
    (!authority.is_empty() && !authority.contains('@')).then_some((scheme, authority, rest))
}
