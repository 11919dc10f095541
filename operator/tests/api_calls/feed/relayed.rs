//! What a follower is told, and how it reaches the leader.

use super::*;

fn relayed(namespace: &str, report: &Value) -> Bytes {
    let who = Reporter {
        identity: (namespace.to_owned(), "hr-tools".to_owned()),
        pod: "hr-1".to_owned(),
        uid: "uid-1".to_owned(),
    };
    relay::print(&who, report.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn only_another_replica_relays_and_only_to_the_leader() {
    let world = world().await;
    let outsider = |name: &str, namespace: &str, account_name: &str| {
        world.server.review(name, account(namespace, account_name, "p", "u"));
    };
    outsider("same name elsewhere", "hr", "behalf-operator");
    outsider("another of the namespace", "behalf-system", "default");
    let mut unbound = account("behalf-system", "behalf-operator", "p", "u");
    unbound["user"]["extra"] = json!({});
    world.server.review("unbound", unbound);
    let mut served = served(&world).await;
    let body = relayed("hr", &report('a', 1, None, 5));
    for (token, code, reason) in [
        (None, 401, "TokenMissing"),
        (Some("unknown"), 401, "TokenNotAuthenticated"),
        (Some("good"), 403, "NotReplica"),
        (Some("same name elsewhere"), 403, "NotReplica"),
        (Some("another of the namespace"), 403, "NotReplica"),
        (Some("unbound"), 403, "NotReplica"),
    ] {
        let (status, answer) = send(&served.feed, request(RELAY_PATH, token, body.clone())).await;
        assert_eq!((status.as_u16(), &answer["reason"]), (code, &json!(reason)), "{token:?}");
    }
    let unknown = String::from_utf8(body.to_vec()).unwrap().replacen("\"pod\"", "\"more\":1,\"pod\"", 1);
    for (body, reason) in [
        (Bytes::from_static(b"{}"), "ReportMalformed"),
        (unknown.into(), "ReportMalformed"),
        (relayed("", &report('a', 1, None, 5)), "ReportOutOfBounds"),
        (relayed("hr", &report('a', 0, None, 5)), "ReportOutOfBounds"),
        (relayed("hr", &json!({})), "ReportMalformed"),
    ] {
        let (status, answer) = send(&served.feed, request(RELAY_PATH, Some("operator"), body)).await;
        assert_eq!((status.as_u16(), &answer["reason"]), (400, &json!(reason)));
    }
    assert!(served.changes.try_recv().is_err(), "none of it was taken");
    let (status, _) = send(&served.feed, request(RELAY_PATH, Some("operator"), body.clone())).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        matches!(served.changes.recv().await, Some(Change::Learnt { namespace, .. }) if namespace == "hr")
    );
    let follower = served_from(&world, world.gather().await, Leadership::never());
    let (status, answer) = send(&follower.feed, request(RELAY_PATH, Some("operator"), body)).await;
    assert_eq!((status.as_u16(), &answer["reason"]), (503, &json!("NotLeading")));
}

#[tokio::test]
async fn a_follower_without_a_leader_drops_what_it_is_told_and_answers_all_the_same() {
    let world = world().await;
    let mut served = served_from(&world, world.gather().await, Leadership::never());
    let mut last = report('a', 1, None, 5);
    last["ended"] = json!(true);
    let answer = ask(&served.feed, Some("good"), &last).await;
    assert_eq!(answer, (503, "NotHandedOn".into()), "a last word is to be said again");
    assert_eq!(ask(&served.feed, Some("good"), &report('b', 1, None, 5)).await.0, 200);
    assert!(served.changes.try_recv().is_err());
    assert!(world.desk.last("uid-1").is_none());
}

/// A lease that says that the replica at 127.0.0.1 leads, seen by another.
pub(super) async fn follows(world: &World) -> (Election, Leadership) {
    world.server.put(
        "/apis/coordination.k8s.io/v1/namespaces/behalf-system/leases/behalf-operator",
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "behalf-operator", "namespace": "behalf-system"},
            "spec": {"holderIdentity": "behalf-operator-1/127.0.0.1", "leaseDurationSeconds": 15}}),
    );
    let who = Candidate {
        holder: "behalf-operator-0/127.0.0.2".into(),
        candidate: false,
        wall: Clock::System,
        clock: Monotonic::System,
    };
    let metrics = Arc::new(Metrics::default());
    let (mut election, leadership) = Election::new(world.server.client(), "behalf-system", who, metrics);
    election.step().await;
    (election, leadership)
}

