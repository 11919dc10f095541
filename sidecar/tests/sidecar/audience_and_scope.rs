//! What policy refuses a caller that proved who it is, and in which words.

use serde_json::json;

use crate::support::{Call, World};

#[tokio::test]
async fn a16_insufficient_scope_names_every_scope_of_the_operation() {
    let world = World::start().await;
    let token = world.token(|c| c["scope"] = "hr:read".into());
    let answer = world.send(Call::tool("salary.get").token(&token)).await;
    assert_eq!(answer.status, 403);
    assert_eq!(
        answer.challenge().unwrap(),
        "Bearer error=\"insufficient_scope\", scope=\"hr:read hr:salary:read\", \
         resource_metadata=\"https://hr.example.com/.well-known/oauth-protected-resource/mcp\", \
         error_description=\"the operation needs further scopes\""
    );
    assert_eq!(answer.reason(), "InsufficientScope");
    let record = world.last_record().await;
    assert_eq!(record["reason"], "InsufficientScope");
    assert_eq!(record["scopesMissing"], json!(["hr:salary:read"]));
    assert!(world.server.seen().is_empty());

    let stepped_up = world.token(|c| c["scope"] = "hr:read hr:salary:read".into());
    assert_eq!(world.send(Call::tool("salary.get").token(&stepped_up)).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a14_a_broader_scope_presents_what_it_implies() {
    let world = World::start().await;
    let token = world.token(|c| c["scope"] = "hr:salary:read".into());
    assert_eq!(world.send(Call::tool("directory.search").token(&token)).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn d32_what_a_caller_could_not_obtain_is_not_asked_for() {
    let world = World::start().await;
    let refused = [
        ("salary.get", world.bob(), "NotEntitled"),
        ("salary.update", world.alice(), "ScopeNotOffered"),
        ("salary.update", world.token(|c| c["scope"] = "hr:read hr:salary:write".into()), "ScopeNotOffered"),
        ("directory.search", world.token(|c| c["groups"] = json!([])), "NotEntitled"),
        ("directory.search", world.token(|c| c["azp"] = "other-ui".into()), "ClientNotAllowed"),
        ("directory.search", world.token(|c| c["sub"] = "agent-ui".into()), "CallerKindNotAllowed"),
        (
            "directory.search",
            world.token(|c| c["act"] = json!({"sub": "a", "act": {"sub": "b"}})),
            "ActorChainTooDeep",
        ),
    ];
    for (tool, token, reason) in refused {
        let answer = world.send(Call::tool(tool).token(&token)).await;
        assert_eq!(answer.status, 403, "{reason}");
        assert_eq!(answer.challenge(), None, "{reason}");
        assert_eq!(answer.reason(), reason);
        assert_eq!(answer.json()["id"], 7);
        assert_eq!(answer.json()["error"]["code"], -31_403);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(world.last_record().await["reason"], reason);
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn d35_a_hidden_tool_and_one_that_does_not_exist_are_told_in_the_same_words() {
    let world = World::start().await;
    let mut answers = Vec::new();
    for (tool, reason) in
        [("secret.get", "NotEntitled"), ("no.such.tool", "ToolUnknown"), ("Salary.get", "ToolUnknown")]
    {
        let answer = world.send(Call::tool(tool).token(&world.bob())).await;
        assert_eq!(world.last_record().await["reason"], reason);
        let mut body = answer.json();
        body["error"]["data"].as_object_mut().unwrap().remove("requestId");
        answers.push((answer.status, answer.challenge().map(str::to_owned), body));
    }
    assert_eq!(answers[0].0, 403);
    assert_eq!(answers[0].2["error"]["data"]["reason"], "ToolUnknown");
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1], answers[2]);
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn c14_a_method_that_policy_does_not_know_is_refused() {
    let world = World::start().await;
    let alice = world.alice();
    for (method, params, reason) in [
        ("resources/read", json!({"uri": "file:///etc/passwd"}), "ResourceUnknown"),
        ("prompts/get", json!({"name": "p"}), "PromptUnknown"),
        ("tasks/list", json!({}), "MethodNotAllowed"),
        ("tools/Call", json!({"name": "directory.search"}), "MethodNotAllowed"),
        ("x/y", json!({}), "MethodNotAllowed"),
    ] {
        let message = json!({"jsonrpc": "2.0", "id": 3, "method": method, "params": params});
        let answer = world.send(Call::message(&message).token(&alice)).await;
        assert_eq!(answer.status, 403, "{method}");
        assert_eq!(world.last_record().await["reason"], reason, "{method}");
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_suspended_identity_refuses_after_authentication() {
    let world = World::with(|policy| policy["state"] = "Suspended".into()).await;
    assert_eq!(world.send(Call::tool("directory.search")).await.status, 401);
    let answer = world.send(Call::tool("directory.search").token(&world.alice())).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.reason(), "Suspended");
    assert_eq!(world.last_record().await["subject"], "alice");
    assert!(world.server.seen().is_empty());
    world.stop().await;
}
