//! Which header fields pass, in both directions.

use behalf_policy::wire::HEADER_PREFIX;
use http::header::{self, HeaderMap, HeaderName};

/// Fields that belong to one hop (RFC 9110 §7.6.1), besides those that `Connection` nominates.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Credentials and identities of a caller: none reaches the server (C26). What a proxy in front of us says
/// of the caller is not verified, hence not passed on either (D15).
const CALLER_ONLY: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("dpop"),
    header::COOKIE,
    HeaderName::from_static("txn-token"),
];

/// What a server cannot say in our place (D16); its cookies would come back as credentials.
const SERVER_ONLY: [HeaderName; 3] =
    [header::WWW_AUTHENTICATE, header::SET_COOKIE, HeaderName::from_static("dpop-nonce")];

/// The fields of a request that the server gets.
pub(super) fn for_server(from: &HeaderMap) -> HeaderMap {
    let nominated = nominated(from);
    let mut to = HeaderMap::with_capacity(from.len());
    for (name, value) in from {
        let text = name.as_str();
        // Some servers read `_` as `-`: then such a name is a twin of one that was judged or removed.
        let drop = text.contains('_')
            || HOP_BY_HOP.contains(name)
            || CALLER_ONLY.contains(name)
            || [header::HOST, header::CONTENT_LENGTH, header::EXPECT, header::FORWARDED].contains(name)
            || text.starts_with("proxy-")
            || text.starts_with("x-forwarded-")
            || text == "x-real-ip"
            || text.starts_with(HEADER_PREFIX)
            || nominated.iter().any(|n| n == text);
        if !drop {
            to.append(name, value.clone());
        }
    }
    to
}

/// The fields of an answer that the caller gets.
pub(super) fn for_caller(from: &HeaderMap) -> HeaderMap {
    let nominated = nominated(from);
    let mut to = HeaderMap::with_capacity(from.len());
    for (name, value) in from {
        let text = name.as_str();
        let drop = HOP_BY_HOP.contains(name)
            || SERVER_ONLY.contains(name)
            || text.starts_with("proxy-")
            || text.replace('_', "-").starts_with(HEADER_PREFIX)
            || nominated.iter().any(|n| n == text);
        if !drop {
            to.append(name, value.clone());
        }
    }
    to
}

fn nominated(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    #[test]
    fn c26_d15_what_belongs_to_the_caller_or_the_hop_does_not_reach_the_server() {
        let from = map(&[
            ("authorization", "Bearer x"),
            ("dpop", "x"),
            ("cookie", "x"),
            ("txn-token", "x"),
            ("proxy-authorization", "x"),
            ("proxy-anything", "x"),
            ("connection", "x-nominated, keep-alive, Mcp-Name"),
            ("x-nominated", "x"),
            ("mcp-name", "x"),
            ("keep-alive", "x"),
            ("te", "trailers"),
            ("trailer", "authorization"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("host", "x"),
            ("expect", "100-continue"),
            ("behalf-subject", "mallory"),
            ("behalf_subject", "mallory"),
            ("x_user", "mallory"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("accept", "application/json"),
            ("traceparent", "00-a-b-01"),
            ("mcp-param-a", "1"),
        ]);
        let to = for_server(&from);
        let mut names: Vec<_> = to.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "mcp-param-a", "traceparent"]);
    }

    #[test]
    fn d16_a_server_sets_neither_challenge_nor_cookie_nor_a_header_of_ours() {
        let from = map(&[
            ("www-authenticate", "Bearer"),
            ("set-cookie", "a=b"),
            ("behalf-request-id", "x"),
            ("behalf_request_id", "x"),
            ("proxy-authenticate", "Basic"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("content-type", "text/event-stream"),
            ("x-accel-buffering", "no"),
            ("mcp-session-id", "s"),
        ]);
        let to = for_caller(&from);
        let mut names: Vec<_> = to.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "mcp-session-id", "x-accel-buffering"]);
    }
}
