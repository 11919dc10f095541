//! Methods beside `tools/call`: judged by their rows, lists of every kind filtered, states and tasks bound to whom
//! they were given to.

use serde_json::{Value, json};

use crate::support::{Call, Reply, World};

fn rows(serve: &mut Value) {
    let server = &mut serve["servers"][0];
    server["prompts"] = json!([
        {"name": "brief me", "scopes": ["hr:read"], "denial": "Explain"},
        {"name": "pay.review", "scopes": ["hr:salary:read"], "denial": "Explain"},
        {"name": "pay.secret", "scopes": ["hr:salary:read"], "denial": "Hide"},
    ]);
    server["resources"] = json!([
        {"name": "reports", "uri": {"type": "Prefix", "value": "hr://reports/"}, "scopes": ["hr:read"], "denial": "Explain"},
        {"name": "pay", "uri": {"type": "Exact", "value": "hr://reports/pay"}, "scopes": ["hr:salary:read"], "denial": "Explain"},
        {"name": "people", "uri": {"type": "Template", "value": "hr://people/{id}"}, "scopes": ["hr:salary:read"], "denial": "Explain"},
    ]);
}

fn legacy(method: &str, params: &Value) -> Call {
    Call::message(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
}

#[tokio::test]
async fn c14_prompts_and_resources_are_judged_by_their_rows() {
    let world = World::with(rows).await;
    for (method, params, status, reason) in [
        ("prompts/get", json!({"name": "brief me"}), 200, None),
        ("prompts/get", json!({"name": "pay.review"}), 403, Some("NotEntitled")),
        ("prompts/get", json!({"name": "pay.secret"}), 403, Some("PromptUnknown")),
        ("prompts/get", json!({"name": "nothing"}), 403, Some("PromptUnknown")),
        ("resources/read", json!({"uri": "hr://reports/2026"}), 200, None),
        ("resources/read", json!({"uri": "hr://reports/pay"}), 403, Some("NotEntitled")),
        ("resources/read", json!({"uri": "hr://reports/../x"}), 403, Some("ResourceUnknown")),
        ("resources/subscribe", json!({"uri": "hr://reports/pay"}), 403, Some("NotEntitled")),
        ("resources/unsubscribe", json!({"uri": "hr://reports/2026"}), 200, None),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "brief me"}}), 200, None),
        ("tasks/list", json!({}), 403, Some("MethodNotAllowed")),
    ] {
        let answer = world.send(legacy(method, &params).token(&world.bob())).await;
        assert_eq!(answer.status, status, "{method} {params}");
        if let Some(reason) = reason {
            assert_eq!(answer.reason(), reason, "{method} {params}");
        }
    }
    // The challenge of a prompt is like that of a tool.
    let before = world.token(|claims| claims["scope"] = "hr:read".into());
    let answer = world.send(legacy("prompts/get", &json!({"name": "pay.review"})).token(&before)).await;
    assert!(answer.challenge().unwrap().contains("scope=\"hr:read hr:salary:read\""));
    world.stop().await;
}

#[tokio::test]
async fn c15_lists_of_prompts_resources_and_templates_are_filtered_in_json_and_streams() {
    let world = World::with(rows).await;
    let lists = [
        ("prompts/list", "prompts", "name", ["brief me", "pay.review", "pay.secret", "rogue"], 1, 2),
        (
            "resources/list",
            "resources",
            "uri",
            ["hr://reports/a", "hr://reports/pay", "hr://reports/../x", "hr://rogue"],
            1,
            2,
        ),
        (
            "resources/templates/list",
            "resourceTemplates",
            "uriTemplate",
            ["hr://reports/{year}", "hr://people/{id}", "hr://{any}", "hr://rogue/{id}"],
            1,
            2,
        ),
    ];
    for (method, member, key, entries, to_bob, to_alice) in lists {
        for events in [false, true] {
            world.server.behave(move |seen| {
                let entries: Vec<_> = entries.iter().map(|entry| json!({key: entry})).collect();
                let id = &seen.json()["id"];
                let body = json!({"jsonrpc": "2.0", "id": id, "result": {member: entries, "nextCursor": "c", "ttlMs": 5}});
                Some(if events {
                    Reply::new(200, "text/event-stream", format!("data: {body}\n\n"))
                } else {
                    Reply::json(&body)
                })
            });
            let before = world.token(|claims| claims["scope"] = "hr:read".into());
            for (token, shown) in
                [(world.bob(), to_bob), (world.alice(), entries.len() - 1), (before, to_alice)]
            {
                let shown =
                    if shown == entries.len() - 1 { if member == "prompts" { 3 } else { 2 } } else { shown };
                let answer = world.send(Call::modern(method, json!({})).token(&token)).await;
                let text = String::from_utf8(answer.body.to_vec()).unwrap();
                let body: Value = serde_json::from_str(text.trim().trim_start_matches("data: ")).unwrap();
                let got: Vec<_> = body["result"][member]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|e| e[key].as_str().unwrap())
                    .collect();
                assert_eq!(got, entries[..shown], "{method} {events}");
                assert_eq!(body["result"]["nextCursor"], "c");
                assert_eq!(body["result"]["ttlMs"], 5);
                assert_eq!(body["result"]["cacheScope"], "private");
            }
        }
    }
    world.stop().await;
}

