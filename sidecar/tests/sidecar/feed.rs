//! The feed: what the sidecar tells the operator, and what it takes from it.

use std::collections::BTreeMap;
use std::time::Duration;

use behalf_policy::feed::{Listener, MAX_TALLIES, Protocol, Report, Verdict};
use behalf_policy::ids::{Scope, Timestamp};
use serde_json::{Value, json};

use crate::support::bundle::{Operator, publish_bytes};
use crate::support::{Call, Feed, World, eventually};

fn serial(report: &Report) -> u64 {
    report.bundle.as_ref().map_or(0, |running| running.serial)
}

#[tokio::test]
async fn a_bundle_by_the_feed_is_taken_at_once_and_told_at_once() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    let first = feed.says("the first bundle", |r| serial(r) == 1).await;
    assert_eq!((first.rejected.as_deref(), first.ended), (None, false));
    assert!(feed.posts().iter().all(|p| p.authorization.as_deref() == Some("Bearer feed-token-1")));

    let mut changed = feed.document(2, &world);
    changed["serve"]["optionalScopes"] = json!(["hr:leave:read"]);
    feed.offer(&world.operator.seal(&changed));
    let second = feed.says("the second bundle", |r| serial(r) == 2).await;
    assert_ne!(second.bundle.unwrap().digest, first.bundle.unwrap().digest);
    let answer = world.send(Call::tool("salary.get").token(&world.alice())).await;
    assert_eq!(answer.reason(), "ScopeNotOffered");
    assert_eq!(world.last_record().await["bundleSerial"], 2);

    // The directory still has the first one, and kubelet brings the second later: nothing is wrong with either.
    world.operator.publish(&world.dir, &changed);
    world.publish(&feed.document(3, &world)).await;
    feed.says("the third bundle", |r| serial(r) == 3 && r.rejected.is_none()).await;
    let sequences: Vec<_> = feed.posts().iter().map(|p| p.report.sequence).collect();
    assert!(sequences[0] > 0 && sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    world.stop().await;
}

#[tokio::test]
async fn d29_whatever_the_feed_offers_wrongly_the_last_good_one_stays_and_the_operator_is_told() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    world.publish(&feed.document(5, &world)).await;
    let with = |serial: u64, change: &dyn Fn(&mut Value)| {
        let mut document = feed.document(serial, &world);
        change(&mut document);
        document
    };
    let seal = |document: &Value| world.operator.seal(document);
    let good = seal(&with(6, &|_| {}));
    let other: Value =
        serde_json::from_slice(&seal(&with(6, &|d| d["serve"]["stage"] = "Audit".into()))).unwrap();
    let mut tampered: Value = serde_json::from_slice(&good).unwrap();
    tampered["payload"] = other["payload"].clone();
    for (reason, bytes) in [
        ("BundleSerialWentBack", seal(&with(4, &|_| {}))),
        ("BundleOfAnotherIdentity", seal(&with(6, &|d| d["identity"] = "other".into()))),
        ("BundleOfAnotherIdentity", seal(&with(6, &|d| d["namespace"] = "finance".into()))),
        ("BundleUnsigned", Operator::new().seal(&with(6, &|_| {}))),
        ("BundleUnsigned", tampered.to_string().into_bytes()),
        ("BundleMalformed", json!({"payload": "?", "signatures": []}).to_string().into_bytes()),
        ("BundleSerialReused", seal(&with(5, &|d| d["serve"]["stage"] = "Audit".into()))),
        ("BundleInvalid", seal(&with(6, &|d| d["serve"]["providers"] = json!([])))),
    ] {
        feed.offer(&bytes);
        feed.says(reason, |r| r.rejected.as_deref() == Some(reason) && serial(r) == 5).await;
        let (status, text) = world.ready().await;
        assert_eq!(status, 200);
        assert!(text.contains(&format!("BundleRejected: {reason}\n")), "{text}");
        assert_eq!(world.send(Call::tool("salary.get").token(&world.bob())).await.status, 403, "{reason}");
        assert_eq!(world.last_record().await["bundleSerial"], 5, "{reason}");
    }
    // A replica of the operator may learn of the newest a moment late, which is nothing to tell.
    feed.offer_nothing();
    feed.says("nothing wrong any more", |r| r.rejected.is_none()).await;
    let (before, old) = (feed.posts().len(), seal(&with(4, &|_| {})));
    feed.offer(&old);
    eventually("it was answered", async || (feed.posts().len() > before).then_some(())).await;
    feed.offer_nothing();
    feed.says("an answer later", |r| r.sequence > before as u64 && r.rejected.is_none()).await;
    // It may as well stop to offer it, or offer a good one.
    feed.offer_nothing();
    feed.says("nothing wrong any more", |r| r.rejected.is_none()).await;
    feed.offer(&good);
    feed.says("the good one", |r| serial(r) == 6 && r.rejected.is_none()).await;
    assert_eq!(world.ready().await, (200, "ready\n".to_owned()));
    world.stop().await;
}

