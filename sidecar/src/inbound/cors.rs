//! Scripts of web pages: which may call, and what they may see of the answer (C21, D36; Fetch standard §3.3).
//!
//! A browser says which page a script is of. Only the server's own origin and those the identity lists may call; there
//! are no wildcards, and no credentials that a browser adds by itself: cookies do not pass in either direction.

use behalf_policy::bundle::Server;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::body::{AnswerBody, full};
use super::respond::Denial;

/// What a script needs to log in, to go on with a session and to name a record.
const EXPOSED: &str =
    "WWW-Authenticate, DPoP-Nonce, Mcp-Session-Id, MCP-Protocol-Version, Retry-After, Behalf-Request-Id";
/// Names of headers that a preflight may ask for, at most so many bytes of them.
const MAX_REQUESTED: usize = 4096;
/// Seconds that a browser keeps the answer to a preflight. The list of origins follows the identity within it.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Refuses a script of a page that may not call.
pub(super) fn check_origin(headers: &HeaderMap, server: &Server) -> Result<(), Denial> {
    match origins(headers) {
        Origins::None => Ok(()),
        Origins::One(origin) if may_call(origin, server) => Ok(()),
        Origins::One(_) | Origins::Several => Err(Denial::OriginNotAllowed),
    }
}

/// The page whose script may see the answer, if it is one's.
pub(super) fn page(headers: &HeaderMap, server: &Server) -> Option<HeaderValue> {
    match origins(headers) {
        Origins::One(origin) if may_call(origin, server) => Some(origin.clone()),
        _ => None,
    }
}

/// Lets the page's script see an answer of ours or of the server.
pub(super) fn let_see(headers: &mut HeaderMap, page: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// Lets everybody's script see an answer that is the same for everybody.
pub(super) fn let_everybody_see(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

/// Whether a browser asks before a script's request goes out. It carries no credentials.
pub(super) fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight of a page that may call. What the request itself may do is decided when it comes.
pub(super) fn preflight(headers: &HeaderMap, methods: &str) -> Response<AnswerBody> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let to = response.headers_mut();
    if let Ok(methods) = HeaderValue::from_str(methods) {
        to.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        to.insert(ALLOW, methods);
    }
    if let Some(requested) = requested(headers) {
        to.insert(ACCESS_CONTROL_ALLOW_HEADERS, requested);
    }
    to.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    to.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    response
}

/// The header names that are asked for, when they are nothing else.
fn requested(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(ACCESS_CONTROL_REQUEST_HEADERS)?;
    let asked = value.to_str().ok().filter(|text| text.len() <= MAX_REQUESTED)?;
    let named = asked.split(',').all(|name| HeaderName::from_bytes(name.trim().as_bytes()).is_ok());
    named.then(|| value.clone())
}

enum Origins<'a> {
    None,
    One(&'a HeaderValue),
    Several,
}

fn origins(headers: &HeaderMap) -> Origins<'_> {
    let mut values = headers.get_all(ORIGIN).iter();
    match (values.next(), values.next()) {
        (None, _) => Origins::None,
        (Some(origin), None) => Origins::One(origin),
        (Some(_), Some(_)) => Origins::Several,
    }
}

/// Byte for byte: browsers write an origin in one way only (RFC 6454 §6.2), and `null` is everybody.
fn may_call(origin: &HeaderValue, server: &Server) -> bool {
    let is = |allowed: &String| allowed.as_bytes() == origin.as_bytes();
    is(&server.origin) || server.allowed_origins.iter().any(is)
}
