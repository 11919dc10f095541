//! The head of a request: where it goes, and what in it is refused whatever policy says.

use behalf_policy::bundle::{Host, Protocol, Server};
use behalf_policy::challenge::METADATA_PREFIX;
use behalf_policy::envelope::{HeaderField, HeaderView, MediaView};
use http::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{Method, Version};

use super::api::Api;
use super::authenticate::carries_token;
use super::cors::{check_origin, is_preflight};
use super::respond::Denial;
use crate::bundle_source::Prepared;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// The protected-resource metadata.
    Metadata,
    /// A JSON-RPC message.
    Message,
    /// The stream of a session (up to 2025-11-25).
    Stream,
    /// The end of a session (up to 2025-11-25).
    End,
    /// A request of a plain HTTP API.
    Api(Api),
    /// What a browser asks before a script's request.
    Preflight,
}

/// Finds the route, and refuses what no route takes.
pub(super) fn route(parts: &Parts, server: &Server, prepared: &Prepared) -> Result<Route, Denial> {
    check_target(parts)?;
    if parts.headers.contains_key(UPGRADE) || parts.method == Method::CONNECT {
        return Err(Denial::UpgradeNotAllowed);
    }
    if server.host == Host::Keep && host(parts)? != Some(prepared.authority.as_str()) {
        return Err(Denial::HostNotAllowed);
    }
    // A request of the metadata is answered to anyone, hence before the origin is looked at.
    let path = parts.uri.path();
    if path == prepared.metadata_path || path == METADATA_PREFIX {
        return match parts.method {
            Method::GET => Ok(Route::Metadata),
            Method::OPTIONS if is_preflight(parts) => Ok(Route::Preflight),
            _ => Err(Denial::VerbNotAllowed),
        };
    }
    check_origin(&parts.headers, server)?;
    if server.protocol == Protocol::Http {
        let api = Api::read(parts, server)?;
        if parts.uri.query().is_some_and(carries_token) {
            return Err(Denial::TokenInQuery);
        }
        return Ok(if is_preflight(parts) { Route::Preflight } else { Route::Api(api) });
    }
    if path != server.path {
        return Err(Denial::UnknownPath);
    }
    if is_preflight(parts) {
        return Ok(Route::Preflight);
    }
    match parts.uri.query() {
        Some(query) if carries_token(query) => return Err(Denial::TokenInQuery),
        // Not judged, hence not forwarded, hence not silently dropped either.
        Some(query) if !query.is_empty() => return Err(Denial::QueryNotAllowed),
        _ => {}
    }
    match parts.method {
        Method::POST => Ok(Route::Message),
        Method::GET => Ok(Route::Stream),
        Method::DELETE => Ok(Route::End),
        _ => Err(Denial::VerbNotAllowed),
    }
}

/// One host, said once; no absolute form on HTTP/1; one framing (RFC 9112 §3.2, §6.3).
fn check_target(parts: &Parts) -> Result<(), Denial> {
    let absolute = parts.version < Version::HTTP_2 && parts.uri.authority().is_some();
    let hosts = parts.headers.get_all(HOST).iter().count();
    let two_framings =
        parts.headers.contains_key(CONTENT_LENGTH) && parts.headers.contains_key(TRANSFER_ENCODING);
    if absolute || hosts > 1 || two_framings {
        return Err(Denial::BadTarget);
    }
    host(parts).map(drop)
}

/// The host a request names, by `:authority` or `Host`, which must not differ.
fn host(parts: &Parts) -> Result<Option<&str>, Denial> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let header = match parts.headers.get(HOST) {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| Denial::BadTarget)?),
    };
    match (authority, header) {
        (Some(authority), Some(header)) if authority != header => Err(Denial::BadTarget),
        (Some(host), _) | (None, Some(host)) => Ok(Some(host)),
        (None, None) => Ok(None),
    }
}

/// The headers that mirror the body.
pub(super) fn mirrored(headers: &HeaderMap) -> HeaderView<'_> {
    HeaderView {
        protocol_version: field(headers, &HeaderName::from_static("mcp-protocol-version")),
        method: field(headers, &HeaderName::from_static("mcp-method")),
        name: field(headers, &HeaderName::from_static("mcp-name")),
    }
}

/// The headers that say what the body is. `accept` is where the joined value is kept.
pub(super) fn media<'a>(headers: &'a HeaderMap, accept: &'a mut String) -> MediaView<'a> {
    let values: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    *accept = values.join(",");
    MediaView {
        content_type: field(headers, &CONTENT_TYPE),
        content_encoding: field(headers, &CONTENT_ENCODING),
        accept: Some(accept.as_str()),
    }
}

fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> HeaderField<'a> {
    HeaderField::from_values(headers.get_all(name).iter().map(|value| value.to_str().ok()))
}