#[tokio::test]
async fn what_the_directory_rejects_is_told_and_kubelets_lateness_is_not() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    feed.offer(&world.operator.seal(&feed.document(4, &world)));
    feed.says("the fourth", |r| serial(r) == 4).await;
    // Kubelet brings what the feed brought long ago; then somebody puts back what was before.
    let late = world.operator.seal(&feed.document(2, &world));
    publish_bytes(&world.dir, &late);
    let replayed = world.operator.seal(&feed.document(1, &world));
    eventually("the late one was looked at, and the replayed one is rejected", async || {
        publish_bytes(&world.dir, &replayed);
        let rejected = world.ready().await.1.contains("BundleRejected: BundleSerialWentBack\n");
        if !rejected {
            publish_bytes(&world.dir, &late);
        }
        rejected.then_some(())
    })
    .await;
    feed.says("it is told", |r| r.rejected.as_deref() == Some("BundleSerialWentBack")).await;
    world.operator.publish(&world.dir, &feed.document(4, &world));
    feed.says("the one in use is no rejection", |r| r.rejected.is_none() && serial(r) == 4).await;
    world.stop().await;
}

/// How often each verdict was met for each reason.
type Kinds = BTreeMap<(String, String), u64>;

/// What records say, counted.
fn counted(records: &[Value]) -> (BTreeMap<&str, u64>, Kinds) {
    let mut sums = BTreeMap::new();
    let mut kinds = Kinds::new();
    for record in records {
        let decision = record["decision"].as_str().unwrap();
        *sums.entry(decision).or_default() += 1;
        if decision != "Permit" {
            let reason = record["reason"].as_str().unwrap().to_owned();
            *kinds.entry((decision.to_owned(), reason)).or_default() += 1;
        }
    }
    (sums, kinds)
}

#[tokio::test]
async fn counts_and_records_agree_and_made_up_names_are_not_told() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    let (alice, bob) = (world.alice(), world.bob());
    for at in 0..40 {
        world.send(Call::tool(&format!("made.up.{at}")).token(&alice)).await;
        world.send(Call::tool("salary.get")).await;
    }
    for _ in 0..3 {
        world.send(Call::tool("salary.get").token(&alice)).await;
        world.send(Call::tool("salary.get").token(&bob)).await;
        world.send(Call::list().token(&alice)).await;
        world.send(Call::get("/other")).await;
        world.send(Call::body("{")).await;
    }
    let mut audit = feed.document(2, &world);
    audit["serve"]["stage"] = "Audit".into();
    audit["serve"]["authentication"] = "Audit".into();
    world.publish(&audit).await;
    for _ in 0..2 {
        world.send(Call::tool("salary.get").token(&bob)).await;
        world.send(Call::tool("salary.get")).await;
    }
    let noon = world.clock.clock().now();
    let records = world.stop().await;
    let last = feed.last().unwrap();
    assert!(last.ended);
    let (sums, kinds) = counted(&records);
    let decisions = &last.decisions;
    assert_eq!(decisions.allowed, sums["Permit"]);
    assert_eq!(decisions.denied, sums["Refuse"]);
    assert_eq!(decisions.would_deny, sums["WouldDeny"]);
    let mut told = Kinds::new();
    for tally in &decisions.tallies {
        let verdict = if tally.verdict == Verdict::Denied { "Refuse" } else { "WouldDeny" };
        *told.entry((verdict.to_owned(), tally.reason.clone())).or_default() += tally.count;
    }
    assert_eq!(told, kinds);
    let of = |reason: &str, verdict| {
        let found: Vec<_> =
            decisions.tallies.iter().filter(|t| t.reason == reason && t.verdict == verdict).collect();
        assert_eq!(found.len(), 1, "{reason}: {found:?}");
        (found[0].tool.as_ref().map(ToString::to_string), found[0].count)
    };
    assert_eq!(of("ToolUnknown", Verdict::Denied), (None, 40));
    assert_eq!(of("NoCredentials", Verdict::Denied), (None, 40));
    assert_eq!(of("NotEntitled", Verdict::Denied), (Some("salary.get".to_owned()), 3));
    assert_eq!(of("NotEntitled", Verdict::WouldDeny), (Some("salary.get".to_owned()), 2));
    assert_eq!(of("NoCredentials", Verdict::WouldDeny), (None, 2));

    let hour = Timestamp(noon.0 / 3600 * 3600);
    let used: BTreeMap<_, _> =
        ["hr:read", "hr:salary:read"].map(|scope| (Scope::new(scope).unwrap(), hour)).into();
    assert_eq!(last.scopes_used, used);
    for pair in feed.posts().windows(2) {
        let (before, after) = (&pair[0].report, &pair[1].report);
        assert!(before.sequence < after.sequence && before.boot == after.boot);
        assert!(before.decisions.allowed <= after.decisions.allowed);
        assert!(before.decisions.denied <= after.decisions.denied);
    }
    assert_eq!(records[0]["boot"], last.boot);
}

