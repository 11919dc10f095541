//! What is not there, in the protocol's own words: a client reads them, whoever says them.

use serde_json::json;

use crate::support::{Call, World};

#[tokio::test]
async fn c13_c14_a_method_that_nobody_knows_is_one_that_does_not_exist() {
    let world = World::start().await;
    let alice = world.alice();
    for method in
        ["unknown/method", "tasks/list", "initialize", "ping", "resources/subscribe", "tasks/result"]
    {
        let call = Call::modern(method, json!({})).token(&alice);
        let answer = world.send(call).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!(-32_601)), "{method}");
        assert_eq!(answer.json()["id"], 7);
        let record = world.last_record().await;
        assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!("MethodNotAllowed")));
        assert_eq!(record["status"], 404);
        // Who has not said who it is learns nothing of what there is.
        assert_eq!(world.send(Call::modern(method, json!({}))).await.status, 401, "{method}");
    }
    // There, 404 would say that the session is over.
    let legacy = Call::message(&json!({"jsonrpc": "2.0", "id": 7, "method": "unknown/method"})).token(&alice);
    let answer = world.send(legacy).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (403, &json!(-31_403)));
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn c14_d35_a_resource_that_no_row_names_is_one_that_does_not_exist() {
    let world = World::start().await;
    let alice = world.alice();
    let uri = "test://nowhere";
    let params = json!({"uri": uri});
    let modern = Call::modern("resources/read", params.clone()).header("mcp-name", uri);
    let legacy = json!({"jsonrpc": "2.0", "id": 7, "method": "resources/read", "params": params});
    for (call, code) in [(modern, -32_602), (Call::message(&legacy), -32_002)] {
        let answer = world.send(call.token(&alice)).await;
        assert_eq!(answer.status, 403);
        let error = &answer.json()["error"];
        assert_eq!((&error["code"], &error["data"]["uri"]), (&json!(code), &json!(uri)));
        assert_eq!(answer.header("www-authenticate"), None);
        assert_eq!(world.last_record().await["reason"], "ResourceUnknown");
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn c13_an_unsupported_version_is_given_back_beside_those_that_the_request_could_be_made_in() {
    let world = World::start().await;
    let alice = world.alice();
    let stateless = |version: &str| {
        let meta = json!({"io.modelcontextprotocol/protocolVersion": version});
        Call::message(&json!({
            "jsonrpc": "2.0", "id": 7, "method": "server/discover", "params": {"_meta": meta},
        }))
        .header("mcp-protocol-version", version)
        .header("mcp-method", "server/discover")
        .token(&alice)
    };
    for version in ["v999.0.0", "2027-01-01"] {
        let answer = world.send(stateless(version)).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32_022)));
        let data = &answer.json()["error"]["data"];
        assert_eq!((&data["requested"], &data["supported"]), (&json!(version), &json!(["2026-07-28"])));
    }
    let answer = world.send(stateless(&"9".repeat(100))).await;
    assert_eq!(answer.json()["error"]["data"].get("requested"), None);
    let legacy = Call::list().header("mcp-protocol-version", "2024-01-01").token(&alice);
    let answer = world.send(legacy).await;
    assert_eq!(answer.json()["error"]["data"]["supported"].as_array().unwrap().len(), 5);
    assert!(world.server.seen().is_empty());
    world.stop().await;
}
