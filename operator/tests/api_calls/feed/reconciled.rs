//! What the reconciler makes of what is told: counts, bundles, status.

use super::*;

/// The pod says something, and the reconciler looks.
async fn say(world: &World, report: &Value) -> (Next, Vec<Call>) {
    let report: Report = serde_json::from_value(report.clone()).unwrap();
    let uid = world.server.get(POD).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let who = Reporter { identity: ("hr".into(), "hr-tools".into()), pod: "hr-1".into(), uid };
    world.desk.report(&who, report, &Clock::System.now(), tokio::time::Instant::now());
    world.identity().await
}

#[tokio::test]
async fn counts_are_stored_before_the_status_shows_them_and_not_at_every_call() {
    let world = world().await;
    let digest = digest(&world);
    let (_, calls) = say(&world, &report('a', 1, Some(&digest), 5)).await;
    let order: Vec<_> = writes(&calls).into_iter().filter(|it| !it.contains("events")).collect();
    assert_eq!(order, [format!("POST {CONFIGMAPS}"), format!("PATCH {STATUS}")]);
    assert_eq!(status(&world)["decisions"]["allowed"], 5);
    assert_eq!(world.reason("Programmed"), "Programmed");
    assert_eq!(status(&world)["bundle"]["programmedDigest"], json!(digest));
    let stored = world.server.get(COUNTS).unwrap();
    assert_eq!(stored["metadata"]["labels"]["app.kubernetes.io/component"], "counts");
    assert!(stored["metadata"]["ownerReferences"].is_null());

    let (next, calls) = say(&world, &report('a', 2, Some(&digest), 6)).await;
    assert_eq!(writes(&calls), [""; 0], "counts that merely moved wait");
    assert!(matches!(next, Next::After(pause) if pause <= Duration::from_secs(5)), "{next:?}");
    let mut squatted = report('a', 3, Some(&digest), 7);
    squatted["squatted"] = json!([15101]);
    let (_, calls) = say(&world, &squatted).await;
    assert_eq!(writes(&calls)[..2], [format!("PATCH {COUNTS}"), format!("PATCH {STATUS}")]);
    assert_eq!(
        calls.iter().find(|it| it.path == COUNTS).unwrap().query,
        "&force=true&fieldManager=behalf%2Fcounts"
    );
    assert_eq!(
        (status(&world)["decisions"]["allowed"].clone(), world.reason("Ready")),
        (json!(7), "PortSquatted".into())
    );
    let (next, calls) = world.identity().await;
    assert_eq!((next, writes(&calls)), (crate::world::REST, vec![]), "nothing at rest");
}

/// The operator may not look into Secrets: what it knows of a certificate is what pods say.
#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_in_the_status_and_an_event_until_the_pod_says_otherwise() {
    let world = world().await;
    let digest = digest(&world);
    let told = async |sequence: u64, concern: Option<Value>| {
        let mut said = report('a', sequence, Some(&digest), 0);
        if let Some(concern) = concern {
            said["certificate"] = concern;
        }
        let (_, calls) = say(&world, &said).await;
        let events = writes(&calls).iter().filter(|it| it.contains("events")).count();
        assert!(!calls.iter().any(|call| call.path.contains("/secrets")), "{calls:?}");
        (world.reason("Ready"), events)
    };
    let well = told(1, None).await.0;
    let concern = |served: &str| Some(json!({"reason": "CertificateMissing", "served": served}));
    for (sequence, concern, ready, events) in [
        (2, concern("LastGood"), "CertificateNotRenewed", 1),
        (3, concern("LastGood"), "CertificateNotRenewed", 0),
        (4, concern("Nothing"), "CertificateNotUsable", 1),
        (5, concern("Ended"), "CertificateExpired", 1),
        (6, None, well.as_str(), 1),
    ] {
        assert_eq!(told(sequence, concern).await, (ready.to_owned(), events), "{sequence}");
    }
}

