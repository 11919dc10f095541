//! Rate limits: who is refused for how long, whom it costs nothing, and what a pod has of what all have together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use behalf_policy::bundle::{Bundle, Policy};
use behalf_policy::claims::{Caller, Login};
use behalf_policy::decide::Operation;
use behalf_policy::feed::Share;
use behalf_policy::ids::{ClientId, EntryName, Subject, Timestamp};
use behalf_sidecar::limits::{LimitReason, Limits};
use serde_json::{Value, json};

use crate::support::{Answer, Call, Feed, World, eventually};

fn limit(name: &str, per: &str, requests: u32, period: u32) -> Value {
    json!({"name": name, "per": per, "requests": requests, "period": period})
}

async fn world(limits: Value) -> World {
    World::with(|policy| policy["rateLimits"] = limits).await
}

/// Says that it was refused for want of calls, and after how many seconds there is one.
#[track_caller]
fn refused(answer: &Answer) -> u32 {
    assert_eq!((answer.status, answer.reason().as_str()), (429, "RateLimited"), "{answer:?}");
    assert_eq!(answer.challenge(), None);
    answer.header("retry-after").expect("Retry-After").parse().unwrap()
}

#[tokio::test]
async fn a_burst_over_the_limit_is_refused_with_the_time_to_wait_and_others_are_not() {
    let world = world(json!([limit("burst", "Subject", 3, 60)])).await;
    let (alice, bob) = (world.alice(), world.bob());
    let search = |token: &str| Call::tool("directory.search").token(token);
    for _ in 0..3 {
        assert_eq!(world.send(search(&alice)).await.status, 200);
    }
    let before = world.server.seen().len();
    let answer = world.send(search(&alice)).await;
    assert_eq!(refused(&answer), 20);
    let body = answer.json();
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(7), &json!(-31_429)));
    let record = world.last_record().await;
    assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!("RateLimited")));
    assert_eq!(record["rateLimit"], json!({"name": "burst", "per": "Subject"}));
    let told = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
    assert!(
        !told.contains("burst") && !told.contains("Subject"),
        "which limit it was is not the caller's: {told}"
    );
    assert_eq!((&record["status"], &record["subject"]), (&json!(429), &json!("alice")));
    assert_eq!(
        (&record["tool"], &record["requestId"]),
        (&json!("directory.search"), &json!(answer.header("behalf-request-id")))
    );
    // Her other token and client do not help, nor does another message; a list counts like a call.
    let other = world.token(|claims| claims["jti"] = "another".into());
    assert_eq!(refused(&world.send(Call::list().token(&other)).await), 20);
    let ping = Call::message(&json!({"jsonrpc": "2.0", "id": "p", "method": "ping"}));
    let answer = world.send(ping.token(&alice)).await;
    assert_eq!((refused(&answer), &answer.json()["id"]), (20, &json!("p")));
    assert_eq!(world.server.seen().len(), before);
    assert_eq!(world.send(search(&bob)).await.status, 200);

    world.clock.advance(19);
    assert_eq!(refused(&world.send(search(&alice)).await), 1);
    world.clock.advance(1);
    assert_eq!(world.send(search(&alice)).await.status, 200);
    assert_eq!(refused(&world.send(search(&alice)).await), 20);
    // A clock that is set back gives nothing and, once it goes on, takes nothing.
    world.clock.advance(-15);
    assert_eq!(refused(&world.send(search(&alice)).await), 20);
    world.clock.advance(20);
    assert_eq!(world.send(search(&alice)).await.status, 200);
    let metrics = world.metrics().await;
    assert!(metrics.contains("decision=\"Refuse\",reason=\"RateLimited\""), "{metrics}");
    world.stop().await;
}

