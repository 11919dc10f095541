//! Which requests carry a handle to the server.

use serde_json::json;

use crate::support::{Call, Reply, World, eventually};

fn handle_in(header: Option<&str>) -> Option<String> {
    let handle = header?.strip_prefix("Bearer ")?.to_owned();
    assert!(behalf_sidecar::handles::is_handle_shaped(&handle), "{handle}");
    Some(handle)
}

#[tokio::test]
async fn b29_a_permit_that_names_a_downstream_carries_a_handle_in_both_carriers() {
    let world = World::start().await;
    let alice = world.alice();
    world.send(Call::tool("salary.get").token(&alice)).await;
    let seen = world.server.last();
    let handle = handle_in(seen.header("authorization")).unwrap();
    assert_eq!(seen.json()["params"]["_meta"]["behalf.dev/handle"], handle.as_str());

    world.send(Call::tool("salary.get").token(&alice)).await;
    assert_ne!(
        handle_in(world.server.last().header("authorization")).unwrap(),
        handle,
        "one call, one handle"
    );
    world.stop().await;
}

#[tokio::test]
async fn b29_what_names_no_downstream_carries_none() {
    let world = World::start().await;
    let alice = world.alice();
    let calls = [
        Call::tool("directory.search"),
        Call::initialize(),
        Call::list(),
        Call::message(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})),
        Call::message(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})),
        Call::get("/mcp"),
    ];
    for call in calls {
        world.send(call.token(&alice)).await;
        let seen = world.server.last();
        assert_eq!(seen.header("authorization"), None);
        assert!(!String::from_utf8_lossy(&seen.body).contains("behalf"));
    }
    world.stop().await;
}

#[tokio::test]
async fn the_identity_chooses_the_carriers() {
    for (carrier, in_header, in_meta) in [("Authorization", true, false), ("Meta", false, true)] {
        let world = World::with(|policy| policy["servers"][0]["carriers"] = json!([carrier])).await;
        world.send(Call::tool("salary.get").token(&world.alice())).await;
        let seen = world.server.last();
        assert_eq!(seen.header("authorization").is_some(), in_header);
        assert_eq!(seen.json()["params"]["_meta"].is_object(), in_meta);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_handle_that_a_caller_sends_in_is_removed_in_every_spelling() {
    let world = World::start().await;
    let mut call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "directory.search", "arguments": {},
        "_meta": {"behalf.dev/handle": "behalf_AAAAAAAAAAAAAAAAAAAAAA"},
    }});
    world
        .send(
            Call::message(&call)
                .token(&world.alice())
                .header("behalf-handle", "x")
                .header("behalf_handle", "x"),
        )
        .await;
    let seen = world.server.last();
    assert!(!format!("{seen:?}").contains("behalf"), "{seen:?}");

    call["params"]["name"] = "salary.get".into();
    world.send(Call::message(&call).token(&world.alice())).await;
    let handle = world.server.last().json()["params"]["_meta"]["behalf.dev/handle"].clone();
    assert_ne!(handle, "behalf_AAAAAAAAAAAAAAAAAAAAAA");
    world.stop().await;
}

#[tokio::test]
async fn b29_a_handle_lives_until_the_answer_has_ended() {
    let world = World::start().await;
    let (sender, receiver) = std::sync::mpsc::channel();
    world.server.behave(move |_| {
        let (reply, events) = Reply::stream();
        sender.send(events).unwrap();
        Some(reply)
    });
    let answer = Call::tool("salary.get").token(&world.alice()).start(world.app.addresses.inbound).await;
    let events = receiver.recv().unwrap();
    assert_eq!(world.app.open_handles(), 1);
    drop(events);
    http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    eventually("the handle has ended", async || (world.app.open_handles() == 0).then_some(())).await;

    world.server.behave(|_| None);
    world.send(Call::tool("salary.get").token(&world.alice())).await;
    eventually("the handle has ended", async || (world.app.open_handles() == 0).then_some(())).await;
}
