//! A JSON-RPC message of an MCP client.

use behalf_policy::envelope::{EnvelopeError, HeaderField, HeaderView, Limits, Message, Target};
use serde_json::Value;

const HANDLE: &str = "behalf_AAAAAAAAAAAAAAAAAAAAAA";

/// The first byte says whether the headers of the modern era come with the body that follows.
pub(crate) fn message(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    // The headers say what the last reading of the body says: what disagrees is another test's business.
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = ["name", "uri", "taskId"].iter().find_map(|member| value["params"][*member].as_str());
    let version = value["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str();
    let headers = match (*first == b'm', value["method"].as_str()) {
        (true, Some(method)) => HeaderView {
            protocol_version: HeaderField { value: version.and(Some("2026-07-28")), count: 1 },
            method: field(Some(method)),
            name: field(name.filter(|name| name.is_ascii())),
        },
        _ => HeaderView::default(),
    };
    let Ok(read) = Message::read(body, &headers, &Limits::default()) else { return };
    let forwarded = read.forward_body(None);
    let same = again(&read, &forwarded, &headers).map(|second| second.forward_body(None));
    assert_eq!(same.as_deref(), Some(forwarded.as_slice()), "a second look makes another message");
    if read.method().is_some() {
        assert!(again(&read, &read.forward_body(Some(HANDLE)), &headers).is_some());
    }
    let again: Value = serde_json::from_slice(&forwarded).unwrap_or_default();
    if let Target::ToolCall { name } = read.target() {
        // One that does not read a number reads nothing, and then there is no call.
        if !again.is_null() {
            assert_eq!(again["method"], "tools/call");
            assert_eq!(again["params"]["name"], name.as_str());
            assert_eq!(value["params"]["name"], name.as_str(), "another tool than what came");
            assert_eq!(value["params"]["arguments"], again["params"]["arguments"]);
        }
    } else {
        assert_ne!(again["method"], "tools/call");
    }
    if let Some(meta) = again["params"]["_meta"].as_object() {
        assert!(!meta.keys().any(|key| key.to_lowercase().starts_with("behalf.dev/")), "ours from outside");
    }
}

fn field(value: Option<&str>) -> HeaderField<'_> {
    HeaderField { value, count: usize::from(value.is_some()) }
}

/// What is forwarded is read again, and is the same call.
fn again(read: &Message, forwarded: &[u8], headers: &HeaderView<'_>) -> Option<Message> {
    // White space is gone and strings are written anew, so it may be longer only by escapes and a handle.
    let limits = Limits { bytes: usize::MAX, keys: usize::MAX, ..Limits::default() };
    let second = Message::read(forwarded, headers, &limits);
    assert_eq!(second.as_ref().err().map(EnvelopeError::reason), None, "what is forwarded is refused");
    let second = second.ok()?;
    assert_eq!(second.target(), read.target());
    assert_eq!(
        (second.method(), second.id_text(), second.era(), second.kind()),
        (read.method(), read.id_text(), read.era(), read.kind())
    );
    assert_eq!(second.arguments(), read.arguments());
    Some(second)
}
