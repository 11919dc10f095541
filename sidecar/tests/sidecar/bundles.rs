//! Refuse or keep: which bundles are taken, and what holds when one is not.

use serde_json::json;

use crate::support::bundle::{Operator, document, publish_bytes, sealed_by};
use crate::support::{Call, World, eventually};

#[tokio::test]
async fn d29_without_a_bundle_everything_is_refused_and_the_sidecar_is_not_ready() {
    let world = World::without_bundle().await;
    for call in [Call::list(), Call::get("/.well-known/oauth-protected-resource"), Call::get("/other")] {
        let answer = world.send(call).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.reason(), "NoBundle");
        assert_eq!(world.last_record().await["reason"], "NoBundle");
    }
    let (status, text) = world.ready().await;
    assert_eq!(status, 503);
    assert!(text.contains("pending: bundle"), "{text}");
    world.publish(&document(1, &world.issuer, world.server.port)).await;
    assert_eq!(world.ready().await, (200, "ready\n".to_owned()));
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn d29_a_bad_first_bundle_is_no_bundle() {
    let world = World::without_bundle().await;
    let good = document(1, &world.issuer, world.server.port);
    publish_bytes(&world.dir, &Operator::new().seal(&good));
    rejected(&world, "BundleUnsigned").await;
    assert_eq!(world.ready().await.0, 503);
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 503);
    world.stop().await;
}

