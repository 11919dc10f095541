//! What a handle is worth, and when it is worth nothing.

use behalf_policy::ids::Timestamp;
use behalf_sidecar::handles::{
    CallName, HandleRefusal, Handles, MAX_LIFE, OpenCall, OpenHandle, holds_handle, is_handle_shaped,
};
use serde_json::{Value, json};

use crate::idp::{NOW, call, caller};
use crate::world::{Change, World};

fn at(seconds: i64) -> Timestamp {
    Timestamp(NOW + seconds)
}

#[test]
fn b29_a_handle_lives_as_long_as_its_call() {
    let handles = Handles::new();
    let open = handles.open(call(&caller("alice"), "t")).unwrap();
    assert!(is_handle_shaped(open.as_str()));
    let text = open.as_str().to_owned();
    assert_eq!(handles.redeem(&text, at(0)).unwrap().caller.subject.as_str(), "alice");
    handles.redeem(&text, at(1)).unwrap();
    handles.check(&text, at(1)).unwrap();
    assert_eq!((open.uses(), handles.len()), (2, 1));
    drop(open);
    assert_eq!(handles.redeem(&text, at(1)).unwrap_err(), HandleRefusal::UnknownHandle);
    assert!(handles.is_empty());
}

#[test]
fn b29_a_handle_ends_with_the_callers_token_and_after_ten_minutes() {
    let handles = Handles::new();
    let short = handles.open(call(&caller("alice"), "t")).unwrap();
    handles.redeem(short.as_str(), at(299)).unwrap();
    assert_eq!(handles.redeem(short.as_str(), at(300)).unwrap_err(), HandleRefusal::HandleExpired);
    let mut long = caller("alice");
    long.expires = at(36_000);
    let long = handles.open(call(&long, "t")).unwrap();
    handles.redeem(long.as_str(), at(i64::from(MAX_LIFE) - 1)).unwrap();
    let late = handles.redeem(long.as_str(), at(i64::from(MAX_LIFE)));
    assert_eq!(late.unwrap_err(), HandleRefusal::HandleExpired);
}

#[test]
fn b29_made_up_ended_and_foreign_handles_are_one() {
    let handles = Handles::new();
    let open = handles.open(call(&caller("alice"), "t")).unwrap();
    let foreign = Handles::new().open(call(&caller("alice"), "t")).unwrap().as_str().to_owned();
    let upper = open.as_str().to_uppercase();
    let cut = open.as_str()[..open.as_str().len() - 1].to_owned();
    for text in
        [foreign.as_str(), "behalf_AAAAAAAAAAAAAAAAAAAAAA", "x", &upper, &cut, &format!("{} ", open.as_str())]
    {
        assert_eq!(handles.redeem(text, at(0)).unwrap_err(), HandleRefusal::UnknownHandle);
    }
    assert_eq!(handles.redeem("", at(0)).unwrap_err(), HandleRefusal::NoHandle);
}

