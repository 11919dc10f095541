//! Requests of an MCP client, by hand.
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::SERVER;
use crate::curl::Request;
use crate::world::World;

/// The revision that is spoken here: of the era with `initialize` and sessions.
const REVISION: &str = "2025-11-25";

/// Any message to the server, without credentials.
#[must_use]
pub fn message(body: &Value) -> Request {
    Request::post(SERVER, body)
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", REVISION)
}

/// A request to the server, without credentials.
#[must_use]
pub fn request(method: &str, params: &Value) -> Request {
    message(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
}

/// A tool call, without credentials.
#[must_use]
pub fn call(tool: &str, arguments: &Value) -> Request {
    request("tools/call", &json!({"name": tool, "arguments": arguments}))
}

/// A call of `salary.get` by somebody: the tool that leads to payroll.
#[must_use]
pub fn salary(token: &str, employee: &str) -> Request {
    call("salary.get", &json!({"employee": employee})).bearer(token)
}

/// Opens a session with a server that keeps them, and gives its id.
///
/// # Errors
/// It opens none.
pub fn open_session(world: &World, token: &str) -> Result<String> {
    let params = json!({"protocolVersion": REVISION, "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}});
    let answer = request("initialize", &params).bearer(token).send(world)?;
    ensure!(answer.status == 200, "initialize: {answer:?}");
    let session = answer.header("mcp-session-id").context("the server opened no session")?.to_owned();
    let ready = message(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    let answer = ready.bearer(token).header("Mcp-Session-Id", &session).send(world)?;
    ensure!(answer.status == 202, "initialized: {answer:?}");
    Ok(session)
}
