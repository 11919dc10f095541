//! One rate limit for all pods: who is given what of it, by the leader and through another replica.

use super::*;

const OTHER: &str = "/api/v1/namespaces/hr/pods/hr-2";

/// A world whose identity lets 60 calls a minute through, with the pods hr-1 and hr-2; the leader has listened for long.
async fn two_pods() -> World {
    let world = World::new();
    let mut identity = world.server.get(IDENTITY).unwrap();
    identity["spec"]["rateLimits"] =
        json!([{"name": "burst", "per": "Subject", "requests": 60, "period": "1m"}]);
    world.server.put(IDENTITY, identity);
    for (path, pod, token) in [(POD, "hr-1", "good"), (OTHER, "hr-2", "second")] {
        world.server.put(path, injected(pod));
        let uid = world.server.get(path).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
        world.server.review(token, account("hr", "hr-mcp", pod, &uid));
    }
    world.server.review("operator", account("behalf-system", "behalf-operator", "behalf-operator-0", "u-9"));
    world.settle().await;
    world.desk.begin(tokio::time::Instant::now() - Duration::from_mins(1));
    world
}

/// What a pod says that runs the newest bundle and has this share of its limit.
fn says(world: &World, boot: char, sequence: u64, asked: u64, share: Option<u32>) -> Value {
    let mut report = report(boot, sequence, Some(&digest(world)), 0);
    let share = share.map(|requests| json!({"requests": requests, "of": 60}));
    report["rateLimits"] = json!({"burst": {"asked": asked, "share": share}});
    report
}

/// The share in the answer, if it says one.
async fn share(feed: &Feed, token: &str, report: &Value) -> Option<u64> {
    let (status, answer) = send(feed, request(FEED_PATH, Some(token), report.to_string())).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer["shares"].is_null() || answer["shares"]["burst"]["of"] == json!(60), "{answer}");
    answer["shares"]["burst"]["requests"].as_u64()
}

#[tokio::test]
async fn shares_of_a_limit_add_up_to_it_and_are_told_at_once_to_those_that_have_others() {
    let world = two_pods().await;
    let mut served = served(&world).await;
    served.feed.hold = 2 * DEADLINE;
    let feed = &served.feed;
    assert_eq!(share(feed, "good", &says(&world, 'a', 1, 0, None)).await, Some(60), "it is alone");
    // The first one has what it was given, and waits; the second one comes, and both are told at once.
    let waiting = {
        let (feed, body) = (feed.clone(), says(&world, 'a', 2, 0, Some(60)));
        tokio::spawn(async move { share(&feed, "good", &body).await })
    };
    assert_eq!(share(feed, "second", &says(&world, 'b', 1, 0, None)).await, Some(30));
    assert_eq!(waiting.await.unwrap(), Some(30));
    // Whoever ends leaves its share.
    let waiting = {
        let (feed, body) = (feed.clone(), says(&world, 'a', 3, 0, Some(30)));
        tokio::spawn(async move { share(&feed, "good", &body).await })
    };
    let mut last = says(&world, 'b', 2, 0, Some(30));
    last["ended"] = json!(true);
    assert_eq!(share(feed, "second", &last).await, None);
    assert_eq!(waiting.await.unwrap(), Some(60));
}

#[tokio::test]
async fn who_does_not_ask_for_shares_is_told_none() {
    let world = two_pods().await;
    let served = served(&world).await;
    let none = report('a', 1, Some(&digest(&world)), 0);
    let (_, answer) = send(&served.feed, request(FEED_PATH, Some("good"), none.to_string())).await;
    assert_eq!(answer, json!({"format": 1}), "an older sidecar could not read more");
    let has = says(&world, 'a', 2, 0, Some(60));
    assert_eq!(share(&served.feed, "good", &has).await, None, "nor is who has its share");
    let mut unknown = says(&world, 'a', 3, 0, None);
    unknown["rateLimits"] = json!({"other": {"asked": 1}});
    assert_eq!(share(&served.feed, "good", &unknown).await, None);
    let many = (0..17).map(|at| (format!("l{at}"), json!({"asked": 0}))).collect::<serde_json::Map<_, _>>();
    unknown["rateLimits"] = many.into();
    assert_eq!(ask(&served.feed, Some("good"), &unknown).await, (400, "ReportOutOfBounds".into()));
}

#[tokio::test]
async fn a_follower_passes_on_what_the_leader_gives() {
    let world = two_pods().await;
    let leader = served(&world).await;
    let (port, authorities) =
        relayed::listen(leader.feed.clone(), &["behalf-feed.behalf-system.svc"], &leader.stop).await;
    let (_election, leadership) = relayed::follows(&world).await;
    let token = std::env::temp_dir().join(format!("behalf-feed-shares-{}", std::process::id()));
    std::fs::write(&token, "operator\n").unwrap();
    let mut follower = served_from(&world, world.gather().await, leadership.clone()).feed;
    let document = behalf_operator::feed::document("behalf-system", &authorities);
    let document = watch::channel(Some(document)).1;
    follower.relay = Arc::new(Relay::new(leadership, document, token.clone(), "behalf-system", port));
    // A desk of its own, as another replica has.
    follower.desk = Arc::new(behalf_operator::feed::desk::Desk::new(Duration::ZERO));
    follower.hold = DEADLINE;
    assert_eq!(share(&follower, "second", &says(&world, 'b', 1, 0, None)).await, Some(60));
    assert_eq!(share(&leader.feed, "good", &says(&world, 'a', 1, 0, None)).await, Some(30));
    assert_eq!(share(&follower, "second", &says(&world, 'b', 2, 0, Some(60))).await, Some(30));
    leader.stop.cancel();
    std::fs::remove_file(&token).unwrap();
}
