//! The namespace's own deny list: by hand, at once, with the operator away or not.

use serde_json::json;

use crate::support::{Call, World, eventually};

/// Waits until the sidecar goes by the list that was written.
async fn denies(world: &World, told: &str) {
    let line = format!("denied by namespace: {told}\n");
    eventually(told, async || (world.ready().await == (200, format!("{line}ready\n"))).then_some(())).await;
}

async fn denies_nothing(world: &World) {
    eventually("nothing is denied", async || {
        (world.ready().await == (200, "ready\n".to_owned())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a33_each_row_refuses_what_it_names() {
    let world = World::start().await;
    let (alice, bob) = (world.alice(), world.bob());
    let one = "tools 1, subjects 0, downstreams 0";
    for (key, value, told, refused) in [
        ("hr-tools", "*", "everything", [true, true, true, true]),
        ("_all", "*", "everything", [true, true, true, true]),
        ("hr-tools", "tool leave.list", one, [false, true, true, false]),
        ("_all", "# why\ntool leave.list\n", one, [false, true, true, false]),
        ("hr-tools", "subject bob", "tools 0, subjects 1, downstreams 0", [false, false, true, true]),
        ("hr-tools", "downstream payroll", "tools 0, subjects 0, downstreams 1", [false; 4]),
        ("_all", "what is this", "everything (the list cannot be read)", [true; 4]),
    ] {
        world.deny(key, Some(value.as_bytes()));
        denies(&world, told).await;
        let calls = [
            Call::tool("directory.search").token(&alice),
            Call::tool("leave.list").token(&alice),
            Call::tool("leave.list").token(&bob),
            Call::list().token(&bob),
        ];
        for (call, refused) in calls.into_iter().zip(refused) {
            let answer = world.send(call).await;
            assert_eq!(answer.status, if refused { 403 } else { 200 }, "{value}");
            if refused {
                assert_eq!(world.last_record().await["reason"], "DeniedByNamespace", "{value}");
            }
        }
        world.deny(key, None);
        denies_nothing(&world).await;
    }
    // That of another identity is none of ours.
    world.deny("other", Some(b"*"));
    world.deny("hr-tools", Some(b"tool leave.list"));
    denies(&world, one).await;
    assert_eq!(world.send(Call::tool("directory.search").token(&alice)).await.status, 200);
    let metrics = world.metrics().await;
    assert!(metrics.contains("behalf_sidecar_deny_list_entries 1"), "{metrics}");
    assert!(metrics.contains("behalf_sidecar_deny_list_changes_total"), "{metrics}");
    world.stop().await;
}

#[tokio::test]
async fn what_is_there_and_cannot_be_read_refuses_everything() {
    let world = World::start().await;
    std::fs::create_dir_all(world.dir.join("deny").join("hr-tools")).unwrap();
    denies(&world, "everything (the list cannot be read)").await;
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 403);
    std::fs::remove_dir(world.dir.join("deny").join("hr-tools")).unwrap();
    denies_nothing(&world).await;
    world.deny("_all", Some(b"\xff"));
    denies(&world, "everything (the list cannot be read)").await;
    world.stop().await;
}

#[tokio::test]
async fn it_outlives_a_change_of_the_bundle_and_holds_from_the_start() {
    let dir = crate::support::world::directory();
    std::fs::write(dir.join("_all"), "*").unwrap();
    let world = World::configured(|config| config.deny_dir = dir.clone()).await;
    let mut document = crate::support::bundle::document(1, &world.issuer, world.server.port);
    for serial in 1..3 {
        document["serial"] = serial.into();
        world.publish(&document).await;
        let answer = world.send(Call::list().token(&world.alice())).await;
        assert_eq!(answer.reason(), "DeniedByNamespace");
        assert_eq!(world.last_record().await["bundleSerial"], serial);
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn stage_audit_lets_nothing_past_it_not_even_whom_nobody_knows() {
    let world = World::with(|policy| {
        policy["stage"] = "Audit".into();
        policy["authentication"] = "Audit".into();
    })
    .await;
    assert_eq!(world.send(Call::tool("leave.list")).await.status, 200);
    world.deny("hr-tools", Some(b"tool leave.list"));
    denies(&world, "tools 1, subjects 0, downstreams 0").await;
    let before = world.server.seen().len();
    assert_eq!(world.send(Call::tool("leave.list")).await.status, 403);
    assert_eq!(world.send(Call::tool("leave.list").token(&world.alice())).await.status, 403);
    let record = world.last_record().await;
    assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!("DeniedByNamespace")));
    assert_eq!(world.server.seen().len(), before);
    assert_eq!(world.send(Call::tool("directory.search")).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_suspended_identity_serves_nobody_in_audited_authentication_either() {
    let world = World::with(|policy| {
        policy["state"] = "Suspended".into();
        policy["authentication"] = "Audit".into();
    })
    .await;
    let answer = world.send(Call::tool("leave.list")).await;
    assert_eq!((answer.status, answer.reason()), (403, "Suspended".to_owned()));
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_handle_of_an_open_call_buys_nothing_that_was_denied_since() {
    let world = World::start().await;
    let (answer, events) = world.open_slow(Call::tool("salary.get").token(&world.alice())).await;
    let authorization = world.server.last().header("authorization").unwrap().to_owned();
    let reason = async || {
        let call = Call::get("/payroll/x").header("authorization", &authorization);
        call.send(world.app.addresses.egress).await.json()["error"]["reason"].as_str().unwrap().to_owned()
    };
    assert_ne!(reason().await, "DeniedByNamespace");
    for (key, value, told) in [
        ("hr-tools", "downstream payroll", "tools 0, subjects 0, downstreams 1"),
        ("hr-tools", "subject alice", "tools 0, subjects 1, downstreams 0"),
        ("hr-tools", "tool salary.get", "tools 1, subjects 0, downstreams 0"),
        ("_all", "*", "everything"),
    ] {
        world.deny(key, Some(value.as_bytes()));
        denies(&world, told).await;
        assert_eq!(reason().await, "DeniedByNamespace", "{value}");
        world.deny(key, None);
        denies_nothing(&world).await;
    }
    drop((events, answer));
}

#[tokio::test]
async fn in_audit_a_request_without_a_handle_does_not_pass_to_what_was_denied() {
    let world = World::with(|policy| policy["stage"] = "Audit".into()).await;
    let reason = async || {
        let answer = Call::get("/payroll/x").send(world.app.addresses.egress).await;
        answer.json().pointer("/error/reason").and_then(|it| it.as_str()).map(str::to_owned)
    };
    assert_ne!(reason().await.as_deref(), Some("DeniedByNamespace"));
    for value in ["downstream payroll", "*"] {
        world.deny("hr-tools", Some(value.as_bytes()));
        eventually("it is denied", async || {
            (reason().await.as_deref() == Some("DeniedByNamespace")).then_some(())
        })
        .await;
        world.deny("hr-tools", None);
        denies_nothing(&world).await;
    }
}

#[tokio::test]
async fn what_is_denied_is_not_listed() {
    let world = World::start().await;
    let alice = world.alice();
    let tools = async || world.send(Call::list().token(&alice)).await.json().to_string();
    assert!(tools().await.contains("leave.list"));
    world.deny("hr-tools", Some(b"tool leave.list"));
    denies(&world, "tools 1, subjects 0, downstreams 0").await;
    let shown = tools().await;
    assert!(shown.contains("directory.search") && !shown.contains("leave.list"), "{shown}");
    world.stop().await;
}