#[tokio::test]
async fn counts_that_cannot_be_stored_are_not_shown_and_the_rest_of_the_status_is() {
    let world = world().await;
    world.server.fail(Method::POST, CONFIGMAPS, 403);
    let (next, _) = say(&world, &report('a', 1, Some(&digest(&world)), 5)).await;
    assert_eq!((next, world.reason("Programmed")), (Next::Retry, "Programmed".into()));
    assert!(status(&world)["decisions"].is_null());
    world.identity().await;
    assert_eq!(status(&world)["decisions"]["allowed"], 5);
}

#[tokio::test]
async fn a_new_leader_goes_on_from_what_is_stored_and_writes_nothing_at_first() {
    let world = world().await;
    let digest = digest(&world);
    say(&world, &report('a', 1, Some(&digest), 5)).await;
    let next =
        World { desk: Arc::new(behalf_operator::feed::desk::Desk::new(Duration::from_secs(5))), ..world };
    next.desk.begin(tokio::time::Instant::now());
    let before = status(&next);
    let (_, calls) = next.identity().await;
    assert_eq!(writes(&calls), [""; 0], "nobody has told it anything yet");
    assert!(calls.iter().any(|call| call.path == COUNTS && call.method == Method::GET));
    assert_eq!(status(&next), before);
    say(&next, &report('a', 2, Some(&digest), 5)).await;
    assert_eq!(status(&next), before, "said again is not counted again");
    say(&next, &report('b', 1, Some(&digest), 2)).await;
    let decisions = status(&next)["decisions"].clone();
    assert_eq!(
        (&decisions["allowed"], &decisions["complete"]),
        (&json!(7), &json!(false)),
        "one boot went unsaid"
    );
}

#[tokio::test]
async fn two_writers_of_counts_do_not_undo_each_other() {
    let world = world().await;
    let digest = digest(&world);
    say(&world, &report('a', 1, Some(&digest), 5)).await;
    world.server.put(COUNTS, world.server.get(COUNTS).unwrap());
    let mut ended = report('a', 2, Some(&digest), 8);
    ended["ended"] = json!(true);
    assert_eq!(say(&world, &ended).await.0, Next::Retry, "somebody wrote meanwhile");
    world.identity().await;
    assert_eq!(status(&world)["decisions"]["allowed"], 8);
    world.server.remove(COUNTS);
    assert_eq!(say(&world, &report('b', 1, Some(&digest), 1)).await.0, Next::Retry, "it is gone");
    world.identity().await;
    let decisions = status(&world)["decisions"].clone();
    assert_eq!((&decisions["allowed"], &decisions["complete"]), (&json!(9), &json!(true)));
}

#[tokio::test]
async fn a_status_seen_too_long_ago_is_not_written_over_a_newer_one() {
    let world = world().await;
    let context = world.context(world.gather().await);
    world.server.put(IDENTITY, world.server.get(IDENTITY).unwrap());
    let newer = world.server.get(IDENTITY).unwrap();
    let uid = world.server.get(POD).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let who = Reporter { identity: ("hr".into(), "hr-tools".into()), pod: "hr-1".into(), uid };
    let told = serde_json::from_value(report('a', 1, Some(&digest(&world)), 5)).unwrap();
    world.desk.report(&who, told, &Clock::System.now(), tokio::time::Instant::now());
    assert_eq!(reconcile::pass(&context, &key()).await, Next::Retry);
    assert_eq!(world.server.get(IDENTITY).unwrap(), newer);
}