#[tokio::test]
async fn more_kinds_of_refusal_than_are_told_one_by_one_are_in_the_sums() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    let many = MAX_TALLIES + 10;
    let mut document = feed.document(2, &world);
    let tool = |at: usize| json!({"name": format!("t{at}"), "scopes": ["hr:salary:read"], "denial": "Hide", "downstreams": []});
    document["serve"]["servers"][0]["tools"] = (0..many).map(tool).collect();
    world.publish(&document).await;
    let bob = world.bob();
    for at in (0..many).chain(0..2) {
        world.send(Call::tool(&format!("t{at}")).token(&bob)).await;
    }
    world.stop().await;
    let decisions = feed.last().unwrap().decisions;
    assert_eq!(decisions.denied, many as u64 + 2);
    assert_eq!(decisions.tallies.len(), MAX_TALLIES);
    assert_eq!(decisions.tallies.iter().map(|t| t.count).sum::<u64>(), MAX_TALLIES as u64 + 2);
}

#[tokio::test]
async fn the_last_report_is_sent_after_everything_was_counted_and_again_until_it_is_taken() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    feed.says("the first bundle", |r| serial(r) == 1).await;
    world.send(Call::tool("directory.search").token(&world.alice())).await;
    feed.status(Some(503));
    let before = feed.posts().len();
    let stopping = tokio::spawn(world.stop());
    eventually("it is tried more than once", async || {
        let tries = feed.posts().iter().skip(before).filter(|p| p.report.ended).count();
        (tries > 1).then_some(())
    })
    .await;
    assert!(!stopping.is_finished());
    feed.status(None);
    stopping.await.unwrap();
    let last = feed.last().unwrap();
    assert!(last.ended && last.decisions.allowed == 1, "{last:?}");
}

#[tokio::test]
async fn a_drain_that_leaves_calls_open_does_not_say_that_all_were_counted() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    world.server.behave(|_| Some(crate::support::Reply::never()));
    let (token, inbound) = (world.alice(), world.app.addresses.inbound);
    let open = tokio::spawn(Call::tool("directory.search").token(&token).start(inbound));
    eventually("the server has the call", async || (!world.server.seen().is_empty()).then_some(())).await;
    let before = feed.posts().len();
    world.app.drain(Duration::ZERO).await;
    assert!(feed.posts().len() > before);
    assert!(feed.posts().iter().all(|p| !p.report.ended));
    open.abort();
}

#[tokio::test]
async fn callers_that_leave_when_the_drain_starts_are_in_the_last_report() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    world.server.behave(|_| Some(crate::support::Reply::never()));
    let (token, inbound) = (world.alice(), world.app.addresses.inbound);
    let calls: Vec<_> =
        (0..20).map(|_| tokio::spawn(Call::tool("directory.search").token(&token).start(inbound))).collect();
    eventually("the server has the calls", async || (world.server.seen().len() == 20).then_some(())).await;
    let draining = tokio::spawn(world.app.drain(Duration::from_secs(20)));
    for call in calls {
        call.abort();
    }
    draining.await.unwrap();
    let last = feed.last().unwrap();
    let decisions = &last.decisions;
    assert!(last.ended);
    assert_eq!(decisions.allowed + decisions.denied, 20, "{decisions:?}");
}

