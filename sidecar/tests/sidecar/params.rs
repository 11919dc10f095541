//! Headers that mirror arguments: what a server says of them in its lists is held against the calls that follow.

use serde_json::{Value, json};

use crate::support::{Call, Reply, World};

/// The server lists `directory.search` with this schema, and a hidden tool with the same.
fn lists(world: &World, schema: &Value) {
    let schema = schema.clone();
    world.server.behave(move |seen| {
        let message = seen.json();
        let tools = ["directory.search", "secret.get", "rogue.tool"]
            .map(|name| json!({"name": name, "inputSchema": schema}));
        let result = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"tools": tools}});
        (message["method"] == "tools/list").then(|| Reply::json(&result))
    });
}

fn region() -> Value {
    json!({"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "page": {"type": "object", "properties": {"size": {"type": "integer", "x-mcp-header": "page_size"}}},
    }})
}

fn search(arguments: &Value) -> Call {
    Call::modern("tools/call", json!({"name": "directory.search", "arguments": arguments}))
}

async fn list(world: &World) {
    let call = Call::modern("tools/list", json!({})).token(&world.bob());
    assert_eq!(world.send(call).await.status, 200);
}

#[tokio::test]
async fn c10_known_param_headers_equal_the_argument() {
    let world = World::start().await;
    lists(&world, &region());
    let west = json!({"region": "us-west1"});
    let bob = world.bob();
    let wrong = || search(&west).header("mcp-param-region", "us-east1").token(&bob);
    // Before any list was seen nothing is known, and the server checks for itself.
    assert_eq!(world.send(wrong()).await.status, 200);
    assert_eq!(world.server.last().header("mcp-param-region"), Some("us-east1"));

    list(&world).await;
    let size = json!({"region": "us-west1", "page": {"size": 42}});
    let permitted = [
        search(&west).header("mcp-param-region", "us-west1"),
        search(&west).header("Mcp-Param-REGION", "=?base64?dXMtd2VzdDE=?="),
        search(&size).header("mcp-param-region", "us-west1").header("mcp-param-page_size", "42.0"),
        search(&west).header("mcp-param-region", "us-west1").header("mcp-param-unknown", "=?base64?!?="),
        search(&json!({"region": null})).header("mcp-param-unknown", "x"),
        search(&json!({})),
    ];
    for call in permitted {
        let answer = world.send(call.clone().token(&bob)).await;
        assert_eq!(answer.status, 200, "{call:?} {answer:?}");
        for (name, value) in call.headers.iter().filter(|(name, _)| name.as_str().starts_with("mcp-param-")) {
            assert_eq!(world.server.last().headers.get(name), Some(value), "untouched");
        }
    }
    let before = world.server.seen().len();
    let refused = [
        (wrong(), "HeaderMismatch"),
        (search(&west), "HeaderMissing"),
        (search(&json!({})).header("mcp-param-region", "us-west1"), "HeaderMismatch"),
        (search(&west).header("mcp-param-region", "=?base64?dXMtd2VzdDE?="), "HeaderMalformed"),
        (
            search(&west).header("mcp-param-region", "us-west1").header("mcp-param-region", "us-west1"),
            "HeaderRepeated",
        ),
        (search(&size).header("mcp-param-region", "us-west1"), "HeaderMissing"),
        (
            search(&size)
                .header("mcp-param-region", "us-west1")
                .header("mcp-param-page_size", "42")
                .header("mcp-param-page-size", "43"),
            "HeaderRepeated",
        ),
    ];
    for (call, reason) in refused {
        let answer = world.send(call.token(&bob).without("authorization").token(&bob)).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (400, &json!(-32020)), "{reason}");
        assert_eq!((&answer.json()["id"], &error["data"]["reason"]), (&json!(7), &json!(reason)));
        assert!(!answer.json().to_string().contains("us-"), "nothing of the request");
        let record = world.last_record().await;
        assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!(reason)));
        assert_eq!(record["tool"], "directory.search");
    }
    assert_eq!(world.server.seen().len(), before, "nothing of it reached the server");
    world.stop().await;
}

#[tokio::test]
async fn c10_d35_who_may_not_call_learns_nothing_of_a_tools_headers() {
    let world = World::start().await;
    lists(&world, &region());
    list(&world).await;
    let hidden = || {
        Call::modern("tools/call", json!({"name": "secret.get", "arguments": {"region": "us-west1"}}))
            .header("mcp-param-region", "us-east1")
    };
    let unknown = Call::modern("tools/call", json!({"name": "no.such", "arguments": {"region": "us-west1"}}));
    let unknown = world.send(unknown.token(&world.bob())).await;
    let answer = world.send(hidden().token(&world.bob())).await;
    assert_eq!((answer.status, answer.reason()), (unknown.status, unknown.reason()));
    assert_eq!(world.send(hidden()).await.status, 401);
    // Who may call it is held to them.
    let answer = world.send(hidden().token(&world.alice())).await;
    assert_eq!((answer.status, answer.reason().as_str()), (400, "HeaderMismatch"));
    world.stop().await;
}

#[tokio::test]
async fn c10_a_later_list_replaces_and_an_invalid_definition_says_nothing() {
    let world = World::start().await;
    let bob = world.bob();
    let call = async |header: Option<&str>| {
        let call = search(&json!({"region": "us-west1"})).token(&bob);
        let call = header.into_iter().fold(call, |call, value| call.header("mcp-param-region", value));
        world.send(call).await.status
    };
    lists(&world, &region());
    list(&world).await;
    assert_eq!((call(None).await, call(Some("us-east1")).await), (400, 400));
    let invalid = [
        json!({"properties": {"region": {"type": "number", "x-mcp-header": "Region"}}}),
        json!({"properties": {"region": {"type": "string", "x-mcp-header": "My Region"}}}),
        json!({"properties": {"region": {"type": "string"}}, "items": {"x-mcp-header": "Region"}}),
    ];
    for schema in invalid {
        lists(&world, &schema);
        list(&world).await;
        assert_eq!((call(None).await, call(Some("us-east1")).await), (200, 200), "{schema}");
    }
    // After lists that differed nobody has to know of the newest, and what is said must be true.
    lists(&world, &region());
    list(&world).await;
    assert_eq!((call(None).await, call(Some("us-east1")).await), (200, 400));
    assert_eq!(call(Some("us-west1")).await, 200);
    // Lists of versions that do not know such headers say nothing of them.
    lists(&world, &json!({"type": "object"}));
    assert_eq!(world.send(Call::list().token(&bob)).await.status, 200);
    assert_eq!(call(Some("us-east1")).await, 400);
    // Calls of those versions neither.
    let legacy = Call::message(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "directory.search", "arguments": {"region": "us-west1"}}}));
    let legacy = legacy.header("mcp-param-region", "us-east1").token(&bob);
    assert_eq!(world.send(legacy).await.status, 200);
    world.stop().await;
}
