//! Which requests carry a handle to the server.

use std::collections::BTreeSet;

use behalf_sidecar::clock::ManualClock;
use behalf_sidecar::handles::is_handle_shaped;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::bundle::document;
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
    for carriers in [&["Authorization"][..], &["Meta"], &["Header"], &["Authorization", "Header", "Meta"]] {
        let world = World::with(|policy| policy["servers"][0]["carriers"] = json!(carriers)).await;
        let forged = "behalf_AAAAAAAAAAAAAAAAAAAAAA";
        let call = Call::tool("salary.get").token(&world.alice());
        // What the caller says under this name is gone in every spelling, whether the name is used or not.
        let call = call.header("Behalf-Handle", forged).header("behalf_handle", forged);
        assert_eq!(world.send(call.header("behalf.handle", forged)).await.status, 200);
        let seen = world.server.last();
        assert!(!format!("{seen:?}").contains(forged), "{seen:?}");
        let meta = &seen.json()["params"]["_meta"]["behalf.dev/handle"];
        let found = [
            ("Authorization", handle_in(seen.header("authorization"))),
            ("Header", seen.header("behalf-handle").map(str::to_owned)),
            ("Meta", meta.as_str().map(str::to_owned)),
        ];
        for (carrier, handle) in &found {
            assert_eq!(handle.is_some(), carriers.contains(carrier), "{carrier} of {carriers:?}");
        }
        let handles: BTreeSet<_> = found.iter().filter_map(|(_, handle)| handle.as_deref()).collect();
        assert_eq!(handles.len(), 1, "one call, one handle");
        assert!(handles.into_iter().all(is_handle_shaped));
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
    let (answer, events) = world.open(Call::tool("salary.get").token(&world.alice())).await;
    assert_eq!(world.app.open_handles(), 1);
    drop(events);
    http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    eventually("the handle has ended", async || (world.app.open_handles() == 0).then_some(())).await;

    world.server.behave(|_| None);
    world.send(Call::tool("salary.get").token(&world.alice())).await;
    eventually("the handle has ended", async || (world.app.open_handles() == 0).then_some(())).await;
}

/// A change of the policy part of the bundle.
type Change = fn(&mut Value);

/// The handle that the server got last.
fn handle(world: &World) -> String {
    let calls =
        world.server.seen().into_iter().rev().find_map(|seen| handle_in(seen.header("authorization")));
    calls.expect("a handle")
}

/// What a use of a handle comes to: a reason, and whether the provider heard of it.
async fn used(world: &World, handle: &str) -> (String, bool) {
    let before = world.issuer.fetches();
    let call = Call::get("/payroll/x").header("authorization", &format!("Bearer {handle}"));
    let answer = call.send(world.app.addresses.egress).await;
    let reason = answer.json()["error"]["reason"].as_str().unwrap_or_default().to_owned();
    (reason, world.issuer.fetches() != before)
}

async fn is_dead(world: &World, handle: &str, reason: &str) {
    assert_eq!(used(world, handle).await, (reason.to_owned(), false), "refused without a provider call");
}

/// Without a provider that exchanges, a live handle ends at it, and not before.
async fn is_live(world: &World, handle: &str) {
    let (reason, _) = used(world, handle).await;
    assert!(!matches!(reason.as_str(), "UnknownHandle" | "HandleExpired" | "NoHandle"), "{reason}");
}

#[tokio::test]
async fn b29_a_callers_token_that_expires_inside_an_open_stream_ends_its_handle() {
    let world = World::start().await;
    let lives = 120;
    let token = world.token(|claims| claims["exp"] = (claims["iat"].as_i64().unwrap() + lives).into());
    let (answer, events) = world.open(Call::tool("salary.get").token(&token)).await;
    let handle = handle(&world);
    is_live(&world, &handle).await;
    let clock: &ManualClock = &world.clock;
    // The provider's clock may be off by 5 seconds.
    clock.advance(lives - 10);
    is_live(&world, &handle).await;
    clock.advance(15);
    is_dead(&world, &handle, "HandleExpired").await;
    // The stream itself goes on: it was permitted, and what it still says costs nobody anything.
    events.unbounded_send("data: late\n\n").unwrap();
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: late\n\n");
    is_dead(&world, &handle, "HandleExpired").await;
}

#[tokio::test]
async fn b29_ten_minutes_end_the_handle_of_a_stream_that_goes_on() {
    let world = World::start().await;
    let token = world.token(|claims| claims["exp"] = (claims["iat"].as_i64().unwrap() + 3000).into());
    let (answer, events) = world.open(Call::tool("salary.get").token(&token)).await;
    let handle = handle(&world);
    world.clock.advance(599);
    is_live(&world, &handle).await;
    world.clock.advance(1);
    is_dead(&world, &handle, "HandleExpired").await;
    drop((answer, events));
}