#[tokio::test]
async fn what_is_not_authenticated_costs_nobody_anything() {
    let world = world(json!([limit("all", "Identity", 2, 60)])).await;
    let expired = world.token(|claims| claims["exp"] = (claims["iat"].as_i64().unwrap() - 100).into());
    for _ in 0..5 {
        assert_eq!(world.send(Call::list()).await.status, 401);
        assert_eq!(world.send(Call::list().token(&expired)).await.status, 401);
        assert_eq!(world.send(Call::list().header("authorization", "Basic eA==")).await.status, 401);
    }
    assert_eq!(world.send(Call::get("/elsewhere").token(&world.alice())).await.status, 404);
    assert_eq!(world.send(Call::body("{").token(&world.alice())).await.status, 400);
    for token in [world.alice(), world.bob()] {
        assert_eq!(world.send(Call::list().token(&token)).await.status, 200);
    }
    assert_eq!(refused(&world.send(Call::list().token(&world.alice())).await), 30);
    assert_eq!(world.send(Call::list()).await.status, 401, "who is nobody is told to say who it is");
    world.stop().await;
}

#[tokio::test]
async fn limits_come_after_suspension_and_deny_list_and_before_method_and_tool() {
    let world = world(json!([limit("burst", "Subject", 1, 60)])).await;
    let alice = world.alice();
    world.deny("hr-tools", Some(b"subject alice"));
    let denied = async || world.ready().await.1.contains("denied by namespace");
    eventually("she is denied", async || denied().await.then_some(())).await;
    assert_eq!(world.send(Call::list().token(&alice)).await.reason(), "DeniedByNamespace");
    world.deny("hr-tools", None);
    eventually("she is denied no more", async || (!denied().await).then_some(())).await;
    // What was denied cost nothing; what is forbidden does, and then tells nothing more of what is.
    let answer = world.send(Call::tool("made.up").token(&alice)).await;
    assert_eq!((answer.status, answer.reason().as_str()), (403, "ToolUnknown"));
    assert_eq!(world.last_record().await.get("rateLimit"), None, "no limit refused it");
    assert_eq!(refused(&world.send(Call::tool("made.up").token(&alice)).await), 60);
    assert_eq!(refused(&world.send(Call::tool("directory.search").token(&alice)).await), 60);
    let mut document = crate::support::bundle::document(2, &world.issuer, world.server.port);
    document["serve"]["rateLimits"] = json!([limit("burst", "Subject", 1, 60)]);
    document["serve"]["state"] = "Suspended".into();
    world.publish(&document).await;
    assert_eq!(world.send(Call::list().token(&alice)).await.reason(), "Suspended");
    assert!(world.server.seen().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn each_limit_counts_its_own_and_a_refusal_takes_from_none() {
    let salary =
        json!({"name": "salaries", "per": "Subject", "requests": 1, "period": 10, "tools": ["salary.get"]});
    let world =
        world(json!([salary, limit("agents", "Agent", 4, 40), limit("tools", "Tool", 3, 3600)])).await;
    let alice = world.alice();
    let named = async |name: &str, per: &str| {
        assert_eq!(world.last_record().await["rateLimit"], json!({"name": name, "per": per}));
    };
    let agent = async |name: &str, tool: &str| {
        let token = world.token(|claims| {
            claims["sub"] = name.into();
            claims["jti"] = name.into();
        });
        world.send(Call::tool(tool).token(&token)).await
    };
    assert_eq!(world.send(Call::tool("salary.get").token(&alice)).await.status, 200);
    for _ in 0..10 {
        assert_eq!(refused(&world.send(Call::tool("salary.get").token(&alice)).await), 10, "its own time");
        named("salaries", "Subject").await;
    }
    // Ten refusals took nothing from the agent's four calls or the tool's three.
    assert_eq!(agent("carol", "salary.get").await.status, 200);
    assert_eq!(agent("dave", "salary.get").await.status, 200);
    assert_eq!(refused(&agent("erin", "salary.get").await), 1200, "the tool has no call left");
    named("tools", "Tool").await;
    assert_eq!(agent("erin", "directory.search").await.status, 200);
    assert_eq!(refused(&agent("erin", "leave.list").await), 10, "nor has the agent");
    named("agents", "Agent").await;
    assert_eq!(refused(&agent("alice", "salary.get").await), 1200, "the longest time counts");
    named("tools", "Tool").await;
    assert_eq!(
        refused(&world.send(Call::list().token(&alice)).await),
        10,
        "a list is no tool, and an agent's"
    );
    world.stop().await;
}

#[tokio::test]
async fn in_audit_a_call_over_the_limit_reaches_the_server_with_nothing_and_is_recorded() {
    let world = World::with(|policy| {
        policy["rateLimits"] = json!([limit("burst", "Subject", 1, 60)]);
        policy["stage"] = "Audit".into();
    })
    .await;
    let alice = world.alice();
    assert_eq!(world.send(Call::tool("salary.get").token(&alice)).await.status, 200);
    assert!(world.server.last().header("authorization").is_some());
    for _ in 0..2 {
        let answer = world.send(Call::tool("salary.get").token(&alice)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (200, None));
        let seen = world.server.last();
        assert_eq!(seen.header("authorization"), None);
        assert!(!format!("{seen:?}").contains("behalf"), "{seen:?}");
        let record = world.last_record().await;
        assert_eq!((&record["decision"], &record["reason"]), (&json!("WouldDeny"), &json!("RateLimited")));
        assert_eq!(record["rateLimit"], json!({"name": "burst", "per": "Subject"}));
    }
    world.clock.advance(60);
    world.send(Call::tool("salary.get").token(&alice)).await;
    assert!(world.server.last().header("authorization").is_some(), "would-be refusals took nothing");
    world.stop().await;
}

#[tokio::test]
async fn another_size_of_a_limit_keeps_what_was_used_of_it() {
    let world = world(json!([limit("burst", "Subject", 2, 60)])).await;
    let alice = world.alice();
    for _ in 0..2 {
        assert_eq!(world.send(Call::list().token(&alice)).await.status, 200);
    }
    for (serial, limits, waits) in [
        (2, json!([limit("burst", "Subject", 60, 60)]), Some(1)),
        (3, json!([limit("burst", "Subject", 1, 60)]), Some(60)),
        (4, json!([limit("burst", "Subject", 1, 60), limit("more", "Identity", 9, 9)]), Some(60)),
        (5, json!([]), None),
    ] {
        let mut document = crate::support::bundle::document(serial, &world.issuer, world.server.port);
        document["serve"]["rateLimits"] = limits;
        world.publish(&document).await;
        let answer = world.send(Call::list().token(&alice)).await;
        match waits {
            Some(seconds) => assert_eq!(refused(&answer), seconds, "{serial}"),
            None => assert_eq!(answer.status, 200),
        }
    }
    world.stop().await;
}

/// How many of so many lists of somebody new pass.
async fn burst(world: &World, who: &str, calls: usize) -> usize {
    let token = world.token(|claims| {
        claims["sub"] = who.into();
        claims["jti"] = who.into();
    });
    let mut passed = 0;
    for _ in 0..calls {
        passed += usize::from(world.send(Call::list().token(&token)).await.status == 200);
    }
    passed
}

#[tokio::test]
async fn a_pod_serves_its_share_tells_what_was_asked_and_keeps_it_without_an_operator() {
    let feed = Feed::start().await;
    let world = World::without_bundle().await;
    world.give_feed_token("feed-token-1");
    let document = |serial: u64, requests: u32| {
        let mut document = feed.document(serial, &world);
        document["serve"]["rateLimits"] = json!([limit("burst", "Subject", requests, 60)]);
        document
    };
    world.publish(&document(1, 20)).await;
    let burst_limit = EntryName::new("burst").unwrap();
    feed.says("the limit", |r| r.rate_limits.get(&burst_limit).is_some_and(|it| it.share.is_none())).await;
    assert_eq!(burst(&world, "a", 5).await, 2, "a tenth, until somebody divides");

    let share = |requests, of| [(burst_limit.clone(), Share { requests, of })].into();
    feed.share(Some(share(7, 20)));
    let told = feed.says("its share", |r| r.rate_limits[&burst_limit].share.is_some()).await;
    assert_eq!(told.rate_limits[&burst_limit].share, Some(Share { requests: 7, of: 20 }));
    assert_eq!(told.rate_limits[&burst_limit].asked, 5, "let through or not");
    assert_eq!(burst(&world, "b", 9).await, 7);
    // It holds on without anybody to ask, however large somebody says it is, never beyond the limit.
    feed.status(Some(503));
    assert_eq!(burst(&world, "c", 9).await, 7);
    feed.status(None);
    feed.share(Some(share(999, 20)));
    feed.says("too much", |r| r.rate_limits[&burst_limit].share == Some(Share { requests: 999, of: 20 }))
        .await;
    assert_eq!(burst(&world, "d", 25).await, 20);
    feed.share(Some(share(10, 20)));
    feed.says("a half", |r| r.rate_limits[&burst_limit].share == Some(Share { requests: 10, of: 20 })).await;
    // The limit is another, and nobody has divided it yet: the same part of it.
    world.publish(&document(2, 6)).await;
    assert_eq!(burst(&world, "e", 9).await, 3);
    feed.share(Some(share(0, 6)));
    feed.says("nothing", |r| r.rate_limits[&burst_limit].share == Some(Share { requests: 0, of: 6 })).await;
    let token = world.bob();
    assert_eq!(refused(&world.send(Call::list().token(&token)).await), 60);
    // A bundle without limits is told of as ever.
    world.publish(&feed.document(3, &world)).await;
    feed.says("none", |r| r.rate_limits.is_empty()).await;
    world.stop().await;
}

#[tokio::test]
async fn without_a_feed_a_pod_serves_the_whole() {
    let world = world(json!([limit("burst", "Subject", 20, 60)])).await;
    assert_eq!(burst(&world, "a", 25).await, 20);
    world.stop().await;
}

async fn policy(limits: Value) -> Policy {
    let issuer = crate::support::Issuer::start().await;
    let mut document = crate::support::bundle::document(1, &issuer, 1);
    document["serve"]["rateLimits"] = limits;
    let bundle = Bundle::load(serde_json::from_value(document).unwrap(), String::new()).unwrap();
    bundle.policy().unwrap().clone()
}

fn caller(subject: &str) -> Caller {
    Caller {
        provider: EntryName::new("corp").unwrap(),
        subject: Subject::new(subject).unwrap(),
        client: Some(ClientId::new("agent-ui").unwrap()),
        kind: behalf_policy::bundle::document::CallerKind::User,
        scopes: [].into(),
        groups: [].into(),
        actors: Vec::new(),
        login: Login::default(),
        expires: Timestamp(i64::MAX),
        token_id: None,
        binding: behalf_policy::claims::Binding::default(),
    }
}

#[tokio::test]
async fn a_full_table_lets_nobody_new_through_until_somebody_is_done() {
    let policy = policy(json!([limit("burst", "Subject", 2, 10)])).await;
    let limits = Limits::new();
    let ask = |subject: &str, now| limits.admit(&policy, false, &caller(subject), Operation::Protocol, now);
    let mut known = 0;
    let full = loop {
        match ask(&format!("s{known}"), 1000) {
            Ok(()) => known += 1,
            Err(full) => break full,
        }
    };
    assert_eq!((full.reason, full.retry_after, full.limit), (LimitReason::TableFull, 1, None));
    assert_eq!((known, limits.len()), (50_000, 50_000));
    assert_eq!(ask("s1", 1000), Ok(()), "who is known has what it has");
    assert_eq!(ask("s1", 1000).unwrap_err().reason, LimitReason::RateLimited);
    assert_eq!(ask("new", 5999).unwrap_err().reason, LimitReason::TableFull);
    // All but s1 have a full bucket again, and nothing is lost with theirs.
    assert_eq!(ask("new", 7000), Ok(()));
    assert_eq!(limits.len(), 2);
    assert_eq!(ask("s1", 7000), Ok(()));
    assert_eq!(ask("s1", 7000).unwrap_err().retry_after, 4);
}

#[tokio::test]
async fn of_several_limits_without_a_call_the_one_that_is_waited_for_longest_is_named() {
    for (limits, named, seconds) in [
        (json!([limit("a", "Subject", 1, 10), limit("b", "Identity", 1, 30)]), "b", 30),
        (json!([limit("a", "Identity", 1, 30), limit("b", "Subject", 1, 10)]), "a", 30),
        (json!([limit("a", "Agent", 9, 60), limit("b", "Subject", 1, 10)]), "b", 10),
        // As long for both: the first by name.
        (json!([limit("a", "Subject", 1, 10), limit("b", "Identity", 1, 10)]), "a", 10),
    ] {
        let policy = policy(limits.clone()).await;
        let counted = Limits::new();
        let ask = || counted.admit(&policy, false, &caller("alice"), Operation::Protocol, 0);
        assert_eq!(ask(), Ok(()));
        let refused = ask().unwrap_err();
        assert_eq!((refused.reason, refused.retry_after), (LimitReason::RateLimited, seconds), "{limits}");
        let limit = refused.limit.unwrap();
        let per = policy.rate_limits.iter().find(|it| it.name == limit.name).unwrap().per;
        assert_eq!((limit.name.as_str(), limit.per), (named, per), "{limits}");
    }
}

#[test]
fn a_flood_without_a_valid_token_is_bounded_for_its_address_and_for_no_other() {
    let limits = Limits::new();
    let (flood, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let passed = (0..30_000).filter(|_| limits.unauthenticated(flood, 0).is_ok()).count();
    assert_eq!(passed, 20_000);
    let refused = limits.unauthenticated("::ffff:10.0.0.1".parse().unwrap(), 0).unwrap_err();
    assert_eq!((refused.reason, refused.retry_after), (LimitReason::Unauthenticated, 1));
    assert_eq!(refused.limit, None, "it is none of the identity's");
    assert_eq!(limits.unauthenticated(other, 0), Ok(()));
    assert_eq!(limits.unauthenticated(flood, 1), Ok(()), "one comes back each millisecond");
    // More addresses than are told apart share what is left, and those that are keep theirs.
    let many = (0..60_000_u32).filter(|at| {
        let address = IpAddr::from((0x0b00_0000 + at).to_be_bytes());
        limits.unauthenticated(address, 1).is_ok()
    });
    // The other one's is full again, so that it can be forgotten.
    assert_eq!(many.count(), 4096 - 1 + 20_000);
    assert!(limits.unauthenticated(flood, 1).is_err() && limits.unauthenticated(flood, 2).is_ok());
    assert_eq!(limits.unauthenticated("10.9.9.9".parse().unwrap(), 60_000), Ok(()));
    assert!(limits.is_empty(), "none of them is a caller");
}

#[tokio::test]
async fn every_unit_of_a_share_is_handed_out_at_once() {
    let policy = policy(json!([limit("a", "Subject", 10, 10), limit("b", "Identity", 10, 10)])).await;
    let limits = Limits::new();
    let name = |name: &str| EntryName::new(name).unwrap();
    let shares: BTreeMap<_, _> =
        [(name("a"), Share { requests: 3, of: 10 }), (name("b"), Share { requests: 5, of: 10 })].into();
    assert!(limits.allot(&shares));
    assert!(!limits.allot(&shares), "the same again is no news");
    let ask = |subject: &str| limits.admit(&policy, true, &caller(subject), Operation::Protocol, 0).is_ok();
    assert_eq!((0..4).filter(|_| ask("x")).count(), 3);
    assert_eq!((0..4).filter(|_| ask("y")).count(), 2);
    let uses = limits.uses(&policy);
    assert_eq!((uses[&name("a")].asked, uses[&name("b")].asked), (8, 8));
    assert_eq!(uses[&name("b")].share, Some(Share { requests: 5, of: 10 }));
}
