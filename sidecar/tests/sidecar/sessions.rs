//! Sessions of the legacy era: an id is no credential and works for its own principal only.

use serde_json::json;

use crate::support::{Call, Reply, World};

async fn with_sessions() -> World {
    let world = World::start().await;
    world.server.behave(|seen| {
        if seen.method == http::Method::DELETE {
            return Some(Reply::new(200, "application/json", ""));
        }
        let message: serde_json::Value = serde_json::from_slice(&seen.body).ok()?;
        (message["method"] == "initialize").then(|| {
            let result =
                json!({"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-06-18"}});
            Reply::json(&result).header("mcp-session-id", "s-1")
        })
    });
    world
}

#[tokio::test]
async fn c17_d14_d33_a_session_is_its_principals() {
    let world = with_sessions().await;
    let answer = world.send(Call::initialize().token(&world.alice())).await;
    assert_eq!(answer.header("mcp-session-id"), Some("s-1"));
    let call = || Call::tool("directory.search").header("mcp-session-id", "s-1");

    assert_eq!(world.send(call().token(&world.alice())).await.status, 200);
    assert_eq!(world.server.last().header("mcp-session-id"), Some("s-1"));
    let before = world.server.seen().len();

    let other_client = world.token(|c| c["azp"] = "other-ui".into());
    for (token, call) in [
        (world.bob(), call()),
        (other_client, call()),
        (world.bob(), Call::get("/mcp").header("mcp-session-id", "s-1")),
        (world.bob(), Call::delete("/mcp").header("mcp-session-id", "s-1")),
    ] {
        let answer = world.send(call.token(&token)).await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.reason(), "SessionUnknown");
        assert_eq!(world.last_record().await["reason"], "SessionOfAnotherPrincipal");
    }
    let answer = world.send(Call::list().token(&world.bob()).header("mcp-session-id", "s-2")).await;
    assert_eq!(answer.status, 404);
    assert_eq!(world.last_record().await["reason"], "SessionUnknown");
    for bad in ["s 1", "", "s\u{e9}"] {
        let answer = world.send(Call::list().token(&world.bob()).header("mcp-session-id", bad)).await;
        assert_eq!(answer.status, 400, "{bad:?}");
    }
    let twice = call().header("mcp-session-id", "s-1").token(&world.alice());
    assert_eq!(world.send(twice).await.status, 400);
    assert_eq!(world.send(call()).await.status, 401, "a session id alone is nothing");
    assert_eq!(world.server.seen().len(), before);

    let end = Call::delete("/mcp").header("mcp-session-id", "s-1").token(&world.alice());
    assert_eq!(world.send(end).await.status, 200);
    assert_eq!(world.send(call().token(&world.alice())).await.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn d33_a_session_that_the_server_gives_to_two_principals_goes_to_the_first_only() {
    let world = with_sessions().await;
    assert_eq!(world.send(Call::initialize().token(&world.alice())).await.status, 200);
    let answer = world.send(Call::initialize().token(&world.bob())).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("mcp-session-id"), None);
    assert_eq!(world.last_record().await["reason"], "ServerSessionReused");
    world.stop().await;
}

#[tokio::test]
async fn c2_the_modern_era_has_no_sessions() {
    let world = World::start().await;
    world.server.behave(|_| {
        let result = json!({"jsonrpc": "2.0", "id": 7, "result": {}});
        Some(Reply::json(&result).header("mcp-session-id", "s-1"))
    });
    let call = Call::modern("tools/call", json!({"name": "directory.search", "arguments": {}}))
        .header("mcp-session-id", "unknown")
        .header("last-event-id", "3");
    let answer = world.send(call.token(&world.alice())).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("mcp-session-id"), None);
    let seen = world.server.last();
    assert_eq!(seen.header("mcp-session-id"), None);
    assert_eq!(seen.header("last-event-id"), None);
    assert_eq!(seen.header("mcp-method"), Some("tools/call"));
    world.stop().await;
}

#[tokio::test]
async fn c18_without_a_session_no_stream_is_resumed() {
    let world = World::start().await;
    world.send(Call::get("/mcp").token(&world.alice()).header("last-event-id", "3")).await;
    assert_eq!(world.server.last().header("last-event-id"), None);
    world.stop().await;
}