/// Answers a first `tools/call` with a question, and anything that comes back with success.
fn asks(world: &World, events: bool) {
    world.server.behave(move |seen| {
        let message = seen.json();
        if message["params"].get("requestState").is_some() || message["method"] != "tools/call" {
            return None;
        }
        let result =
            json!({"resultType": "input_required", "requestState": "st\u{e4}te/1", "inputRequests": {}});
        let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        Some(if events {
            Reply::new(200, "text/event-stream", format!(": hi\n\ndata: {body}\n\n"))
        } else {
            Reply::json(&body)
        })
    });
}

fn answered(state: &str) -> Call {
    let params =
        json!({"name": "directory.search", "arguments": {}, "requestState": state, "inputResponses": {}});
    Call::modern("tools/call", params)
}

#[tokio::test]
async fn c19_d34_a_state_comes_back_only_from_whom_it_was_given_to_and_byte_exact() {
    for events in [false, true] {
        let world = World::start().await;
        asks(&world, events);
        let early = world.send(answered("st\u{e4}te/1").token(&world.alice())).await;
        assert_eq!((early.status, early.reason().as_str()), (400, "StateNotOfPrincipal"), "never given out");

        let first = Call::modern("tools/call", json!({"name": "directory.search", "arguments": {}}));
        let asked = world.send(first.token(&world.alice())).await;
        assert!(String::from_utf8(asked.body.to_vec()).unwrap().contains("st\u{e4}te/1"));

        let stolen = world.send(answered("st\u{e4}te/1").token(&world.bob())).await;
        assert_eq!((stolen.status, stolen.reason().as_str()), (400, "StateNotOfPrincipal"));
        let other = world.send(answered("st\u{e4}te/2").token(&world.alice())).await;
        assert_eq!(other.status, 400);
        let before = world.server.seen().len();
        let own = world.send(answered("st\u{e4}te/1").token(&world.alice())).await;
        assert_eq!(own.status, 200);
        assert_eq!(world.server.seen().len(), before + 1);
        assert_eq!(world.server.last().json()["params"]["requestState"], "st\u{e4}te/1");

        // It is no way around the policy either: the retry is judged whole (C19).
        let retry = json!({"name": "salary.update", "requestState": "st\u{e4}te/1"});
        let answer = world.send(Call::modern("tools/call", retry).token(&world.alice())).await;
        assert_eq!(answer.status, 403);
        world.stop().await;
    }
}

#[tokio::test]
async fn d34_a_task_is_asked_about_only_by_whom_it_was_given_to_and_while_its_tool_is_permitted() {
    let world = World::start().await;
    world.server.behave(|seen| {
        let message = seen.json();
        if message["method"] != "tools/call" {
            return None;
        }
        let result = json!({"resultType": "task", "taskId": "task-1", "status": "working"});
        Some(Reply::json(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result})))
    });
    let task = |method: &str| Call::modern(method, json!({"taskId": "task-1"})).header("mcp-name", "task-1");
    let early = world.send(task("tasks/get").token(&world.alice())).await;
    assert_eq!((early.status, early.reason().as_str()), (400, "StateNotOfPrincipal"));
    let first = Call::modern("tools/call", json!({"name": "salary.get", "arguments": {}}));
    assert_eq!(world.send(first.token(&world.alice())).await.status, 200);
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        assert_eq!(world.send(task(method).token(&world.bob())).await.status, 400, "{method}");
        assert_eq!(world.send(task(method).token(&world.alice())).await.status, 200, "{method}");
    }
    let lesser = world.token(|claims| claims["scope"] = "hr:read".into());
    let answer = world.send(task("tasks/get").token(&lesser)).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "InsufficientScope"));
    let listen = |token: &str| {
        Call::modern("subscriptions/listen", json!({"notifications": {"taskIds": ["task-1"]}})).token(token)
    };
    assert_eq!(world.send(listen(&world.bob())).await.status, 400);
    assert_eq!(world.send(listen(&world.alice())).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn d33_equal_ids_of_two_callers_in_one_moment_get_each_its_own_answer() {
    let world = World::start().await;
    world.server.behave(|seen| {
        let message = seen.json();
        let body = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"for": message["params"]["arguments"]["who"]}});
        Some(Reply::json(&body))
    });
    let call = |who: &str| {
        Call::message(&json!({
            "jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": {"name": "directory.search", "arguments": {"who": who}},
        }))
    };
    let (alice, bob) = (world.alice(), world.bob());
    let pairs = (0..20).map(|_| async {
        let (a, b) =
            futures::join!(world.send(call("alice").token(&alice)), world.send(call("bob").token(&bob)));
        assert_eq!(a.json()["result"]["for"], "alice");
        assert_eq!(b.json()["result"]["for"], "bob");
    });
    futures::future::join_all(pairs).await;
    world.stop().await;
}
