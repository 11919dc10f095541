//! What an MCP envelope may be, and what is forwarded of it.

#![cfg(test)]

use behalf_policy::envelope::{
    EnvelopeError, EnvelopeReason, HeaderField, HeaderView, Limits, Message, Target,
};

#[path = "envelope/forward.rs"]
mod forward;
#[path = "envelope/headers.rs"]
mod headers;
#[path = "envelope/json.rs"]
mod json;
#[path = "envelope/look_alikes.rs"]
mod look_alikes;
#[path = "envelope/media.rs"]
mod media;
#[path = "envelope/message.rs"]
mod message;
#[path = "envelope/params.rs"]
mod params;
#[path = "envelope/target.rs"]
mod target;

/// Reads a body without any mirrored header: the session era.
fn legacy(body: &str) -> Result<Message, EnvelopeError> {
    Message::read(body.as_bytes(), &HeaderView::default(), &Limits::default())
}

/// Reads a body with the given `MCP-Protocol-Version`, `Mcp-Method` and `Mcp-Name`; `-` for none.
fn with_headers(body: &str, version: &str, method: &str, name: &str) -> Result<Message, EnvelopeError> {
    let field = |value| if value == "-" { HeaderField::default() } else { HeaderField::once(value) };
    let headers = HeaderView { protocol_version: field(version), method: field(method), name: field(name) };
    Message::read(body.as_bytes(), &headers, &Limits::default())
}

fn reason(body: &str) -> EnvelopeReason {
    match legacy(body) {
        Ok(message) => panic!("accepted: {body} as {message:?}"),
        Err(error) => error.reason(),
    }
}

/// Why a request of this method with these params is refused.
fn refused(method: &str, params: &str) -> EnvelopeReason {
    reason(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
}

/// A `tools/call` with these members of `params` after the name.
fn call(rest: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"salary.get"{rest}}}}}"#)
}

/// What a request of this method with these params is about.
fn target(method: &str, params: &str) -> Target {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    legacy(&body).unwrap().target().clone()
}