#[tokio::test]
async fn the_token_is_read_again_for_each_report_and_calls_go_on_without_it() {
    let feed = Feed::start().await;
    let world = World::without_bundle().await;
    world.publish(&feed.document(1, &world)).await;
    eventually("the missing token is counted", async || {
        world.metrics().await.contains("feed_reports_total{outcome=\"FeedTokenMissing\"}").then_some(())
    })
    .await;
    assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200);
    assert!(feed.posts().is_empty());
    for token in ["first", "second"] {
        world.give_feed_token(&format!("{token}\n"));
        eventually(token, async || {
            let last = feed.posts().pop()?;
            (last.authorization == Some(format!("Bearer {token}"))).then_some(())
        })
        .await;
    }
    assert!(world.metrics().await.contains("behalf_sidecar_feed_connected 1"));
    world.stop().await;
}

#[tokio::test]
async fn whatever_is_wrong_with_the_feed_calls_go_on() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    let counted = async |outcome: &str| {
        let line = format!("behalf_sidecar_feed_reports_total{{outcome=\"{outcome}\"}}");
        eventually(outcome, async || world.metrics().await.contains(&line).then_some(())).await;
        assert!(world.metrics().await.contains("behalf_sidecar_feed_connected 0"), "{outcome}");
        assert_eq!(world.send(Call::list().token(&world.alice())).await.status, 200, "{outcome}");
        assert_eq!(world.ready().await, (200, "ready\n".to_owned()), "{outcome}");
    };
    feed.status(Some(401));
    counted("NotAuthorized").await;
    feed.status(Some(204));
    counted("StatusNotOk").await;
    feed.status(None);
    for body in ["{}", "{\"format\":2}", "{\"format\":1,\"more\":1}", "no"] {
        feed.body(Some(body));
        counted("AnswerMalformed").await;
    }
    // Another authority than the bundle's: no report, and no token, gets to whoever answers there.
    let impostor = Feed::start().await;
    let mut document = feed.document(2, &world);
    document["feed"]["origin"] = impostor.origin.clone().into();
    world.publish(&document).await;
    counted("TransportFailed").await;
    assert!(impostor.posts().is_empty());
    document["serial"] = 3.into();
    document["feed"]["origin"] = "https://localhost:1".into();
    world.publish(&document).await;
    counted("NotConnected").await;
    // And a new bundle by the directory says where it is.
    feed.body(None);
    world.publish(&feed.document(4, &world)).await;
    feed.says("the feed is used again", |r| serial(r) == 4).await;
    world.stop().await;
}

#[tokio::test]
async fn missing_credentials_and_what_listens_beyond_loopback_are_told() {
    let feed = Feed::start().await;
    let world = World::with_feed(&feed).await;
    feed.says("no credential", |r| r.credentials_missing.iter().any(|p| p.as_str() == "corp")).await;
    let file = world.dir.join("secret");
    let mut document = feed.document(2, &world);
    document["serve"]["providers"][0]["clientAuthentication"]["file"] = file.to_str().unwrap().into();
    std::fs::write(&file, " \n").unwrap();
    world.publish(&document).await;
    feed.says("an empty one", |r| serial(r) == 2 && !r.credentials_missing.is_empty()).await;
    std::fs::write(&file, "secret").unwrap();
    feed.says("a credential", |r| r.credentials_missing.is_empty()).await;

    let outside = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let inside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let udp = tokio::net::UdpSocket::bind("[::]:0").await.unwrap();
    let of = |protocol, port| Listener { protocol, port };
    let tcp = of(Protocol::Tcp, outside.local_addr().unwrap().port());
    let udp_port = of(Protocol::Udp, udp.local_addr().unwrap().port());
    let told =
        feed.says("both listeners", |r| r.listeners.contains(&tcp) && r.listeners.contains(&udp_port)).await;
    assert!(!told.listeners.contains(&of(Protocol::Tcp, inside.local_addr().unwrap().port())));
    drop((outside, udp));
    feed.says("they are gone", |r| !r.listeners.contains(&tcp) && !r.listeners.contains(&udp_port)).await;
    world.stop().await;
}
