//! Which header fields pass, in both directions.

use behalf_policy::envelope::PARAM_PREFIX;
use behalf_policy::wire::HEADER_PREFIX;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::handles::holds_handle;

/// Our key in W3C `tracestate`, and our system in its multi-tenant form (`<tenant>@behalf`).
const TRACE_KEY: &str = "behalf";

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

/// With these some servers take another method or path than was judged.
const OTHER_TARGET: [&str; 6] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
];

/// What proxies that terminate TLS write a client's certificate into, by how the names begin (RFC 9440; `X-Forwarded-…`
/// apart, of which none passes). There is no hop whose word on it is taken: a certificate counts that was proved to us (A27).
const CLIENT_CERTIFICATE: [&str; 8] = [
    "client-cert",
    "x-client-cert",
    "x-ssl-",
    "ssl-client-",
    "x-tls-client-",
    "x-amzn-mtls-",
    "x-arr-clientcert",
    "cf-client-cert",
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
        // Some servers read `_` as `-`: then such a name is a twin of one that was judged or removed. Headers of
        // arguments are named by the server.
        let drop = (text.contains('_') && !text.starts_with(PARAM_PREFIX))
            || HOP_BY_HOP.contains(name)
            || CALLER_ONLY.contains(name)
            || [header::HOST, header::CONTENT_LENGTH, header::EXPECT, header::FORWARDED].contains(name)
            || text.starts_with("proxy-")
            || text.starts_with("x-forwarded-")
            || text == "x-real-ip"
            || OTHER_TARGET.contains(&text)
            || CLIENT_CERTIFICATE.iter().any(|start| text.starts_with(start))
            || is_ours(text)
            // What is written like a handle is none of the caller's, wherever it stands.
            || holds_handle(value.as_bytes())
            || nominated.iter().any(|n| n == text);
        if drop {
            continue;
        }
        if text == "tracestate" {
            to.extend(others_members(value).map(|members| (name.clone(), members)));
        } else {
            to.append(name, value.clone());
        }
    }
    to
}

/// Whether a header is under our prefix, whatever stands for its hyphens: some servers make every mark in
/// a name the same one.
fn is_ours(name: &str) -> bool {
    name.len() >= HEADER_PREFIX.len()
        && name
            .bytes()
            .zip(HEADER_PREFIX.bytes())
            .all(|(b, own)| b == own || (!own.is_ascii_alphanumeric() && !b.is_ascii_alphanumeric()))
}

/// A `tracestate` without the members of our key (W3C Trace Context §3.3.1). Nothing when none is left, or
/// when it is no text.
fn others_members(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let ours = |member: &&str| {
        let key = member.split('=').next().unwrap_or_default().trim();
        let system = key.rsplit('@').next().unwrap_or_default();
        system.eq_ignore_ascii_case(TRACE_KEY) || is_ours(&key.to_ascii_lowercase())
    };
    if !text.split(',').any(|member| ours(&member)) {
        return Some(value.clone());
    }
    let others: Vec<&str> = text.split(',').filter(|member| !ours(member)).collect();
    HeaderValue::from_str(others.join(",").trim()).ok().filter(|value| !value.is_empty())
}

/// The fields of an answer that the caller gets.
pub(super) fn for_caller(from: &HeaderMap) -> HeaderMap {
    let nominated = nominated(from);
    let mut to = HeaderMap::with_capacity(from.len());
    for (name, value) in from {
        let text = name.as_str();
        let drop = HOP_BY_HOP.contains(name)
            || SERVER_ONLY.contains(name)
            // Which pages may see an answer is not for the server to say.
            || text.starts_with("access-control-")
            || text.starts_with("proxy-")
            || is_ours(text)
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
            ("behalf.subject", "mallory"),
            ("behalf~subject", "mallory"),
            ("Behalf-Handle", "x"),
            ("BEHALF-HANDLE", "x"),
            ("behalf-", "x"),
            ("x-note", "bearer behalf_AAAAAAAAAAAAAAAAAAAAAA"),
            ("baggage", "a=1,h=behalf_AAAAAAAAAAAAAAAAAAAAAA;p"),
            ("x_user", "mallory"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("accept", "application/json"),
            ("traceparent", "00-a-b-01"),
            ("mcp-param-a", "1"),
            ("mcp-param-a_b", "1"),
            ("mcp_param-a", "1"),
            ("behalfx", "1"),
            ("behalfs-own", "1"),
            ("x-behalf-a", "behalf_short"),
        ]);
        let to = for_server(&from);
        let mut names: Vec<_> = to.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["accept", "behalfs-own", "behalfx", "mcp-param-a", "mcp-param-a_b", "traceparent", "x-behalf-a"]
        );
    }

    #[test]
    fn a27_no_header_says_who_the_client_is_by_its_certificate() {
        let names = [
            "X-Forwarded-Client-Cert",
            "x-forwarded-tls-client-cert",
            "Client-Cert",
            "Client-Cert-Chain",
            "X-SSL-Client-Cert",
            "X-SSL-Client-S-DN",
            "SSL-Client-Cert",
            "ssl_client_cert",
            "X-Client-Cert",
            "X-Client-Certificate",
            "X-Tls-Client-Cert",
            "X-Amzn-Mtls-Clientcert-Leaf",
            "X-ARR-ClientCert",
            "CF-Client-Cert-SHA256",
        ];
        let from = map(&names.map(|name| (name, ":AAAA:")));
        assert_eq!(from.len(), names.len());
        assert_eq!(for_server(&from), HeaderMap::new());
    }

    #[test]
    fn c25_of_a_tracestate_only_our_member_goes() {
        for (came, goes) in [
            ("a=1,b=2", Some("a=1,b=2")),
            ("behalf=x", None),
            ("behalf=x,a=1", Some("a=1")),
            ("a=1, behalf=x ,b=2", Some("a=1,b=2")),
            ("a=1,BEHALF=x", Some("a=1")),
            ("a=1,tenant@behalf=x,b=2", Some("a=1,b=2")),
            ("a=1,\tbehalf =x", Some("a=1")),
            ("a=1,behalf", Some("a=1")),
            ("a=1,behalf-handle=x,behalf_handle=y", Some("a=1")),
            ("a=behalf,behalfs=1,x@behalfs=2", Some("a=behalf,behalfs=1,x@behalfs=2")),
            ("a=behalf_AAAAAAAAAAAAAAAAAAAAAA", None),
        ] {
            let to = for_server(&map(&[("tracestate", came)]));
            assert_eq!(to.get("tracestate").map(|v| v.to_str().unwrap()), goes, "{came}");
        }
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