async fn rejected(world: &World, reason: &str) {
    eventually("the bundle is rejected", async || {
        world.ready().await.1.contains(&format!("BundleRejected: {reason}\n")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn d29_whatever_is_wrong_with_a_newer_bundle_the_last_good_one_stays() {
    let world = World::start().await;
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut document = document(5, &world.issuer, world.server.port);
        change(&mut document);
        document
    };
    let seal = |document: serde_json::Value| world.operator.seal(&document);
    let mut tampered: serde_json::Value = serde_json::from_slice(&seal(with(&|_| {}))).unwrap();
    let other = seal(with(&|d| d["serve"]["stage"] = "Audit".into()));
    tampered["payload"] = serde_json::from_slice::<serde_json::Value>(&other).unwrap()["payload"].clone();
    let bad = [
        ("BundleMalformed", b"{".to_vec()),
        ("BundleMalformed", b"".to_vec()),
        ("BundleTooLarge", vec![b' '; 1024 * 1024]),
        ("BundleUnsigned", Operator::new().seal(&with(&|_| {}))),
        ("BundleUnsigned", tampered.to_string().into_bytes()),
        ("BundleUnreadable", seal(with(&|d| d["format"] = 2.into())).clone()),
        ("BundleUnreadable", seal(with(&|d| d["extra"] = 1.into()))),
        ("BundleOfAnotherIdentity", seal(with(&|d| d["namespace"] = "finance".into()))),
        ("BundleOfAnotherIdentity", seal(with(&|d| d["identity"] = "other".into()))),
        ("BundleInvalid", seal(with(&|d| d["serve"]["providers"] = json!([])))),
        ("BundleSerialWentBack", seal(with(&|d| d["serial"] = 0.into()))),
        (
            "BundleSerialReused",
            seal(with(&|d| {
                d["serial"] = 1.into();
                d["serve"]["stage"] = "Audit".into();
            })),
        ),
    ];
    for (reason, bytes) in bad {
        publish_bytes(&world.dir, &bytes);
        let reason = if reason == "BundleUnreadable" && String::from_utf8_lossy(&bytes).is_empty() {
            ""
        } else {
            reason
        };
        eventually(reason, async || {
            let text = world.ready().await.1;
            (text.contains(&format!("BundleRejected: {reason}\n"))
                || (reason == "BundleUnreadable" && text.contains("BundleRejected: BundleFormat\n")))
            .then_some(())
        })
        .await;
        assert_eq!(world.ready().await.0, 200, "{reason}");
        assert_eq!(world.send(Call::tool("salary.get").token(&world.bob())).await.status, 403, "{reason}");
        assert_eq!(world.last_record().await["bundleSerial"], 1, "{reason}");
    }
    std::fs::remove_file(world.dir.join("bundle.json")).unwrap();
    rejected(&world, "BundleMissing").await;
    assert_eq!(world.send(Call::tool("salary.get").token(&world.alice())).await.status, 200);
    // And a good one ends it.
    world.publish(&document(6, &world.issuer, world.server.port)).await;
    assert_eq!(world.ready().await, (200, "ready\n".to_owned()));
    world.stop().await;
}

#[tokio::test]
async fn a_changed_catalogue_is_followed_without_a_restart() {
    let world = World::start().await;
    let alice = world.alice();
    assert_eq!(world.send(Call::tool("salary.get").token(&alice)).await.status, 200);
    let mut changed = document(2, &world.issuer, world.server.port);
    changed["serve"]["optionalScopes"] = json!(["hr:leave:read"]);
    world.publish(&changed).await;
    let answer = world.send(Call::tool("salary.get").token(&alice)).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.reason(), "ScopeNotOffered");
    let metadata = world.send(Call::get("/.well-known/oauth-protected-resource/mcp")).await.json();
    assert_eq!(metadata["scopes_supported"], json!(["hr:leave:read", "hr:read"]));
    // A token that was verified under the old bundle is judged anew: its issuer is gone now.
    let mut gone = document(3, &world.issuer, world.server.port);
    gone["serve"]["providers"][0]["issuer"] = "https://localhost:1/realms/other".into();
    world.publish(&gone).await;
    assert_eq!(world.send(Call::tool("directory.search").token(&alice)).await.status, 401);
    assert_eq!(world.last_record().await["reason"], "UnknownIssuer");
    world.stop().await;
}

#[tokio::test]
async fn a_tombstone_refuses_everything_and_its_reason_is_told() {
    let world = World::start().await;
    let mut tombstone = document(2, &world.issuer, world.server.port);
    for (serial, reason) in [(2, "IdentityNotAccepted"), (3, "ReferencesNotResolved"), (4, "IdentityDeleted")]
    {
        tombstone["serial"] = serial.into();
        tombstone["serve"] = json!({"type": "RefuseAll", "reason": reason});
        world.publish(&tombstone).await;
        let answer = world.send(Call::tool("directory.search").token(&world.alice())).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.reason(), reason);
        assert_eq!(world.last_record().await["bundleSerial"], serial);
    }
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn two_key_rotations_under_a_sidecar_that_was_never_restarted() {
    let (first, second, third) = (Operator::new(), Operator::new(), Operator::new());
    // It was injected while the second key was on its way in.
    let keys = vec![first.public_as("k1"), second.public_as("k2")];
    let world = World::configured(|config| config.bundle_keys = keys).await;
    let at = |serial| document(serial, &world.issuer, world.server.port);
    let taken = async |serial: u64| {
        let line = format!("behalf_sidecar_bundle_serial {serial}\n");
        eventually("taken", async || world.metrics().await.contains(&line).then_some(())).await;
        assert_eq!(world.ready().await, (200, "ready\n".to_owned()));
    };
    publish_bytes(&world.dir, &sealed_by(&[("k1", &first)], &at(1)));
    taken(1).await;
    publish_bytes(&world.dir, &sealed_by(&[("k1", &first), ("k2", &second)], &at(2)));
    taken(2).await;
    // The first key is dropped, a third one comes in: it is signed by every key that a running pod still needs.
    publish_bytes(&world.dir, &sealed_by(&[("k3", &third), ("k2", &second)], &at(3)));
    taken(3).await;
    for (serial, signers) in [
        (4, vec![("k3", &third)]),
        // A key by the name of a pinned one, and a pinned key by another's name.
        (5, vec![("k2", &third)]),
        (6, vec![("k1", &second)]),
        (7, vec![]),
    ] {
        publish_bytes(&world.dir, &sealed_by(&signers, &at(serial)));
        eventually("rejected", async || {
            let rejections = format!(
                "behalf_sidecar_bundle_rejections_total{{reason=\"BundleUnsigned\"}} {}\n",
                serial - 3
            );
            world.metrics().await.contains(&rejections).then_some(())
        })
        .await;
        assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200);
        assert_eq!(world.last_record().await["bundleSerial"], 3);
    }
    publish_bytes(&world.dir, &sealed_by(&[("k3", &third), ("k2", &second)], &at(8)));
    taken(8).await;
    world.stop().await;
}

#[tokio::test]
async fn an_identity_that_was_made_anew_is_served_and_its_tombstone_cannot_come_back() {
    let world = World::start().await;
    let mut tombstone = document(2, &world.issuer, world.server.port);
    tombstone["serve"] = json!({"type": "RefuseAll", "reason": "IdentityDeleted"});
    world.publish(&tombstone).await;
    assert_eq!(world.send(Call::list().token(&world.alice())).await.reason(), "IdentityDeleted");
    // Generations start over with a new object; the serial does not.
    world.publish(&document(3, &world.issuer, world.server.port)).await;
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200);
    world.operator.publish(&world.dir, &tombstone);
    rejected(&world, "BundleSerialWentBack").await;
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200);
    world.stop().await;
}