#[tokio::test]
async fn b29_a_caller_that_leaves_takes_its_handle_along_without_grace() {
    let world = World::with(|policy| policy["servers"][0]["handleGrace"] = 30.into()).await;
    let (answer, _events) = world.open(Call::tool("salary.get").token(&world.alice())).await;
    let handle = handle(&world);
    is_live(&world, &handle).await;
    drop(answer);
    eventually("the handle has ended", async || (world.app.open_handles() == 0).then_some(())).await;
    is_dead(&world, &handle, "UnknownHandle").await;
}

#[tokio::test]
async fn b29_a_caller_that_leaves_before_the_answer_takes_its_handle_along() {
    let world = World::start().await;
    world.server.behave(|_| Some(Reply::never()));
    let to = world.app.addresses.inbound;
    let waiting = tokio::spawn(Call::tool("salary.get").token(&world.alice()).start(to));
    eventually("the server has the request", async || (!world.server.seen().is_empty()).then_some(())).await;
    let handle = handle(&world);
    is_live(&world, &handle).await;
    waiting.abort();
    eventually("the handle has ended", async || (world.app.open_handles() == 0).then_some(())).await;
    is_dead(&world, &handle, "UnknownHandle").await;
}

#[tokio::test]
async fn b29_a_call_that_its_caller_takes_back_ends_its_handle_and_nobody_elses() {
    let world = World::start().await;
    let (answer, events) = world.open(Call::tool("salary.get").token(&world.alice())).await;
    let handle = handle(&world);
    let cancel = |id: Value| {
        Call::message(
            &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}),
        )
    };
    let others = world.token(|claims| claims["azp"] = "another-client".into());
    for (call, status) in [
        (cancel(7.into()), 401),
        (cancel(7.into()).token("x.y.z"), 401),
        (cancel(7.into()).token(&world.bob()), 202),
        (cancel(7.into()).token(&others), 403),
        (cancel("7".into()).token(&world.alice()), 202),
        (cancel(8.into()).token(&world.alice()), 202),
        (cancel(Value::Null).token(&world.alice()), 202),
        (cancel(7.into()).token(&world.alice()).header("mcp-session-id", "unknown"), 404),
    ] {
        assert_eq!(world.send(call).await.status, status);
        is_live(&world, &handle).await;
    }
    // Her token of now, which need not be the one that she called with.
    let renewed = world.token(|claims| claims["jti"] = "renewed".into());
    assert_eq!(world.send(cancel(7.into()).token(&renewed)).await.status, 202);
    assert_eq!(world.server.last().json()["params"]["requestId"], 7, "the server hears of it as well");
    is_dead(&world, &handle, "UnknownHandle").await;
    drop(events);
    answer.into_body().collect().await.unwrap();
    is_dead(&world, &handle, "UnknownHandle").await;
}

#[tokio::test]
async fn b29_a_handle_outlives_its_answer_by_its_grace_and_not_by_a_second_more() {
    for grace in [0, 30] {
        let world = World::with(|policy| policy["servers"][0]["handleGrace"] = grace.into()).await;
        world.send(Call::tool("salary.get").token(&world.alice())).await;
        let handle = handle(&world);
        if grace > 0 {
            is_live(&world, &handle).await;
            world.clock.advance(grace - 1);
            is_live(&world, &handle).await;
            world.clock.advance(1);
        } else {
            eventually("the handle has ended", async || (world.app.open_handles() == 0).then_some(())).await;
        }
        is_dead(&world, &handle, "UnknownHandle").await;
    }
}

#[tokio::test]
async fn b29_suspension_and_a_narrower_bundle_end_handles_of_open_calls() {
    let world = World::start().await;
    let (answer, events) = world.open_slow(Call::tool("salary.get").token(&world.alice())).await;
    let handle = handle(&world);
    is_live(&world, &handle).await;
    let changes: [(Change, &str); 5] = [
        (|policy| policy["state"] = "Suspended".into(), "Suspended"),
        (|policy| policy["servers"][0]["tools"][2]["downstreams"] = json!([]), "DownstreamNotPermitted"),
        (|policy| policy["scopes"][2]["groups"] = json!(["directors"]), "NotEntitled"),
        (|policy| policy["optionalScopes"] = json!([]), "ScopeNotOffered"),
        (|policy| *policy = json!({"type": "RefuseAll", "reason": "IdentityDeleted"}), "IdentityDeleted"),
    ];
    for (serial, (change, reason)) in (2..).zip(changes) {
        let mut document = document(serial, &world.issuer, world.server.port);
        change(&mut document["serve"]);
        world.publish(&document).await;
        is_dead(&world, &handle, reason).await;
    }
    world.publish(&document(9, &world.issuer, world.server.port)).await;
    is_live(&world, &handle).await;
    drop((answer, events));
}

#[tokio::test]
async fn b29_after_a_restart_every_handle_is_unknown() {
    let mut world = World::start().await;
    let (answer, events) = world.open(Call::tool("salary.get").token(&world.alice())).await;
    let handle = handle(&world);
    is_live(&world, &handle).await;
    assert!(is_handle_shaped(&handle));
    world.restart().await;
    is_dead(&world, &handle, "UnknownHandle").await;
    drop((answer, events));
}
