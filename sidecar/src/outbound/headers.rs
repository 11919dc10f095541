//! Which headers cross the sidecar on the way out and back (RFC 9110 §7.6.1; D15, D16, D17).

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::request::{bearer_handle, is_ours, spelled};
use crate::handles::{holds_handle, is_handle_shaped};

/// The headers of the request to the downstream. With a token, the server's own credentials go; without,
/// they stay, but for a handle.
pub(super) fn to_downstream(
    from: &HeaderMap,
    handle: Option<&str>,
    token: Option<&SecretString>,
) -> Option<HeaderMap> {
    let nominated = nominated(from);
    let handle = handle.filter(|handle| is_handle_shaped(handle));
    let drop_authorization = token.is_some() || bearer_handle(from).is_some();
    let mut to = HeaderMap::with_capacity(from.len());
    for (name, value) in from {
        let spelled = spelled(name);
        let dropped = is_hop_by_hop(name, &spelled, &nominated)
            || is_ours(&spelled)
            || [HOST, CONTENT_LENGTH, EXPECT].contains(name)
            || (spelled == AUTHORIZATION.as_str() && drop_authorization)
            // A proof of the server's for a token that is not there any more.
            || (spelled == "dpop" && token.is_some())
            || (*name == ACCEPT_ENCODING && token.is_some())
            // Tracing and baggage headers may have picked the handle up, this one or another.
            || handle.is_some_and(|handle| contains(value.as_bytes(), handle.as_bytes()))
            || holds_handle(value.as_bytes());
        if !dropped {
            to.append(name.clone(), value.clone());
        }
    }
    if let Some(token) = token {
        let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose_secret()));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        to.insert(AUTHORIZATION, value);
        // An answer that is compressed could not be searched for the token.
        to.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    Some(to)
}

/// The headers of the answer to the server, or none when one of them carries the token.
pub(super) fn to_server(from: &HeaderMap, token: Option<&SecretString>) -> Option<HeaderMap> {
    let nominated = nominated(from);
    let mut to = HeaderMap::with_capacity(from.len());
    for (name, value) in from {
        // Names come in lower case here, and a token may be written so.
        let token = token.map(|t| t.expose_secret().as_bytes());
        if token.is_some_and(|t| contains(value.as_bytes(), t) || contains(name.as_str().as_bytes(), t)) {
            return None;
        }
        let spelled = spelled(name);
        if !is_hop_by_hop(name, &spelled, &nominated) && !is_ours(&spelled) {
            to.append(name.clone(), value.clone());
        }
    }
    Some(to)
}

/// True when `needle` is part of `hay`; an empty one never is.
fn contains(hay: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && hay.windows(needle.len()).any(|window| window == needle)
}

fn nominated(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

fn is_hop_by_hop(name: &HeaderName, spelled: &str, nominated: &[String]) -> bool {
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(spelled, "keep-alive" | "http2-settings")
        // Twins of framing headers (`Transfer_Encoding`) that something behind might read as the real one.
        || (spelled != name.as_str() && matches!(spelled, "transfer-encoding" | "content-length"))
        || spelled.starts_with("proxy-")
        || nominated.iter().any(|n| n == name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLE: &str = "behalf_0123456789abcdefABCDEF";

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(n, v)| (HeaderName::try_from(*n).unwrap(), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn d15_what_never_reaches_a_downstream() {
        let bearer = format!("Bearer {HANDLE}");
        let from = map(&[
            ("authorization", &bearer),
            ("behalf-handle", HANDLE),
            ("behalf_handle", HANDLE),
            ("Behalf-Anything", "x"),
            ("behalf_other-thing", "x"),
            ("tracestate", &format!("behalf={HANDLE},other=1")),
            ("baggage", "h=behalf_ZZZZZZZZZZZZZZZZZZZZZZ"),
            ("connection", "keep-alive, X-Nominated"),
            ("x-nominated", "x"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy_connection", "x"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("transfer_encoding", "chunked"),
            ("content_length", "7"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("expect", "100-continue"),
            ("host", "127.0.0.1:15102"),
            ("dpop", "x"),
            ("accept-encoding", "gzip"),
            ("accept", "application/json"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.1"),
        ]);
        let token = SecretString::from("to.ke.n");
        let to = to_downstream(&from, Some(HANDLE), Some(&token)).unwrap();
        assert_eq!(names(&to), ["accept", "accept-encoding", "authorization", "cookie", "x-forwarded-for"]);
        assert_eq!(to["accept-encoding"], "identity");
        assert_eq!(to["authorization"], "Bearer to.ke.n");
        assert!(to["authorization"].is_sensitive());
    }

    #[test]
    fn without_a_token_the_servers_own_credentials_stay_and_a_handle_goes() {
        let own = map(&[("authorization", "Bearer own-key"), ("accept-encoding", "gzip")]);
        let to = to_downstream(&own, None, None).unwrap();
        assert_eq!(names(&to), ["accept-encoding", "authorization"]);
        let dead = map(&[("authorization", &format!("bearer  {HANDLE}")), ("x", HANDLE), ("y", "1")]);
        let to = to_downstream(&dead, Some(HANDLE), None).unwrap();
        assert_eq!(names(&to), ["y"]);
    }

    #[test]
    fn d16_what_never_comes_back() {
        let from = map(&[
            ("behalf-handle", "x"),
            ("connection", "close, x-a"),
            ("x-a", "1"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("location", "https://elsewhere.test/"),
            ("set-cookie", "a=b"),
        ]);
        let to = to_server(&from, None).unwrap();
        assert_eq!(names(&to), ["content-length", "location", "set-cookie"]);
    }

    #[test]
    fn an_answer_with_the_token_in_a_header_is_none() {
        let token = SecretString::from("to.ke.n");
        let from = map(&[("location", "https://elsewhere.test/?token=to.ke.n&x")]);
        assert!(to_server(&from, Some(&token)).is_none());
        assert!(to_server(&from, None).is_some());
    }
}