#[tokio::test]
async fn every_bundle_says_how_the_feed_is_reached_and_follows_its_authorities() {
    let world = World::new();
    world.settle().await;
    let feed = world.bundle().feed.unwrap();
    assert_eq!(
        (feed.origin.as_str(), feed.ca_bundle.as_str()),
        ("https://behalf-feed.behalf-system.svc:443", "an authority")
    );
    let turn = |world: World, authorities| World { authorities, ..world };

    let (before, world) = (world.bundle(), turn(world, "two authorities"));
    assert!(writes(&world.identity().await.1).contains(&format!("PATCH {BUNDLE}")));
    let after = world.bundle();
    assert_eq!(
        (after.feed.unwrap().ca_bundle.as_str(), after.serial),
        ("two authorities", before.serial + 1)
    );
    assert_eq!(after.serve, before.serve);

    world.server.remove(CATALOG);
    world.settle().await;
    let (before, world) = (world.bundle(), turn(world, "a newer one"));
    assert!(matches!(before.serve, Serve::Policy(_)), "the last good one");
    world.settle().await;
    let after = world.bundle();
    assert_eq!((after.serve, after.serial), (before.serve, before.serial + 1), "kept, and reachable");
    assert_eq!(after.feed.unwrap().ca_bundle, "a newer one");

    world.server.remove(IDENTITY);
    world.settle().await;
    let (before, world) = (world.bundle(), turn(world, "the newest"));
    world.settle().await;
    let after = world.bundle();
    assert_eq!((after.feed.unwrap().ca_bundle.as_str(), after.serial), ("the newest", before.serial + 1));
    assert!(matches!(after.serve, Serve::RefuseAll { reason: RefuseAllReason::IdentityDeleted }));
    assert_eq!(world.identity().await.1.len(), 0, "and then silence");
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn nothing_is_written_before_there_is_a_certificate_and_all_again_when_its_authorities_change() {
    let world = World::new();
    let (document, feed) = watch::channel(None);
    let context = Context { feed, ..world.context(world.gather().await) };
    let (sender, mut changes) = mpsc::channel(1);
    let stop = CancellationToken::new();
    world.server.calls();
    let running = {
        let stop = stop.clone();
        tokio::spawn(async move { reconcile::run(Arc::new(context), &mut changes, stop).await })
    };
    // Taken only by one that waits: nothing is under way behind it.
    for _ in 0..3 {
        sender.send(Change::Everything).await.unwrap();
    }
    assert_eq!(world.server.calls().len(), 0);
    let held = |authorities: &'static str| {
        let world = &world;
        move || {
            world.server.get(BUNDLE).is_some()
                && world.bundle().feed.is_some_and(|feed| feed.ca_bundle == authorities)
        }
    };
    document.send(Some(behalf_operator::feed::document("behalf-system", "one"))).unwrap();
    until("the first bundle", held("one")).await;
    let serial = world.bundle().serial;
    document.send(Some(behalf_operator::feed::document("behalf-system", "one and two"))).unwrap();
    until("the next bundle", held("one and two")).await;
    assert_eq!(world.bundle().serial, serial + 1);
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_change_is_programmed_once_every_pod_says_so() {
    let world = world().await;
    let older = digest(&world);
    say(&world, &report('a', 1, Some(&older), 0)).await;
    assert_eq!(world.reason("Programmed"), "Programmed");
    let mut catalog = world.server.get(CATALOG).unwrap();
    catalog["spec"]["toolSets"][0]["tools"][0]["name"] = json!("directory.find");
    world.server.put(CATALOG, catalog);
    world.identity().await;
    let newest = digest(&world);
    assert_eq!(world.reason("Programmed"), "PodsBehind");
    assert_eq!(status(&world)["bundle"]["programmedDigest"], json!(older));
    assert_eq!(
        (&status(&world)["pods"]["current"], &status(&world)["pods"]["stale"]),
        (&json!(0), &json!(1))
    );
    let (_, calls) = say(&world, &report('a', 2, Some(&newest), 0)).await;
    assert_eq!(world.reason("Programmed"), "Programmed");
    assert_eq!(status(&world)["bundle"]["programmedDigest"], json!(newest));
    assert!(writes(&calls).iter().filter(|it| it.contains("PATCH")).count() == 1, "{calls:?}");
}