/// Serves over TLS on loopback, with a certificate of its own; the port and the authority.
pub(super) async fn listen(feed: Feed, names: &[&str], stop: &CancellationToken) -> (u16, String) {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let material = Material::new(&names, "", Lifetimes::default(), Clock::System.date_time()).unwrap();
    let serving = Arc::new(Serving::default());
    serving.load(&material).unwrap();
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = server.address().unwrap().port();
    let server = server.with_tls(serving.server_config().unwrap());
    tokio::spawn(
        server
            .with_limits(Limits { body: relay::MAX_RELAY_BYTES, connections: 16 })
            .serve(feed, stop.clone()),
    );
    (port, material.authorities)
}

#[tokio::test]
async fn what_a_follower_is_told_reaches_the_leader_and_nobody_else() {
    let world = world().await;
    let mut leader = served(&world).await;
    let right = ["behalf-feed.behalf-system.svc"];
    let (port, authorities) = listen(leader.feed.clone(), &right, &leader.stop).await;
    let (other_port, other) =
        listen(leader.feed.clone(), &["behalf-webhook.behalf-system.svc"], &leader.stop).await;
    let (_election, leadership) = follows(&world).await;
    assert!(!leadership.leads());
    let token = std::env::temp_dir().join(format!("behalf-feed-token-{}", std::process::id()));
    std::fs::write(&token, "operator\n").unwrap();
    let follower = async |port, authorities: &str, token: &std::path::Path| {
        let mut served = served_from(&world, world.gather().await, leadership.clone());
        let document = behalf_operator::feed::document("behalf-system", authorities);
        let document = watch::channel(Some(document)).1;
        let relay = Relay::new(leadership.clone(), document, token.to_owned(), "behalf-system", port);
        served.feed.relay = Arc::new(relay);
        served.feed
    };
    let mut last = report('a', 7, None, 5);
    last["ended"] = json!(true);
    let nowhere = PathBuf::from("/nowhere");
    for (port, authorities, token) in [
        (port, other.as_str(), token.as_path()),
        (other_port, other.as_str(), token.as_path()),
        (port, "", token.as_path()),
        (port, authorities.as_str(), nowhere.as_path()),
        (9, authorities.as_str(), token.as_path()),
    ] {
        let follower = follower(port, authorities, token).await;
        assert_eq!(ask(&follower, Some("good"), &last).await, (503, "NotHandedOn".into()));
        let more = ask(&follower, Some("good"), &report('a', 1, None, 5)).await;
        assert_eq!(more.0, 200, "the sidecar is told of its bundle all the same");
        assert!(leader.changes.try_recv().is_err(), "{port} {token:?}");
    }
    let follower = follower(port, &authorities, &token).await;
    for sequence in 1..=3 {
        last["sequence"] = json!(sequence);
        last["decisions"]["allowed"] = json!(sequence);
        assert_eq!(ask(&follower, Some("good"), &last).await.0, 200);
        let uid = world.server.get(POD).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
        assert_eq!(world.desk.last(&uid).unwrap().decisions.allowed, sequence, "a last word is waited for");
    }
    assert!(matches!(leader.changes.try_recv(), Ok(Change::Learnt { .. })));
    world.server.review("operator", json!({"authenticated": false}));
    leader.stop.cancel();
    std::fs::remove_file(&token).unwrap();
}
