//! Numbered requirements that no other file shows by the way.

use serde_json::json;

use crate::support::{Call, Issuer, World};

#[tokio::test]
async fn a31_an_unknown_issuer_is_refused_without_asking_anybody() {
    let world = World::start().await;
    let other = Issuer::start().await;
    let mut claims = other.claims(crate::support::bundle::SERVER);
    for issuer in [
        other.url.clone(),
        format!("{}#", world.issuer.url),
        world.issuer.url.to_uppercase(),
        "http://169.254.169.254/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        claims["iss"] = issuer.clone().into();
        let token = other.sign(crate::support::Alg::Es256, &claims);
        assert_eq!(world.send(Call::list().token(&token)).await.status, 401, "{issuer}");
    }
    assert_eq!((other.fetches(), world.issuer.fetches()), (0, 0), "nobody was asked for keys");
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a32_c23_a_denial_is_a_status_of_its_own_and_never_cacheable() {
    let world = World::start().await;
    let modern = || Call::modern("tools/call", json!({"name": "salary.get", "arguments": {}}));
    let calls = [
        (modern(), 401),
        (modern().token("x.y.z"), 401),
        (modern().token(&world.bob()), 403),
        (Call::tool("salary.get"), 401),
        (Call::tool("salary.get").token(&world.bob()), 403),
        (Call::tool("rogue.tool").token(&world.alice()), 403),
        (Call::get("/mcp"), 401),
    ];
    for (call, status) in calls {
        let answer = world.send(call).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"), "no denial is an event");
        assert!(answer.json()["error"]["code"].is_i64());
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

/// A header cannot choose what is judged: the body is, and a header that says something else ends the request.
#[tokio::test]
async fn c11_policy_reads_the_body_and_a_header_that_disagrees_is_an_http_error() {
    let world = World::start().await;
    let bob = world.bob();
    let salary = || Call::tool("salary.get").token(&bob);
    let disagreeing = [
        salary().header("mcp-name", "directory.search"),
        salary().header("mcp-method", "tools/list"),
        salary().header("mcp-name", "=?base64?ZGlyZWN0b3J5LnNlYXJjaA==?="),
        Call::modern("tools/call", json!({"name": "salary.get"}))
            .token(&bob)
            .without("mcp-name")
            .header("mcp-name", "directory.search"),
    ];
    for call in disagreeing {
        let answer = world.send(call).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.json()["error"]["code"].is_i64());
    }
    assert_eq!(world.send(salary().header("mcp-name", "salary.get")).await.status, 403);
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn c16_no_answer_is_kept_for_another_call() {
    let world = World::start().await;
    for token in [world.alice(), world.alice(), world.bob()] {
        assert_eq!(world.send(Call::list().token(&token)).await.status, 200);
        let read = Call::modern("tools/call", json!({"name": "directory.search"}));
        assert_eq!(world.send(read.token(&token)).await.status, 200);
    }
    assert_eq!(world.server.seen().len(), 6, "each call reached the server");
    world.stop().await;
}

/// What a client or server says of itself opens nothing and closes nothing.
#[tokio::test]
async fn c24_who_a_client_says_it_is_decides_nothing() {
    let world = World::start().await;
    let named = |name: &str, tool: &str| {
        let info = json!({"name": name, "version": "1", "subject": "alice", "groups": ["managers"]});
        let meta = json!({"io.modelcontextprotocol/clientInfo": info});
        Call::modern("tools/call", json!({"name": tool, "arguments": {}, "_meta": meta}))
    };
    let (alice, bob) = (world.alice(), world.bob());
    for name in ["test", "agent-ui", "behalf", "admin", "kube-probe/1.34", ""] {
        assert_eq!(world.send(named(name, "salary.get").token(&bob)).await.status, 403, "{name}");
        assert_eq!(world.send(named(name, "salary.get").token(&alice)).await.status, 200, "{name}");
        assert_eq!(world.send(named(name, "salary.get")).await.status, 401, "{name}");
    }
    world.stop().await;
}

#[tokio::test]
async fn d27_a_token_in_a_url_is_refused_and_repeated_nowhere() {
    let world = World::start().await;
    let alice = world.alice();
    for target in [
        format!("/mcp?access_token={alice}"),
        format!("/mcp?x=1&access_token={alice}"),
        format!("/mcp?%61ccess_token={alice}"),
        format!("/mcp/{alice}"),
        format!("/{alice}"),
    ] {
        for call in [Call::list(), Call::list().token(&alice), Call::get("/"), Call::delete("/")] {
            let answer = world.send(call.at(&target)).await;
            assert!((400..500).contains(&answer.status), "{target} {answer:?}");
            let told = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
            assert!(!told.contains(&alice) && !told.contains(".eyJ"), "{told}");
        }
    }
    assert!(world.server.seen().is_empty());
    let metrics = world.metrics().await;
    assert!(!metrics.contains(&alice) && !metrics.contains("eyJ"), "{metrics}");
    // That no record holds one is checked whenever a world stops.
    let records = world.stop().await;
    assert!(records.iter().all(|record| !record.to_string().contains(&alice)));
}