#[test]
fn handles_are_all_different_and_bounded_in_number() {
    let handles = Handles::new();
    let caller = caller("alice");
    let mut open = Vec::new();
    let refused = loop {
        match handles.open(call(&caller, "t")) {
            Ok(handle) => open.push(handle),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.reason(), "TooManyOpenCalls");
    let texts: std::collections::BTreeSet<_> = open.iter().map(OpenHandle::as_str).collect();
    assert_eq!(texts.len(), open.len());
    open.pop();
    handles.open(call(&caller, "t")).unwrap();
}

#[test]
fn a30_d30_nothing_prints_a_handle_or_token() {
    let handles = Handles::new();
    let call = call(&caller("alice"), "a-secret-token");
    assert!(!format!("{call:?}").contains("secret"));
    let open = handles.open(call).unwrap();
    assert!(!format!("{open:?}").contains(open.as_str()));
}

fn graceful(who: &str, seconds: u32) -> OpenCall {
    OpenCall { grace: seconds, ..call(&caller(who), "t") }
}

#[test]
fn b29_grace_begins_with_the_end_of_the_answer_and_ends_by_the_clock() {
    let handles = Handles::new();
    let open = handles.open(graceful("alice", 30)).unwrap();
    let text = open.as_str().to_owned();
    open.answer_ended(at(100));
    for second in [100, 101, 129] {
        handles.redeem(&text, at(second)).unwrap();
    }
    for second in [130, 131, 1000] {
        let late = handles.redeem(&text, at(second)).unwrap_err();
        assert!(matches!(late, HandleRefusal::UnknownHandle | HandleRefusal::HandleExpired), "{second}");
    }
    assert_eq!(
        handles.redeem(&text, at(99)).unwrap_err(),
        HandleRefusal::UnknownHandle,
        "a clock that is set back prolongs nothing"
    );
    // Forgotten, and the caller's token with it, when the next one is opened or ends.
    let mut next = graceful("bob", 5);
    next.opened = at(130);
    let next = handles.open(next).unwrap();
    assert_eq!(handles.len(), 1);
    next.answer_ended(at(131));
    assert_eq!(handles.len(), 1);
    let mut last = graceful("carol", 0);
    last.opened = at(136);
    handles.open(last).unwrap().answer_ended(at(137));
    assert!(handles.is_empty());
}

#[test]
fn b29_grace_outlives_neither_the_token_nor_ten_minutes_and_a_broken_answer_has_none() {
    let handles = Handles::new();
    let open = handles.open(graceful("alice", 30)).unwrap();
    let text = open.as_str().to_owned();
    open.answer_ended(at(290));
    handles.redeem(&text, at(299)).unwrap();
    assert_eq!(handles.redeem(&text, at(300)).unwrap_err(), HandleRefusal::HandleExpired);
    let broken = handles.open(graceful("alice", 30)).unwrap();
    let text = broken.as_str().to_owned();
    drop(broken);
    assert_eq!(handles.redeem(&text, at(0)).unwrap_err(), HandleRefusal::UnknownHandle);
    let none = handles.open(graceful("alice", 0)).unwrap();
    let text = none.as_str().to_owned();
    none.answer_ended(at(1));
    assert_eq!(handles.redeem(&text, at(1)).unwrap_err(), HandleRefusal::UnknownHandle);
}

#[test]
fn b29_a_call_is_cancelled_by_its_own_name_only() {
    let (alice, bob) = ([1; 32], [2; 32]);
    let handles = Handles::new();
    let name = CallName::new(&alice, Some("s1"), "7");
    let mut call = graceful("alice", 30);
    call.name = Some(name);
    let open = handles.open(call).unwrap();
    let nameless = handles.open(graceful("alice", 0)).unwrap();
    for other in [
        CallName::new(&bob, Some("s1"), "7"),
        CallName::new(&alice, Some("s2"), "7"),
        CallName::new(&alice, None, "7"),
        CallName::new(&alice, Some("s1"), "\"7\""),
        CallName::new(&alice, Some("s1"), "77"),
        CallName::new(&alice, Some("s17"), ""),
    ] {
        handles.cancel(&other);
        assert_eq!(handles.len(), 2);
        handles.check(open.as_str(), at(0)).unwrap();
    }
    handles.cancel(&name);
    assert_eq!(handles.len(), 1);
    assert_eq!(handles.redeem(open.as_str(), at(0)).unwrap_err(), HandleRefusal::UnknownHandle);
    let text = open.as_str().to_owned();
    open.answer_ended(at(1));
    assert_eq!(
        handles.redeem(&text, at(1)).unwrap_err(),
        HandleRefusal::UnknownHandle,
        "no grace revives it"
    );
    handles.check(nameless.as_str(), at(0)).unwrap();
}

#[test]
fn a_handle_is_seen_wherever_it_stands() {
    let handles = Handles::new();
    let open = handles.open(call(&caller("alice"), "t")).unwrap();
    for text in [
        open.as_str().to_owned(),
        format!("a=1,behalf={},b", open.as_str()),
        format!("\u{ff}{}", open.as_str()),
    ] {
        assert!(holds_handle(text.as_bytes()), "{text}");
    }
    for text in
        ["", "behalf_", "behalf_short", "behalf_AAAAAAAAAAAAAAAAAAAAA.", "BEHALF_AAAAAAAAAAAAAAAAAAAAAA"]
    {
        assert!(!holds_handle(text.as_bytes()), "{text}");
    }
}

/// Every bound of a handle, each alone, on a handle that was never used: the downstream gets nothing, and
/// the provider is not even asked for its metadata.
#[tokio::test]
async fn b29_past_any_bound_neither_provider_nor_downstream_hears_of_it() {
    let mut world = World::start().await;
    let refused = async |world: &World, handle: &str, reason: &str| {
        let answer = world.get("/payroll/x", handle).await;
        assert_eq!((answer.status, answer.reason().as_str()), (403, reason));
        let record = world.last().await;
        assert_eq!((&record["decision"], &record["reason"]), (&json!("Refuse"), &json!(reason)));
        assert!(world.idp.fake.all().is_empty(), "{reason}: the provider was asked");
        assert!(world.payroll.all().is_empty(), "{reason}: the downstream was asked");
    };
    // The answer has ended; without and after a grace.
    let ended = world.open("alice");
    let text = ended.as_str().to_owned();
    ended.answer_ended(at(0));
    refused(&world, &text, "UnknownHandle").await;
    let graceful = world.handles.open(graceful("alice", 20)).unwrap();
    let text = graceful.as_str().to_owned();
    graceful.answer_ended(at(0));
    world.asking.clock.advance(20);
    refused(&world, &text, "UnknownHandle").await;
    // The caller's token has expired, though the call is open.
    let open = world.open("alice");
    world.asking.clock.advance(280);
    refused(&world, open.as_str(), "HandleExpired").await;
    // Ten minutes, though the token lives.
    let mut long = call(&caller("alice"), "t");
    let mut caller_of_long = caller("alice");
    caller_of_long.expires = at(36_000);
    long.caller = std::sync::Arc::new(caller_of_long);
    let long = world.handles.open(long).unwrap();
    world.asking.clock.advance(300);
    refused(&world, long.as_str(), "HandleExpired").await;
    world.asking.clock.advance(-600);
    // Cancelled, in both ways.
    let gone = world.open("alice").as_str().to_owned();
    refused(&world, &gone, "UnknownHandle").await;
    let name = CallName::new(&[1; 32], None, "7");
    let mut named = call(&caller("alice"), "t");
    named.name = Some(name);
    let named = world.handles.open(named).unwrap();
    world.handles.cancel(&name);
    refused(&world, named.as_str(), "UnknownHandle").await;
    // Another process: a restart, or another pod.
    let before = Handles::new().open(call(&caller("alice"), "t")).unwrap();
    refused(&world, before.as_str(), "UnknownHandle").await;
    // The bundle of now.
    let alice = world.open("alice");
    let changes: [(Change, &str); 9] = [
        (|d: &mut Value| d["serve"]["state"] = json!("Suspended"), "Suspended"),
        (|d| d["serve"] = json!({"type": "RefuseAll", "reason": "IdentityDeleted"}), "IdentityDeleted"),
        (|d| d["serve"]["servers"][0]["tools"][0]["downstreams"] = json!([]), "DownstreamNotPermitted"),
        (|d| drop(d["serve"]["servers"][0]["tools"].as_array_mut().unwrap().remove(0)), "ToolUnknown"),
        (|d| d["serve"]["optionalScopes"] = json!([]), "ScopeNotOffered"),
        (|d| d["serve"]["scopes"][1]["groups"] = json!(["directors"]), "NotEntitled"),
        (|d| d["serve"]["callers"]["clients"] = json!(["another-agent"]), "ClientNotAllowed"),
        (|d| d["serve"]["callers"]["kinds"] = json!(["Workload"]), "CallerKindNotAllowed"),
        (|d| d["serve"]["requiredScopes"] = json!(["hr:read", "hr:other"]), "NotEntitled"),
    ];
    for (change, reason) in changes {
        world
            .publish(|d| {
                d["serve"]["scopes"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"name": "hr:other", "groups": [], "implies": []}));
                change(d);
            })
            .await;
        refused(&world, alice.as_str(), reason).await;
    }
    world
        .publish(|d| {
            // The downstream is gone from the catalogue, and from the tool with it.
            d["serve"]["servers"][0]["tools"][0]["downstreams"] = json!([]);
            drop(d["serve"]["downstreams"].as_array_mut().unwrap().remove(0));
        })
        .await;
    let answer = world.get("/payroll/x", alice.as_str()).await;
    assert_eq!((answer.status, answer.reason().as_str()), (404, "UnknownDownstream"));
    assert!(world.idp.fake.all().is_empty() && world.payroll.all().is_empty());
    // The same handle, under the bundle it began with.
    world.publish(|_| {}).await;
    assert_eq!(world.get("/payroll/x", alice.as_str()).await.status, 200);
    assert_eq!(
        (world.idp.exchanges(), alice.uses()),
        (1, 8),
        "each use that was decided is counted; suspended and deleted decide for all"
    );
}
